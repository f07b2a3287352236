"""Defects of the product itself: cracks, holes, dents, distortions, missing parts, broken edges."""

import math
from dataclasses import replace

import numpy as np
from scipy import ndimage

from datamodules.synthetic.defects import Damage, cover
from datamodules.synthetic.frame import UNITS, Field, Frame, colour, smoothstep
from datamodules.synthetic.shapes import blob, branching, distance_to, place, size
from datamodules.synthetic.surface import Surface


def crack(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """A jagged, branching line, dark, or pale where a dark product is strained."""
    middle = place(frame, rng, surface.product, 25)
    distance, _ = distance_to(frame, branching(rng, middle, size(rng, 40, 170), size(rng, 1.4, 3.6)))
    gap = frame.inside(distance)
    column, row = ((middle + UNITS / 2) * frame.unit).astype(int)
    dark = float(surface.albedo[row, column].mean()) < 0.2
    paint = 0.45 + 0.5 * surface.albedo if dark else surface.albedo * 0.16
    return cover(surface, gap, paint, 0.45 + 0.55 * strength, -1.2 * gap)


def hole(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """A pit or puncture: dark, torn at the edge, with a raised rim."""
    radius = size(rng, 3.5, 14)
    distance = blob(frame, rng, place(frame, rng, surface.product, radius + 4), radius, 0.4)
    pit = frame.inside(distance)
    rim = np.maximum(np.exp(-((np.maximum(distance, 0) / 1.6) ** 2)) - pit, 0)
    relief = (0.8 * rim - 3.0 * smoothstep(2, -2.5, distance)) * (0.5 + 0.5 * strength)
    dull = replace(surface, gloss=surface.gloss * (1 - pit))
    dark = surface.albedo * colour([0.22, 0.20, 0.19])
    damage = cover(dull, pit, dark, 0.55 + 0.45 * strength, relief)
    return Damage(damage.surface, smoothstep(1.8, 0.6, distance) * surface.product)


def dent(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """A shallow depression that only the light gives away."""
    radius = size(rng, 9, 26)
    distance = blob(frame, rng, place(frame, rng, surface.product, radius + 4), radius, 0.12)
    depth = radius * (0.14 + 0.22 * strength)
    height = surface.height - depth * smoothstep(0.25 * radius, -0.75 * radius, distance)
    support = smoothstep(0.25 * radius, 0.05 * radius, distance)
    return Damage(replace(surface, height=height), support * surface.product)


def warped(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """Structure that is pushed and twisted out of place: pulled yarns, bent wires and pins."""
    radius = size(rng, 14, 32)
    middle = place(frame, rng, surface.product, radius)
    x, y = frame.xy[0] - float(middle[0]), frame.xy[1] - float(middle[1])
    weight = np.exp(-0.5 * (np.hypot(x, y) / (0.5 * radius)) ** 2)
    heading, push = rng.uniform(0, 2 * np.pi), (0.35 + 0.3 * strength) * radius
    twist = float(rng.choice((-1, 1))) * rng.uniform(0.4, 1.0) * (0.5 + 0.5 * strength)
    source_y = frame.xy[1] - weight * (push * math.sin(heading) + twist * x)
    source_x = frame.xy[0] - weight * (push * math.cos(heading) - twist * y)
    pixels = np.stack([source_y, source_x]) * frame.unit + (frame.side - 1) / 2

    def moved(field: Field) -> Field:
        return np.asarray(ndimage.map_coordinates(field, pixels, order=1, mode="nearest"), np.float32)

    damaged = replace(
        surface,
        albedo=np.stack([moved(surface.albedo[..., i]) for i in range(3)], axis=-1),
        height=moved(surface.height),
        gloss=moved(surface.gloss),
        product=moved(surface.product),
    )
    near_product = smoothstep(0.2, 0.4, frame.blur(surface.product, 6))
    return Damage(damaged, smoothstep(0.03, 0.08, weight) * near_product)


def missing(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """A part left out at assembly.

    Raises:
        ValueError: if the product has no parts.
    """
    if surface.bare is None:
        raise ValueError("this product has no parts that can be missing")
    window, alpha = surface.parts[int(rng.integers(len(surface.parts)))]
    gone = np.zeros_like(surface.height)
    gone[window] = alpha
    return Damage(surface.blended(surface.bare, gone), gone)


def broken(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """A piece broken off an edge, or wires cut through; the fracture is rough and of another shade."""
    soft = frame.blur(surface.product, 1.5)
    edge = smoothstep(0.15, 0.45, np.minimum(soft, 1 - soft))
    radius = size(rng, 6, 19)
    distance = blob(frame, rng, place(frame, rng, edge, 0.5), radius, 0.5)
    gone = frame.inside(distance)
    fracture = smoothstep(3.0, 0.5, distance + 0.5 * frame.noise(rng, 2))
    damaged = replace(
        surface,
        albedo=surface.albedo * (1 + rng.uniform(-0.35, 0.35) * fracture)[..., None],
        height=surface.height - 1.5 * fracture,
        product=surface.product * (1 - gone),
    )
    return Damage(damaged, np.maximum(gone, fracture) * surface.product)
