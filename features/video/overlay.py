"""Writing a copy of a video with a band below it; what a decode worker does for an overlay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from features.errors import OutputUnwritable
from features.records import FrameArray, VideoFacts
from features.video.band import Caption, render_band
from features.video.decode import count_frames, read_pictures
from features.video.frames import import_cv2
from features.video.write import FORMATS, writing_video

OVERLAY_SUFFIXES = tuple(FORMATS)
# Narrower videos are enlarged by a whole number, so that there is room to read.
LEAST_WIDTH_PX = 320
_FPS_RANGE = (1.0, 240.0)
_USUAL_FPS = 25.0


def write_overlay(
    source: Path, target: Path, caption: Caption, *, on_progress: Callable[[], None]
) -> VideoFacts:
    """Copy a video, every frame at the source's frame rate, with a band below; return its facts.

    The target's suffix, of `OVERLAY_SUFFIXES`, decides container and codec. Sound is not copied,
    and without a usable frame rate it becomes 25. `VideoUnreadable` if the source does not
    decode, `OutputUnwritable` if the target lacks frames when it is done.
    """
    cv2 = import_cv2()
    facts = VideoFacts()
    canvas: FrameArray | None = None
    size = (0, 0)
    with ExitStack() as stack:
        for item in read_pictures(source, on_progress=on_progress):
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
    n_written = count_frames(target, on_progress=on_progress)
    if n_written != facts.n_frames_decoded:
        raise OutputUnwritable(
            f"an overlay must hold every frame; {n_written} of {facts.n_frames_decoded} were "
            "written: is the disk full?"
        )
    return facts


def _make_canvas(size: tuple[int, int], caption: Caption) -> FrameArray:
    # Codecs that halve the colours' resolution want even sides.
    width, height = size[0] + size[0] % 2, size[1] + size[1] % 2
    band = render_band(caption, width)
    picture = np.zeros((height, width, 3), np.uint8)
    canvas: FrameArray = np.concatenate([picture, band[:, :, ::-1]])
    return canvas
