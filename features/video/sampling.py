"""Which frames of a clip are embedded: pure arithmetic, no video."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from features.errors import OptionInvalid, SamplingError
from features.records import FloatArray, FrameSampling, IntArray

DEFAULT_FRAMES_PER_CLIP = 20
MOST_FRAMES_PER_CLIP = 1_000_000
MOST_FPS = 1000
# What containers round times to, and a little more: no usual frame rate has a frame just there.
_ROUNDING_SECONDS = 0.0010173
_MOST_GRID_RATE = 250
_USUAL_RATES = tuple(
    whole * 1000 / part
    for whole in (24, 30, 48, 60, 120, 15, 25, 50, 10, 12, 5, 20, 100)
    for part in (1000, 1001)
)
_SAME_RATE = 3e-4


def choose_sampling(
    *,
    n_frames: int | None = None,
    fps: float | None = None,
    stride: int | None = None,
    all_frames: bool = False,
) -> FrameSampling:
    """Turn the four ways to ask for frames into one `FrameSampling`.

    Parameters
    ----------
    n_frames : int, optional
        Number of evenly spaced frames per clip, at least 1. By default 20.
    fps : float, optional
        Frames per second of video time, above 0.
    stride : int, optional
        Take every N-th frame; N is at least 1.
    all_frames : bool, default False
        Take every frame. The same as ``stride=1``.

    Returns
    -------
    FrameSampling

    Raises
    ------
    SamplingError
        If more than one way is asked for, or a value is out of range.

    Examples
    --------
    >>> choose_sampling(fps=5)
    FrameSampling(strategy='fps', value=5.0)
    """
    asked = [
        name
        for name, is_asked in (
            ("--frames", n_frames is not None),
            ("--fps", fps is not None),
            ("--stride", stride is not None),
            ("--all-frames", all_frames),
        )
        if is_asked
    ]
    if len(asked) > 1:
        raise SamplingError(
            f"Frames can be chosen in only one way. Received: {', '.join(asked)}.",
            hint="give only one of --frames, --fps, --stride and --all-frames",
        )
    if fps is not None:
        if not 0 < fps <= MOST_FPS:
            raise SamplingError(
                f"--fps must be above 0 and at most {MOST_FPS} frames per second. "
                f"Received: fps={fps}."
            )
        return FrameSampling("fps", float(fps))
    if stride is not None or all_frames:
        step = 1 if stride is None else stride
        if step < 1:
            raise SamplingError(f"--stride must be at least 1. Received: stride={stride}.")
        return FrameSampling("stride", float(step))
    count = DEFAULT_FRAMES_PER_CLIP if n_frames is None else n_frames
    if not 1 <= count <= MOST_FRAMES_PER_CLIP:
        raise SamplingError(
            f"--frames must be at least 1 and at most {MOST_FRAMES_PER_CLIP}. "
            f"Received: frames={n_frames}.",
            hint="use --all-frames to embed every frame",
        )
    return FrameSampling("uniform", float(count))


def require_frame_rate(frame_rate: float | None) -> None:
    """Refuse a frame rate of pictures that is none."""
    if frame_rate is not None and not 0 < frame_rate <= MOST_FPS:
        raise OptionInvalid(
            f"--frame-rate must be above 0 and at most {MOST_FPS} frames per second. "
            f"Received: {frame_rate:g}."
        )


def sample_indices(n_available: int, *, n_wanted: int) -> IntArray:
    """Choose evenly spaced frame indices that reach both ends of a clip.

    A single frame is taken from the middle. A clip shorter than `n_wanted`
    gives every frame it has: nothing is repeated or padded.

    Parameters
    ----------
    n_available : int
        Decodable frames in the clip, at least 1.
    n_wanted : int
        Frames to choose, at least 1.

    Returns
    -------
    ndarray of int64, shape (min(n_wanted, n_available),)
        Strictly increasing, within [0, n_available).

    Raises
    ------
    SamplingError
        If either count is below 1.

    Examples
    --------
    >>> sample_indices(9, n_wanted=3).tolist()
    [0, 4, 8]
    """
    if n_available < 1 or n_wanted < 1:
        raise SamplingError(
            "Frame counts must be at least 1. "
            f"Received: n_available={n_available}, n_wanted={n_wanted}."
        )
    if n_wanted >= n_available:
        return np.arange(n_available, dtype=np.int64)
    if n_wanted == 1:
        return np.array([(n_available - 1) // 2], dtype=np.int64)
    # Whole numbers, rounded half up: floats would tie differently on other machines.
    steps = np.arange(n_wanted, dtype=np.int64)
    return (2 * steps * (n_available - 1) + (n_wanted - 1)) // (2 * (n_wanted - 1))


@dataclass(frozen=True, slots=True)
class FrameGrid:
    """The even spacing behind times that a container has rounded."""

    start_seconds: float
    rate: float

    def place(self, seconds: float) -> float:
        """Return the exact time that was rounded to this one."""
        return round((seconds - self.start_seconds) * self.rate) / self.rate


def find_grid(times: FloatArray, claimed_rate: Fraction | None) -> FrameGrid | None:
    """Find the constant frame rate that all times of a video agree with, if there is one.

    Matroska, WebM and FLV round every time to a millisecond, so that without it copies of a
    video in other containers would give other frames at the same `--fps`.
    """
    if not len(times) or not claimed_rate or not 0 < claimed_rate <= _MOST_GRID_RATE:
        return None
    rate = float(claimed_rate)
    near = min(_USUAL_RATES, key=lambda usual: abs(usual - rate))
    rate = near if abs(near / rate - 1) < _SAME_RATE else rate
    places = (times - times[0]) * rate
    is_even = np.abs(places - np.round(places)).max() <= 1.2 * _ROUNDING_SECONDS * rate
    is_even = is_even and bool((np.diff(np.round(places)) > 0).all())
    return FrameGrid(float(times[0]), rate) if is_even else None


def choose_positions(
    times: FloatArray, sampling: FrameSampling, grid: FrameGrid | None = None
) -> IntArray:
    """Choose among frames whose times are all known; returns their positions, ascending."""
    if not len(times):
        return np.zeros(0, np.int64)
    if sampling.strategy == "uniform":
        return sample_indices(len(times), n_wanted=int(sampling.value))
    is_wanted = make_frame_filter(sampling, grid)
    chosen = [at for at, seconds in enumerate(times.tolist()) if is_wanted(at, seconds)]
    return np.array(chosen, np.int64)


def make_frame_filter(
    sampling: FrameSampling, grid: FrameGrid | None = None
) -> Callable[[int, float], bool]:
    """Build the test (frame_index, timestamp_seconds) that picks frames as they are decoded.

    To be asked once per frame, in order. At "fps" it takes the first frame at or after every
    multiple of ``1 / fps`` since the first frame, where a millisecond too early is forgiven.
    `SamplingError` for "uniform", which needs the number of frames.
    """
    if sampling.strategy == "stride":
        step = int(sampling.value)
        return lambda frame_index, timestamp_seconds: frame_index % step == 0
    if sampling.strategy != "fps":
        raise SamplingError(
            f"Only fps and stride can pick frames one by one. Received: {sampling}."
        )
    rate = sampling.value
    forgiven = min(_ROUNDING_SECONDS * rate, 0.25)
    start_seconds = 0.0
    next_tick = 0

    def is_wanted(frame_index: int, timestamp_seconds: float) -> bool:
        nonlocal start_seconds, next_tick
        if grid is not None:
            timestamp_seconds = grid.place(timestamp_seconds)
        if frame_index == 0:
            start_seconds = timestamp_seconds
        tick = math.floor((timestamp_seconds - start_seconds) * rate + forgiven)
        if tick < next_tick:
            return False
        next_tick = tick + 1
        return True

    return is_wanted
