"""Decoding: the chosen frames of one video file, as square RGB pictures.

With `features.video.frames` the only place of stage 1 that knows OpenCV. Decoding always runs
forward from the first frame: seeking is inexact in OpenCV and slower. The frame count in
a header is used as a guess that decoding then proves or refutes; it is never trusted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import VideoUnreadable
from features.records import FrameArray, FrameSampling, IntArray, VideoFacts
from features.video.frames import FrameBatch, FrameBuffer, encode_jpeg, import_cv2
from features.video.sampling import make_frame_filter, sample_indices

LACKS_MEMORY = "needs more memory than --clip-memory allows"

_NO_PICTURE_HINT = (
    "play the file in another program; if it plays, re-encode it: "
    "ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4"
)


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


def read_picture(
    path: Path, frame_index: int, *, most_px: int, on_progress: Callable[[], None] = lambda: None
) -> FrameArray:
    """Decode a video file up to one frame, and make a small JPEG of that.

    Parameters
    ----------
    path : Path
    frame_index : int
        Position among the decoded frames, from 0.
    most_px : int
        Longest side of the picture, pixels.
    on_progress : callable, optional
        Called once per decoded frame.

    Returns
    -------
    ndarray of uint8, shape (n_bytes,)
        The JPEG's bytes.

    Raises
    ------
    VideoUnreadable
        If the frame does not decode.
    """
    with _open(path) as capture:
        for index, _ in enumerate(_grab_all(capture, on_progress)):
            if index == frame_index:
                return encode_jpeg(_retrieve(capture, path), most_px)
    raise VideoUnreadable(f"decoding ends before frame {frame_index}")


def read_pictures(
    path: Path, *, on_progress: Callable[[], None] = lambda: None
) -> Iterator[FrameArray | VideoFacts]:
    """Decode every frame of a video file, whole.

    Parameters
    ----------
    path : Path
    on_progress : callable, optional
        Called once per decoded frame.

    Yields
    ------
    VideoFacts or ndarray of uint8, shape (height, width, 3)
        First what the header claims, then the pictures (blue, green, red; rotation applied),
        and last what the whole file showed.

    Raises
    ------
    VideoUnreadable
        If no frame decodes.
    """
    with _open(path) as capture:
        facts = _header_facts(capture)
        yield facts
        n_decoded = 0
        for _ in _grab_all(capture, on_progress):
            yield _retrieve(capture, path)
            n_decoded += 1
        yield _decoded_facts(capture, facts, n_decoded, path)


def count_frames(path: Path, *, on_progress: Callable[[], None] = lambda: None) -> int:
    """Count the frames that decode; 0 if the file cannot be opened.

    Parameters
    ----------
    path : Path
    on_progress : callable, optional
        Called once per decoded frame.

    Returns
    -------
    int
    """
    try:
        with _open(path) as capture:
            return sum(1 for _ in _grab_all(capture, on_progress))
    except VideoUnreadable:
        return 0


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
        except cv2.error as problem:
            is_memory = problem.code == cv2.Error.StsNoMem
            reason = LACKS_MEMORY if is_memory else f"failed in OpenCV: {problem.err}"
            raise VideoUnreadable(f"decoding {reason}") from problem
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
    cv2 = import_cv2()
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
    cv2 = import_cv2()
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
