"""Drawing one body: limbs as rounded, shaded shapes in clothes, far ones first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import numpy as np

from features.records import FloatArray, FrameArray
from pipeline.demo.drawing.brush import (
    Colour,
    across_of,
    draw_limb,
    fill_disc,
    fill_limb,
    fill_polygon,
    hull_of,
    shade,
)
from pipeline.demo.drawing.camera import View, project
from pipeline.demo.drawing.skeleton import JOINTS, Body
from pipeline.demo.drawing.wardrobe import Clothes

_AT = {name: index for index, name in enumerate(JOINTS)}


@dataclass(frozen=True, slots=True)
class Thing:
    """Something a figure handles, as it looks in the picture.

    Attributes
    ----------
    depth : float
        In legs, as `project` measures it.
    faces : tuple of (ndarray of float64, shape (n, 2), Colour)
        Polygons in pixels, drawn in this order.
    """

    depth: float
    faces: tuple[tuple[FloatArray, Colour], ...]


def draw_figure(
    canvas: FrameArray,
    joints: FloatArray,
    body: Body,
    clothes: Clothes,
    view: View,
    *,
    things: Sequence[Thing] = (),
) -> None:
    """Draw a body, and the things it handles, into a picture; far parts first.

    Parameters
    ----------
    canvas : ndarray of uint8, shape (height, width, 3)
        Blue, green, red; drawn into.
    joints : ndarray of float64, shape (len(JOINTS), 3)
        From `pipeline.demo.drawing.skeleton.place_joints`.
    body, clothes, view
    things : sequence of Thing, default ()
    """
    pixels, depths = project(joints, view)
    unit = view.leg_px * body.girth
    at = {name: pixels[index] for name, index in _AT.items()}
    depth = {name: float(depths[index]) for name, index in _AT.items()}
    nose = project(joints[[_AT["head"]]] + np.array([0.1, 0.0, 0.0]), view)[0][0]
    parts: list[tuple[float, Callable[[], None]]] = [
        (
            (depth["pelvis"] + depth["neck"]) / 2,
            partial(_draw_trunk, canvas, at, unit, clothes, view),
        ),
        (
            depth["head"],
            partial(_draw_head, canvas, at, nose, body.head * view.leg_px, clothes, view),
        ),
    ]
    for side in ("left", "right"):
        arm = (depth[f"{side}_elbow"] + depth[f"{side}_hand"]) / 2
        leg = (depth[f"{side}_hip"] + depth[f"{side}_knee"]) / 2
        parts.append((arm, partial(_draw_arm, canvas, at, side, unit, clothes, view.light)))
        parts.append((leg, partial(_draw_leg, canvas, at, side, unit, clothes, view.light)))
    for thing in things:
        parts.append((thing.depth, partial(_draw_thing, canvas, thing)))
    for _, draw in sorted(parts, key=itemgetter(0), reverse=True):
        draw()


def _draw_thing(canvas: FrameArray, thing: Thing) -> None:
    for corners, colour in thing.faces:
        fill_polygon(canvas, corners, colour)


def _draw_chain(
    canvas: FrameArray,
    points: list[FloatArray],
    radii: list[float],
    covered: float,
    colours: tuple[Colour, Colour],
    light: float,
) -> None:
    """Draw a limb of two parts in skin, and over it cloth that covers a length of it."""
    for index in (0, 1):
        ends, widths = (points[index], points[index + 1]), (radii[index], radii[index + 1])
        draw_limb(canvas, ends, widths, colours[0], light)
    for index in (0, 1):
        share = min(1.0, covered - index)
        if share > 0:
            end = points[index] + share * (points[index + 1] - points[index])
            width = radii[index] + share * (radii[index + 1] - radii[index])
            widths = (radii[index] * 1.15, width * 1.2)
            draw_limb(canvas, (points[index], end), widths, colours[1], light)


def _draw_arm(
    canvas: FrameArray,
    at: dict[str, FloatArray],
    side: str,
    unit: float,
    clothes: Clothes,
    light: float,
) -> None:
    points = [at[f"{side}_{name}"] for name in ("shoulder", "elbow", "hand")]
    radii = [0.058 * unit, 0.046 * unit, 0.034 * unit]
    _draw_chain(canvas, points, radii, clothes.sleeve, (clothes.skin, clothes.shirt), light)
    fill_disc(canvas, points[2], 0.05 * unit, clothes.skin)


def _draw_leg(
    canvas: FrameArray,
    at: dict[str, FloatArray],
    side: str,
    unit: float,
    clothes: Clothes,
    light: float,
) -> None:
    points = [at[f"{side}_{name}"] for name in ("hip", "knee", "foot")]
    radii = [0.09 * unit, 0.066 * unit, 0.045 * unit]
    draw_limb(
        canvas, (points[2], at[f"{side}_toe"]), (0.05 * unit, 0.036 * unit), clothes.shoes, light
    )
    covered = 0.4 if clothes.has_skirt else clothes.leg
    _draw_chain(canvas, points, radii, covered, (clothes.skin, clothes.trousers), light)


def _draw_trunk(
    canvas: FrameArray, at: dict[str, FloatArray], unit: float, clothes: Clothes, view: View
) -> None:
    hips = (at["left_hip"] + at["right_hip"]) / 2
    across_top = at["left_shoulder"] - at["right_shoulder"]
    across_low = at["left_hip"] - at["right_hip"]
    draw_limb(
        canvas, (at["neck"], at["head"]), (0.055 * unit, 0.05 * unit), clothes.skin, view.light
    )
    if clothes.has_skirt:
        knees = (at["left_knee"] + at["right_knee"]) / 2
        spread = at["left_knee"] - at["right_knee"]
        hem = hips + 0.85 * (knees - hips)
        side = across_of(knees - hips) * 0.17 * unit
        corners = [
            hips + side * 0.6,
            hem + side + spread / 2,
            hem - side - spread / 2,
            hips - side * 0.6,
        ]
        hull = hull_of(np.stack([*corners, hem + side - spread / 2, hem - side + spread / 2]))
        fill_polygon(canvas, hull, shade(clothes.trousers, 0.85))
    draw_limb(
        canvas,
        (at["left_hip"], at["right_hip"]),
        (0.1 * unit, 0.1 * unit),
        clothes.trousers,
        view.light,
    )
    for factor, shift in ((0.72, 0.0), (1.0, 0.03 * view.light * unit)):
        outline = _trunk_outline(
            at, across_top, across_low, 0.1 * unit * (1.0 if factor < 1 else 0.78)
        )
        fill_polygon(canvas, outline + np.array([shift, 0.0]), shade(clothes.shirt, factor))
    _draw_pattern(canvas, at["neck"], hips, across_top, unit, clothes)


def _trunk_outline(
    at: dict[str, FloatArray], across_top: FloatArray, across_low: FloatArray, margin: float
) -> FloatArray:
    """Wrap circles at the shoulders and the hips, seen from any side, in one outline."""
    circle = np.linspace(0, 2 * np.pi, 13)[:-1]
    ring = np.stack([np.cos(circle), np.sin(circle)], axis=1)
    middles = [at["left_shoulder"], at["right_shoulder"]]
    low = (at["left_hip"] + at["right_hip"]) / 2
    middles += [low + across_low * 0.35, low - across_low * 0.35]
    sizes = (0.72, 0.72, 1.0, 1.0)
    points = [middle + ring * margin * size for middle, size in zip(middles, sizes, strict=True)]
    return hull_of(np.concatenate(points))


def _draw_pattern(
    canvas: FrameArray,
    neck: FloatArray,
    hips: FloatArray,
    across: FloatArray,
    unit: float,
    clothes: Clothes,
) -> None:
    if clothes.pattern == "plain":
        return
    side = across_of(hips - neck)
    half = side * (0.085 * unit + 0.33 * float(abs(across @ side)))
    shares = {"stripes": (0.2, 0.4, 0.6, 0.8), "band": (0.4,), "buttons": (0.2, 0.4, 0.6, 0.8)}
    for share in shares[clothes.pattern]:
        middle = neck + share * (hips - neck)
        if clothes.pattern == "buttons":
            fill_disc(canvas, middle, 0.02 * unit, clothes.accent)
        else:
            width = (0.05 if clothes.pattern == "band" else 0.022) * unit
            fill_limb(canvas, (middle - half, middle + half), (width, width), clothes.accent)


def _draw_head(
    canvas: FrameArray,
    at: dict[str, FloatArray],
    facing: FloatArray,
    radius: float,
    clothes: Clothes,
    view: View,
) -> None:
    head = at["head"]
    up = (head - at["neck"]) / max(float(np.hypot(*(head - at["neck"]))), 1e-6)
    front = (facing - head) / (0.1 * view.leg_px)
    back = head - front * 0.3 * radius
    sees_face = np.sin(view.heading) < 0.3
    if clothes.hair_style in ("long", "bun"):
        end = back - up * (1.3 if clothes.hair_style == "long" else -0.2) * radius
        fill_limb(canvas, (back, end), (radius * 0.98, radius * 0.7), clothes.hair)
    draw_limb(
        canvas, (head - up * 0.25 * radius, head + up * 0.2 * radius),
        (radius * 0.78, radius * 0.88), clothes.skin, view.light,
    )  # fmt: skip
    if clothes.hair_style != "bald":
        covering = shade(clothes.accent, 0.9) if clothes.hair_style == "cap" else clothes.hair
        crown = head + up * 0.42 * radius - front * 0.25 * radius
        fill_disc(canvas, crown, 0.74 * radius, covering)
        if clothes.hair_style == "bun":
            fill_disc(
                canvas, crown + up * 0.8 * radius - front * 0.3 * radius, 0.4 * radius, covering
            )
        if clothes.hair_style == "cap":
            visor = crown - up * 0.15 * radius
            fill_limb(
                canvas,
                (visor, visor + front * 1.1 * radius),
                (0.2 * radius, 0.14 * radius),
                covering,
            )
        if not sees_face:
            fill_disc(canvas, head, 0.86 * radius, covering)
    if sees_face:
        across = np.array([-up[1], up[0]])
        for sign in (-1.0, 1.0):
            eye = (
                head
                + front * 0.6 * radius
                + sign * across * 0.3 * radius * abs(np.sin(view.heading))
            )
            fill_disc(canvas, eye, 0.085 * radius, (20, 20, 20))
