"""Every file of conf/backbone, held to what the code can do with it."""

from pathlib import Path

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from fdsl.backbones import Backbone, check_blocks, check_image_size

FOLDER = Path(__file__).parents[3] / "conf" / "backbone"


@pytest.fixture(params=sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def config(request):
    return OmegaConf.to_container(OmegaConf.load(request.param), resolve=True)


def test_fits_its_backbone(config):
    assert set(config) == {"model", "image_size", "mean", "std"}
    assert len(config["mean"]) == len(config["std"]) == 3
    model = config["model"]
    target = get_class(model.pop("_target_"))
    assert issubclass(target, Backbone)
    spec = target.describe(**model)
    assert check_blocks(model["blocks"], spec.depth) == tuple(model["blocks"])
    assert check_image_size(config["image_size"], spec.patch_size) > 0


def test_tiny_is_built_from_its_file_alone():
    config = OmegaConf.load(FOLDER / "tiny.yaml")
    backbone = instantiate(config.model)
    size = config.image_size
    assert backbone(torch.zeros(1, 3, size, size)).tokens.shape == (4, 1, 16, 32)
