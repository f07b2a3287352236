"""Drawing parts on an object, each in its own window, so that many small parts cost little."""

from typing import NamedTuple

import numpy as np

from datamodules.synthetic.frame import Field, Frame, Pose, mix
from datamodules.synthetic.surface import Part, Surface, Window


class Patch(NamedTuple):
    """A window of the picture, and the coordinates of its pixels about one point of the object."""

    window: Window
    u: Field
    v: Field


class Canvas:
    """A surface in the making. Coordinates are the object's own; painting is in place.

    Args:
        frame: the pixels.
        pose: how the object lies.
        albedo: ground colour, (S, S, 3).
        height: ground relief in units, (S, S).
        gloss: of the ground.
    """

    def __init__(self, frame: Frame, pose: Pose, albedo: Field, height: Field, gloss: float) -> None:
        self.frame, self.pose = frame, pose
        self.x, self.y = pose.to_object(frame)
        self.albedo, self.height = albedo.copy(), height.copy()
        self.gloss = np.full_like(height, gloss)

    def patch(self, x: float, y: float, reach: float) -> Patch:
        """The window that holds everything within ``reach`` units of the object's point (x, y)."""
        c, s = np.cos(self.pose.angle) * self.pose.zoom, np.sin(self.pose.angle) * self.pose.zoom
        middle = np.array([self.pose.dy + x * s + y * c, self.pose.dx + x * c - y * s])
        ends = np.stack([middle - reach * 1.1, middle + reach * 1.1]) * self.frame.unit + self.frame.side / 2
        (top, left), (bottom, right) = ends.round().astype(int).clip(0, self.frame.side)
        window = (slice(top, bottom), slice(left, right))
        return Patch(window, self.x[window] - np.float32(x), self.y[window] - np.float32(y))

    def paint(
        self,
        window: Window,
        distance: Field,
        colour: Field,
        height: Field | float,
        gloss: float,
        opacity: float = 1,
    ) -> Field:
        """Cover a shape, given by its signed distance in the window, with a material of its own.

        Args:
            window: where.
            distance: signed distance in units, (h, w).
            colour: (3,) or (h, w, 3).
            height: of the new surface above the object's zero, in units, (h, w) or one number.
            gloss: of the material.
            opacity: below 1 the colour is translucent.

        Returns:
            Coverage of the shape, (h, w).
        """
        alpha = self.frame.inside(distance)
        self.albedo[window] = mix(self.albedo[window], colour, alpha * opacity)
        self.height[window] += (height - self.height[window]) * alpha
        self.gloss[window] += (gloss - self.gloss[window]) * alpha
        return alpha

    def surface(
        self, product: Field, background: Field, bare: Surface | None = None, parts: tuple[Part, ...] = ()
    ) -> Surface:
        """The surface as painted up to now, independent of further painting."""
        return Surface(
            self.albedo.copy(),
            self.height.copy(),
            self.gloss.copy(),
            product,
            background,
            bare=bare,
            parts=parts,
        )
