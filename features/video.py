"""Decoding: the chosen frames of one video file, as square RGB pictures.

The only place of stage 1 that knows OpenCV. Decoding always runs forward from the
first frame: seeking is inexact in OpenCV and slower. The frame count in a header is
used as a guess that decoding then proves or refutes; it is never trusted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from features.errors import OpenCVBroken, VideoUnreadable
from features.records import FloatArray, FrameArray, FrameSampling, IntArray, VideoFacts
from features.sampling import make_frame_filter, sample_indices

_NO_PICTURE_HINT = (
    "play the file in another program; if it plays, re-encode it: "
    "ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4"
)


@dataclass(frozen=True, slots=True, repr=False)
class FrameBatch:
    """Some consecutive chosen frames of a clip.

    Attributes
    ----------
    frames : ndarray of uint8, shape (n, size_px, size_px, 3)
        RGB.
    timestamps_seconds : ndarray of float64, shape (n,)
    frame_indices : ndarray of int64, shape (n,)
        Positions among the decoded frames.
    """

    frames: FrameArray
    timestamps_seconds: FloatArray
    frame_indices: IntArray

    def __repr__(self) -> str:
        """Show the shape instead of pixels."""
        return f"FrameBatch(frames={self.frames.shape})"


@cache
def import_cv2() -> ModuleType:
    """Import OpenCV, quiet and single-threaded.

    Returns
    -------
    module
        ``cv2``.

    Raises
    ------
    OpenCVBroken
        If it cannot be imported, with the two ways to mend it.
    """
    # FFmpeg writes its complaints straight to the terminal; our reasons replace them.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    # A playlist disguised as a video must not make FFmpeg open other places.
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file,crypto,data")
    try:
        import cv2
    except ImportError as problem:
        raise OpenCVBroken(
            f"OpenCV must be importable. 'import cv2' failed: {problem}.",
            hint="either install the system libraries (Debian, Ubuntu: apt-get install libgl1 "
            "libglib2.0-0), or use the build without windows: pip uninstall -y opencv-python && "
            "pip install opencv-python-headless",
        ) from problem
    cv2.setNumThreads(1)  # clips are decoded side by side, so one clip keeps to one core
    module: ModuleType = cv2
    return module


def read_frames(
    path: Path,
    sampling: FrameSampling,
    *,
    size_px: int,
    most_frames: int = 32,
    on_progress: Callable[[], None] = lambda: None,
) -> Iterator[FrameBatch | VideoFacts]:
    """Decode the chosen frames of a video file.

    Parameters
    ----------
    path : Path
    sampling : FrameSampling
    size_px : int
        Side of the square pictures, pixels.
    most_frames : int, default 32
        Frames per batch, at most.
    on_progress : callable, optional
        Called once per decoded frame, to show that decoding is alive.

    Yields
    ------
    FrameBatch or VideoFacts
        Batches in the order of time, and last what the whole file showed.

    Raises
    ------
    VideoUnreadable
        If no frame decodes; then nothing was yielded.
    OpenCVBroken
        If OpenCV cannot be imported.
    """
    if sampling.strategy == "uniform":
        yield from _read_uniform(path, int(sampling.value), size_px, most_frames, on_progress)
        return
    is_wanted = make_frame_filter(sampling)
    frames = FrameBuffer(size_px, most_frames)
    with _open(path) as capture:
        facts = _header_facts(capture)
        n_decoded = 0
        for seconds in _grab_all(capture, on_progress):
            if is_wanted(n_decoded, seconds):
                frames.add(_retrieve(capture, path), seconds, n_decoded)
                if frames.is_full:
                    yield frames.take()
            n_decoded += 1
        facts = _decoded_facts(capture, facts, n_decoded, path)
    if not frames.is_empty:
        yield frames.take()
    yield facts


def resize_frame(picture: FrameArray, size_px: int) -> FrameArray:
    """Make a square of a picture: halve while it is twice too large, then bilinear.

    The whole picture is kept; its aspect ratio is not. Averaging 2 x 2 pixels is exact
    and fast, and leaves less than a factor of two to bilinear interpolation, which then
    hardly aliases. On 320 x 240 it costs a sixth of ``INTER_AREA``.

    Parameters
    ----------
    picture : ndarray of uint8, shape (height, width, 3)
        Channels in any order.
    size_px : int

    Returns
    -------
    ndarray of uint8, shape (size_px, size_px, 3)
    """
    cv2 = import_cv2()
    height, width = picture.shape[:2]
    while width >= 2 * size_px and height >= 2 * size_px:
        width, height = width // 2, height // 2
        # An odd last row or column is left out, so that the fast 2 x 2 average applies.
        picture = cv2.resize(
            picture[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA
        )
    resized: FrameArray = cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    return resized


class FrameBuffer:
    """Collects resized RGB frames until they are taken as one batch.

    Parameters
    ----------
    size_px : int
    capacity : int
        Frames it holds at most.
    """

    def __init__(self, size_px: int, capacity: int) -> None:
        self._size_px = size_px
        self._capacity = capacity
        self._reset()

    def _reset(self) -> None:
        shape = (self._capacity, self._size_px, self._size_px, 3)
        self._frames: FrameArray = np.empty(shape, np.uint8)
        self._seconds: list[float] = []
        self._indices: list[int] = []

    @property
    def is_full(self) -> bool:
        """Whether `take` must be called before the next `add`."""
        return len(self._indices) == self._capacity

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._indices

    def add(self, picture_bgr: FrameArray, seconds: float, frame_index: int) -> None:
        """Resize a decoded picture and turn it from OpenCV's BGR into RGB."""
        cv2 = import_cv2()
        target = self._frames[len(self._indices)]
        cv2.cvtColor(resize_frame(picture_bgr, self._size_px), cv2.COLOR_BGR2RGB, dst=target)
        self._seconds.append(seconds)
        self._indices.append(frame_index)

    def take(self) -> FrameBatch:
        """Return what was added and start anew."""
        batch = FrameBatch(
            self._frames[: len(self._indices)],
            np.array(self._seconds, np.float64),
            np.array(self._indices, np.int64),
        )
        self._reset()
        return batch


def _read_uniform(
    path: Path, n_wanted: int, size_px: int, most_frames: int, on_progress: Callable[[], None]
) -> Iterator[FrameBatch | VideoFacts]:
    # The header's count decides which frames the first pass keeps. Only if the true
    # count asks for other frames is the clip decoded once more.
    guess: IntArray | None = None
    for _ in range(3):
        with _open(path) as capture:
            facts = _header_facts(capture)
            if guess is None:
                claimed = max(facts.n_frames_header, 1)
                guess = sample_indices(claimed, n_wanted=n_wanted)
            batches, n_decoded = _collect(capture, path, guess, size_px, most_frames, on_progress)
            facts = _decoded_facts(capture, facts, n_decoded, path)
        wanted = sample_indices(n_decoded, n_wanted=n_wanted)
        if np.array_equal(wanted, guess[: len(wanted)]):
            # Every frame kept is wanted: what the guess adds lies behind the clip's end.
            yield from batches
            yield facts
            return
        guess = wanted
    raise VideoUnreadable(
        f"A clip must decode to the same number of frames each time. '{path}' does not."
    )


def _collect(
    capture: Any,
    path: Path,
    wanted: IntArray,
    size_px: int,
    most_frames: int,
    on_progress: Callable[[], None],
) -> tuple[list[FrameBatch], int]:
    batches: list[FrameBatch] = []
    frames = FrameBuffer(size_px, min(most_frames, max(len(wanted), 1)))
    keep = set(wanted.tolist())
    n_decoded = 0
    for seconds in _grab_all(capture, on_progress):
        if n_decoded in keep:
            frames.add(_retrieve(capture, path), seconds, n_decoded)
            if frames.is_full:
                batches.append(frames.take())
        n_decoded += 1
    if not frames.is_empty:
        batches.append(frames.take())
    return batches, n_decoded


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    cv2 = import_cv2()
    with _name_for_opencv(path) as name:
        # FFmpeg by name: other readers take "%02d" in a file name for an image sequence.
        options = [cv2.CAP_PROP_N_THREADS, 1]
        try:
            capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, options)
        except cv2.error as problem:
            raise VideoUnreadable(f"OpenCV refused the file: {problem.err}.") from problem
        try:
            if not capture.isOpened():
                raise VideoUnreadable(_why_not_opened(path), hint=_NO_PICTURE_HINT)
            yield capture
        finally:
            capture.release()


@contextmanager
def _name_for_opencv(path: Path) -> Iterator[str]:
    name = str(path.absolute())
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        # OpenCV takes only UTF-8 names; the open descriptor has one.
        descriptor = os.open(path, os.O_RDONLY)
        try:
            yield f"/dev/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        yield name


def _why_not_opened(path: Path) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(1)
    except OSError as problem:
        return f"the file cannot be opened: {problem.strerror or problem}"
    if not start:
        return "the file is empty (0 bytes)"
    return "no video stream in the file, or its header is missing or damaged"


def _grab_all(capture: Any, on_progress: Callable[[], None]) -> Iterator[float]:
    import cv2

    position = cv2.CAP_PROP_POS_MSEC
    while capture.grab():
        on_progress()
        yield capture.get(position) / 1000.0


def _retrieve(capture: Any, path: Path) -> FrameArray:
    succeeded, picture = capture.retrieve()
    if not succeeded or picture is None:
        raise VideoUnreadable(f"a decoded frame cannot be converted to RGB in '{path}'")
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    pixels: FrameArray = picture
    return pixels


def _header_facts(capture: Any) -> VideoFacts:
    import cv2

    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    rate = capture.get(cv2.CAP_PROP_FPS)
    # Broken headers claim anything, NaN and -1e17 included.
    n_frames = int(np.clip(count, -(2**62), 2**62)) if np.isfinite(count) else 0
    return VideoFacts(
        n_frames_header=n_frames,
        fps_header=float(rate) if np.isfinite(rate) else 0.0,
        width_px=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        height_px=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
    )


def _decoded_facts(capture: Any, facts: VideoFacts, n_decoded: int, path: Path) -> VideoFacts:
    if n_decoded == 0:
        raise VideoUnreadable(
            f"no frame decodes ({facts.n_frames_header} in the header): damaged, encrypted, or "
            "in a codec that OpenCV lacks",
            hint=_NO_PICTURE_HINT,
        )
    return VideoFacts(
        facts.n_frames_header, n_decoded, facts.fps_header, facts.width_px, facts.height_px
    )
