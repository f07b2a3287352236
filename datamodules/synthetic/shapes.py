"""Shapes that damage takes: blobs, strokes of varying width, branching cracks; and places on a product."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from datamodules.synthetic.frame import UNITS, Field, Frame, turned

Points = NDArray[np.float64]
"""A polyline, (n, 2): x and y in units from the middle of the picture."""


class Stroke(NamedTuple):
    """A polyline and its width in units at each point, (n,)."""

    points: Points
    widths: NDArray[np.float64]


def place(frame: Frame, rng: np.random.Generator, where: Field, room: float) -> Points:
    """Draw a point (2,) of the region ``where`` (S, S), ``room`` units from its edge if it is that wide."""
    # Blurring is cheap erosion, and also works for regions full of holes such as a wire mesh.
    inner = frame.blur(where, 0.5 * room)
    x, y = frame.xy
    inner = inner * (np.maximum(np.abs(x), np.abs(y)) < UNITS / 2 - np.clip(room, 12, 40))
    chosen = np.flatnonzero((inner >= min(0.93, 0.92 * float(inner.max()))) & (where > 0.5))
    row, column = divmod(int(chosen[rng.integers(chosen.size)]), frame.side)
    return np.array([column + 0.5, row + 0.5]) / frame.unit - UNITS / 2


def size(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw a length between ``low`` and ``high``, as likely within any factor of two."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def blob(frame: Frame, rng: np.random.Generator, centre: Points, radius: float, rough: float = 0.3) -> Field:
    """Signed distance in units (S, S) to an irregular, more or less elongated blob."""
    stretch = rng.uniform(1.0, 1.3)
    x, y = turned(frame.xy[0] - float(centre[0]), frame.xy[1] - float(centre[1]), rng.uniform(0, np.pi))
    round_distance = np.hypot(x / stretch, y * stretch)
    bulge = frame.noise(rng, max(1.1 * radius, 2.0)) + 0.4 * frame.noise(rng, max(0.4 * radius, 1.2))
    distance: Field = round_distance - radius * (1 + 0.5 * rough * np.clip(bulge, -2, 2))
    return distance


def walk(rng: np.random.Generator, start: Points, heading: float, length: float, wobble: float) -> Points:
    """A path of ``length`` units; its heading is a random walk of ``wobble`` radians a unit."""
    steps = max(3, int(length / 2))
    drift = np.cumsum(rng.normal(0, wobble * 2**0.5, steps))
    return _path(start, heading + drift - drift.mean(), length / steps)


def _jagged(rng: np.random.Generator, start: Points, heading: float, length: float) -> Points:
    """A path of ``length`` units that keeps its heading on the whole, and breaks it every few units."""
    steps = max(3, int(length / 1.5))
    kinks = np.convolve(rng.normal(0, 1, steps + 4), [0.5, 0.5, 0.4, 0.3, 0.2], mode="valid")
    return _path(start, heading + 0.75 * np.clip(kinks, -1.6, 1.6), length / steps)


def _path(start: Points, headings: NDArray[np.float64], step: float) -> Points:
    moves = step * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    path: Points = start + np.cumsum(moves, axis=0) - moves[0]
    return path


def branching(rng: np.random.Generator, start: Points, length: float, width: float) -> list[Stroke]:
    """A crack: a jagged path that thins out, with side branches."""
    heading = rng.uniform(0, 2 * np.pi)
    first = start - 0.5 * length * np.array([np.cos(heading), np.sin(heading)])
    trunk = _jagged(rng, first, heading, length)
    strokes = [Stroke(trunk, width * np.interp(np.linspace(0, 1, len(trunk)), [0, 0.3, 1], [0.35, 1, 0.25]))]
    for _ in range(int(rng.integers(0, 3 + int(length / 35)))):
        fork = int(rng.integers(len(trunk) // 4, len(trunk)))
        side = heading + rng.choice([-1, 1]) * rng.uniform(0.5, 1.1)
        twig = _jagged(rng, trunk[fork], side, length * rng.uniform(0.12, 0.35))
        strokes.append(Stroke(twig, width * np.linspace(0.7, 0.2, len(twig))))
    return strokes


def distance_to(frame: Frame, strokes: list[Stroke]) -> tuple[Field, Field]:
    """Signed distance to strokes, and how far along them the nearest point is, 0 to 1: 2 times (S, S)."""
    marked = np.zeros((frame.side, frame.side), bool)
    half, along = np.zeros(marked.shape, np.float32), np.zeros(marked.shape, np.float32)
    for points, widths in strokes:
        pixels = (points + UNITS / 2) * frame.unit
        travelled = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(pixels, axis=0).T))])
        dense = np.linspace(0, travelled[-1], 2 + 2 * int(travelled[-1]))
        column, row = (np.interp(dense, travelled, pixels[:, i]).astype(int) for i in (0, 1))
        seen = (column >= 0) & (row >= 0) & (column < frame.side) & (row < frame.side)
        spot = (row[seen], column[seen])
        marked[spot] = True
        half[spot] = np.interp(dense, travelled, widths / 2)[seen]
        along[spot] = (dense / travelled[-1])[seen]
    if not marked.any():
        return np.full(marked.shape, UNITS, np.float32), along
    distance, nearest = ndimage.distance_transform_edt(~marked, return_indices=True)
    index = (nearest[0], nearest[1])
    return distance.astype(np.float32) / frame.unit - half[index], along[index]
