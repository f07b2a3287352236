"""Backbones with random weights, each beside the blocks that its library runs."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from fdsl.backbones import Backbone, OpenCLIPBackbone, RandomViT, TimmBackbone, timm_dino

CLIP_CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 336, "patch_size": 14, "width": 64, "head_width": 32, "layers": 4},
    "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny CLIP, registered with and without QuickGELU as ``fdsl-tiny[-quickgelu]``."""
    folder = tmp_path_factory.mktemp("clip")
    for name, quick in (("fdsl-tiny", False), ("fdsl-tiny-quickgelu", True)):
        (folder / f"{name}.json").write_text(json.dumps(CLIP_CONFIG | {"quick_gelu": quick}))
    open_clip.add_model_config(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("fdsl-tiny-quickgelu", pretrained=None)
    save_file(model.state_dict(), folder / "clip.safetensors")
    return folder / "clip.safetensors"


@pytest.fixture
def dino_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Makes timm's DINOv2 small, and writes weights in which every block and every position counts."""
    small = partial(timm.create_model, depth=4, embed_dim=48, num_heads=2)
    monkeypatch.setattr(timm, "create_model", small)
    timm_dino._describe.cache_clear()

    def write(name: str) -> Path:
        generator = torch.Generator().manual_seed(0)
        state = timm.create_model(name, num_classes=0).state_dict()
        for key, tensor in state.items():
            if "gamma" in key:
                tensor.fill_(1.0)
            elif not key.endswith("bias") and "norm" not in key:
                tensor.normal_(std=0.3, generator=generator)
        save_file(state, tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    yield write
    timm_dino._describe.cache_clear()


@pytest.fixture(params=["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2"])
def dino(request: pytest.FixtureRequest, dino_file: Callable[[str], Path]) -> tuple[str, Path]:
    """A DINOv2 name, without and with registers, and its weight file."""
    return request.param, dino_file(request.param)


@pytest.fixture
def clip(clip_file: Path) -> OpenCLIPBackbone:
    return OpenCLIPBackbone("fdsl-tiny-quickgelu", "openai", str(clip_file), blocks=(1, 3, 4))


@pytest.fixture(params=["clip", "dino", "random"])
def backbone(request: pytest.FixtureRequest, clip: OpenCLIPBackbone, dino_file: Callable[[str], Path]) -> Backbone:
    """Every kind of backbone, to hold to the one contract."""
    if request.param == "clip":
        return clip
    if request.param == "random":
        return RandomViT(blocks=(1, 3, 4))
    name = "vit_small_patch14_reg4_dinov2"
    return TimmBackbone(name, str(dino_file(name)), blocks=(1, 3, 4))


@pytest.fixture
def images() -> Callable[..., Tensor]:
    """Draws images (B, 3, size, size)."""

    def draw(size: int, batch: int = 1) -> Tensor:
        return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(size))

    return draw


@pytest.fixture
def record() -> Callable[[nn.Module], list[Tensor]]:
    """Appends the output of every block that runs to the list it returns."""

    def attach(blocks: nn.Module) -> list[Tensor]:
        outputs: list[Tensor] = []
        for block in blocks.children():
            block.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach()))
        return outputs

    return attach
