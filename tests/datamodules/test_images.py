from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from datamodules.images import ImageReadError, fit_image, fit_mask, normalise, open_image, open_mask
from tests.stand_in import CLIP_MEAN, CLIP_STD


@pytest.mark.parametrize("size", [(96, 96), (100, 63), (63, 100), (301, 200), (517, 1260)])
def test_preprocessing_is_clips_own(size: tuple[int, int]):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    image = Image.fromarray(pixels)
    reference = transforms.Compose(
        [
            transforms.Resize(98, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(98),
            transforms.ToTensor(),
            transforms.Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )(image)
    torch.testing.assert_close(normalise(fit_image(image, 98, "crop"), CLIP_MEAN, CLIP_STD), reference)


@given(st.integers(8, 60), st.integers(8, 60), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_mask_and_image_share_their_geometry(height: int, width: int, seed: int):
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    top, left = rng.integers(0, height - 4), rng.integers(0, width - 4)
    mask[top : top + 5, left : left + 5] = 1
    drawn = Image.fromarray(np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2))
    for fit in ("crop", "stretch"):
        as_image = fit_image(drawn, 56, fit)[:, :, 0] > 127
        as_mask = fit_mask(mask, 56, fit)
        assert as_mask.dtype == np.uint8
        assert set(np.unique(as_mask)) <= {0, 1}
        assert (as_image != as_mask).mean() < 0.03  # bicubic and bilinear differ by less than a pixel of outline


def test_a_mask_is_not_inflated_by_resizing():
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 40:60] = 1
    assert fit_mask(mask, 240, "crop").sum() == pytest.approx(0.04 * 240 * 240, rel=0.02)


def test_stretch_keeps_what_crop_cuts_away():
    mask = np.zeros((50, 200), np.uint8)
    mask[10:40, :20] = 1
    assert fit_mask(mask, 100, "crop").sum() == 0
    assert fit_mask(mask, 100, "stretch").mean() == pytest.approx(mask.mean(), rel=0.05)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, axis=0)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    read = np.asarray(open_image(tmp_path / "deep.png"))[0, :, 0]
    assert np.abs(read.astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize(("values", "defective"), [([0, 255], 1), ([0, 1], 1), ([0, 3], 1), ([2, 250], 1), ([0, 0], 0)])
def test_masks_of_every_convention(tmp_path: Path, values: list[int], defective: int):
    pixels = np.full((10, 10), values[0], np.uint8)
    pixels[2:5, 2:5] = values[1]
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    assert open_mask(tmp_path / "mask.png").sum() == 9 * defective


@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_unreadable_images_are_named(tmp_path: Path, content: bytes | None):
    path = tmp_path / "bad.png"
    if content is None:
        Image.new("RGB", (300, 300), "red").save(path)
        content = path.read_bytes()[:200]  # truncated
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=r"bad\.png.*cannot be read"):
        open_image(path)
    with pytest.raises(ImageReadError, match=r"bad\.png"):
        open_mask(path)
    with pytest.raises(ImageReadError, match="absent"):
        open_image(tmp_path / "absent.png")
