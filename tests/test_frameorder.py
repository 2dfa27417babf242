"""Other orders of frames: what is moved, and that only heads of time notice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.sequences import Sequences, sequence_from_vectors
from pipeline.heads.registry import HeadOptions
from pipeline.scores.frameorder import reorder_frames, score_orders
from pipeline.training.fit import fit_head
from pipeline.training.options import FitOptions


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(0, 99))
def test_every_frame_stays_in_its_clip(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    clips = sequence_from_vectors([rng.normal(size=(n, 2)).astype("float32") for n in lengths])
    orders = [rng.permutation(n) for n in lengths]
    moved = reorder_frames(clips, orders)
    for row, order in enumerate(orders):
        np.testing.assert_array_equal(
            moved.vectors[row][: len(order)], clips.vectors[row][: len(order)][order]
        )
    assert not moved.vectors[~moved.mask].any()


def make_ramps(seed: int, n_clips: int = 60) -> Sequences:
    """Two classes with the same frames, rising in one and falling in the other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n_clips) % 2
    ramps = []
    for label in labels:
        ramp = np.sort(rng.uniform(-1, 1, size=6))
        ramp = ramp if label else ramp[::-1]
        noise = rng.normal(scale=0.1, size=(6, 4))
        ramps.append((ramp[:, np.newaxis] + noise).astype("float32"))
    padded = sequence_from_vectors(ramps)
    return Sequences(padded.vectors, padded.mask, labels, padded.clip_ids)


def test_only_heads_of_time_notice_the_order() -> None:
    train, val, test = (make_ramps(seed) for seed in range(3))
    fit = FitOptions(epochs=40, learning_rate=0.02)
    options = HeadOptions(units=8)
    found = {}
    for head in ("mean-linear", "lstm"):
        fitted = fit_head(train, val, head=head, n_classes=2, head_options=options, fit_options=fit)
        found[head] = score_orders(fitted.model, test, options)
    # Backwards, one class is the other; shuffled, neither can be told.
    assert found["lstm"].backwards <= 0.1
    assert 0.2 <= found["lstm"].shuffled <= 0.8
    assert found["mean-linear"].backwards == found["mean-linear"].shuffled
