"""The plane that products are drawn on: coordinates, anti-aliased shapes, and noise.

Lengths are in *units*, 256 to the side of an image whatever its resolution, so a drawing is the same at every size.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage

Field = NDArray[np.float32]
"""A value a pixel, (S, S), or a colour a pixel, (S, S, 3)."""

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
        """Coordinates of the pixel centres from the middle of the image, to the right and downwards: 2 times (S, S)."""
        line = ((np.arange(self.side, dtype=np.float32) + 0.5) / self.unit - UNITS / 2).astype(np.float32)
        y, x = np.meshgrid(line, line, indexing="ij")
        return x, y

    def inside(self, distance: Field) -> Field:
        """Coverage in [0, 1] of the region where a signed distance in units is negative, anti-aliased."""
        return np.clip(0.5 - distance * self.unit, 0, 1)

    def blur(self, field: Field, sigma: float) -> Field:
        """Gaussian blur of (S, S) by ``sigma`` units."""
        return np.asarray(ndimage.gaussian_filter(field, sigma * self.unit, mode="nearest"), np.float32)

    def noise(self, rng: np.random.Generator, width: float, height: float | None = None) -> Field:
        """Smooth noise (S, S) of about zero mean and unit deviation, whose grains are ``width`` x ``height`` units."""
        across, down = UNITS / width, UNITS / (height or width)
        grid = rng.standard_normal((int(down) + 4, int(across) + 4), dtype=np.float32)
        left, top = rng.uniform(0.5, 1.5, 2)
        box = (left, top, left + across, top + down)
        field = Image.fromarray(grid).resize((self.side, self.side), Image.Resampling.BICUBIC, box=box)
        # Interpolation between independent grid points lowers the deviation to about 0.7.
        return np.asarray(field, np.float32) / np.float32(0.7)

    def fractal(self, rng: np.random.Generator, width: float, octaves: int = 4, stretch: float = 1.0) -> Field:
        """Noise (S, S) summed over octaves from ``width`` units down; ``stretch`` elongates the grains to the right."""
        parts = [0.5**i * self.noise(rng, stretch * width * 0.5**i, width * 0.5**i) for i in range(octaves)]
        return np.asarray(sum(parts), np.float32) / np.float32(1.15)


class Pose(NamedTuple):
    """How an object lies: turned by ``angle`` radians, its middle at (dx, dy) units, magnified by ``zoom``."""

    angle: float
    dx: float
    dy: float
    zoom: float

    @classmethod
    def draw(cls, rng: np.random.Generator, turn: float, shift: float, zoom: float = 0.03) -> "Pose":
        """Draw a pose: turned by up to ``turn`` degrees, shifted by up to ``shift`` units."""
        angle = np.deg2rad(rng.uniform(-turn, turn))
        dx, dy = rng.uniform(-shift, shift, 2)
        return cls(float(angle), float(dx), float(dy), float(rng.uniform(1 - zoom, 1 + zoom)))

    def to_object(self, frame: Frame) -> tuple[Field, Field]:
        """Coordinates of the pixels in the object's own axes: 2 times (S, S)."""
        x, y = frame.xy[0] - np.float32(self.dx), frame.xy[1] - np.float32(self.dy)
        c, s = np.float32(np.cos(self.angle) / self.zoom), np.float32(np.sin(self.angle) / self.zoom)
        return x * c + y * s, y * c - x * s


def box(x: Field, y: Field, half_width: float, half_height: float, corner: float = 0.0) -> Field:
    """Signed distance to a rectangle about the origin with rounded corners."""
    qx, qy = np.abs(x) - (half_width - corner), np.abs(y) - (half_height - corner)
    outside = np.hypot(np.maximum(qx, 0), np.maximum(qy, 0))
    return np.asarray(outside + np.minimum(np.maximum(qx, qy), 0) - corner, np.float32)


def smoothstep(low: float, high: float, field: Field) -> Field:
    """Ramp from 0 where ``field`` is at ``low`` to 1 at ``high``, without corners."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def colour(values: ArrayLike) -> Field:
    """A colour, (3,) in [0, 1], or a list of colours, (n, 3), as float32."""
    return np.asarray(values, np.float32)


def mix(under: Field, over: Field, alpha: Field) -> Field:
    """Blend ``over`` on ``under`` by ``alpha`` (S, S); either may be (S, S), (S, S, 3) or one colour (3,)."""
    if under.ndim == 3 or over.ndim == 3 or (over.ndim == 1 and over.shape[0] == 3):
        alpha = alpha[..., None]
    return np.asarray(under + (over - under) * alpha, np.float32)
