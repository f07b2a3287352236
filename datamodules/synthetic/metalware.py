"""Metal parts seen from above: a hexagon nut and a bottle cap."""

import math

import numpy as np

from datamodules.synthetic.frame import Field, Frame, Pose, batch, colour, mix, smoothstep
from datamodules.synthetic.surface import Surface

FULL_TURN = 2 * math.pi


def _polar(x: Field, y: Field) -> tuple[Field, Field]:
    return np.hypot(x, y), np.arctan2(y, x)


def hex_nut(frame: Frame, rng: np.random.Generator) -> Surface:
    """Zinc-plated nut on grey felt: chamfered corners, turned face, thread in the bore."""
    x, y = Pose.draw(rng, turn=9, shift=7).to_object(frame)
    radius, angle = _polar(x, y)
    ax, ay = np.abs(x), np.abs(y)
    flats = np.maximum(0.8660254 * ax + 0.5 * ay, ay) - 84
    outline = np.maximum(flats, radius - 94)
    bore = radius - 44
    thread = radius - 35
    # The chamfer is a cone that meets the face at 79 units from the axis.
    face = -0.5 * np.maximum(radius - 79, 0) - 0.9 * np.maximum(3 + flats, 0) - np.maximum(3.5 - bore, 0)
    helix = np.sin(FULL_TURN * (radius / 3 - angle / FULL_TURN))
    in_bore = frame.inside(bore)
    height = mix(face, 0.9 * helix - 8, in_bore)
    grooves = rng.standard_normal(128, dtype=np.float32)[radius.astype(int).clip(0, 127)]
    turning = frame.blur(grooves, 0.4) + 0.4 * frame.noise(rng, 1.3)
    tone = 0.60 + 0.022 * turning + 0.03 * frame.fractal(rng, 30, 4)
    shade_in_bore = (0.34 + 0.10 * helix) * smoothstep(34, 44, radius)
    zinc = batch(rng, [1.0, 0.985, 0.94], 0.012)
    albedo = mix(tone, shade_in_bore, in_bore)[..., None] * zinc
    product = frame.inside(outline) * (1 - frame.inside(thread))
    felt = 0.26 + 0.022 * frame.noise(rng, 1.6) + 0.02 * frame.fractal(rng, 40, 3)
    background = felt[..., None] * colour([0.98, 1.0, 1.04])
    gloss = 0.35 * (1 - in_bore)
    return Surface(albedo, height, gloss, product, background, metal=0.75)


def bottle_cap(frame: Frame, rng: np.random.Generator) -> Surface:
    """Lacquered crown cap: 21 flutes, printed ring and star."""
    x, y = Pose.draw(rng, turn=10, shift=6).to_object(frame)
    radius, angle = _polar(x, y)
    flute = np.cos(21 * angle)
    skirt = smoothstep(80, 96, radius)
    outline = radius - (101 + 5 * flute)
    dome = 6 * np.sqrt(np.maximum(1 - (radius / 118) ** 2, 0)) - 0.35 * np.maximum(radius - 82, 0)
    height = dome + 3.2 * skirt * flute - 0.02 * np.maximum(radius - 96, 0) ** 2
    enamel = batch(rng, [0.66, 0.10, 0.10], 0.03)
    cream = colour([0.90, 0.86, 0.74])
    # A star is a fan of half-planes, mirrored about the middle of each of its five points.
    sector = np.abs((angle / FULL_TURN * 5 + 0.25) % 1 - 0.5) * FULL_TURN / 5
    star = radius * np.cos(sector - 1.22) - 11.5
    ring = np.abs(radius - 66) - 4.5
    dots = np.hypot(radius - 53, ((angle / FULL_TURN * 36) % 1 - 0.5) * 53 * FULL_TURN / 36) - 1.7
    slip = frame.noise(rng, 2.0) * 0.15
    printed = np.maximum.reduce([frame.inside(d + slip) for d in (star, ring, dots)])
    lacquer = 1 + 0.02 * frame.fractal(rng, 50, 4) + 0.012 * frame.noise(rng, 1.5)
    albedo = mix(np.broadcast_to(enamel, (*x.shape, 3)), cream, 0.96 * printed) * lacquer[..., None]
    belt = 0.70 + 0.015 * frame.noise(rng, 1.5) + 0.03 * frame.fractal(rng, 60, 3)
    background = belt[..., None] * colour([0.93, 0.97, 1.0])
    gloss = np.full_like(height, 0.5)
    return Surface(albedo, height, gloss, frame.inside(outline), background, metal=0.25)
