"""What a camera would see: a product's relief, colour and gloss before a background, lit and photographed.

Defects change the surface, not the picture: a dent is shaded and a thread casts a shadow like the rest.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.synthetic.frame import Field, Frame, mix

SUPERSAMPLING = 2
"""Pixels that are drawn for the side of each pixel of an image."""

Window = tuple[slice, slice]
"""Rows and columns of a part of the picture."""


class Part(NamedTuple):
    """A component that can be missing: its coverage (h, w) in [0, 1] within a window."""

    window: Window
    cover: Field


@dataclass(frozen=True)
class Surface:
    """A product as drawn on a :class:`Frame` of S x S pixels.

    Attributes:
        albedo: colour of the product under white light, (S, S, 3) in [0, 1].
        height: its relief in units, (S, S).
        gloss: strength of highlights, (S, S) in [0, 1].
        product: where the product is, (S, S) in [0, 1].
        background: colour behind it, (S, S, 3).
        metal: how much of the colour is a reflection of the surroundings, in [0, 1].
        bare: the same surface without the parts that can be missing.
        parts: these parts.
    """

    albedo: Field
    height: Field
    gloss: Field
    product: Field
    background: Field
    metal: float = 0.0
    bare: "Surface | None" = None
    parts: tuple[Part, ...] = ()

    def blended(self, other: "Surface", alpha: Field) -> "Surface":
        """This surface with ``other`` in place of it by ``alpha`` (S, S)."""
        return replace(
            self,
            albedo=mix(self.albedo, other.albedo, alpha),
            height=mix(self.height, other.height, alpha),
            gloss=mix(self.gloss, other.gloss, alpha),
            product=mix(self.product, other.product, alpha),
        )


@dataclass(frozen=True)
class Light:
    """Direction of the light: ``azimuth`` in radians clockwise from the right, ``slope`` off the vertical."""

    azimuth: float
    slope: float

    @property
    def direction(self) -> tuple[float, float]:
        """The horizontal part of the unit vector towards the light."""
        tilt = math.sin(math.atan(self.slope))
        return math.cos(self.azimuth) * tilt, math.sin(self.azimuth) * tilt


def shade(surface: Surface, frame: Frame, light: Light) -> Field:
    """Light a surface: diffuse and specular reflection from its relief, and the shadow it casts.

    Returns:
        Picture (S, S, 3), unclipped, at the resolution of ``frame``.
    """
    lx, ly = light.direction
    lz = math.sqrt(1 - lx * lx - ly * ly)
    down, right = np.gradient(surface.height * frame.unit)
    scale = 1 / np.sqrt(1 + right * right + down * down)
    nx, ny, nz = -right * scale, -down * scale, scale
    diffuse = 0.3 + 0.7 * np.maximum(nx * lx + ny * ly + nz * lz, 0) / lz
    # Half-way vector between the light and a camera straight above.
    hz = 1 + lz
    half = math.sqrt(lx * lx + ly * ly + hz * hz)
    facing = np.maximum((nx * lx + ny * ly + nz * hz) / half, 0)
    # The 40th power, a narrow highlight, by squaring: numpy's own takes ten times as long.
    eighth = np.square(np.square(np.square(facing)))
    highlight = surface.gloss * eighth * np.square(np.square(eighth))
    # A lamp on one side and a dark room on the other, as reflected by a curved metal surface.
    mirrored = 0.95 + 0.55 * np.tanh(2.5 * (nx * lx + ny * ly))
    lit = diffuse + surface.metal * (mirrored - diffuse)
    picture = np.asarray(surface.albedo * lit[..., None] + 0.6 * highlight[..., None], np.float32)
    if surface.product.min() >= 1:
        return picture
    line = np.arange(frame.side)
    rows, columns = (np.clip(line + round(5 * part * frame.unit), 0, frame.side - 1) for part in (ly, lx))
    cast = frame.blur(surface.product, 3)[rows[:, None], columns]
    return mix(surface.background * (1 - 0.55 * cast)[..., None], picture, surface.product)


def reduce(field: Field, size: int) -> Field:
    """Average (S, S, ...) over blocks of pixels to (size, size, ...); S is a multiple of size."""
    ratio = field.shape[0] // size
    # Summing strided views is several times faster than a mean over two axes of length two.
    shifts = [(i, j) for i in range(ratio) for j in range(ratio)]
    return np.asarray(sum(field[i::ratio, j::ratio] for i, j in shifts) / ratio**2, np.float32)


@dataclass(frozen=True)
class Camera:
    """One exposure: uneven illumination, white balance, focus and sensor noise, all drawn from ``rng``.

    The same camera can take several surfaces: all that is random is drawn when it is made.
    """

    gain: Field
    focus: float
    grain: Field

    @classmethod
    def draw(cls, rng: np.random.Generator, size: int) -> "Camera":
        """Draw an exposure of ``size`` x ``size`` pixels."""
        line = np.linspace(-1, 1, size, dtype=np.float32)
        y, x = np.meshgrid(line, line, indexing="ij")
        tilt = rng.normal(0, 0.035, 2)
        vignette = rng.uniform(0.03, 0.09)
        level = 1 + rng.normal(0, 0.035) + tilt[0] * x + tilt[1] * y - vignette * (x * x + y * y)
        balance = 1 + rng.normal(0, 0.008, 3)
        grain = rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(rng.uniform(0.006, 0.013))
        # Neighbouring pixels share noise, as after the demosaicking of a real sensor.
        grain = ndimage.gaussian_filter(grain, (0.45, 0.45, 0))
        return cls(np.asarray(level[..., None] * balance, np.float32), float(rng.uniform(0.35, 0.6)), grain)

    def expose(self, picture: Field) -> Field:
        """Reduce a picture (S, S, 3) to the size of this camera, without noise, unclipped."""
        small = reduce(picture, self.gain.shape[0])
        return np.asarray(ndimage.gaussian_filter(small, (self.focus, self.focus, 0)) * self.gain, np.float32)

    def develop(self, exposed: Field) -> NDArray[np.uint8]:
        """Add sensor noise and round to 8 bits, (size, size, 3) uint8."""
        noisy = exposed + self.grain * np.sqrt(np.clip(exposed, 0.05, 1))
        return (np.clip(noisy, 0, 1) * 255 + 0.5).astype(np.uint8)
