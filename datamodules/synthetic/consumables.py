"""Things swallowed: a two-coloured capsule and a tray of biscuits."""

import numpy as np

from datamodules.synthetic.canvas import Canvas, Patch
from datamodules.synthetic.frame import Field, Frame, Pose, batch, box, colour, mix, smoothstep, turned
from datamodules.synthetic.surface import Part, Surface


def capsule(frame: Frame, rng: np.random.Generator) -> Surface:
    """Hard capsule, orange and ivory, with a printed code, on a white sheet."""
    x, y = Pose.draw(rng, turn=7, shift=7).to_object(frame)
    outline = box(x, y, 108, 40, 40)
    # Cap and body differ by the wall of the cap, which ends in a visible step.
    seam = rng.normal(6, 1.5)
    is_cap = frame.inside(x - seam)
    depth = np.maximum(-outline, 0)
    roundness = np.sqrt(np.maximum(40**2 - np.maximum(40 - depth, 0) ** 2, 0))
    groove = np.exp(-((x - seam + 16) ** 2) / 3) + np.exp(-((x - seam - 42) ** 2) / 3)
    height = 0.9 * roundness + 0.9 * is_cap - 0.5 * groove
    powder = 1 + 0.02 * frame.fractal(rng, 30, 4) + 0.008 * frame.noise(rng, 1.5)
    cap = batch(rng, [0.80, 0.36, 0.10], 0.02)
    body = batch(rng, [0.90, 0.85, 0.72], 0.012)
    ink = frame.inside(_code(x + 58, y) + 0.25 * frame.noise(rng, 2))
    shell = mix(mix(np.broadcast_to(body, (*x.shape, 3)), cap, is_cap), colour([0.20, 0.12, 0.08]), 0.8 * ink)
    rim = 1 - 0.25 * smoothstep(9, 0, depth)
    albedo = shell * (powder * rim)[..., None]
    sheet = 0.80 + 0.01 * frame.noise(rng, 2) + 0.012 * frame.fractal(rng, 80, 3)
    background = sheet[..., None] * colour([0.97, 1.0, 1.02])
    return Surface(albedo, height, np.full_like(height, 0.75), frame.inside(outline), background)


def _code(x: Field, y: Field) -> Field:
    """Signed distance to three printed characters, F D 5, strokes 2.4 units wide, about the origin."""
    strokes = [
        (-16, 0, 0, 9), (-12, -9, 5, 0), (-13, 0, 4, 0),
        (0, 0, 0, 9), (4, -9, 5, 0), (4, 9, 5, 0), (9, 0, 0, 8),
        (20, -9, 5, 0), (15, -5, 0, 4), (20, -1, 5, 0), (25, 4, 0, 5), (20, 9, 5, 0),
    ]  # fmt: skip
    marks = [box(x - cx, y - cy, w + 1.2, h + 1.2, 1.0) for cx, cy, w, h in strokes]
    code: Field = np.minimum.reduce(marks)
    return code


def biscuits(frame: Frame, rng: np.random.Generator) -> Surface:
    """Four docked biscuits on a steel belt, each baked a little differently."""
    belt = 0.34 + 0.03 * frame.noise(rng, 60, 1.2) + 0.02 * frame.fractal(rng, 60, 3)
    crumb = frame.fractal(rng, 10, 4)
    pose = Pose.draw(rng, turn=5, shift=4)
    tray = Canvas(frame, pose, np.zeros((*crumb.shape, 3), np.float32), np.zeros_like(crumb), 0.04)
    background = belt[..., None] * colour([1.0, 1.0, 1.03])
    bare = tray.surface(np.zeros_like(crumb), background)
    product = np.zeros_like(crumb)
    parts = []
    for cx, cy in ((-57.0, -57.0), (57.0, -57.0), (-57.0, 57.0), (57.0, 57.0)):
        patch = tray.patch(cx + rng.normal(0, 1.5), cy + rng.normal(0, 1.5), 53)
        cover = _biscuit(tray, patch, rng, crumb[patch.window])
        product[patch.window] = np.maximum(product[patch.window], cover)
        parts.append(Part(patch.window, cover))
    return tray.surface(product, background, bare, tuple(parts))


def _biscuit(tray: Canvas, patch: Patch, rng: np.random.Generator, crumb: Field) -> Field:
    """Bake one biscuit; returns its coverage."""
    turn, size = rng.uniform(-0.35, 0.35), rng.uniform(46, 49.5)
    u, v = turned(patch.u, patch.v, turn)
    radius = np.hypot(u, v)
    outline = radius - size - 1.3 * np.cos(18 * np.arctan2(v, u)) + 0.5 * crumb
    holes = np.hypot((u + 7.5) % 15 - 7.5, (v + 7.5) % 15 - 7.5)
    docked = smoothstep(2.6, 1.2, holes) * (radius < 36)
    bake = rng.normal(0, 0.10) + 0.45 * smoothstep(-12, 0, outline) + 0.09 * crumb + 0.12 * radius / size
    paint = mix(colour([0.82, 0.62, 0.37]), colour([0.52, 0.30, 0.13]), np.clip(bake, 0, 1))
    relief = 6 * np.sqrt(np.clip(-outline / 10, 0, 1)) + 0.5 * crumb - 2.0 * docked
    return tray.paint(patch.window, outline, paint * (1 - 0.55 * docked)[..., None], relief, 0.04)
