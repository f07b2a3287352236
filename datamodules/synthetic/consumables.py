"""Things swallowed: a two-coloured capsule and a tray of biscuits."""

from dataclasses import replace

import numpy as np

from datamodules.synthetic.frame import Field, Frame, Pose, box, colour, mix, smoothstep
from datamodules.synthetic.surface import Surface


def capsule(frame: Frame, rng: np.random.Generator) -> Surface:
    """Hard capsule, orange and ivory, with a printed code, on a white sheet."""
    x, y = Pose.draw(rng, turn=7, shift=7).to_object(frame)
    outline = box(x, y, 108, 40, 40)
    # Cap and body differ by the wall of the cap, which ends in a visible step.
    seam = rng.normal(6, 1.5)
    is_cap = frame.inside(np.asarray(x - seam, np.float32))
    depth = np.maximum(-outline, 0)
    roundness = np.sqrt(np.maximum(40**2 - np.maximum(40 - depth, 0) ** 2, 0))
    groove = np.exp(-((x - seam + 16) ** 2) / 3) + np.exp(-((x - seam - 42) ** 2) / 3)
    height = np.asarray(0.9 * roundness + 0.9 * is_cap - 0.5 * groove, np.float32)
    powder = 1 + 0.02 * frame.fractal(rng, 30, 4) + 0.008 * frame.noise(rng, 1.5)
    cap = colour([0.80, 0.36, 0.10]) * (1 + rng.normal(0, 0.02, 3)).astype(np.float32)
    body = colour([0.90, 0.85, 0.72]) * (1 + rng.normal(0, 0.012, 3)).astype(np.float32)
    ink = frame.inside(np.asarray(_code(x + 58, y) + 0.25 * frame.noise(rng, 2), np.float32))
    shell = mix(mix(np.broadcast_to(body, (*x.shape, 3)), cap, is_cap), colour([0.20, 0.12, 0.08]), 0.8 * ink)
    rim = 1 - 0.25 * smoothstep(9, 0, np.asarray(depth, np.float32))
    albedo = np.asarray(shell * (powder * rim)[..., None], np.float32)
    sheet = 0.80 + 0.01 * frame.noise(rng, 2) + 0.02 * frame.fractal(rng, 80, 3)
    background = np.asarray(sheet[..., None] * colour([0.97, 1.0, 1.02]), np.float32)
    return Surface(albedo, height, np.full_like(height, 0.75), frame.inside(outline), background)


def _code(x: Field, y: Field) -> Field:
    """Signed distance to three printed characters, F D 5, strokes 2.4 units wide, about the origin."""
    strokes = [
        (-16, 0, 0, 9), (-12, -9, 5, 0), (-13, 0, 4, 0),
        (0, 0, 0, 9), (4, -9, 5, 0), (4, 9, 5, 0), (9, 0, 0, 8),
        (20, -9, 5, 0), (15, -5, 0, 4), (20, -1, 5, 0), (25, 4, 0, 5), (20, 9, 5, 0),
    ]  # fmt: skip
    marks = [box(x - cx, y - cy, w + 1.2, h + 1.2, 1.0) for cx, cy, w, h in strokes]
    return np.asarray(np.minimum.reduce(marks), np.float32)


def biscuits(frame: Frame, rng: np.random.Generator) -> Surface:
    """Four docked biscuits on a steel belt, each baked a little differently."""
    x, y = Pose.draw(rng, turn=5, shift=4).to_object(frame)
    belt = 0.34 + 0.03 * frame.noise(rng, 60, 1.2) + 0.02 * frame.fractal(rng, 60, 3)
    background = np.asarray(belt[..., None] * colour([1.0, 1.0, 1.03]), np.float32)
    crumb = frame.fractal(rng, 10, 4)
    albedo = np.zeros((*x.shape, 3), np.float32)
    height, product = np.zeros_like(x), np.zeros_like(x)
    parts: list[Field] = []
    for cx in (-57.0, 57.0):
        for cy in (-57.0, 57.0):
            one, relief, alpha = _biscuit(frame, rng, x - cx, y - cy, crumb)
            albedo, height = mix(albedo, one, alpha), mix(height, relief, alpha)
            product = np.maximum(product, alpha)
            parts.append(alpha)
    whole = Surface(albedo, height, np.full_like(x, 0.04), product, background, parts=parts)
    return replace(whole, bare=replace(whole, product=np.zeros_like(product), parts=[]))


def _biscuit(frame: Frame, rng: np.random.Generator, x: Field, y: Field, crumb: Field) -> tuple[Field, Field, Field]:
    """Colour (S, S, 3), relief (S, S) and coverage (S, S) of one biscuit about the origin."""
    dx, dy, turn, size = rng.normal(0, 1.5), rng.normal(0, 1.5), rng.uniform(-0.35, 0.35), rng.uniform(46, 49.5)
    u = (x - dx) * np.cos(turn) + (y - dy) * np.sin(turn)
    v = (y - dy) * np.cos(turn) - (x - dx) * np.sin(turn)
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    outline = np.asarray(radius - size - 1.3 * np.cos(18 * angle) + 0.5 * crumb, np.float32)
    holes = np.hypot((u + 7.5) % 15 - 7.5, (v + 7.5) % 15 - 7.5)
    docked = smoothstep(2.6, 1.2, np.asarray(holes, np.float32)) * (radius < 36)
    rim = smoothstep(-12, 0, outline)
    bake = rng.normal(0, 0.10) + 0.45 * rim + 0.09 * crumb + 0.12 * np.asarray(radius / size, np.float32)
    pale, brown = colour([0.82, 0.62, 0.37]), colour([0.52, 0.30, 0.13])
    paint = mix(np.broadcast_to(pale, (*x.shape, 3)), brown, np.clip(bake, 0, 1))
    paint = paint * (1 - 0.55 * docked)[..., None]
    relief = 6 * np.sqrt(np.clip(-outline / 10, 0, 1)) + 0.5 * crumb - 2.0 * docked
    return np.asarray(paint, np.float32), np.asarray(relief, np.float32), frame.inside(outline)
