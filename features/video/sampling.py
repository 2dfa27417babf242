"""Which frames of a clip are embedded: pure arithmetic, no video."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from features.errors import SamplingError
from features.records import FrameSampling, IntArray

DEFAULT_FRAMES_PER_CLIP = 20
MOST_FRAMES_PER_CLIP = 1_000_000
MOST_FPS = 1000


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


def make_frame_filter(sampling: FrameSampling) -> Callable[[int, float], bool]:
    """Build the test that picks frames one by one as they are decoded.

    Only for strategies that need no knowledge of the clip's length.

    Parameters
    ----------
    sampling : FrameSampling
        With strategy "fps" or "stride".

    Returns
    -------
    callable (frame_index, timestamp_seconds) -> bool
        To be asked once per frame, in order. At "fps" it takes the first frame at
        or after every multiple of ``1 / fps`` since the clip's first frame.

    Raises
    ------
    SamplingError
        If the strategy is "uniform", which needs the clip's length.
    """
    if sampling.strategy == "stride":
        step = int(sampling.value)
        return lambda frame_index, timestamp_seconds: frame_index % step == 0
    if sampling.strategy != "fps":
        raise SamplingError(
            f"Only fps and stride can pick frames one by one. Received: {sampling}."
        )
    rate = sampling.value
    start_seconds = 0.0
    next_tick = 0

    def is_wanted(frame_index: int, timestamp_seconds: float) -> bool:
        nonlocal start_seconds, next_tick
        if frame_index == 0:
            start_seconds = timestamp_seconds
        # A millionth of a tick forgives timestamps that containers round.
        tick = math.floor((timestamp_seconds - start_seconds) * rate + 1e-6)
        if tick < next_tick:
            return False
        next_tick = tick + 1
        return True

    return is_wanted
