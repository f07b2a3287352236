"""One image of the synthetic sets, a function of its seed alone, and the mask of its defect."""

import math
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.synthetic.catalogue import CATALOGUE
from datamodules.synthetic.frame import UNITS, Field, Frame
from datamodules.synthetic.surface import SUPERSAMPLING, Camera, Light, reduce, shade

Split = Literal["train", "good", "defective"]
SPLITS: tuple[Split, ...] = ("train", "good", "defective")

VISIBLE = 0.022
"""Change of a pixel, of the range 0 to 1, from which on it belongs to a mask: 6 of 255 levels."""
AREA = (0.0005, 0.14)
"""Least and greatest share of an image that a defect takes."""
ATTEMPTS = 20
"""Defects that are drawn at most until one can be seen."""


class Photograph(NamedTuple):
    """An image (S, S, 3) uint8, the mask of its defect (S, S) bool, and the image without the defect."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    clean: NDArray[np.uint8]


def defect_kind(category: str, index: int) -> str:
    """Name the kind of defect of the ``index``-th defective image: the kinds take turns."""
    kinds = list(CATALOGUE[category].defects)
    return kinds[index % len(kinds)]


def photograph(category: str, split: Split, index: int, seed: int, image_size: int) -> Photograph:
    """Render one image; it depends on nothing but these arguments.

    Args:
        category: a product of the catalogue.
        split: ``train`` and ``good`` are free of defects.
        index: number of the image in its split.
        seed: of the whole dataset.
        image_size: side in pixels.
    """
    product = CATALOGUE[category]
    rng = np.random.default_rng([seed, crc32(category.encode()), SPLITS.index(split), index])
    drawing, exposure, damage = rng.spawn(3)
    frame = Frame(image_size * SUPERSAMPLING)
    surface = product.draw(frame, drawing)
    light = Light(math.radians(exposure.normal(225, 8)), exposure.normal(0.9, 0.06))
    camera = Camera.draw(exposure, image_size)
    sound = camera.expose(shade(surface, frame, light))
    clean = camera.develop(sound)
    if split != "defective":
        return Photograph(clean, np.zeros((image_size, image_size), np.bool_), clean)
    kind = defect_kind(category, index)
    defect = product.defects[kind]
    strength = damage.uniform(0, 1)
    for attempt in range(ATTEMPTS):
        damaged, support = defect(surface, frame, damage, strength)
        exposed = camera.expose(shade(damaged, frame, light))
        mask = _mask(sound, exposed, reduce(support, image_size), demand=1 - attempt / ATTEMPTS)
        if mask is not None:
            return Photograph(camera.develop(exposed), mask, clean)
        strength = min(1.0, strength + 0.1)
    raise RuntimeError(f"no visible {kind} on {category} {index} (seed {seed}, {image_size} pixels)")


def _mask(sound: Field, exposed: Field, support: Field, demand: float) -> NDArray[np.bool_] | None:
    """Mark the pixels (S, S) that a person would: changed within the damage, gaps closed.

    Args:
        sound: the exposure without the defect, (S, S, 3).
        exposed: with it.
        support: share of the defect in each pixel, (S, S).
        demand: how much of the usual contrast to insist on, in [0, 1].

    Returns:
        None if the damage is too small, too large, or lost in the structure of the product.
    """
    pixel = sound.shape[0] / UNITS
    change = np.abs(exposed - sound).max(axis=-1)
    seen = ndimage.gaussian_filter(change, 0.8 * pixel) > VISIBLE
    mask = seen & (support > 0.12)
    # Within the damage gaps are closed: a dent is one region, though the light shows its slopes alone.
    gap = max(1, round(6 * pixel))
    mask = ndimage.binary_closing(np.pad(mask, gap), iterations=gap)[gap:-gap, gap:-gap] & (support > 0.02)
    if not AREA[0] <= mask.mean() <= AREA[1]:
        return None
    clutter = np.abs(sound - ndimage.gaussian_filter(sound, (3 * pixel, 3 * pixel, 0))).max(axis=-1)
    return mask if change[mask].mean() > demand * (0.035 + 0.75 * clutter[mask].mean()) else None
