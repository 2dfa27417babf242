"""Windows: a long clip seen piece by piece, and its pieces made one answer."""

from __future__ import annotations

import numpy as np

from features.records import IntArray
from pipeline.data.sequences import Float32Array, Sequences
from pipeline.heads.registry import Aggregate

# Of a vote: what settles a tie.
_TIE_WEIGHT = 0.001


def cut_windows(sequences: Sequences, window: int | None) -> tuple[Sequences, IntArray]:
    """Cut clips into windows, and tell the clip that each window is of.

    Windows follow each other without a gap; the last one of a clip ends with it and may overlap
    the one before. A clip that is shorter than a window is one window.
    """
    n_clips, max_frames = sequences.mask.shape
    if window is None or max_frames <= window:
        return sequences, np.arange(n_clips)
    lengths = sequences.mask.sum(axis=1)
    starts = [
        np.append(np.arange(0, max(n - window, 0), window), max(n - window, 0)) for n in lengths
    ]
    owners = np.repeat(np.arange(n_clips), [len(s) for s in starts])
    places = np.concatenate(starts)[:, np.newaxis] + np.arange(window)
    rows = owners[:, np.newaxis]
    return (
        Sequences(
            sequences.vectors[rows, places],
            sequences.mask[rows, places],
            sequences.class_indices[owners],
            tuple(sequences.clip_ids[owner] for owner in owners),
            sequences.take_targets(owners),
        ),
        owners,
    )


def join_windows(
    probabilities: Float32Array, owners: IntArray, how: Aggregate, *, is_multilabel: bool = False
) -> Float32Array:
    """Make the answers for the windows of each clip one answer."""
    if len(owners) == owners[-1] + 1:
        return probabilities
    if how == "mean":
        return average_windows(probabilities, owners)
    if how == "vote":
        count = _count_approvals if is_multilabel else _count_votes
        return count(probabilities, owners)
    largest = np.maximum.reduceat(probabilities, first_windows(owners), axis=0)
    if is_multilabel:
        return largest
    rows: Float32Array = (largest / largest.sum(axis=1, keepdims=True)).astype(np.float32)
    return rows


def _count_votes(probabilities: Float32Array, owners: IntArray) -> Float32Array:
    """Give each class its share of a clip's windows; a clip of one keeps its probabilities."""
    votes = np.eye(probabilities.shape[1], dtype=np.float32)[probabilities.argmax(axis=1)]
    shares, means = average_windows(votes, owners), average_windows(probabilities, owners)
    n_windows = np.bincount(owners)[:, np.newaxis]
    leads = np.isclose(shares, shares.max(axis=1, keepdims=True))
    is_tied = leads.sum(axis=1, keepdims=True) > 1
    # Of classes with equally many votes the mean probability decides, by less than a vote.
    shares = shares + is_tied * _TIE_WEIGHT / n_windows * means
    rows: Float32Array = np.where(n_windows == 1, means, shares / shares.sum(axis=1, keepdims=True))
    return rows.astype(np.float32)


def _count_approvals(probabilities: Float32Array, owners: IntArray) -> Float32Array:
    """Give each of several classes the share of windows that more likely show it than not."""
    approvals = (probabilities >= 0.5).astype(np.float32)
    shares, means = average_windows(approvals, owners), average_windows(probabilities, owners)
    n_windows = np.bincount(owners)[:, np.newaxis]
    weight = _TIE_WEIGHT / n_windows
    rows: Float32Array = np.where(n_windows == 1, means, (shares + weight * means) / (1 + weight))
    return rows.astype(np.float32)


def average_windows(values: Float32Array, owners: IntArray) -> Float32Array:
    """Average over the windows of each clip: (n_windows, dim) to (n_clips, dim)."""
    sums = np.add.reduceat(values, first_windows(owners), axis=0)
    counts = np.bincount(owners).astype(np.float32)
    means: Float32Array = (sums / counts[:, np.newaxis]).astype(np.float32)
    return means


def first_windows(owners: IntArray) -> IntArray:
    """Return the place of the first window of each clip."""
    return np.flatnonzero(np.diff(owners, prepend=-1))
