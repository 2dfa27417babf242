"""Where the camera stands, and what it makes of points in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.records import FloatArray


@dataclass(frozen=True, slots=True)
class View:
    """Where the camera stands and what one leg measures in its picture.

    Attributes
    ----------
    heading, pitch, roll : float
        Radians. Heading 0 shows the figure from its right side, looking to the right of the
        picture; -pi / 2 shows its face.
    leg_px : float
    origin_px : tuple of float
        Where the point between the feet is in the picture.
    light : float
        -1 lights the left of things, 1 the right.
    """

    heading: float
    pitch: float
    roll: float
    leg_px: float
    origin_px: tuple[float, float]
    light: float


def project(points: FloatArray, view: View) -> tuple[FloatArray, FloatArray]:
    """Turn points in space into points of the picture and their depth.

    Parameters
    ----------
    points : ndarray of float64, shape (n, 3)
    view : View

    Returns
    -------
    pixels : ndarray of float64, shape (n, 2)
    depths : ndarray of float64, shape (n,)
        In legs; greater is farther.
    """
    cos, sin = np.cos(view.heading), np.sin(view.heading)
    right = cos * points[:, 0] - sin * points[:, 1]
    away = sin * points[:, 0] + cos * points[:, 1]
    up = points[:, 2] * np.cos(view.pitch) + away * np.sin(view.pitch)
    depths = away * np.cos(view.pitch) - points[:, 2] * np.sin(view.pitch)
    # Near things are larger, as at a distance of eight legs.
    scale = view.leg_px / (1 + depths / 8)
    cos, sin = np.cos(view.roll), np.sin(view.roll)
    x = view.origin_px[0] + scale * (cos * right + sin * up)
    y = view.origin_px[1] - scale * (cos * up - sin * right)
    return np.stack([x, y], axis=1), depths
