"""Near-duplicate clips: one recording saved twice, found by the course of its embeddings.

The mean embedding tells scenes apart, not recordings: clips of one scene are as alike there
as a clip and its copy. What a copy shares with its original and with nothing else is the
*course*: how each frame differs from the clip's own mean, in the order of time. Two clips are
compared frame by frame along it, over small shifts and changes of pace (trimmed clips), as
sequences are aligned in near-duplicate video retrieval, e.g. ViSiL (Kordopatis-Zilos et al.,
ICCV 2019).

Measured on 43 real clips of two collections (sport, surveillance) with 10 altered copies each,
backbones of alpha 0.35 and 1.0, 20 frames, similarity from 0.4 on. Found: all copies saved
again as MPEG-4, 10 % brighter, or without the first or last tenth; 96 to 100 % of those in VP9
at half size, 91 to 100 % at half size, 70 to 87 % at JPEG quality 12, 65 to 100 % cropped by
5 % at every side, 52 to 100 % mirrored, 55 to 65 % trimmed, brighter, at half size and quality
12 at once. Not copies: of 8,718 pairs of different groups none was taken for one (highest 0.24),
of 545 pairs of one group one was (0.45). Two more pairs of different groups were found that are
indeed cuts of one broadcast (0.49 to 0.76). With 3, 5 and 8 frames a clip and with all frames
the highest wrong one of different groups was 0.33; with 2 frames it was 0.41.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.records import ClipRecord
from features.store.store import Store, read_embeddings

Float32Array = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# From here on two clips count as one recording; see above for what that finds and misses.
DUPLICATE_ABOVE = 0.4
# Mean embeddings this alike are the same even without a course: one frame, or a still.
_SAME_ABOVE = 0.9995
# Copies had mean embeddings with a cosine of at least 0.74; less is not looked at further.
_MEAN_ABOVE = 0.7
# Clips on other sides that each clip is compared with frame by frame: those nearest by mean.
_NEAREST = 8
# Moments at which a course is sampled, and how it may be laid upon another.
_MOMENTS = 20
_PACES = (0.9, 1.0, 1 / 0.9)
_SHIFTS = np.linspace(-0.12, 0.12, 13)
_LEAST_OVERLAP = 0.75

_READ_CLIPS = 256
_PAIRS_AT_ONCE = 512


class Pair(NamedTuple):
    """Two near-duplicate clips in the order of their ids, and how alike they are."""

    clip_id: str
    other_id: str
    similarity: float


def find_near_duplicates(
    store: Store,
    sides: Mapping[str, str],
    *,
    threshold: float = DUPLICATE_ABOVE,
    block_clips: int = 512,
) -> tuple[Pair, ...]:
    """Find near-duplicate clips that stand on different sides.

    13,000 clips of 20 frames x 1280 take 12 s of processor time for two sides of a hold-out,
    about 30 s for folds or groups, and 70 KB of memory per clip.
    """
    clips = [clip for clip in store.clips if clip.clip_id in sides]
    if len(clips) < 2:
        return ()
    names = sorted(set(sides.values()))
    number = {name: index for index, name in enumerate(names)}
    side = np.array([number[sides[clip.clip_id]] for clip in clips])
    means, courses = _read_courses(store, clips)
    candidates = _nearest_by_mean(means, side, block_clips)
    found = []
    for start in range(0, len(candidates), _PAIRS_AT_ONCE):
        rows = candidates[start : start + _PAIRS_AT_ONCE]
        same = np.einsum("nd,nd->n", means[rows[:, 0]], means[rows[:, 1]])
        rows, same = rows[same >= _MEAN_ABOVE], same[same >= _MEAN_ABOVE]
        alike = _align(courses[rows[:, 0]], courses[rows[:, 1]])
        similarity = np.where(same >= _SAME_ABOVE, np.maximum(alike, same), alike)
        for (one, other), value in zip(rows, np.round(similarity, 4), strict=True):
            if value >= threshold:
                first, second = sorted((clips[one].clip_id, clips[other].clip_id))
                found.append(Pair(first, second, min(round(float(value), 4), 1.0)))
    return tuple(sorted(found, key=lambda pair: (-pair.similarity, pair.clip_id, pair.other_id)))


def _read_courses(
    store: Store, clips: Sequence[ClipRecord]
) -> tuple[Float32Array, npt.NDArray[np.float16]]:
    """Return unit mean embeddings, and unit deviations from them at evenly spaced moments."""
    dim = store.header.backbone.embedding_dim
    means = np.empty((len(clips), dim), dtype=np.float32)
    # Half precision halves the memory; its rounding is far below the noise of a re-encoding.
    courses = np.empty((len(clips), _MOMENTS, dim), dtype=np.float16)
    for start in range(0, len(clips), _READ_CLIPS):
        block = clips[start : start + _READ_CLIPS]
        embeddings = read_embeddings(store, block)
        for row, (first, end) in enumerate(
            zip(embeddings.starts[:-1], embeddings.starts[1:], strict=True), start=start
        ):
            mean = embeddings.vectors[first:end].mean(axis=0, dtype=np.float32)
            moments = np.rint(np.linspace(0, end - first - 1, _MOMENTS)).astype(np.int64)
            course = embeddings.vectors[first + moments].astype(np.float32) - mean
            length = np.linalg.norm(course, axis=1, keepdims=True)
            # What is left of a still is rounding, not movement.
            is_still = length < 1e-3 * np.linalg.norm(mean) + np.finfo(np.float32).tiny
            courses[row] = np.where(is_still, 0, course / np.where(is_still, 1, length))
            means[row] = _unit(mean)
    return means, courses


def _nearest_by_mean(means: Float32Array, side: IntArray, block_clips: int) -> IntArray:
    """Return candidate pairs, shape (n_pairs, 2), sorted, the lower row first."""
    # All embeddings share one large direction; without it, neighbours stand out.
    centred = _unit(means - means.mean(axis=0))
    # A pair on different sides has a clip outside the largest side: those are looked up.
    counts = np.bincount(side)
    asked = np.flatnonzero(side != counts.argmax())
    n_nearest = min(_NEAREST, len(means) - 1)
    pairs = []
    for start in range(0, len(asked), block_clips):
        rows = asked[start : start + block_clips]
        scores = centred[rows] @ centred.T
        scores[side[rows][:, None] == side[None, :]] = -np.inf
        nearest = np.argpartition(-scores, n_nearest - 1, axis=1)[:, :n_nearest]
        is_other = np.isfinite(np.take_along_axis(scores, nearest, axis=1))
        block = np.stack([np.repeat(rows, n_nearest), nearest.ravel()], axis=1)
        pairs.append(np.sort(block[is_other.ravel()], axis=1))
    if not pairs:
        return np.empty((0, 2), dtype=np.int64)
    unique: IntArray = np.unique(np.concatenate(pairs), axis=0)
    return unique


def _align(one: npt.NDArray[np.float16], other: npt.NDArray[np.float16]) -> Float32Array:
    """Return the best mean cosine of two courses over shifts and paces, shape (n_pairs,)."""
    products = one.astype(np.float32) @ other.astype(np.float32).transpose(0, 2, 1)
    ways = np.stack(list(_ways()), axis=1)
    if not len(one):
        return np.empty(0, dtype=np.float32)
    best: Float32Array = (products.reshape(len(one), _MOMENTS**2) @ ways).max(axis=1)
    return best


def _ways() -> Iterator[Float32Array]:
    """Yield weights over pairs of moments: one way each to lay a course upon another."""
    times = np.linspace(0, 1, _MOMENTS)
    for pace in _PACES:
        for shift in _SHIFTS:
            places = (pace * times + shift) * (_MOMENTS - 1)
            inside = np.flatnonzero((places >= -0.25) & (places <= _MOMENTS - 0.75))
            if len(inside) < _LEAST_OVERLAP * _MOMENTS:
                continue
            weights = np.zeros((_MOMENTS, _MOMENTS))
            below = np.clip(places[inside], 0, _MOMENTS - 1)
            floor = np.minimum(below.astype(np.int64), _MOMENTS - 2)
            np.add.at(weights, (inside, floor), 1 - (below - floor))
            np.add.at(weights, (inside, floor + 1), below - floor)
            weights /= len(inside)
            # Either clip may be the one that is laid upon the other.
            yield weights.ravel().astype(np.float32)
            yield weights.T.ravel().astype(np.float32)


def _unit(vectors: Float32Array) -> Float32Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Float32Array = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    return unit
