"""Windows cover every frame of a clip, and their answers make one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.sequences import Sequences, sequence_from_vectors
from pipeline.data.sharing import map_sequences, shared_sequences
from pipeline.data.windows import average_windows, cut_windows, join_windows


def number_frames(lengths: list[int]) -> Sequences:
    """Clips whose frames hold their clip and place, both from 1."""
    return sequence_from_vectors(
        [
            np.array([[clip, place] for place in range(1, n + 1)], dtype=np.float32)
            for clip, n in enumerate(lengths, start=1)
        ]
    )


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(1, 15))
def test_windows_cover_every_frame_once_but_for_the_last(lengths: list[int], window: int) -> None:
    windows, owners = cut_windows(number_frames(lengths), window)
    assert windows.mask.shape[1] == min(window, max(lengths))
    for clip, n in enumerate(lengths):
        mine = owners == clip
        assert mine.sum() == -(-n // window)
        seen = windows.vectors[mine][windows.mask[mine]]
        assert set(seen[:, 0]) == {clip + 1}
        assert set(seen[:, 1]) == set(range(1, n + 1))
        if n >= window:
            assert windows.mask[mine].all()  # nothing is padded that need not be


def test_without_a_window_nothing_is_cut() -> None:
    clips = number_frames([3, 5])
    assert cut_windows(clips, None)[0] is clips
    assert cut_windows(clips, 5)[0] is clips


def test_answers_of_windows_are_joined_as_asked() -> None:
    answers = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.3, 0.7]], dtype=np.float32)
    owners = np.array([0, 0, 0, 1])
    np.testing.assert_allclose(
        join_windows(answers, owners, "mean"), [[0.5, 0.5], [0.3, 0.7]], atol=1e-6
    )
    np.testing.assert_allclose(
        join_windows(answers, owners, "vote"), [[1 / 3, 2 / 3], [0.3, 0.7]], atol=1e-6
    )
    np.testing.assert_allclose(
        join_windows(answers, owners, "max"), [[9 / 17, 8 / 17], [0.3, 0.7]], atol=1e-6
    )
    whole = np.arange(4)
    assert join_windows(answers, whole, "vote") is answers  # whole clips keep their probabilities
    np.testing.assert_allclose(average_windows(answers, owners)[0], [0.5, 0.5], atol=1e-6)


def test_vote_is_the_same_in_any_batch_and_settles_ties_by_probability() -> None:
    answers = np.array(
        [[0.6, 0.4, 0.0], [0.1, 0.9, 0.0], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], dtype=np.float32
    )
    owners = np.array([0, 0, 1, 1])
    together = join_windows(answers, owners, "vote")
    # One vote each: the first clip by 1.3 against 0.7, the second by 0.7 to 0.7, the first class.
    assert together.argmax(axis=1).tolist() == [1, 0]
    np.testing.assert_allclose(together, [[0.5, 0.5, 0], [0.5, 0, 0.5]], atol=0.001)
    for clip in (0, 1):
        alone = join_windows(answers[owners == clip], np.zeros(2, dtype=np.int64), "vote")
        np.testing.assert_array_equal(alone[0], together[clip])
    # A clip of one window keeps its probabilities, whether or not longer ones are beside it.
    beside = join_windows(answers[:3], np.array([0, 0, 1]), "vote")
    np.testing.assert_array_equal(beside[1], answers[2])


def test_shared_sequences_are_the_same_and_leave_nothing(tmp_path: Path) -> None:
    clips = number_frames([3, 5])
    with shared_sequences(clips, tmp_path) as folder:
        mapped = map_sequences(folder)
        np.testing.assert_array_equal(mapped.vectors, clips.vectors)
        np.testing.assert_array_equal(mapped.mask, clips.mask)
        assert mapped.clip_ids == clips.clip_ids
        with pytest.raises(ValueError, match="read-only"):
            mapped.vectors[0, 0, 0] = 1
        del mapped
    assert not any(tmp_path.iterdir())
