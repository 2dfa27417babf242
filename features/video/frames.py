"""Pictures: OpenCV itself, the resize rule, and batches of RGB frames."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from features.errors import OpenCVBroken, VideoUnreadable
from features.records import FloatArray, FrameArray, IntArray


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
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
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


def resize_frame(
    picture: FrameArray, size_px: int, *, into: FrameArray | None = None
) -> FrameArray:
    """Make a square of a picture: halve while it is twice too large, then bilinear.

    The whole picture is kept; its aspect ratio is not. Averaging 2 x 2 pixels is exact
    and fast, and leaves less than a factor of two to bilinear interpolation, which then
    hardly aliases. On 320 x 240 it costs a sixth of ``INTER_AREA``.

    Parameters
    ----------
    picture : ndarray of uint8, shape (height, width, 3)
        Channels in any order.
    size_px : int
    into : ndarray of uint8, shape (size_px, size_px, 3), optional
        Where to put the square.

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
    resized: FrameArray = cv2.resize(
        picture, (size_px, size_px), into, interpolation=cv2.INTER_LINEAR
    )
    return resized


def encode_jpeg(picture_bgr: FrameArray, most_px: int) -> FrameArray:
    """Make a small JPEG of a picture, in its own aspect ratio.

    Parameters
    ----------
    picture_bgr : ndarray of uint8, shape (height, width, 3)
        Blue, green, red.
    most_px : int
        Longest side of the JPEG, pixels; smaller pictures keep their size.

    Returns
    -------
    ndarray of uint8, shape (n_bytes,)
        The file's bytes.
    """
    cv2 = import_cv2()
    height, width = picture_bgr.shape[:2]
    scale = min(1.0, most_px / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(picture_bgr, size, interpolation=cv2.INTER_AREA)
    _, coded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 80])
    jpeg: FrameArray = coded.reshape(-1)
    return jpeg


class PictureMaker:
    """Turns PyAV's frames into arrays, upright; one converter serves all frames of a file.

    Layout is "rgb24" or "bgr24". Alpha is left out, and HDR is not mapped to SDR.
    """

    def __init__(self, layout: str) -> None:
        import av

        self._layout = layout
        self._reformatter = av.video.reformatter.VideoReformatter()
        self._fault = av.error.FFmpegError

    def make(self, frame: Any) -> FrameArray:
        """Return a frame's pixels, uint8 of shape (height, width, 3), as they are to be seen."""
        try:
            converted = self._reformatter.reformat(frame, format=self._layout, threads=1)
            plane = converted.planes[0]
        except MemoryError:
            raise
        except (self._fault, ValueError) as problem:
            raise VideoUnreadable(
                f"a decoded frame ({frame.format.name}) cannot be converted to RGB: {problem}"
            ) from problem
        # Rows may be padded; OpenCV takes them so, and nothing is copied.
        picture: FrameArray = np.ndarray(
            (converted.height, converted.width, 3), np.uint8, plane, 0, (plane.line_size, 3, 1)
        )
        matrix = _display_matrix(frame)
        return picture if matrix is None else _turn(picture, matrix)


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """Return a, b, c, d of x' = a x + c y, y' = b x + d y, or None if it changes nothing."""
    from av.sidedata.sidedata import SideDataContainer

    container: Any = SideDataContainer  # its stub takes no arguments
    try:
        # The frame's own `side_data` would refer back to it and keep its buffer until the garbage
        # collector runs.
        for item in container(frame):
            if item.type.name == "DISPLAYMATRIX":
                a, b, _, c, d = struct.unpack("=5i", bytes(item)[:20])
                return None if a > 0 and d > 0 and b == 0 == c else (a, b, c, d)
    except ValueError:  # side data of a kind that this PyAV does not know yet
        pass
    return None


def _turn(picture: FrameArray, matrix: tuple[int, ...]) -> FrameArray:
    """Turn and flip a picture to the nearest right angle."""
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture = picture.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


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

    def add(self, picture: FrameArray, seconds: float, frame_index: int) -> None:
        """Resize an RGB picture and keep it."""
        resize_frame(picture, self._size_px, into=self._frames[len(self._indices)])
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
