"""Defects on the surface: scratches, stains, fibres, grains, wrong colours, clogged openings."""

from dataclasses import replace

import numpy as np

from datamodules.synthetic.defects import Damage, contrasting, cover
from datamodules.synthetic.frame import Frame, colour, mix, smoothstep
from datamodules.synthetic.shapes import Stroke, blob, distance_to, place, size, walk
from datamodules.synthetic.surface import Surface

DIRT = colour([[0.10, 0.07, 0.05], [0.42, 0.20, 0.08], [0.88, 0.87, 0.82], [0.13, 0.15, 0.33], [0.30, 0.30, 0.12]])
"""Oil, rust, lime or powder, ink, mould."""
YARN = colour([[0.90, 0.90, 0.88], [0.62, 0.08, 0.10], [0.08, 0.08, 0.09], [0.10, 0.20, 0.55], [0.75, 0.62, 0.20]])


def scratch(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """One to three nearly straight grooves, bright or dark, that fade at their ends."""
    heading, length = rng.uniform(0, np.pi), size(rng, 30, 150)
    middle = place(frame, rng, surface.product, 10)
    strokes = []
    for _ in range(int(rng.choice((1, 1, 2, 3)))):
        direction = heading + rng.normal(0, 0.06)
        reach = length * rng.uniform(0.6, 1.0)
        back = 0.5 * reach * np.array([np.cos(direction), np.sin(direction)])
        path = walk(rng, middle + rng.normal(0, 3.5, 2) - back, direction, reach, 0.012)
        strokes.append(Stroke(path, np.full(len(path), size(rng, 1.0, 2.8))))
    distance, along = distance_to(frame, strokes)
    groove = frame.inside(distance)
    fade = smoothstep(0, 0.2, along) * smoothstep(1, 0.8, along)
    dark = rng.random() < 0.5
    tone = surface.albedo * rng.uniform(0.25, 0.5) if dark else 0.35 + 0.65 * surface.albedo
    ridge = np.exp(-(distance**2)) * (1 - groove)
    relief = (0.35 * ridge - 0.8 * groove) * fade * strength
    return cover(surface, groove * (fade > 0.25), tone, fade * (0.35 + 0.6 * strength), relief)


def stain(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """Dirt, liquid or rust with soft, uneven edges; some dried from the rim inwards."""
    radius = size(rng, 6, 45)
    middle = place(frame, rng, surface.product, radius)
    distance = blob(frame, rng, middle, radius, 0.45)
    soft = rng.uniform(0.06, 0.3) * radius + 0.6
    support = smoothstep(soft, -soft, distance)
    uneven = np.clip(0.8 + 0.2 * frame.fractal(rng, 0.7 * radius + 3, 3), 0.25, 1)
    if rng.random() < 0.35:
        uneven = uneven * (0.45 + 0.55 * np.exp(-((distance / (0.15 * radius + 1)) ** 2)))
    dirt = contrasting(DIRT, surface, frame, rng, middle)
    # A thin film lets the product shine through as through a filter; a thick one hides it.
    film = np.minimum(2.0 * surface.albedo * dirt, 1)
    paint = film + (dirt - film) * rng.uniform(0.2, 1)
    dull = replace(surface, gloss=surface.gloss * (1 - 0.7 * support))
    return cover(dull, support, paint, uneven * (0.3 + 0.6 * strength))


def fibre(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """A loose hair or thread that lies on the product and shades it."""
    path = walk(rng, np.zeros(2), rng.uniform(0, 2 * np.pi), size(rng, 30, 120), 0.09)
    middle = place(frame, rng, surface.product, 22)
    path += middle - path.mean(axis=0)
    distance, _ = distance_to(frame, [Stroke(path, np.full(len(path), size(rng, 1.0, 2.2)))])
    # It bridges gaps as narrow as those of a mesh, but is not seen off the product.
    carried = smoothstep(0.3, 0.45, frame.blur(surface.product, 8))
    alpha = frame.inside(distance) * carried
    shaded = surface.albedo * (1 - 0.45 * frame.blur(alpha, 1.3))[..., None]
    yarn = contrasting(YARN, surface, frame, rng, middle)
    damaged = replace(
        surface,
        albedo=mix(shaded, yarn, alpha * (0.55 + 0.45 * strength)),
        height=mix(surface.height, frame.blur(surface.height, 4) + 1.0, alpha),
        product=np.maximum(surface.product, alpha),
    )
    return Damage(damaged, alpha)


def specks(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """A scatter of grains or droplets."""
    middle = place(frame, rng, surface.product, 14)
    grains = middle + rng.normal(0, size(rng, 5, 18), (int(rng.integers(4, 14)), 2))
    strokes = [Stroke(np.stack([g, g + 0.4]), np.full(2, size(rng, 1.8, 5.5))) for g in grains]
    distance, _ = distance_to(frame, strokes)
    dirt = contrasting(DIRT, surface, frame, rng, middle)
    bump = 1.2 * smoothstep(0.5, -1.5, distance) * surface.product
    return cover(surface, frame.inside(distance), dirt, 0.5 + 0.5 * strength, bump)


def discoloured(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """A region of the wrong colour: faded, overheated, or printed with too much ink."""
    radius = size(rng, 10, 45)
    distance = blob(frame, rng, place(frame, rng, surface.product, radius), radius, 0.25)
    soft = rng.uniform(0.5, 0.25 * radius)
    cast = rng.uniform(-1, 1, 3)
    tint = colour(1 + cast / np.abs(cast).max() * (0.16 + 0.3 * strength))
    return cover(surface, smoothstep(soft, -soft, distance), np.minimum(surface.albedo * tint, 1), 1.0)


def clogged(surface: Surface, frame: Frame, rng: np.random.Generator, strength: float) -> Damage:
    """Openings filled with paint or dried dirt."""
    radius = size(rng, 7, 28)
    middle = place(frame, rng, surface.product, radius)
    alpha = frame.inside(blob(frame, rng, middle, radius, 0.5)) * (0.55 + 0.45 * strength)
    dirt = contrasting(DIRT, surface, frame, rng, middle) * (1 + 0.12 * frame.fractal(rng, 8, 3))[..., None]
    damaged = replace(
        surface,
        albedo=mix(surface.albedo, dirt, alpha),
        height=mix(surface.height, 0.6 * surface.height + 0.3 * frame.noise(rng, 5), alpha),
        gloss=surface.gloss * (1 - alpha),
        product=np.maximum(surface.product, alpha),
    )
    return Damage(damaged, alpha)
