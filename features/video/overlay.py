"""Writing a copy of a video with a band below it; what a decode worker does for an overlay."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import OutputUnwritable
from features.records import FrameArray, VideoFacts
from features.video.band import Caption, render_band
from features.video.decode import count_frames, read_pictures
from features.video.frames import import_cv2

# No wheel of OpenCV has an encoder for H.264. VP9 looks the same, takes three times as long, and
# OpenCV does not pass on the options that make it quick (opencv issue 24570).
OVERLAY_CODECS = {".webm": "VP80", ".mp4": "mp4v", ".avi": "MJPG"}
# Narrower videos are enlarged by a whole number, so that there is room to read.
LEAST_WIDTH_PX = 320
_FPS_RANGE = (1.0, 240.0)
_USUAL_FPS = 25.0


def write_overlay(
    source: Path, target: Path, caption: Caption, *, on_progress: Callable[[], None]
) -> VideoFacts:
    """Copy a video, every frame at the source's frame rate, with a band below the picture.

    Sound is not copied. Where the header claims no usable frame rate, it becomes 25.

    Parameters
    ----------
    source : Path
    target : Path
        With a suffix of `OVERLAY_CODECS`, which decides container and codec.
    caption : Caption
    on_progress : callable
        Called once per frame, to show that work goes on.

    Returns
    -------
    VideoFacts
        Of the source.

    Raises
    ------
    VideoUnreadable
        If the source does not decode.
    OutputUnwritable
        If the target lacks frames when it is done.
    """
    facts = VideoFacts()
    with _writing(target) as write:
        for item in read_pictures(source, on_progress=on_progress):
            if isinstance(item, VideoFacts):
                facts = item
            else:
                write(item, facts.fps_header, caption)
    # OpenCV tells nobody that a disk is full.
    n_written = count_frames(target, on_progress=on_progress)
    if n_written != facts.n_frames_decoded:
        raise OutputUnwritable(
            f"an overlay must hold every frame; {n_written} of {facts.n_frames_decoded} were "
            "written: is the disk full?"
        )
    return facts


@contextmanager
def _writing(target: Path) -> Iterator[Callable[[FrameArray, float, Caption], None]]:
    """Yield what appends one picture, in OpenCV's order of colours."""
    cv2 = import_cv2()
    # OpenCV takes only UTF-8 names; the open folder has one.
    folder = os.open(target.parent, os.O_RDONLY) if _is_odd(target) else None
    name = str(target) if folder is None else f"/dev/fd/{folder}/{target.name}"
    writer: Any = None
    canvas: FrameArray = np.zeros((0, 0, 3), np.uint8)
    size = (0, 0)

    def write(picture: FrameArray, fps: float, caption: Caption) -> None:
        nonlocal writer, canvas, size
        if writer is None:
            height, width = picture.shape[:2]
            scale = max(1, -(-LEAST_WIDTH_PX // width))
            size = (width * scale, height * scale)
            canvas = _make_canvas(size, caption)
            shape = (canvas.shape[1], canvas.shape[0])
            rate = fps if _FPS_RANGE[0] <= fps <= _FPS_RANGE[1] else _USUAL_FPS
            codec = cv2.VideoWriter.fourcc(*OVERLAY_CODECS[target.suffix.lower()])
            writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, codec, rate, shape)
            if not writer.isOpened():
                raise OutputUnwritable(f"OpenCV cannot write '{target.suffix}' files here")
        if picture.shape[1::-1] != size:  # enlarged, or a size that changed in mid-stream
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
        canvas[: size[1], : size[0]] = picture
        writer.write(canvas)

    try:
        yield write
    finally:
        if writer is not None:
            writer.release()
        if folder is not None:
            os.close(folder)


def _make_canvas(size: tuple[int, int], caption: Caption) -> FrameArray:
    # Codecs that halve the colours' resolution want even sides.
    width, height = size[0] + size[0] % 2, size[1] + size[1] % 2
    band = render_band(caption, width)
    picture = np.zeros((height, width, 3), np.uint8)
    canvas: FrameArray = np.concatenate([picture, band[:, :, ::-1]])
    return canvas


def _is_odd(path: Path) -> bool:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False
