"""Electronic parts with components that can be missing: a populated circuit board and a pin connector."""

from dataclasses import replace

import numpy as np

from datamodules.synthetic.frame import Field, Frame, Pose, box, colour, mix
from datamodules.synthetic.surface import Surface

SILVER = colour([0.74, 0.74, 0.72])
CHIPS = [(-28.0, -14.0, 30.0, 22.0), (56.0, 40.0, 18.0, 18.0)]
"""Middle and half size of the integrated circuits, in units."""
PASSIVES = [(x, y, turned) for x, y, turned in [
    (-82, -62, 0), (-58, -62, 0), (-34, -62, 0), (-82, 34, 1), (-66, 34, 1), (-50, 34, 1), (8, 46, 0), (8, 60, 0),
    (8, 74, 0), (36, -20, 1), (52, -20, 1), (68, -20, 1), (84, -20, 1), (-82, -12, 0), (-20, 46, 1), (-34, 46, 1),
]]
"""Middle of the resistors and capacitors, and whether they stand upright."""
CANS = [(42.0, -62.0), (74.0, -62.0)]
"""Middle of the electrolytic capacitors."""


def _over(surface: Surface, alpha: Field, paint: Field, height: Field | float, gloss: float) -> Surface:
    """Lay something of its own colour, height (absolute, in units) and gloss on a surface."""
    return replace(
        surface,
        albedo=mix(surface.albedo, paint, alpha),
        height=mix(surface.height, np.asarray(height + np.zeros_like(alpha), np.float32), alpha),
        gloss=mix(surface.gloss, np.full_like(alpha, gloss), alpha),
    )


def circuit_board(frame: Frame, rng: np.random.Generator) -> Surface:
    """Green board with traces, solder joints, two chips, passives and two electrolytic capacitors."""
    x, y = Pose.draw(rng, turn=4, shift=5).to_object(frame)
    grain = 1 + 0.025 * frame.noise(rng, 1.5) + 0.03 * frame.fractal(rng, 60, 3)
    mask = colour([0.07, 0.30, 0.19]) * (1 + rng.normal(0, 0.04, 3)).astype(np.float32)
    copper = frame.inside(_traces(x, y))
    albedo = mix(np.broadcast_to(mask, (*x.shape, 3)), mask * 1.5, copper) * grain[..., None]
    mat = 0.60 + 0.012 * frame.noise(rng, 2) + 0.03 * frame.fractal(rng, 60, 3)
    background = np.asarray(mat[..., None] * colour([1.0, 0.99, 0.95]), np.float32)
    drill = np.minimum.reduce([np.hypot(x - sx * 98, y - sy * 82) for sx in (-1, 1) for sy in (-1, 1)])
    product = frame.inside(box(x, y, 112, 96, 5)) * (1 - frame.inside(np.asarray(drill - 5, np.float32)))
    board = Surface(albedo, 0.25 * copper, np.full_like(x, 0.3), product, background)
    board = _over(board, frame.inside(np.abs(drill - 7) - 2), SILVER, 0.4, 0.6)
    vias = np.hypot((x + 4) % 28 - 14, (y + 9) % 31 - 15.5)
    board = _over(board, frame.inside(vias - 1.9) * copper, SILVER * 0.9, 0.3, 0.5)
    board = _over(board, frame.inside(vias - 0.9) * copper, colour([0.05, 0.06, 0.05]), -0.5, 0.0)
    parts: list[Field] = []
    full = board
    for add in (_chips, _passives, _cans):
        board, full = add(frame, rng, x, y, board, full, parts)
    return replace(full, bare=board, parts=parts)


def _traces(x: Field, y: Field) -> Field:
    """Signed distance to copper that runs between the components, bent by 45 degrees as boards are routed."""
    fan = np.abs((y - 0.5 * np.abs(x + 28)) % 9 - 4.5) - 1.2
    fan = np.maximum(fan, box(x + 28, y + 14, 62, 44))
    bus = np.abs((x + np.clip(y - 10, 0, 24)) % 8 - 4) - 1.0
    bus = np.maximum(bus, box(x - 10, y - 26, 88, 60))
    pour = box(x - 58, y + 62, 42, 24, 3)
    return np.asarray(np.minimum.reduce([fan, bus, pour]), np.float32)


def _chips(frame: Frame, rng: np.random.Generator, x: Field, y: Field, board: Surface, full: Surface, parts: list[Field]) -> tuple[Surface, Surface]:
    for cx, cy, w, h in CHIPS:
        u, v = x - cx, y - cy
        row = np.asarray(np.hypot(np.abs(u) - w - 3, 0) - 4, np.float32)
        legs = np.maximum(np.maximum(row, np.abs(v) - h + 1), np.abs(v % 6 - 3) - 1.5)
        alpha = frame.inside(np.asarray(legs, np.float32))
        pads = frame.inside(np.asarray(np.maximum(np.maximum(row, np.abs(v) - h + 1), np.abs(v % 6 - 3) - 2.1), np.float32))
        board, full = (_over(s, pads, SILVER * 0.85, 0.4, 0.4) for s in (board, full))
        jx, jy = rng.normal(0, 0.4, 2)
        body = box(u - jx, v - jy, w, h, 1.5)
        full = _over(full, alpha, SILVER, 1.2, 0.7)
        full = _over(full, frame.inside(body), colour([0.09, 0.09, 0.10]), 4 - 0.6 * np.maximum(body + 3, 0), 0.10)
        lines = np.maximum(box(u - jx, v - jy, w * 0.62, h * 0.5), np.abs((v - jy) % 9 - 4.5) - 1.6)
        dashes = np.maximum(lines, np.abs((u - jx) % 5.5 - 2.75) - 1.8)
        full = _over(full, 0.6 * frame.inside(np.asarray(dashes, np.float32)), colour([0.62, 0.62, 0.60]), 4, 0.05)
        dot = np.hypot(u - jx + w - 5, v - jy + h - 5) - 1.8
        full = _over(full, frame.inside(np.asarray(dot, np.float32)), colour([0.05, 0.05, 0.05]), 3, 0.05)
        parts.append(np.maximum(frame.inside(np.asarray(body, np.float32)), alpha))
    return board, full


def _passives(frame: Frame, rng: np.random.Generator, x: Field, y: Field, board: Surface, full: Surface, parts: list[Field]) -> tuple[Surface, Surface]:
    for index, (cx, cy, turned) in enumerate(PASSIVES):
        u, v = (y - cy, x - cx) if turned else (x - cx, y - cy)
        pads = frame.inside(box(np.abs(u) - 6.5, v, 3.4, 4.2, 0.8))
        board, full = (_over(s, pads, SILVER * 0.9, 0.4, 0.5) for s in (board, full))
        jx, jy, angle = rng.normal(0, 0.45), rng.normal(0, 0.35), rng.normal(0, 0.03)
        u, v = u - jx + angle * v, v - jy - angle * u
        whole, body = box(u, v, 8.0, 3.6, 0.8), box(u, v, 5.2, 3.6)
        alpha = frame.inside(whole)
        resistor = index % 3 != 1
        paint = colour([0.11, 0.11, 0.13]) if resistor else colour([0.60, 0.46, 0.31])
        full = _over(full, alpha, SILVER, 2.0 - 0.5 * np.maximum(whole + 1.5, 0), 0.6)
        full = _over(full, frame.inside(body), paint, 2.2 - 0.5 * np.maximum(whole + 1.5, 0), 0.12)
        if resistor:
            mark = np.maximum(np.abs(np.abs(u) - 2.2) - 0.8, np.abs(v) - 1.6)
            full = _over(full, 0.8 * frame.inside(np.asarray(mark, np.float32)), colour([0.8, 0.8, 0.78]), 2.2, 0.1)
        parts.append(alpha)
    return board, full


def _cans(frame: Frame, rng: np.random.Generator, x: Field, y: Field, board: Surface, full: Surface, parts: list[Field]) -> tuple[Surface, Surface]:
    for cx, cy in CANS:
        for side in (-4.0, 4.0):
            joint = frame.inside(np.asarray(np.hypot(x - cx - side, y - cy) - 2.4, np.float32))
            board = _over(board, joint, SILVER, 0.4, 0.5)
        jx, jy = rng.normal(0, 0.5, 2)
        u, v = x - cx - jx, y - cy - jy
        radius = np.hypot(u, v)
        alpha = frame.inside(np.asarray(radius - 13, np.float32))
        turn = rng.uniform(0, 2 * np.pi)
        stripe = frame.inside(np.asarray(7.5 - (u * np.cos(turn) + v * np.sin(turn)), np.float32))
        top = mix(np.broadcast_to(SILVER, (*x.shape, 3)), colour([0.10, 0.11, 0.16]), stripe)
        vent = np.minimum(np.abs(u), np.abs(v)) - 0.5
        dome = np.asarray(7 - 0.9 * np.maximum(radius - 9.5, 0) - 0.7 * frame.inside(np.asarray(vent, np.float32)), np.float32)
        full = _over(full, alpha, top, dome, 0.5)
        parts.append(alpha)
    return board, full


def connector(frame: Frame, rng: np.random.Generator) -> Surface:
    """Black header with two rows of nine gilt pins in a keyed shroud."""
    x, y = Pose.draw(rng, turn=3, shift=5).to_object(frame)
    shroud, well = box(x, y, 116, 56, 6), box(x, y, 105, 44, 3)
    notch = box(x, y - 52, 14, 10)
    well = np.minimum(well, notch)
    rough = 1 + 0.05 * frame.noise(rng, 1.3) + 0.04 * frame.fractal(rng, 50, 3)
    plastic = colour([0.17, 0.17, 0.18]) * (1 + rng.normal(0, 0.03)) * rough[..., None]
    inside = frame.inside(np.asarray(well, np.float32))
    rim = np.asarray(9 - 0.5 * np.maximum(shroud + 4, 0), np.float32)
    height = mix(rim, np.asarray(0.3 * frame.noise(rng, 3), np.float32), inside)
    shadow = 1 - 0.35 * inside * np.clip(1 - np.abs(well) / 14, 0, 1)
    bench = 0.74 + 0.01 * frame.noise(rng, 2) + 0.03 * frame.fractal(rng, 70, 3)
    background = np.asarray(bench[..., None] * colour([0.97, 0.98, 1.0]), np.float32)
    albedo = np.asarray(plastic * (1 - 0.3 * inside)[..., None] * shadow[..., None], np.float32)
    bare = Surface(albedo, height, np.full_like(x, 0.12), frame.inside(shroud), background)
    full, parts = bare, []
    for row in (-17.0, 17.0):
        for column in np.arange(-4, 5) * 22.0:
            socket = frame.inside(box(x - column, y - row, 6.5, 6.5, 1))
            bare, full = (_over(s, socket, colour([0.05, 0.05, 0.055]), -1, 0.05) for s in (bare, full))
            jx, jy = rng.normal(0, 0.35, 2)
            pin = box(x - column - jx, y - row - jy, 4.2, 4.2, 0.8)
            gold = colour([0.80, 0.62, 0.28]) * (1 + rng.normal(0, 0.02))
            alpha = frame.inside(pin)
            full = _over(full, alpha, gold, 8 - 0.8 * np.maximum(pin + 2.2, 0), 0.7)
            parts.append(alpha)
    return replace(full, bare=bare, parts=parts)
