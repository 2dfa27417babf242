"""What is around a figure: backgrounds, and things in front of it."""

from __future__ import annotations

import numpy as np

from features.records import FloatArray, FrameArray
from features.video.frames import import_cv2
from pipeline.demo.drawing.brush import Colour, fill_disc, fill_polygon, random_colour, shade

_KINDS = ("gradient", "noise", "room", "street", "field", "leaves")


def draw_background(
    generator: np.random.Generator, width_px: int, height_px: int, horizon_px: float
) -> FrameArray:
    """Draw a place: a gradient, a texture, a room, a street, a field or a heap of shapes."""
    kind = _KINDS[generator.integers(len(_KINDS))]
    canvas = draw_gradient(generator, width_px, height_px)
    if kind == "noise":
        canvas = draw_noise(generator, width_px, height_px)
    elif kind == "leaves":
        draw_leaves(generator, canvas, n_shapes=int(generator.integers(15, 60)))
    elif kind != "gradient":
        places = {"room": _draw_room, "street": _draw_street, "field": _draw_field}
        places[kind](generator, canvas, horizon_px)
    return _roughen(generator, canvas)


def soften(canvas: FrameArray, *, contrast: float) -> FrameArray:
    """Lower the contrast of a picture and keep its mean colour; 1 changes nothing."""
    mean = canvas.mean(axis=(0, 1), dtype=np.float32)
    softened: FrameArray = (mean + contrast * (canvas - mean)).clip(0, 255).astype(np.uint8)
    return softened


def draw_gradient(generator: np.random.Generator, width_px: int, height_px: int) -> FrameArray:
    """Draw a smooth transition between four colours in the corners."""
    cv2 = import_cv2()
    first = np.array(random_colour(generator))
    others = [np.array(random_colour(generator)) for _ in range(3)]
    strength = generator.uniform(0.1, 1.0)
    corners = [first, *(first + strength * (other - first) for other in others)]
    small = np.array(corners, np.float32).reshape(2, 2, 3)
    wide = cv2.resize(small, (width_px, height_px), interpolation=cv2.INTER_LINEAR)
    gradient: FrameArray = wide.astype(np.uint8)
    return gradient


def draw_noise(generator: np.random.Generator, width_px: int, height_px: int) -> FrameArray:
    """Draw a texture: random fields of several sizes, stretched one way, in two colours."""
    cv2 = import_cv2()
    field = np.zeros((height_px, width_px), np.float32)
    slope = generator.uniform(0.3, 1.1)
    stretch = 2.0 ** generator.uniform(-2, 2)
    for octave in range(1, 7):
        n_x = max(2, min(width_px, round(2**octave * np.sqrt(stretch))))
        n_y = max(2, min(height_px, round(2**octave / np.sqrt(stretch))))
        coarse = generator.standard_normal((n_y, n_x)).astype(np.float32)
        field += 2 ** (-slope * octave) * cv2.resize(
            coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC
        )
    if generator.random() < 0.3:
        field = np.abs(field) if generator.random() < 0.5 else np.sin(6 * field)
    field = (field - field.min()) / max(float(np.ptp(field)), 1e-6)
    dark, light = (np.array(random_colour(generator), np.float32) for _ in range(2))
    texture: FrameArray = (dark + field[..., None] * (light - dark)).astype(np.uint8)
    return texture


def draw_leaves(generator: np.random.Generator, canvas: FrameArray, *, n_shapes: int) -> None:
    """Heap up shapes of all sizes, as the "dead leaves" of Baradad et al., NeurIPS 2021."""
    height_px, width_px = canvas.shape[:2]
    palette = [random_colour(generator) for _ in range(generator.integers(2, 9))]
    for _ in range(n_shapes):
        middle = generator.uniform(0, 1, 2) * [width_px, height_px]
        radius = height_px * min(0.35, 0.03 / generator.uniform(0.05, 1.0))
        colour = shade(palette[generator.integers(len(palette))], generator.uniform(0.8, 1.2))
        if generator.random() < 0.35:
            fill_disc(canvas, middle, radius, colour)
        else:
            fill_polygon(canvas, middle + radius * _random_polygon(generator), colour)


def draw_occluder(
    generator: np.random.Generator, width_px: int, height_px: int
) -> list[tuple[FloatArray, Colour]]:
    """Choose something in front of the figure, a post, a rail or a bush, as polygons in pixels."""
    colour = random_colour(generator)
    x = generator.choice([generator.uniform(0.0, 0.36), generator.uniform(0.64, 1.0)]) * width_px
    size = generator.uniform(0.03, 0.09) * width_px
    kind = generator.integers(3)
    if kind == 0:
        return [(_box(x - size / 2, 0, x + size / 2, height_px), colour)]
    if kind == 1:
        y = generator.uniform(0.72, 0.86) * height_px
        rail = [(_box(0, y, width_px, y + size * 0.4), colour)]
        step = width_px / generator.integers(3, 6)
        posts = np.arange(generator.uniform(0, step), width_px, step)
        return rail + [(_box(p, y, p + size * 0.3, height_px), shade(colour, 0.8)) for p in posts]
    leaves = []
    for _ in range(12):
        offset = generator.uniform(-1, 1, 2) * size * [2.2, 2.6]
        leaf = np.array([x, height_px - 2 * size]) + offset + size * _random_polygon(generator)
        leaves.append((leaf, shade(colour, generator.uniform(0.6, 1.2))))
    return leaves


def _random_polygon(generator: np.random.Generator) -> FloatArray:
    """Return corners around the origin, about 1 away from it, often long and thin."""
    angles = np.sort(generator.uniform(0, 2 * np.pi, generator.integers(3, 8)))
    ring = np.stack([np.cos(angles), np.sin(angles) * generator.uniform(0.15, 1.0)], axis=1)
    turn = generator.uniform(0, np.pi)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned: FloatArray = ring @ matrix
    return turned


def _box(left: float, top: float, right: float, bottom: float) -> FloatArray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def _draw_room(generator: np.random.Generator, canvas: FrameArray, horizon_px: float) -> None:
    height_px, width_px = canvas.shape[:2]
    floor = random_colour(generator)
    fill_polygon(canvas, _box(-2, horizon_px, width_px + 2, height_px + 2), floor)
    if generator.random() < 0.6:  # floor boards or tiles that run to a point on the wall
        vanishing = np.array([generator.uniform(0.2, 0.8) * width_px, horizon_px - height_px / 3])
        for x in np.linspace(-width_px, 2 * width_px, int(generator.integers(8, 24))):
            low = np.array([x, height_px])
            share = (height_px - horizon_px) / (height_px - vanishing[1])
            high = low + share * (vanishing - low)
            board = np.stack([low, low + np.array([2.0, 0.0]), high])
            fill_polygon(canvas, board, shade(floor, 0.8))
    skirting = _box(-2, horizon_px - 4, width_px + 2, horizon_px)
    fill_polygon(canvas, skirting, shade(floor, 0.6))
    for _ in range(generator.integers(0, 5)):  # pictures, windows, doors, cupboards
        left = generator.uniform(-0.1, 0.95) * width_px
        wide = generator.uniform(0.08, 0.3) * width_px
        top = generator.uniform(0.02, 0.5) * horizon_px
        bottom = horizon_px
        if generator.random() >= 0.4:
            bottom = top + generator.uniform(0.2, 0.5) * horizon_px
        frame, pane = random_colour(generator), random_colour(generator)
        rim = 0.012 * width_px
        fill_polygon(canvas, _box(left, top, left + wide, bottom), frame)
        fill_polygon(canvas, _box(left + rim, top + rim, left + wide - rim, bottom - rim), pane)
        if generator.random() < 0.5:
            fill_polygon(canvas, _box(left + wide / 2, top, left + wide / 2 + rim, bottom), frame)


def _draw_street(generator: np.random.Generator, canvas: FrameArray, horizon_px: float) -> None:
    height_px, width_px = canvas.shape[:2]
    x = -generator.uniform(0, 0.2) * width_px
    while x < width_px:
        wide = generator.uniform(0.12, 0.4) * width_px
        top = generator.uniform(-0.1, 0.7) * horizon_px
        wall, window = random_colour(generator), random_colour(generator)
        fill_polygon(canvas, _box(x, top, x + wide, horizon_px), wall)
        step, size = generator.uniform(0.05, 0.1) * width_px, generator.uniform(0.4, 0.7)
        for left in np.arange(x + step * 0.4, x + wide - step * size, step):
            for high in np.arange(top + step * 0.5, horizon_px - step, step * 1.3):
                pane = _box(left, high, left + step * size, high + step * size)
                fill_polygon(canvas, pane, window)
        x += wide + generator.uniform(0, 0.08) * width_px
    road = shade((128, 128, 128), generator.uniform(0.4, 1.5))
    fill_polygon(canvas, _box(-2, horizon_px, width_px + 2, height_px + 2), road)
    kerb = horizon_px + generator.uniform(0.05, 0.3) * (height_px - horizon_px)
    fill_polygon(canvas, _box(-2, horizon_px, width_px + 2, kerb), shade(road, 1.25))


def _draw_field(generator: np.random.Generator, canvas: FrameArray, horizon_px: float) -> None:
    height_px, width_px = canvas.shape[:2]
    ground = draw_noise(generator, width_px, height_px)
    line = horizon_px + np.cumsum(generator.normal(0, 0.6, width_px))
    below = np.arange(height_px)[:, None] > line
    canvas[below] = ground[below]
    for _ in range(generator.integers(0, 7)):
        foot = np.array([generator.uniform(0, 1) * width_px, horizon_px + generator.uniform(-3, 5)])
        tall = generator.uniform(0.1, 0.5) * height_px
        trunk, crown = random_colour(generator), random_colour(generator)
        side = np.array([0.06 * tall, 0.0])
        fill_polygon(canvas, np.stack([foot - side, foot + side, foot - [0, tall]]), trunk)
        for _ in range(9):
            leaf = foot - [0, tall] + generator.normal(0, 0.2 * tall, 2)
            fill_disc(canvas, leaf, 0.17 * tall, shade(crown, generator.uniform(0.7, 1.2)))


def _roughen(generator: np.random.Generator, canvas: FrameArray) -> FrameArray:
    """Give surfaces a grain, and put the background out of focus now and then."""
    cv2 = import_cv2()
    height_px, width_px = canvas.shape[:2]
    if generator.random() < 0.5:
        grain = draw_noise(generator, width_px, height_px).astype(np.float32)
        share = generator.uniform(0.05, 0.4)
        canvas = (canvas + share * (grain - grain.mean())).clip(0, 255).astype(np.uint8)
    if generator.random() < 0.4:
        canvas = cv2.GaussianBlur(canvas, (0, 0), generator.uniform(0.5, 2.0))
    return canvas
