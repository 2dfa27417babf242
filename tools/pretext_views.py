"""Two different views of each drawn picture: crops, mirrors, mixtures, colours, blur, grain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pretext_pool import POOL_PX, Floats, Pictures

from features.records import FloatArray, FrameArray
from features.video.frames import import_cv2
from pipeline.demo.drawing.skeleton import JOINTS

# Of the views of pictures without people.
_MIXED_SHARE = 0.4
_MIRRORED = [
    JOINTS.index(name.replace("left", "?").replace("right", "left").replace("?", "right"))
    for name in JOINTS
]


def make_views(
    pictures: Pictures, chosen: Iterator[int], size_px: int, generator: np.random.Generator
) -> Pictures:
    """Cut one random view out of each chosen picture.

    Parameters
    ----------
    pictures : Pictures
    chosen : iterator of int
        Rows of `pictures`, with repeats if wanted.
    size_px : int
    generator : numpy.random.Generator

    Returns
    -------
    Pictures
        Frames of `size_px`; joints and heading as they are in the view.
    """
    rows = np.fromiter(chosen, np.int64)
    views = Pictures(
        frames=np.empty((len(rows), size_px, size_px, 3), np.uint8),
        joints=pictures.joints[rows],
        heading=pictures.heading[rows],
        moments=pictures.moments[rows],
        categories=pictures.categories[rows],
    )
    for at, row in enumerate(rows):
        has_figure = views.moments[at] >= 0
        stretch = np.exp(generator.uniform(-0.1, 0.1, 2))
        if has_figure:
            corner, extent = _frame_figure(views.joints[at], stretch, generator)
        else:
            extent = (generator.uniform(0.35, 1.0) * stretch).clip(max=1.0)
            corner = generator.uniform(0, 1, 2) * (1 - extent)
        is_mirrored = generator.random() < 0.5
        views.frames[at] = _cut(pictures.frames[row], corner, extent, size_px, is_mirrored)
        if not has_figure and generator.random() < _MIXED_SHARE:
            other = pictures.frames[generator.integers(len(pictures.frames))]
            views.frames[at] = _mix(views.frames[at], other[:size_px, :size_px], generator)
        views.frames[at] = _recolour(views.frames[at], generator)
        if has_figure:
            views.joints[at] = (views.joints[at] - corner) / extent
            if is_mirrored:
                views.joints[at] = views.joints[at, _MIRRORED] * [-1, 1] + [1, 0]
                views.heading[at, 0] *= -1
    return views


def _frame_figure(
    joints: Floats, stretch: FloatArray, generator: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Choose a part of the picture that holds the figure, often closely.

    Closely framed figures at 64 pixels are as large as those in whole pictures at 96.
    """
    low, high = joints.min(axis=0), joints.max(axis=0)
    side = max(float((high - low).max()), 0.1) * generator.uniform(1.2, 1.9)
    extent = (side * stretch).clip(max=1.0)
    corner = (low + high) / 2 - extent * generator.uniform(0.38, 0.62, 2)
    return corner.clip(0, 1 - extent), extent


def _cut(
    frame: FrameArray, corner: FloatArray, extent: FloatArray, size_px: int, is_mirrored: bool
) -> FrameArray:
    cv2 = import_cv2()
    scale = size_px / (extent * POOL_PX)
    shift = -corner * POOL_PX * scale
    if is_mirrored:
        scale, shift = scale * [-1, 1], shift * [-1, 1] + [size_px - 1, 0]
    matrix = np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]])
    if scale[1] < 0.75:
        frame = cv2.blur(frame, (2, 2))
    view: FrameArray = cv2.warpAffine(
        frame, matrix, (size_px, size_px), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return view


def _mix(view: FrameArray, other: FrameArray, generator: np.random.Generator) -> FrameArray:
    """Put half of another picture beside this one, or let it shine through.

    A category is still told by what is left of its fractal.
    """
    cv2 = import_cv2()
    if generator.random() < 0.5:
        share = generator.uniform(0.55, 0.85)
        blend: FrameArray = cv2.addWeighted(view, share, other, 1 - share, 0)
        return blend
    side = int(len(view) * generator.uniform(0.2, 0.5))
    mixed = view.copy() if generator.random() < 0.5 else view.transpose(1, 0, 2).copy()
    mixed[:, :side] = other[:, :side]
    return mixed


def _recolour(view: FrameArray, generator: np.random.Generator) -> FrameArray:
    cv2 = import_cv2()
    gain = generator.uniform(0.75, 1.3) * generator.uniform(0.88, 1.14, 3)
    offset = generator.uniform(-18, 18)
    table = np.arange(256)[:, None] * gain + offset
    view = cv2.LUT(view, table.clip(0, 255).astype(np.uint8)[None])
    if generator.random() < 0.1:
        view = cv2.cvtColor(cv2.cvtColor(view, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if generator.random() < 0.15:
        view = cv2.GaussianBlur(view, (0, 0), generator.uniform(0.4, 1.0))
    if generator.random() < 0.15:
        grain = generator.standard_normal(view.shape, np.float32) * generator.uniform(2, 10)
        view = (view + grain).clip(0, 255).astype(np.uint8)
    return view
