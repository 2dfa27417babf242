"""Shapes with soft edges, placed to parts of a pixel, and their colours."""

from __future__ import annotations

import numpy as np

from features.records import FloatArray, FrameArray
from features.video.frames import import_cv2

# Blue, green, red, as OpenCV has them; 0 to 255.
Colour = tuple[int, int, int]

_FRACTION_BITS = 4


def random_colour(generator: np.random.Generator) -> Colour:
    """Choose a colour: any hue, often muted, now and then grey."""
    value = generator.uniform(25, 245)
    hue = generator.uniform(0, 1, 3)
    vividness = generator.choice([0.1, 0.5, 0.9])
    blue, green, red = value * (1 - vividness * hue)
    return int(blue), int(green), int(red)


def shade(colour: Colour, factor: float) -> Colour:
    """Make a colour lighter or darker."""
    blue, green, red = (int(min(255.0, max(0.0, part * factor))) for part in colour)
    return blue, green, red


def fill_polygon(canvas: FrameArray, corners: FloatArray, colour: Colour) -> None:
    """Fill a polygon given in pixels, shape (n, 2)."""
    cv2 = import_cv2()
    fixed = np.round(corners * 2**_FRACTION_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], colour, cv2.LINE_AA, _FRACTION_BITS)


def fill_disc(canvas: FrameArray, middle: FloatArray, radius_px: float, colour: Colour) -> None:
    """Fill a circle given in pixels."""
    cv2 = import_cv2()
    x, y = (round(float(part) * 2**_FRACTION_BITS) for part in middle)
    radius = max(1, round(radius_px * 2**_FRACTION_BITS))
    cv2.circle(canvas, (x, y), radius, colour, -1, cv2.LINE_AA, _FRACTION_BITS)


def fill_limb(
    canvas: FrameArray,
    ends: tuple[FloatArray, FloatArray],
    radii_px: tuple[float, float],
    colour: Colour,
) -> None:
    """Fill a shape between two points whose ends are round, each with a radius of its own."""
    side = across_of(ends[1] - ends[0])
    first, second = side * radii_px[0], side * radii_px[1]
    corners = np.stack([ends[0] + first, ends[1] + second, ends[1] - second, ends[0] - first])
    fill_polygon(canvas, corners, colour)
    for end, radius in zip(ends, radii_px, strict=True):
        fill_disc(canvas, end, radius, colour)


def draw_limb(
    canvas: FrameArray,
    ends: tuple[FloatArray, FloatArray],
    radii_px: tuple[float, float],
    colour: Colour,
    light: float,
) -> None:
    """Fill a limb that looks round: darker on the left for light 1, on the right for light -1."""
    fill_limb(canvas, ends, radii_px, shade(colour, 0.72))
    offset = np.array([0.28 * light, -0.12]) * max(radii_px)
    inner = (ends[0] + offset, ends[1] + offset)
    fill_limb(canvas, inner, (radii_px[0] * 0.72, radii_px[1] * 0.72), colour)


def across_of(along: FloatArray) -> FloatArray:
    """Return the unit vector at a right angle to a vector in the picture."""
    return np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)


def hull_of(points: FloatArray) -> FloatArray:
    """Return the corners of the smallest convex outline of points, shape (n, 2)."""
    cv2 = import_cv2()
    hull: FloatArray = cv2.convexHull(points.astype(np.float32))[:, 0].astype(np.float64)
    return hull
