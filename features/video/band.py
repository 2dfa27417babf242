"""The band below a video that says what a head predicts, as one picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from features.records import FrameArray

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
    """What the band says: a small header, and the classes, the most probable one first."""

    header: str
    rows: tuple[tuple[str, float], ...]  # class, and probability within [0, 1]
    font: str  # paths of font files that have every character
    bold_font: str


def render_band(caption: Caption, width_px: int) -> FrameArray:
    """Draw a band as wide as a video: RGB, its even height by width and number of rows only."""
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
