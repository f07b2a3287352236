"""What every kind of defect is: a function that damages a surface and says where."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from datamodules.synthetic.frame import UNITS, Field, Frame, colour, mix
from datamodules.synthetic.shapes import Points
from datamodules.synthetic.surface import Surface


class Damage(NamedTuple):
    """A damaged surface, and the share (S, S) in [0, 1] that the damage has in each pixel."""

    surface: Surface
    support: Field


Defect = Callable[[Surface, Frame, np.random.Generator, float], Damage]
"""Damages a surface. The last argument, in [0, 1], is how much the defect stands out: faint ones are hard."""


def cover(
    surface: Surface, support: Field, paint: Field, opacity: float | Field, relief: float | Field = 0.0
) -> Damage:
    """Blend colour on a product, and raise it by ``relief`` units.

    Args:
        surface: to be damaged.
        support: where, (S, S) in [0, 1].
        paint: new colour, (3,) or (S, S, 3).
        opacity: of the colour within the support, in [0, 1], one number or (S, S).
        relief: one number or (S, S).
    """
    albedo = mix(surface.albedo, paint, support * opacity)
    return Damage(replace(surface, albedo=albedo, height=surface.height + relief), support * surface.product)


def contrasting(palette: Field, surface: Surface, frame: Frame, rng: np.random.Generator, point: Points) -> Field:
    """Draw a colour (3,) of a palette (n, 3) that differs from the product around a point, and vary it."""
    column, row = ((point + UNITS / 2) * frame.unit).astype(int)
    reach = round(8 * frame.unit)
    window = (slice(max(row - reach, 0), row + reach), slice(max(column - reach, 0), column + reach))
    apart = np.abs(palette - surface.albedo[window].mean(axis=(0, 1))).max(axis=1)
    choice = rng.choice(np.flatnonzero(apart >= min(0.22, float(apart.max()))))
    return colour(palette[choice] * rng.uniform(0.85, 1.15, 3))
