"""A copy of a video with a band below it that says what a head predicts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import OutputUnwritable
from features.records import FrameArray, VideoFacts
from features.video.decode import WHOLE, Span, count_frames, read_pictures
from features.video.frames import import_cv2
from features.video.write import FORMATS, writing_video

OVERLAY_SUFFIXES = tuple(FORMATS)
# Narrower videos are enlarged by a whole number, so that there is room to read.
LEAST_WIDTH_PX = 320
_FPS_RANGE = (1.0, 240.0)
_USUAL_FPS = 25.0

_BACKGROUND = (24, 26, 31)
_TROUGH = (58, 62, 71)
_FIRST = (255, 196, 77)
_OTHERS = (121, 168, 218)
_TEXT = (245, 245, 245)
_FAINT = (168, 174, 184)
# Below it, letters run together; above it, nobody needs more.
_FONT_PX = (13, 44)
_ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


@dataclass(frozen=True, slots=True)
class Caption:
    """What the band says."""

    header: str  # one line of small text
    rows: tuple[tuple[str, float], ...]  # classes and probabilities, the most probable first
    font: str  # path of a font file that has every character
    bold_font: str


def write_overlay(
    source: Path,
    target: Path,
    caption: Caption,
    *,
    on_progress: Callable[[], None],
    span: Span = WHOLE,
    frame_rate: float | None = None,
) -> VideoFacts:
    """Copy a video, every frame at the source's frame rate, with a band below; return its facts.

    Of a span, only that part is copied.

    The target's suffix, of `OVERLAY_SUFFIXES`, decides container and codec. Sound is not copied,
    and without a usable frame rate it becomes 25. `VideoUnreadable` if the source does not
    decode, `OutputUnwritable` if the target lacks frames when it is done.
    """
    cv2 = import_cv2()
    facts = VideoFacts()
    canvas: FrameArray | None = None
    size = (0, 0)
    n_pictures = 0
    pictures = read_pictures(source, span=span, on_progress=on_progress, frame_rate=frame_rate)
    with ExitStack() as stack:
        for item in pictures:
            if isinstance(item, VideoFacts):
                facts = item
                continue
            if canvas is None:
                height, width = item.shape[:2]
                scale = max(1, -(-LEAST_WIDTH_PX // width))
                size = (width * scale, height * scale)
                canvas = _make_canvas(size, caption)
                is_usual = _FPS_RANGE[0] <= facts.fps_header <= _FPS_RANGE[1]
                rate = facts.fps_header if is_usual else _USUAL_FPS
                write = stack.enter_context(writing_video(target, rate))
            if item.shape[1::-1] != size:  # enlarged, or a size that changed in mid-stream
                item = cv2.resize(item, size, interpolation=cv2.INTER_LINEAR)
            canvas[: size[1], : size[0]] = item
            write(canvas)
            n_pictures += 1
    n_written = count_frames(target, on_progress=on_progress)
    if n_written != n_pictures:
        raise OutputUnwritable(
            f"an overlay must hold every frame; {n_written} of {n_pictures} were written: is the "
            "disk full?"
        )
    return facts


def _make_canvas(size: tuple[int, int], caption: Caption) -> FrameArray:
    # Codecs that halve the colours' resolution want even sides.
    width, height = size[0] + size[0] % 2, size[1] + size[1] % 2
    band = render_band(caption, width)
    picture = np.zeros((height, width, 3), np.uint8)
    canvas: FrameArray = np.concatenate([picture, band[:, :, ::-1]])
    return canvas


def render_band(caption: Caption, width_px: int) -> FrameArray:
    """Draw a band as wide as a video, in RGB; too long a text ends in an ellipsis.

    Its height, which is even, depends on the width and the number of rows only.
    """
    from PIL import Image, ImageDraw, ImageFont

    font_px = min(max(round(width_px / 24), _FONT_PX[0]), _FONT_PX[1])
    fonts = [ImageFont.truetype(name, font_px) for name in (caption.bold_font, caption.font)]
    small = ImageFont.truetype(caption.font, max(_FONT_PX[0] - 2, round(font_px * 0.8)))
    line_px, margin = round(font_px * 1.5), round(font_px * 0.5)
    height_px = line_px * (len(caption.rows) + 1) + margin
    image = Image.new("RGB", (width_px, height_px + height_px % 2), _BACKGROUND)
    draw = ImageDraw.Draw(image)
    most_px = width_px - 2 * margin
    middle = margin // 2 + line_px // 2
    draw.text(
        (margin, middle), _shorten(caption.header, small, most_px), _FAINT, small, anchor="lm"
    )
    percent_px = round(fonts[0].getlength("100.0%"))
    label_px = round((most_px - percent_px) * 0.5)
    left = 2 * margin + label_px
    right = width_px - 2 * margin - percent_px
    for number, (label, probability) in enumerate(caption.rows):
        middle += line_px
        font = fonts[min(number, 1)]
        color = _TEXT if number == 0 else _FAINT
        draw.text((margin, middle), _shorten(label, font, label_px), color, font, anchor="lm")
        draw.text((width_px - margin, middle), f"{probability:.1%}", color, font, anchor="rm")
        _draw_bar(draw, (left, right), middle, font_px // 3, probability, is_first=number == 0)
    band: FrameArray = np.asarray(image).copy()
    return band


def _draw_bar(
    draw: Any, ends: tuple[int, int], middle: int, half_px: int, share: float, *, is_first: bool
) -> None:
    left, right = ends
    if right <= left:
        return  # so narrow a video has room for text only
    draw.rectangle((left, middle - half_px, right, middle + half_px), _TROUGH)
    reached = left + round((right - left) * min(max(share, 0.0), 1.0))
    if reached > left:
        color = _FIRST if is_first else _OTHERS
        draw.rectangle((left, middle - half_px, reached, middle + half_px), color)


def _shorten(text: str, font: Any, most_px: int) -> str:
    if font.getlength(text) <= most_px:
        return text
    while text and font.getlength(text + _ELLIPSIS) > most_px:
        text = text[:-1]
    return text + _ELLIPSIS
