"""Electronic parts with components that can be missing: a populated circuit board and a pin connector."""

import numpy as np

from datamodules.synthetic.canvas import Canvas
from datamodules.synthetic.frame import Field, Frame, Pose, batch, box, colour, mix, turned
from datamodules.synthetic.surface import Part, Surface

SILVER = colour([0.74, 0.74, 0.72])
SOOT = colour([0.05, 0.05, 0.055])
INK = colour([0.62, 0.62, 0.60])

CHIPS = [(-28.0, -14.0, 30.0, 22.0), (58.0, 40.0, 18.0, 18.0)]
"""Middle and half size of the integrated circuits, in units."""
PASSIVES = [
    *[(x, -62.0, False) for x in (-82.0, -58.0, -34.0)],
    *[(x, 34.0, True) for x in (-82.0, -66.0, -50.0)],
    *[(8.0, y, False) for y in (46.0, 60.0, 74.0)],
    *[(x, -20.0, True) for x in (36.0, 52.0, 68.0, 84.0)],
    *[(x, 46.0, True) for x in (-34.0, -20.0)],
    (-86.0, -12.0, False),
]  # fmt: skip
"""Middle of the resistors and capacitors, and whether they stand upright."""
CANS = [(42.0, -62.0), (74.0, -62.0)]
"""Middle of the electrolytic capacitors."""


def circuit_board(frame: Frame, rng: np.random.Generator) -> Surface:
    """Green board with traces, solder joints, two chips, passives and two electrolytic capacitors."""
    pose = Pose.draw(rng, turn=4, shift=5)
    x, y = pose.to_object(frame)
    grain = 1 + 0.025 * frame.noise(rng, 1.5) + 0.03 * frame.fractal(rng, 60, 3)
    lacquer = batch(rng, [0.06, 0.27, 0.17], 0.04)
    copper = frame.inside(_traces(x, y))
    board = Canvas(frame, pose, mix(lacquer, lacquer * 1.6, copper) * grain[..., None], 0.25 * copper, 0.3)
    everywhere = (slice(None), slice(None))
    drill = np.hypot(np.abs(x) - 98, np.abs(y) - 82)
    board.paint(everywhere, np.abs(drill - 7) - 2, SILVER, 0.4, 0.6)
    via = np.hypot((x + 4) % 28 - 14, (y + 9) % 31 - 15.5) + 9 * (copper < 0.5)
    board.paint(everywhere, via - 1.9, SILVER * 0.9, 0.3, 0.5)
    board.paint(everywhere, via - 0.9, SOOT, -0.5, 0.0)
    _pads(board)
    product = frame.inside(box(x, y, 112, 96, 5)) * (1 - frame.inside(drill - 5))
    mat = 0.58 + 0.012 * frame.noise(rng, 2) + 0.02 * frame.fractal(rng, 60, 3)
    background = mat[..., None] * colour([1.0, 0.99, 0.96])
    bare = board.surface(product, background)
    parts = (*_chips(board, rng), *_passives(board, rng), *_cans(board, rng))
    return board.surface(product, background, bare, parts)


def _traces(x: Field, y: Field) -> Field:
    """Signed distance to copper that runs between the components, bent by 45 degrees as boards are routed."""
    fan = np.maximum(np.abs((y - 0.5 * np.abs(x + 28)) % 9 - 4.5) - 1.2, box(x + 28, y + 14, 62, 44))
    bus = np.maximum(np.abs((x + np.clip(y - 10, 0, 24)) % 8 - 4) - 1.0, box(x - 10, y - 26, 88, 60))
    copper: Field = np.minimum(np.minimum(fan, bus), box(x - 58, y + 62, 42, 24, 3))
    return copper


def _legs(u: Field, v: Field, half_width: float, half_height: float, gap: float) -> Field:
    """Signed distance to the legs on the left and right side of a chip."""
    row = np.maximum(np.abs(np.abs(u) - half_width - 3) - 4, np.abs(v) - half_height + 1)
    legs: Field = np.maximum(row, np.abs(v % 6 - 3) - gap)
    return legs


def _pads(board: Canvas) -> None:
    for cx, cy, w, h in CHIPS:
        window, u, v = board.patch(cx, cy, np.hypot(w + 8, h))
        board.paint(window, _legs(u, v, w, h, 2.1), SILVER * 0.85, 0.4, 0.4)
    for cx, cy, upright in PASSIVES:
        window, u, v = board.patch(cx, cy, 11)
        u, v = (v, u) if upright else (u, v)
        board.paint(window, box(np.abs(u) - 6.5, v, 3.4, 4.2, 0.8), SILVER * 0.9, 0.4, 0.5)
    for cx, cy in CANS:
        window, u, v = board.patch(cx, cy, 8)
        board.paint(window, np.hypot(np.abs(u) - 4, v) - 2.4, SILVER, 0.4, 0.5)


def _chips(board: Canvas, rng: np.random.Generator) -> list[Part]:
    parts = []
    for cx, cy, w, h in CHIPS:
        window, u, v = board.patch(cx + rng.normal(0, 0.4), cy + rng.normal(0, 0.4), np.hypot(w + 8, h))
        body = box(u, v, w, h, 1.5)
        legs = board.paint(window, _legs(u, v, w, h, 1.5), SILVER, 1.2, 0.7)
        case = board.paint(window, body, colour([0.09, 0.09, 0.10]), 4 - 0.6 * np.maximum(body + 3, 0), 0.1)
        line = np.maximum(box(u, v, w * 0.62, h * 0.5), np.abs(v % 9 - 4.5) - 1.6)
        board.paint(window, np.maximum(line, np.abs(u % 5.5 - 2.75) - 1.8), INK, 4, 0.05, opacity=0.6)
        board.paint(window, np.hypot(u + w - 5, v + h - 5) - 1.8, SOOT, 3, 0.05)
        parts.append(Part(window, np.maximum(case, legs)))
    return parts


def _passives(board: Canvas, rng: np.random.Generator) -> list[Part]:
    parts = []
    for index, (cx, cy, upright) in enumerate(PASSIVES):
        window, u, v = board.patch(cx + rng.normal(0, 0.4), cy + rng.normal(0, 0.4), 11)
        u, v = (v, u) if upright else (u, v)
        skew = rng.normal(0, 0.03)
        u, v = u + skew * v, v - skew * u
        whole = box(u, v, 8.0, 3.6, 0.8)
        top = 2.2 - 0.5 * np.maximum(whole + 1.5, 0)
        resistor = index % 3 != 1
        paint = colour([0.11, 0.11, 0.13]) if resistor else colour([0.60, 0.46, 0.31])
        alpha = board.paint(window, whole, SILVER, top, 0.6)
        board.paint(window, box(u, v, 5.2, 3.6), paint, top, 0.12)
        if resistor:
            digits = np.maximum(np.abs(np.abs(u) - 2.2) - 0.8, np.abs(v) - 1.6)
            board.paint(window, digits, colour([0.8, 0.8, 0.78]), top, 0.1, opacity=0.8)
        parts.append(Part(window, alpha))
    return parts


def _cans(board: Canvas, rng: np.random.Generator) -> list[Part]:
    parts = []
    for cx, cy in CANS:
        window, u, v = board.patch(cx + rng.normal(0, 0.5), cy + rng.normal(0, 0.5), 14)
        radius, turn = np.hypot(u, v), rng.uniform(0, 2 * np.pi)
        vent = np.minimum(np.abs(u), np.abs(v)) - 0.5
        dome = 7 - 0.9 * np.maximum(radius - 9.5, 0) - 0.7 * board.frame.inside(vent)
        alpha = board.paint(window, radius - 13, SILVER, dome, 0.5)
        stripe = np.maximum(radius - 13, 7.5 - turned(u, v, turn)[0])
        board.paint(window, stripe, colour([0.10, 0.11, 0.16]), dome, 0.5)
        parts.append(Part(window, alpha))
    return parts


def connector(frame: Frame, rng: np.random.Generator) -> Surface:
    """Black header with three rows of nine gilt pins in a keyed shroud."""
    pose = Pose.draw(rng, turn=3, shift=5)
    x, y = pose.to_object(frame)
    shroud = box(x, y, 117, 62, 6)
    well = np.minimum(box(x, y, 106, 51, 3), box(x, y - 57, 14, 12))
    inside = frame.inside(well)
    mould = 1 + 0.05 * frame.noise(rng, 1.3) + 0.04 * frame.fractal(rng, 50, 3)
    # The walls keep light from the floor next to them.
    depth = 1 - inside * (0.25 + 0.35 * np.clip(1 - np.abs(well) / 14, 0, 1))
    plastic = colour([0.23, 0.23, 0.245]) * (1 + rng.normal(0, 0.03))
    rim = 9 - 0.5 * np.maximum(shroud + 4, 0)
    height = mix(rim, 0.08 * frame.noise(rng, 3), inside)
    header = Canvas(frame, pose, plastic * (mould * depth)[..., None], height, 0.12)
    sites = [(22.0 * column, 29.0 * row) for row in (-1, 0, 1) for column in range(-4, 5)]
    for cx, cy in sites:
        window, u, v = header.patch(cx, cy, 11)
        header.paint(window, box(u, v, 7.5, 7.5, 1), SOOT, -1, 0.05)
    bench = 0.72 + 0.01 * frame.noise(rng, 2) + 0.02 * frame.fractal(rng, 70, 3)
    product, background = frame.inside(shroud), bench[..., None] * colour([0.98, 0.985, 1.0])
    bare = header.surface(product, background)
    parts = []
    for cx, cy in sites:
        window, u, v = header.patch(cx + rng.normal(0, 0.35), cy + rng.normal(0, 0.35), 9)
        pin = box(u, v, 5.0, 5.0, 0.8)
        gold = colour([0.82, 0.64, 0.30]) * (1 + rng.normal(0, 0.02))
        parts.append(Part(window, header.paint(window, pin, gold, 8 - 0.8 * np.maximum(pin + 2.4, 0), 0.7)))
    return header.surface(product, background, bare, tuple(parts))
