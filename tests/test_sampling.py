from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import SamplingError
from features.records import FrameSampling
from features.video.sampling import choose_sampling, make_frame_filter, sample_indices

counts = st.integers(1, 5000)


@given(n_available=counts, n_wanted=counts)
def test_indices_increase_reach_both_ends_and_leave_no_hole(
    n_available: int, n_wanted: int
) -> None:
    indices = sample_indices(n_available, n_wanted=n_wanted)
    assert len(indices) == min(n_available, n_wanted)
    assert indices.dtype == np.int64
    assert indices[0] >= 0
    assert indices[-1] < n_available
    gaps = np.diff(indices)
    assert (gaps >= 1).all()
    if len(indices) > 1:
        assert (indices[0], indices[-1]) == (0, n_available - 1)
        assert gaps.max() - gaps.min() <= 1, "evenly spaced: gaps differ by one frame at most"


def test_one_frame_comes_from_the_middle() -> None:
    assert sample_indices(101, n_wanted=1).tolist() == [50]


@pytest.mark.parametrize(("n_available", "n_wanted"), [(0, 5), (5, 0), (-1, 1)])
def test_counts_below_one_are_refused(n_available: int, n_wanted: int) -> None:
    with pytest.raises(SamplingError, match="must be at least 1"):
        sample_indices(n_available, n_wanted=n_wanted)


def test_default_is_twenty_frames() -> None:
    assert choose_sampling() == FrameSampling("uniform", 20.0)
    assert choose_sampling(all_frames=True) == choose_sampling(stride=1)


def test_two_ways_at_once_are_refused() -> None:
    with pytest.raises(SamplingError, match="one way. Received: --frames, --fps"):
        choose_sampling(n_frames=3, fps=2.0)


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf"), 1e308])
def test_impossible_rates_are_refused(fps: float) -> None:
    with pytest.raises(SamplingError, match="above 0"):
        choose_sampling(fps=fps)


@given(stride=st.integers(1, 50), n_frames=st.integers(1, 400))
def test_stride_takes_every_nth_frame(stride: int, n_frames: int) -> None:
    is_wanted = make_frame_filter(choose_sampling(stride=stride))
    taken = [index for index in range(n_frames) if is_wanted(index, index / 25)]
    assert taken == list(range(0, n_frames, stride))


@given(
    fps=st.floats(0.2, 60),
    steps=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=300),
    start=st.floats(0, 100),
)
def test_fps_takes_the_first_frame_at_or_after_each_tick(
    fps: float, steps: list[float], start: float
) -> None:
    times = start + np.cumsum([0.0, *steps])
    is_wanted = make_frame_filter(choose_sampling(fps=fps))
    taken = [time for index, time in enumerate(times) if is_wanted(index, float(time))]
    assert taken[0] == times[0]
    forgiven = min(0.0010173 * fps, 0.25)  # containers round times to a millisecond
    ticks = [int(np.floor((time - times[0]) * fps + forgiven)) for time in taken]
    assert len(set(ticks)) == len(ticks), "never two frames for one tick"
    reached = int(np.floor((times[-1] - times[0]) * fps + forgiven))
    assert ticks[-1] == reached, "the clip is covered to its end"
