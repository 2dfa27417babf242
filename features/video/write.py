"""Pictures in, a video file out: overlays, and clips that are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from features.errors import OutputUnwritable
from features.records import FrameArray
from features.video.source import import_av


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """How a file is written."""

    codec: str
    pix_fmt: str
    options: Mapping[str, str]
    container_options: Mapping[str, str] = field(default_factory=dict)
    is_bt709: bool = False  # VP8 and Motion JPEG know BT.601 only
    is_interlaced: bool = False


# By suffix. This H.264 plays in every browser and player; VP8 is for where it may not be used.
FORMATS = {
    ".mp4": VideoFormat(
        "libx264",
        "yuv420p",
        {"preset": "veryfast", "crf": "20"},
        {"movflags": "+faststart"},
        is_bt709=True,
    ),
    ".webm": VideoFormat(
        "libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "5", "crf": "10", "b": "8M"}
    ),
    ".avi": VideoFormat("mjpeg", "yuvj420p", {"qmin": "1", "qmax": "1"}),
}
_BT709 = 1
_INTERLACED_FLAGS = 0x20040000  # of FFmpeg: interlaced DCT and motion


@contextmanager
def writing_video(
    target: Path, rate: float, *, form: VideoFormat | None = None
) -> Iterator[Callable[[FrameArray], None]]:
    """Yield what appends one BGR picture, uint8 of shape (height, width, 3), to a new file.

    The suffix decides the container, and among `FORMATS` the form, unless one is given; sides
    must be even. `OutputUnwritable` if the file cannot be written, a full disk included.
    """
    av = import_av()
    chosen = form or FORMATS[target.suffix.lower()]
    tick = 1 / Fraction(rate).limit_denominator(1001)
    n_written = 0
    stream: Any = None

    def write(picture: FrameArray) -> None:
        nonlocal n_written, stream
        if stream is None:
            stream = output.add_stream(chosen.codec, rate=1 / tick, options=dict(chosen.options))
            stream.height, stream.width = picture.shape[:2]
            stream.pix_fmt = chosen.pix_fmt
            context = stream.codec_context
            context.time_base = tick
            context.thread_count = 1
            if chosen.is_interlaced:
                context.flags |= _INTERLACED_FLAGS
            if chosen.is_bt709:
                context.colorspace = context.color_primaries = context.color_trc = _BT709
                context.color_range = 1
        frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
        matrix = "ITU709" if chosen.is_bt709 else "ITU601"
        frame = frame.reformat(format=chosen.pix_fmt, dst_colorspace=matrix, threads=1)
        frame.pts, frame.time_base = n_written, tick
        output.mux(stream.encode(frame))
        n_written += 1

    try:
        with av.open(str(target), "w", options=dict(chosen.container_options)) as output:
            yield write
            if stream is not None:
                output.mux(stream.encode(None))
    except av.error.FFmpegError as problem:
        if isinstance(problem, MemoryError):
            raise
        raise OutputUnwritable(f"writing the video failed: {problem.strerror}") from problem
