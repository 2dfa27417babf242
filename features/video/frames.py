"""Pictures: OpenCV itself, the resize rule, and batches of RGB frames."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
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


_FULL_RANGE = 2  # of FFmpeg's AVColorRange
# Of red and blue in luma, by FFmpeg's AVColorSpace; what has no tag is taken for BT.601.
_WEIGHTS = {
    1: (0.2126, 0.0722),
    **dict.fromkeys((2, 5, 6), (0.299, 0.114)),
    4: (0.3, 0.11),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
_PLANAR_FORMATS = frozenset(
    {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv411p", "yuva420p"}
)


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
    picture : ndarray of uint8, shape (height, width, 3) or (height, width)
        Channels in any order.
    size_px : int
    into : ndarray of uint8, shape (size_px, size_px, 3) or (size_px, size_px), optional
        Where to put the square.

    Returns
    -------
    ndarray of uint8, of that shape
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
        picture = _view(plane, converted.height, converted.width, 3)
        matrix = _display_matrix(frame)
        return picture if matrix is None else _turn(picture, matrix)

    def make_square(self, frame: Any, into: FrameArray) -> None:
        """Put a frame, resized, into an RGB square of shape (size_px, size_px, 3).

        The planes of the usual formats are resized first, and only the square is converted, by
        arithmetic of our own: of a large frame that is a quarter of the work.
        """
        weights = _WEIGHTS.get(frame.colorspace)
        if weights is None or frame.format.name not in _PLANAR_FORMATS:
            resize_frame(self.make(frame), len(into), into=into)
            return
        cv2 = import_cv2()
        planes = [
            resize_frame(_view(plane, plane.height, plane.width), len(into))
            for plane in frame.planes[:3]
        ]
        is_full = frame.color_range == _FULL_RANGE or frame.format.name.startswith("yuvj")
        cv2.transform(cv2.merge(planes), _rgb_matrix(*weights, is_full=is_full), into)
        matrix = _display_matrix(frame)
        if matrix is not None:
            into[:] = _turn(into, matrix)


def upright_size(frame: Any) -> tuple[int, int]:
    """Return width and height of a frame as it is to be seen."""
    a, b, c, d = _display_matrix(frame) or (1, 0, 0, 1)
    is_turned = abs(a) + abs(d) < abs(b) + abs(c)
    return (frame.height, frame.width) if is_turned else (frame.width, frame.height)


def _view(plane: Any, height: int, width: int, *channels: int) -> FrameArray:
    """Show a plane as an array: its rows may be padded, OpenCV takes them so."""
    shape = (height, width, *channels)
    view: FrameArray = np.ndarray(shape, np.uint8, plane, 0, (plane.line_size, *channels, 1))
    return view


@cache
def _rgb_matrix(red: float, blue: float, *, is_full: bool) -> FloatArray:
    """Make the 3 x 4 matrix from Y, U, V to R, G, B, by the weights of red and blue in Y."""
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0) if is_full else (255 / 219, 255 / 224, 16)
    matrix = np.array(
        [
            [luma, 0, 2 * (1 - red) * chroma],
            [luma, -2 * (1 - blue) * blue / green * chroma, -2 * (1 - red) * red / green * chroma],
            [luma, 2 * (1 - blue) * chroma, 0],
        ]
    )
    return np.column_stack([matrix, -matrix @ [black, 128, 128]])


def _display_matrix(frame: Any) -> tuple[int, ...] | None:
    """Return a, b, c, d of x' = a x + c y, y' = b x + d y, or None if it changes nothing."""
    # The frame's own `side_data` would refer back to it and keep its buffer until the garbage
    # collector runs.
    container = _side_data_class()(frame)
    for number in range(len(container)):
        item = container[number]
        try:
            if item.type.name == "DISPLAYMATRIX":
                a, b, _, c, d = struct.unpack("=5i", bytes(item)[:20])
                return None if a > 0 and d > 0 and b == 0 == c else (a, b, c, d)
        except ValueError:  # of a kind that this PyAV does not know yet
            continue
    return None


@cache
def _side_data_class() -> Any:
    from av.sidedata.sidedata import SideDataContainer

    base: Any = SideDataContainer  # its stub takes no arguments

    class SideData(base):  # type: ignore[misc]
        """What comes with a frame, up to the first of a kind that this PyAV does not know yet."""

        def __init__(self, frame: Any) -> None:
            with suppress(ValueError):
                super().__init__(frame)

    return SideData


def _turn(picture: FrameArray, matrix: tuple[int, ...]) -> FrameArray:
    """Turn and flip a picture to the nearest right angle."""
    a, b, c, d = matrix
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture = picture.transpose(1, 0, 2)
        a, d = c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


class FrameBuffer:
    """Collects square RGB frames until they are taken as one batch of at most `capacity`."""

    def __init__(self, size_px: int, capacity: int) -> None:
        self._shape = (capacity, size_px, size_px, 3)
        self._reset()

    def _reset(self) -> None:
        # Not before the first frame: a batch takes megabytes, and the last is not followed.
        self._frames: FrameArray = np.empty((0, *self._shape[1:]), np.uint8)
        self._seconds: list[float] = []
        self._indices: list[int] = []

    @property
    def is_full(self) -> bool:
        """Whether `take` must be called before the next `add`."""
        return len(self._indices) == self._shape[0]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._indices

    def add(self, seconds: float, frame_index: int) -> FrameArray:
        """Make room for a frame and return the square that it is to be put into."""
        if not len(self._frames):
            self._frames = np.empty(self._shape, np.uint8)
        square: FrameArray = self._frames[len(self._indices)]
        self._seconds.append(seconds)
        self._indices.append(frame_index)
        return square

    def take(self) -> FrameBatch:
        """Return what was added, at least one frame, and start anew."""
        batch = FrameBatch(
            self._frames[: len(self._indices)],
            np.array(self._seconds, np.float64),
            np.array(self._indices, np.int64),
        )
        self._reset()
        return batch
