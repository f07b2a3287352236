"""The plane that products are drawn on: coordinates, anti-aliased shapes, and noise.

Lengths are in *units*, 256 to the side of an image at any resolution, so drawings do not depend on size.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage

Field = NDArray[np.floating[Any]]
"""A value a pixel, (S, S), or a colour a pixel, (S, S, 3); float32, though numpy's types lose sight of it."""

UNITS = 256.0


@dataclass(frozen=True)
class Frame:
    """A square grid of ``side`` by ``side`` pixels over 256 x 256 units."""

    side: int

    @property
    def unit(self) -> float:
        """Pixels a unit."""
        return self.side / UNITS

    @cached_property
    def xy(self) -> tuple[Field, Field]:
        """Coordinates of the pixels from the image's middle, rightwards and downwards: 2 times (S, S)."""
        line = ((np.arange(self.side, dtype=np.float32) + 0.5) / self.unit - UNITS / 2).astype(np.float32)
        y, x = np.meshgrid(line, line, indexing="ij")
        return x, y

    def inside(self, distance: Field) -> Field:
        """Coverage in [0, 1] of the region where a signed distance in units is negative, anti-aliased."""
        coverage: Field = np.clip(0.5 - distance * self.unit, 0, 1)
        return coverage

    def blur(self, field: Field, sigma: float) -> Field:
        """Gaussian blur of (S, S) by ``sigma`` units."""
        pixels = sigma * self.unit
        if pixels < 4:
            return np.asarray(ndimage.gaussian_filter(field, pixels, mode="nearest"), np.float32)
        # A wide blur leaves nothing that a smaller picture could not hold.
        factor = int(pixels / 2)
        small = np.asarray(Image.fromarray(field).reduce(factor))
        small = ndimage.gaussian_filter(small, pixels / factor, mode="nearest")
        return np.asarray(Image.fromarray(small).resize((self.side, self.side), Image.Resampling.BILINEAR), np.float32)

    def noise(self, rng: np.random.Generator, width: float, height: float | None = None) -> Field:
        """Smooth noise (S, S), mean 0 and deviation about 1, with grains of ``width`` x ``height`` units."""
        across, down = UNITS / width, UNITS / (height or width)
        grid = rng.standard_normal((int(down) + 4, int(across) + 4), dtype=np.float32)
        left, top = rng.uniform(0.5, 1.5, 2)
        box = (left, top, left + across, top + down)
        field = Image.fromarray(grid).resize((self.side, self.side), Image.Resampling.BICUBIC, box=box)
        # Interpolation between independent grid points lowers the deviation to about 0.7.
        return np.asarray(field, np.float32) / np.float32(0.7)

    def fractal(self, rng: np.random.Generator, width: float, octaves: int = 4, stretch: float = 1.0) -> Field:
        """Noise (S, S) summed over octaves from ``width`` units down, ``stretch`` times wider than high."""
        parts = [0.5**i * self.noise(rng, stretch * width * 0.5**i, width * 0.5**i) for i in range(octaves)]
        return np.asarray(sum(parts), np.float32) / np.float32(1.15)


class Pose(NamedTuple):
    """How an object lies: turned by ``angle`` radians, its middle at (dx, dy), magnified by ``zoom``."""

    angle: float
    dx: float
    dy: float
    zoom: float

    @classmethod
    def draw(cls, rng: np.random.Generator, turn: float, shift: float, zoom: float = 0.03) -> "Pose":
        """Draw a pose: turned by up to ``turn`` degrees, shifted by up to ``shift`` units."""
        angle = math.radians(rng.uniform(-turn, turn))
        return cls(angle, rng.uniform(-shift, shift), rng.uniform(-shift, shift), rng.uniform(1 - zoom, 1 + zoom))

    def to_object(self, frame: Frame) -> tuple[Field, Field]:
        """Coordinates of the pixels in the object's own axes: 2 times (S, S)."""
        x, y = frame.xy
        return turned((x - self.dx) / self.zoom, (y - self.dy) / self.zoom, self.angle)


def turned(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    """Coordinates in axes turned by ``angle`` radians, clockwise as the image is seen."""
    # math, not numpy: numpy's scalars are float64 and make everything they touch so.
    c, s = math.cos(angle), math.sin(angle)
    return x * c + y * s, y * c - x * s


def box(x: Field, y: Field, half_width: float, half_height: float, corner: float = 0.0) -> Field:
    """Signed distance to a rectangle about the origin with rounded corners."""
    qx, qy = np.abs(x) - (half_width - corner), np.abs(y) - (half_height - corner)
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return outside + np.minimum(np.maximum(qx, qy), 0) - corner


def smoothstep(low: float, high: float, field: Field) -> Field:
    """Ramp from 0 where ``field`` is at ``low`` to 1 at ``high``, without corners."""
    t: Field = np.clip((field - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def colour(values: ArrayLike) -> Field:
    """A colour, (3,) in [0, 1], or a list of colours, (n, 3), as float32."""
    return np.asarray(values, np.float32)


def batch(rng: np.random.Generator, usual: ArrayLike, spread: float) -> Field:
    """Colour (3,) of a production batch: the usual one, each channel off by a share of about ``spread``."""
    return colour(np.asarray(usual) * (1 + rng.normal(0, spread, 3)))


def mix(under: Field, over: Field, alpha: Field) -> Field:
    """Blend ``over`` on ``under`` by ``alpha`` (S, S); either may be (S, S), (S, S, 3) or one colour (3,)."""
    if under.ndim == 3 or over.ndim == 3 or (over.ndim == 1 and over.shape[0] == 3):
        alpha = alpha[..., None]
    return np.asarray(under + (over - under) * alpha, np.float32)
