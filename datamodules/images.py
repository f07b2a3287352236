"""Image and mask files to arrays: one geometry for both, shorter side resized, centre cropped.

Resizing is Pillow's, as in CLIP's own preprocessing: other libraries' "bicubic" gives other pixels.
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fdsl.errors import FDSLError

Fit = Literal["crop", "stretch"]
FITS: tuple[str, ...] = get_args(Fit)

Pixels = NDArray[np.uint8]


class ImageReadError(FDSLError):
    """An image file that cannot be decoded."""

    def __init__(self, message: str) -> None:
        # A loader's worker process hands the message on inside a traceback, which is no use to the user.
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())

    @classmethod
    def of(cls, path: Path, error: Exception) -> "ImageReadError":
        """Name the file and what the decoder said."""
        return cls(f"{path}: cannot be read as an image ({error}); replace it, `make check-data` finds all such files")


def open_image(path: Path) -> Image.Image:
    """Decode an image file to 8-bit RGB; 16-bit grey keeps its upper byte.

    Raises:
        ImageReadError: if the file is missing, empty, truncated or no image.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return _eight_bit(image).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageReadError.of(path, error) from error


def open_mask(path: Path) -> Pixels:
    """Decode a mask to (H, W) uint8, 1 where defective.

    Masks of 0 and 255 are thresholded in the middle, since some went through JPEG; where the values are small
    (VisA: 1, 2, ... name the kind of defect) everything above 0 is a defect.

    Raises:
        ImageReadError: if the file cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(_eight_bit(image).convert("L") if image.mode != "P" else image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ImageReadError.of(path, error) from error
    return (values > (127 if values.max(initial=0) > 127 else 0)).astype(np.uint8)


def fit_image(image: Image.Image, size: int, fit: Fit) -> Pixels:
    """Bring an RGB image to (size, size, 3) uint8.

    Args:
        image: any size.
        size: side in pixels.
        fit: ``crop`` resizes the shorter side and crops the centre (as published); ``stretch`` keeps every pixel of
            an oblong image at the price of its proportions.
    """
    return np.array(_fitted(image, size, fit, Image.Resampling.BICUBIC))


def fit_mask(mask: Pixels, size: int, fit: Fit) -> Pixels:
    """Bring a mask (H, W) of 0 and 1 to (size, size) uint8 by the geometry of :func:`fit_image`.

    Resized bilinearly, then thresholded at 0.5: testing the resized mask for > 0 would inflate every defect.
    """
    resized = _fitted(Image.fromarray(mask * np.uint8(255)), size, fit, Image.Resampling.BILINEAR)
    return (np.asarray(resized) > 127).astype(np.uint8)


def normalise(image: Pixels, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Turn (S, S, 3) uint8 into (3, S, S) float32, scaled to [0, 1], less the mean, by the standard deviation."""
    scaled = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).to(torch.float32).div_(255)
    return scaled.sub_(torch.tensor(mean).view(3, 1, 1)).div_(torch.tensor(std).view(3, 1, 1))


def _eight_bit(image: Image.Image) -> Image.Image:
    # Pillow clips 16-bit grey to 255 when it converts, which turns most of such an image white.
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    return image


def _fitted(image: Image.Image, size: int, fit: Fit, resample: Image.Resampling) -> Image.Image:
    width, height = image.size
    if fit == "stretch":
        return image.resize((size, size), resample)
    scale = size / min(width, height)
    # The longer side is cut off below the pixel, as torchvision's Resize does.
    new = (size, int(scale * height)) if width <= height else (int(scale * width), size)
    left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
    resized = image if new == image.size else image.resize(new, resample)
    return resized.crop((left, top, left + size, top + size))
