"""Flat goods that fill the picture; each function draws one new piece of material on a frame."""

import numpy as np
from PIL import Image, ImageDraw

from datamodules.synthetic.frame import UNITS, Field, Frame, Pose, batch, colour, mix, smoothstep
from datamodules.synthetic.surface import Surface


def _sheet(albedo: Field, height: Field, gloss: Field | float, metal: float = 0.0) -> Surface:
    full = np.ones_like(height)
    return Surface(albedo, height, gloss * full, full, np.zeros_like(albedo), metal)


def fabric(frame: Frame, rng: np.random.Generator) -> Surface:
    """Twill of blue warp and pale weft; yarns differ in shade, and the cloth is never quite straight."""
    pitch = 7.0 * rng.uniform(0.96, 1.04)
    x, y = Pose.draw(rng, turn=4, shift=40).to_object(frame)
    x, y = x + 1.6 * frame.noise(rng, 90), y + 1.6 * frame.noise(rng, 90)
    column, row = np.floor(x / pitch).astype(int), np.floor(y / pitch).astype(int)
    across, along = x / pitch - column - 0.5, y / pitch - row - 0.5
    warp_up = (column + row) % 3 > 0
    # Warp yarns run down the cloth, weft yarns across it; each is a cylinder that dives under the other.
    warp = np.sqrt(np.maximum(1 - (2.1 * across) ** 2, 0)) * np.cos(np.pi * along * 0.8)
    weft = np.sqrt(np.maximum(1 - (2.1 * along) ** 2, 0)) * np.cos(np.pi * across * 0.8)
    yarn = rng.normal(0, 0.045, (2, 256)).astype(np.float32)
    slub = 0.05 * frame.noise(rng, 3, 40) * warp_up + 0.05 * frame.noise(rng, 40, 3) * ~warp_up
    shade = 1 + np.where(warp_up, yarn[0][column % 256], yarn[1][row % 256]) + slub
    shade = shade + 0.05 * frame.noise(rng, 2)
    dye = np.where(warp_up[..., None], colour([0.25, 0.36, 0.52]), colour([0.60, 0.62, 0.62]))
    relief = np.where(warp_up, warp, weft).astype(np.float32)
    albedo = dye * (shade * (0.55 + 0.5 * relief) * (1 + 0.03 * frame.fractal(rng, 80)))[..., None]
    return _sheet(albedo, 0.9 * relief, 0.03)


def oak(frame: Frame, rng: np.random.Generator) -> Surface:
    """Planed board: growth rings cut lengthwise, fine pores along the grain."""
    x, y = Pose.draw(rng, turn=2.5, shift=60).to_object(frame)
    centre = rng.uniform(-500, 500)
    bow = rng.uniform(0.00002, 0.00016) * float(rng.choice((-1, 1)))
    rings = y + bow * (x - centre) ** 2 + 5 * frame.fractal(rng, 60, 3, stretch=4)
    spacing = rng.uniform(12, 19)
    phase = rings / spacing + 0.35 * frame.noise(rng, 300, 12)
    # Late wood darkens slowly and ends sharply, which makes the lines of a ring one-sided.
    late = frame.blur((phase - np.floor(phase)) ** 2.5, 0.5)
    fibre = frame.noise(rng, 50, 1.1)
    pores = smoothstep(1.5, 2.4, frame.noise(rng, 16, 1.2)) * (1 - 0.6 * late)
    tone = 1 - 0.26 * late + 0.035 * fibre + 0.04 * frame.fractal(rng, 90, 3, stretch=2)
    wood = batch(rng, [0.73, 0.55, 0.36], 0.025)
    # Darker wood is also redder.
    grain = wood * (tone[..., None] ** colour([1.0, 1.25, 1.5]))
    albedo = mix(grain, colour([0.30, 0.19, 0.11]), 0.65 * pores)
    return _sheet(albedo, 0.10 * fibre - 0.5 * pores + 0.3 * late, 0.08)


def brushed_steel(frame: Frame, rng: np.random.Generator) -> Surface:
    """Sheet metal brushed from left to right, with the broad reflections of a lit room."""
    fine, long = frame.noise(rng, 60, 0.9), frame.noise(rng, 260, 1.8)
    hairs = smoothstep(2.0, 3.2, np.abs(frame.noise(rng, 35, 0.8)))
    band = frame.noise(rng, 500, rng.uniform(90, 160)) + 0.4 * frame.noise(rng, 300, 40)
    tone = 0.60 + 0.04 * fine + 0.03 * long + 0.04 * band + 0.09 * hairs * float(rng.choice((-1, 1)))
    tint = batch(rng, [0.985, 1.0, 1.02], 0.004)
    return _sheet(tone[..., None] * tint, 0.035 * fine + 0.02 * long, 0.12, metal=0.6)


def leather_hide(frame: Frame, rng: np.random.Generator) -> Surface:
    """Embossed hide: pebbles between creases, with pores and slow changes of tone."""
    x, y = frame.xy
    x, y = x + 2.2 * frame.noise(rng, 14), y + 2.2 * frame.noise(rng, 14)
    near, second = _cells(x, y, rng.uniform(8.2, 9.6), rng)
    gap = smoothstep(0.2, 2.4, second - near)
    pebble = gap * (1 - 0.025 * near**2)
    soft = 0.4 * frame.fractal(rng, 5, 2)
    tone = (0.62 + 0.38 * gap) * (1 + 0.06 * frame.fractal(rng, 70, 3) + 0.04 * soft)
    hide = batch(rng, [0.47, 0.25, 0.15], 0.03)
    return _sheet(hide * tone[..., None], 1.1 * pebble + 0.3 * soft, 0.22 + 0.05 * soft)


def wire_mesh(frame: Frame, rng: np.random.Generator) -> Surface:
    """Woven steel screen in front of a dark floor."""
    pitch = 21.0 * rng.uniform(0.98, 1.02)
    x, y = Pose.draw(rng, turn=3, shift=30).to_object(frame)
    x, y = x + 0.7 * frame.noise(rng, 60), y + 0.7 * frame.noise(rng, 60)
    thick = 3.1 * rng.uniform(0.95, 1.05)
    column, row = np.rint(x / pitch), np.rint(y / pitch)
    side = np.where((column + row) % 2 == 0, 1.0, -1.0)
    # Height of either wire where they cross: the one on top alternates from crossing to crossing.
    bend_x = 1.6 * side * np.cos(np.pi * (x / pitch - column)) * np.cos(np.pi * (y / pitch - row))
    upright, level = np.abs(x - column * pitch), np.abs(y - row * pitch)
    upright_height = np.sqrt(np.maximum(thick**2 - upright**2, 0)) + bend_x
    level_height = np.sqrt(np.maximum(thick**2 - level**2, 0)) - bend_x
    upright_over = np.where(upright < thick, upright_height, -9) > np.where(level < thick, level_height, -9)
    height = np.where(upright_over, upright_height, level_height).astype(np.float32)
    product = frame.inside(np.minimum(upright, level) - thick)
    drawn = np.where(upright_over, frame.noise(rng, 1.2, 30), frame.noise(rng, 30, 1.2))
    tone = 0.56 + 0.04 * drawn + 0.05 * frame.fractal(rng, 60, 3)
    albedo = tone[..., None] * colour([1.0, 0.99, 0.96])
    floor = 0.15 + 0.02 * frame.fractal(rng, 50, 4)
    background = floor[..., None] * colour([0.95, 1.0, 1.08])
    return Surface(albedo, height, np.full_like(height, 0.35), product, background, metal=0.5)


def terrazzo(frame: Frame, rng: np.random.Generator) -> Surface:
    """Polished stone chips of many sizes in pale cement."""
    chips = Image.new("L", (frame.side, frame.side), 0)
    pen = ImageDraw.Draw(chips)
    sizes = np.sort(rng.lognormal(1.55, 0.6, 560))[::-1]
    centres = rng.uniform(-8, UNITS + 8, (sizes.size, 2))
    kinds = rng.choice(4, sizes.size, p=[0.45, 0.25, 0.15, 0.15]) + 1
    for size, centre, kind in zip(sizes, centres, kinds, strict=True):
        sides = int(rng.integers(5, 9))
        turns = (rng.random() + np.arange(sides) + rng.uniform(-0.3, 0.3, sides)) * 2 * np.pi / sides
        corners = np.stack([np.cos(turns), np.sin(turns)], axis=1) * rng.uniform(0.75, 1.15, (sides, 1))
        corners = (centre + size * rng.uniform(0.7, 1.0, 2) * corners) * frame.unit
        # A rim of cement parts each chip from the ones below it.
        pen.polygon([*map(tuple, corners)], fill=int(kind), outline=0, width=max(1, round(0.4 * frame.unit)))
    label = np.asarray(chips)
    palette = colour(
        [[0.76, 0.74, 0.70], [0.52, 0.50, 0.48], [0.30, 0.29, 0.29], [0.60, 0.42, 0.33], [0.90, 0.88, 0.85]]
    )
    palette = colour(palette * (1 + rng.normal(0, 0.013, palette.shape)))
    vein = 0.035 * frame.fractal(rng, 7, 3)
    cement = (label == 0).astype(np.float32)
    sand = (0.02 + 0.03 * cement) * frame.noise(rng, 1.3)
    albedo = palette[label] * (1 + vein + sand + 0.03 * frame.noise(rng, 120))[..., None]
    return _sheet(albedo, -0.05 * cement, 0.1)


def _cells(x: Field, y: Field, pitch: float, rng: np.random.Generator) -> tuple[Field, Field]:
    """Distances in units to the nearest and second nearest point of a jittered grid, 2 times (S, S)."""
    jitter = rng.uniform(0.08, 0.92, (2, 64, 64)).astype(np.float32)
    gx, gy = x / pitch, y / pitch
    column, row = np.floor(gx), np.floor(gy)
    dx, dy = column - gx, row - gy
    column, row = column.astype(np.int32), row.astype(np.int32)
    near = np.full(x.shape, 9, np.float32)
    second = near.copy()
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            cell = ((row + down) & 63, (column + right) & 63)
            squared = (dx + (jitter[0][cell] + right)) ** 2 + (dy + (jitter[1][cell] + down)) ** 2
            second = np.minimum(second, np.maximum(near, squared))
            near = np.minimum(near, squared)
    return np.sqrt(near) * pitch, np.sqrt(second) * pitch
