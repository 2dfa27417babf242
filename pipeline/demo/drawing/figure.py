"""One figure: what it wears, and its limbs as rounded, shaded shapes, far ones first."""

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
    random_colour,
    shade,
)
from pipeline.demo.drawing.skeleton import JOINTS, Body, View, project

_AT = {name: index for index, name in enumerate(JOINTS)}
# Light to dark; blue, green, red.
_SKINS = ((190, 215, 245), (165, 195, 235), (125, 165, 215), (85, 125, 180), (55, 85, 130))
_HAIRS = ((25, 25, 30), (30, 50, 75), (50, 85, 125), (90, 150, 190), (30, 60, 140), (170, 170, 170))


@dataclass(frozen=True, slots=True)
class Clothes:
    """What an actor wears, and the colours of skin and hair."""

    shirt: Colour
    accent: Colour
    trousers: Colour
    shoes: Colour
    skin: Colour
    hair: Colour
    sleeve: float  # how far sleeves reach: 0 to 2 parts of the arm
    leg: float  # how far trouser legs reach: 0 to 2 parts of the leg
    pattern: str  # plain, stripes, band or buttons
    hair_style: str  # bald, short, long, bun or cap
    has_skirt: bool


def draw_clothes(generator: np.random.Generator) -> Clothes:
    """Choose what an actor wears."""
    pick = generator.integers
    tan = generator.uniform(0.85, 1.1)
    skin = tuple(int(min(255, tan * part)) for part in _SKINS[pick(len(_SKINS))])
    return Clothes(
        shirt=random_colour(generator),
        accent=random_colour(generator),
        trousers=random_colour(generator),
        shoes=random_colour(generator),
        skin=(skin[0], skin[1], skin[2]),
        hair=_HAIRS[pick(len(_HAIRS))],
        sleeve=float(generator.choice([0.0, 0.8, 1.2, 2.0])),
        leg=float(generator.choice([0.5, 1.1, 2.0, 2.0, 2.0])),
        pattern=str(generator.choice(["plain", "plain", "stripes", "band", "buttons"])),
        hair_style=str(generator.choice(["bald", "short", "short", "long", "bun", "cap"])),
        has_skirt=bool(generator.random() < 0.15),
    )


@dataclass(frozen=True, slots=True)
class Thing:
    """Something a figure handles, as it looks in the picture."""

    depth: float  # in legs, as `project` measures it
    faces: tuple[tuple[FloatArray, Colour], ...]  # corners in pixels, drawn in this order


@dataclass(frozen=True, slots=True)
class _Sketch:
    """What every part of a figure is drawn with."""

    canvas: FrameArray
    at: dict[str, FloatArray]  # where the joints are, in pixels
    unit: float  # the width of a limb is a share of it
    clothes: Clothes
    view: View

    def limb(
        self, ends: tuple[FloatArray, FloatArray], radii_px: tuple[float, float], colour: Colour
    ) -> None:
        draw_limb(self.canvas, ends, radii_px, colour, self.view.light)


def draw_figure(
    canvas: FrameArray,
    joints: FloatArray,
    body: Body,
    clothes: Clothes,
    view: View,
    *,
    things: Sequence[Thing] = (),
) -> None:
    """Draw a body and the things it handles into a picture; `joints` as from `place_joints`."""
    pixels, depths = project(joints, view)
    at = {name: pixels[index] for name, index in _AT.items()}
    depth = {name: float(depths[index]) for name, index in _AT.items()}
    nose = project(joints[[_AT["head"]]] + np.array([0.1, 0.0, 0.0]), view)[0][0]
    sketch = _Sketch(canvas, at, view.leg_px * body.girth, clothes, view)
    parts: list[tuple[float, Callable[[], None]]] = [
        ((depth["pelvis"] + depth["neck"]) / 2, partial(_draw_trunk, sketch)),
        (depth["head"], partial(_draw_head, sketch, nose, body.head * view.leg_px)),
    ]
    for side in ("left", "right"):
        arm = (depth[f"{side}_elbow"] + depth[f"{side}_hand"]) / 2
        leg = (depth[f"{side}_hip"] + depth[f"{side}_knee"]) / 2
        parts.append((arm, partial(_draw_arm, sketch, side)))
        parts.append((leg, partial(_draw_leg, sketch, side)))
    parts += [(thing.depth, partial(_draw_thing, canvas, thing)) for thing in things]
    for _, draw in sorted(parts, key=itemgetter(0), reverse=True):
        draw()


def _draw_thing(canvas: FrameArray, thing: Thing) -> None:
    for corners, colour in thing.faces:
        fill_polygon(canvas, corners, colour)


def _draw_chain(
    sketch: _Sketch,
    names: tuple[str, ...],
    shares: tuple[float, ...],
    covered: float,
    cloth: Colour,
) -> None:
    """Draw a limb of two parts in skin, and over it cloth that covers a length of it."""
    points = [sketch.at[name] for name in names]
    radii = [share * sketch.unit for share in shares]
    for index in (0, 1):
        ends, widths = (points[index], points[index + 1]), (radii[index], radii[index + 1])
        sketch.limb(ends, widths, sketch.clothes.skin)
    for index in (0, 1):
        share = min(1.0, covered - index)
        if share > 0:
            end = points[index] + share * (points[index + 1] - points[index])
            width = radii[index] + share * (radii[index + 1] - radii[index])
            sketch.limb((points[index], end), (radii[index] * 1.15, width * 1.2), cloth)


def _draw_arm(sketch: _Sketch, side: str) -> None:
    clothes = sketch.clothes
    names = (f"{side}_shoulder", f"{side}_elbow", f"{side}_hand")
    _draw_chain(sketch, names, (0.058, 0.046, 0.034), clothes.sleeve, clothes.shirt)
    fill_disc(sketch.canvas, sketch.at[f"{side}_hand"], 0.05 * sketch.unit, clothes.skin)


def _draw_leg(sketch: _Sketch, side: str) -> None:
    clothes, unit = sketch.clothes, sketch.unit
    sole = (sketch.at[f"{side}_foot"], sketch.at[f"{side}_toe"])
    sketch.limb(sole, (0.05 * unit, 0.036 * unit), clothes.shoes)
    covered = 0.4 if clothes.has_skirt else clothes.leg
    names = (f"{side}_hip", f"{side}_knee", f"{side}_foot")
    _draw_chain(sketch, names, (0.09, 0.066, 0.045), covered, clothes.trousers)


def _draw_trunk(sketch: _Sketch) -> None:
    at, unit, clothes, light = sketch.at, sketch.unit, sketch.clothes, sketch.view.light
    hips = (at["left_hip"] + at["right_hip"]) / 2
    sketch.limb((at["neck"], at["head"]), (0.055 * unit, 0.05 * unit), clothes.skin)
    if clothes.has_skirt:
        knees = (at["left_knee"] + at["right_knee"]) / 2
        spread = (at["left_knee"] - at["right_knee"]) / 2
        hem = hips + 0.85 * (knees - hips)
        side = across_of(knees - hips) * 0.17 * unit
        points = [hips + side * 0.6, hem + side + spread, hem - side - spread, hips - side * 0.6]
        points += [hem + side - spread, hem - side + spread]
        fill_polygon(sketch.canvas, hull_of(np.stack(points)), shade(clothes.trousers, 0.85))
    sketch.limb((at["left_hip"], at["right_hip"]), (0.1 * unit, 0.1 * unit), clothes.trousers)
    for factor, shift, width in ((0.72, 0.0, 1.0), (1.0, 0.03 * light * unit, 0.78)):
        outline = _trunk_outline(at, 0.1 * unit * width) + np.array([shift, 0.0])
        fill_polygon(sketch.canvas, outline, shade(clothes.shirt, factor))
    _draw_pattern(sketch, hips)


def _trunk_outline(at: dict[str, FloatArray], margin: float) -> FloatArray:
    """Wrap circles at the shoulders and the hips, seen from any side, in one outline."""
    circle = np.linspace(0, 2 * np.pi, 13)[:-1]
    ring = np.stack([np.cos(circle), np.sin(circle)], axis=1)
    low, across_low = (at["left_hip"] + at["right_hip"]) / 2, at["left_hip"] - at["right_hip"]
    middles = [at["left_shoulder"], at["right_shoulder"]]
    middles += [low + across_low * 0.35, low - across_low * 0.35]
    sizes = (0.72, 0.72, 1.0, 1.0)
    points = [middle + ring * margin * size for middle, size in zip(middles, sizes, strict=True)]
    return hull_of(np.concatenate(points))


def _draw_pattern(sketch: _Sketch, hips: FloatArray) -> None:
    at, unit, clothes = sketch.at, sketch.unit, sketch.clothes
    if clothes.pattern == "plain":
        return
    neck, across = at["neck"], at["left_shoulder"] - at["right_shoulder"]
    side = across_of(hips - neck)
    half = side * (0.085 * unit + 0.33 * float(abs(across @ side)))
    for share in (0.4,) if clothes.pattern == "band" else (0.2, 0.4, 0.6, 0.8):
        middle = neck + share * (hips - neck)
        if clothes.pattern == "buttons":
            fill_disc(sketch.canvas, middle, 0.02 * unit, clothes.accent)
        else:
            width = (0.05 if clothes.pattern == "band" else 0.022) * unit
            ends = (middle - half, middle + half)
            fill_limb(sketch.canvas, ends, (width, width), clothes.accent)


def _draw_head(sketch: _Sketch, facing: FloatArray, radius: float) -> None:
    canvas, clothes, view, head = sketch.canvas, sketch.clothes, sketch.view, sketch.at["head"]
    up = (head - sketch.at["neck"]) / max(float(np.hypot(*(head - sketch.at["neck"]))), 1e-6)
    front = (facing - head) / (0.1 * view.leg_px)
    back = head - front * 0.3 * radius
    sees_face = np.sin(view.heading) < 0.3
    if clothes.hair_style in ("long", "bun"):
        end = back - up * (1.3 if clothes.hair_style == "long" else -0.2) * radius
        fill_limb(canvas, (back, end), (radius * 0.98, radius * 0.7), clothes.hair)
    jaw, brow = head - up * 0.25 * radius, head + up * 0.2 * radius
    sketch.limb((jaw, brow), (radius * 0.78, radius * 0.88), clothes.skin)
    if clothes.hair_style != "bald":
        covering = shade(clothes.accent, 0.9) if clothes.hair_style == "cap" else clothes.hair
        crown = head + up * 0.42 * radius - front * 0.25 * radius
        fill_disc(canvas, crown, 0.74 * radius, covering)
        if clothes.hair_style == "bun":
            bun = crown + up * 0.8 * radius - front * 0.3 * radius
            fill_disc(canvas, bun, 0.4 * radius, covering)
        if clothes.hair_style == "cap":
            visor = crown - up * 0.15 * radius
            tip = visor + front * 1.1 * radius
            fill_limb(canvas, (visor, tip), (0.2 * radius, 0.14 * radius), covering)
        if not sees_face:
            fill_disc(canvas, head, 0.86 * radius, covering)
    if sees_face:
        across = np.array([-up[1], up[0]])
        for sign in (-1.0, 1.0):
            aside = sign * across * 0.3 * radius * abs(np.sin(view.heading))
            eye = head + front * 0.6 * radius + aside
            fill_disc(canvas, eye, 0.085 * radius, (20, 20, 20))
