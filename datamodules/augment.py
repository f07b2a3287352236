"""Augmentation of auxiliary images, on 8-bit pixels before normalisation; image and mask share one geometry.

An augmentation is a function ``(pixels, mask, draw, rng) -> (pixels, mask)``: ``pixels`` (S, S, 3) uint8, ``mask``
(S, S) uint8, ``draw()`` loads a random test image of the same category with its mask, and ``rng`` is the sample's own
generator, so that neither the number of workers nor the order of loading changes what is made.
"""

from collections.abc import Callable

import albumentations as A
import cv2
import numpy as np

from datamodules.images import Pixels

Pair = tuple[Pixels, Pixels]
Augmentation = Callable[[Pixels, Pixels, Callable[[], Pair], np.random.Generator], Pair]


def _resized(pair: Pair, size: int, crop: A.DualTransform | None = None, seed: int = 0) -> Pair:
    """Optionally crop, then resize to (size, size); the mask bilinearly and thresholded at 0.5."""
    stages = [A.Resize(size, size, interpolation=cv2.INTER_CUBIC, mask_interpolation=cv2.INTER_LINEAR)]
    made = A.Compose(stages if crop is None else [crop, *stages], seed=seed)(
        image=pair[0], mask=pair[1] * np.uint8(255)
    )
    return made["image"], (made["mask"] > 127).astype(np.uint8)


class Mosaic:
    """With probability ``p``, a 2 x 2 mosaic of four random test images of the category (MVTec AD, as published)."""

    def __init__(self, p: float = 0.3) -> None:
        self.p = p

    def __call__(self, pixels: Pixels, mask: Pixels, draw: Callable[[], Pair], rng: np.random.Generator) -> Pair:
        """Return the sample or, in its place, a mosaic of its size."""
        if rng.random() >= self.p:
            return pixels, mask
        size = len(pixels)
        half = (size + 1) // 2
        parts = [_resized(draw(), half) for _ in range(4)]
        joined = [
            np.concatenate([np.concatenate([parts[r][i], parts[r + 1][i]], axis=1) for r in (0, 2)])[:size, :size]
            for i in (0, 1)
        ]
        return joined[0], joined[1]


class DefectCrop:
    """Crop a small window and resize it back (VisA, as published); of a defective image, one that holds a defect.

    Args:
        p: probability that anything is cropped.
        small: side of the small window, in pixels of the preprocessed image; defective images only.
        large: side of the large window.
        p_small: probability of the small window rather than the large one, for a defective image.
        p_normal: probability that a normal image is cropped (by the large window) and not left whole.
    """

    def __init__(
        self, p: float = 0.6, small: int = 50, large: int = 100, p_small: float = 0.6, p_normal: float = 0.5
    ) -> None:
        self.p, self.small, self.large, self.p_small, self.p_normal = p, small, large, p_small, p_normal

    def __call__(self, pixels: Pixels, mask: Pixels, draw: Callable[[], Pair], rng: np.random.Generator) -> Pair:
        """Return the sample whole, or a window of it at its size."""
        if rng.random() >= self.p:
            return pixels, mask
        if mask.any():
            side = self.small if rng.random() < self.p_small else self.large
        elif rng.random() < self.p_normal:
            side = self.large
        else:
            return pixels, mask
        side = min(side, len(pixels))
        # Centred near a random defect pixel: upstream redraws windows until one holds a defect, without a bound.
        crop = A.CropNonEmptyMaskIfExists(side, side)
        return _resized((pixels, mask), len(pixels), crop, seed=int(rng.integers(2**31)))
