"""Near-duplicate clips: one recording saved twice, found by the course of its embeddings.

The mean embedding tells scenes apart, not recordings: clips of one scene are as alike there
as a clip and its copy. What a copy shares with its original and with nothing else is the
*course*: how each frame differs from the clip's own mean, in the order of time. Two clips are
compared frame by frame along it, over small shifts and changes of pace (trimmed clips), as
sequences are aligned in near-duplicate video retrieval, e.g. ViSiL (Kordopatis-Zilos et al.,
ICCV 2019).

Where many clips show the same few movements before plain grounds, courses are alike as well.
Hence two steps. Courses are whitened: the directions in which all clips of the store move
count as little as any other. And how alike is alike enough is read off the store: of every
clip, its best matches among clips of other groups, which follow an extreme-value law unless
they are copies (`_find_threshold`). What is found and missed: docs/results.md, measured by
benchmarks/duplicates.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.records import ClipRecord
from features.store.store import Store, read_embeddings

Float32Array = npt.NDArray[np.float32]
Float16Array = npt.NDArray[np.float16]
IntArray = npt.NDArray[np.int64]

# No two clips are near-duplicates below the first, however different all others are; from the
# second on they are, however alike: where all clips are copies, nothing else tells.
_COURSES_ABOVE, _COURSES_SAME = 0.34, 0.95
# Mean embeddings this alike are the same even without a course: one frame, or a still.
_MEANS_ABOVE = 0.9995
# Of the clips of a store without copies, those that may be called near-duplicates: a tenth of
# what can be put up with, for the law holds roughly where one kind of clip is more alike.
_FALSE_ALARMS = 0.0001
# The clips whose best matches are looked at, and how many of each.
_SAMPLED_CLIPS = 1024
_RANKS = 3
# Clips on other sides that each clip is compared with frame by frame: those with the nearest
# mean, and those with the nearest course of few parts.
_NEAREST = 8
_PARTS = 5
_PART_DIM = 64
# Moments at which a course is sampled, and how it may be laid upon another.
_MOMENTS = 20
_PACES = (0.9, 1.0, 1 / 0.9)
_SHIFTS = np.linspace(-0.12, 0.12, 13)
_LEAST_OVERLAP = 0.75
# Directions that are kept of a course, those from which they are found, and how little
# variance, as a share of the mean, is still divided by.
_COURSE_DIM = 256
_SAMPLED_VECTORS = 4096
_LEAST_VARIANCE = 0.01

_READ_CLIPS = 256
_PAIRS_AT_ONCE = 512


class Pair(NamedTuple):
    """Two near-duplicate clips in the order of their ids, and how alike they are."""

    clip_id: str
    other_id: str
    similarity: float


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """The pairs that were found, the most alike first, and from which similarity on."""

    pairs: tuple[Pair, ...]
    above: float


def find_near_duplicates(
    store: Store,
    sides: Mapping[str, str],
    groups: Mapping[str, str],
    *,
    block_clips: int = 512,
) -> NearDuplicates:
    """Find near-duplicate clips that stand on different sides.

    They are more alike than clips of different groups are in this store.
    """
    clips = [clip for clip in store.clips if clip.clip_id in sides]
    if len(clips) < 2:
        return NearDuplicates((), _COURSES_ABOVE)
    side = _number([sides[clip.clip_id] for clip in clips])
    group = _number([groups[clip.clip_id] for clip in clips])
    means, courses = _read_courses(store, clips)
    # All embeddings share one large direction; without it, neighbours stand out.
    looks = (_unit(means - means.mean(axis=0)), _in_parts(courses))
    # A pair on different sides has a clip outside the largest side: those are looked up.
    asked = np.flatnonzero(side != np.bincount(side).argmax())
    sampled = _spread(len(clips), _SAMPLED_CLIPS)
    pairs = np.unique(
        np.concatenate(
            [
                _find_nearest(look, rows, apart, block_clips)
                for look in looks
                for rows, apart in ((asked, side), (sampled, group))
            ]
        ),
        axis=0,
    )
    alike, same = np.empty(len(pairs), np.float32), np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), _PAIRS_AT_ONCE):
        block = slice(start, start + _PAIRS_AT_ONCE)
        one, other = pairs[block].T
        alike[block] = _align(courses[one], courses[other])
        same[block] = np.einsum("nd,nd->n", means[one], means[other])
    is_known = group[pairs[:, 0]] != group[pairs[:, 1]]
    above = _find_threshold(pairs[is_known], alike[is_known], sampled)
    above = min(max(_COURSES_ABOVE, above), _COURSES_SAME)
    means_above = max(_MEANS_ABOVE, _find_threshold(pairs[is_known], same[is_known], sampled))
    is_still = np.abs(courses).max(axis=(1, 2)) == 0
    is_equal = is_still[pairs].all(axis=1) & (same >= means_above)
    is_found = (side[pairs[:, 0]] != side[pairs[:, 1]]) & (is_equal | (alike >= above))
    found = []
    for (row, other_row), value in zip(
        pairs[is_found], np.where(is_equal, same, alike)[is_found], strict=True
    ):
        first, second = sorted((clips[row].clip_id, clips[other_row].clip_id))
        found.append(Pair(first, second, min(round(float(value), 4), 1.0)))
    found.sort(key=lambda pair: (-pair.similarity, pair.clip_id, pair.other_id))
    return NearDuplicates(tuple(found), round(float(above), 4))


def _find_threshold(pairs: IntArray, similarity: Float32Array, sampled: IntArray) -> float:
    """Return the similarity that a clip's best match exceeds once in ten thousand clips.

    On a scale where similarities fall off exponentially, the best of many follows Gumbel's
    law, and the second and third best its relatives: the number of matches beyond t is a
    Poisson variable of mean exp((a - t) / b). The median and the ninth decile of each rank say
    what a and b are. The first rank breaks down where many clips have a copy, the second and
    third where they have several, so the lowest answer counts, and what lies beyond it is set
    aside and the rest looked at again.
    """
    from scipy.special import gammaincinv

    scale = -np.log1p(-np.minimum(similarity, 1 - 1e-6))
    ranks = np.arange(1, _RANKS + 1)
    middle, late = (np.log(gammaincinv(ranks, share)) for share in (0.5, 0.1))
    reach = (middle - np.log(_FALSE_ALARMS)) / (middle - late)
    threshold = np.inf
    for _ in range(_RANKS):
        is_left = scale < threshold
        best = _find_best(pairs[is_left], scale[is_left], sampled)
        median, decile = np.quantile(best, (0.5, 0.9), axis=0)
        threshold = float((median + reach * (decile - median)).min())
    return -float(np.expm1(-threshold))


def _find_best(pairs: IntArray, scale: Float32Array, sampled: IntArray) -> Float32Array:
    """Return the best matches of the sampled clips, shape (n_sampled, ranks); 0 for none."""
    rows = np.concatenate([pairs[:, 0], pairs[:, 1]])
    values = np.concatenate([scale, scale])
    order = np.lexsort((-values, rows))
    rows, values = rows[order], values[order]
    first, end = (np.searchsorted(rows, sampled, side=side) for side in ("left", "right"))
    places = first[:, None] + np.arange(_RANKS)
    is_there = places < end[:, None]
    best = np.zeros(places.shape, np.float32)
    best[is_there] = values[places[is_there]]
    return best


def _read_courses(store: Store, clips: Sequence[ClipRecord]) -> tuple[Float32Array, Float16Array]:
    """Return unit mean embeddings, and whitened courses at evenly spaced moments."""
    whitening = _fit_whitening(store, clips)
    means = np.empty((len(clips), store.header.backbone.embedding_dim), dtype=np.float32)
    # Half precision halves the memory; its rounding is far below the noise of a re-encoding.
    courses = np.empty((len(clips), _MOMENTS, whitening.shape[1]), dtype=np.float16)
    for start in range(0, len(clips), _READ_CLIPS):
        block = slice(start, start + _READ_CLIPS)
        means[block], deviations = _read_deviations(store, clips[block])
        courses[block] = _unit(deviations @ whitening)
    return means, courses


def _read_deviations(
    store: Store, clips: Sequence[ClipRecord]
) -> tuple[Float32Array, Float32Array]:
    """Return unit mean embeddings, and unit deviations from them at evenly spaced moments."""
    embeddings = read_embeddings(store, clips)
    dim = embeddings.vectors.shape[1]
    means = np.empty((len(clips), dim), dtype=np.float32)
    deviations = np.empty((len(clips), _MOMENTS, dim), dtype=np.float32)
    for row, (first, end) in enumerate(
        zip(embeddings.starts[:-1], embeddings.starts[1:], strict=True)
    ):
        mean = embeddings.vectors[first:end].mean(axis=0, dtype=np.float32)
        moments = first + _spread(end - first, _MOMENTS, repeat=True)
        course = embeddings.vectors[moments].astype(np.float32) - mean
        length = np.linalg.norm(course, axis=1, keepdims=True)
        # What is left of a still is rounding, not movement.
        is_still = length < 1e-3 * np.linalg.norm(mean) + np.finfo(np.float32).tiny
        deviations[row] = np.where(is_still, 0, course / np.where(is_still, 1, length))
        means[row] = _unit(mean)
    return means, deviations


def _fit_whitening(store: Store, clips: Sequence[ClipRecord]) -> Float32Array:
    """Return the main directions of courses, divided by their spread, shape (dim, n_kept)."""
    from scipy.linalg import eigh
    from threadpoolctl import threadpool_limits

    sample = [clips[row] for row in _spread(len(clips), _SAMPLED_CLIPS)]
    per_clip = max(1, _SAMPLED_VECTORS // len(sample))
    pieces = []
    for start in range(0, len(sample), _READ_CLIPS):
        _, deviations = _read_deviations(store, sample[start : start + _READ_CLIPS])
        pieces.append(deviations[:, _spread(_MOMENTS, per_clip)].reshape(-1, deviations.shape[2]))
    vectors = np.concatenate(pieces)
    dim = vectors.shape[1]
    n_kept = min(_COURSE_DIM, dim, len(vectors) // 2)
    kept = (dim - n_kept, dim - 1)
    # On a busy machine the threads of LAPACK wait for each other ten times as long as they work.
    with threadpool_limits(1, user_api="blas"):
        variance, directions = eigh(vectors.T @ vectors / len(vectors), subset_by_index=kept)
    variance = np.maximum(variance[::-1], 0)
    floor = _LEAST_VARIANCE * variance.mean() + np.finfo(np.float32).tiny
    whitening: Float32Array = (directions[:, ::-1] / np.sqrt(variance + floor)).astype(np.float32)
    return whitening


def _in_parts(courses: Float16Array) -> Float32Array:
    """Return courses of a few parts each, one unit row per clip."""
    n_clips, _, dim = courses.shape
    parts = courses[:, :, :_PART_DIM].reshape(n_clips, _PARTS, -1, min(dim, _PART_DIM))
    return _unit(parts.mean(axis=2, dtype=np.float32).reshape(n_clips, -1))


def _find_nearest(
    look: Float32Array, rows: IntArray, apart: IntArray, block_clips: int
) -> IntArray:
    """Return some clips' nearest ones elsewhere as pairs, the lower row first."""
    n_nearest = min(_NEAREST, len(look) - 1)
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(rows), block_clips):
        block = rows[start : start + block_clips]
        scores = look[block] @ look.T
        scores[apart[block][:, None] == apart[None, :]] = -np.inf
        nearest = np.argpartition(-scores, n_nearest - 1, axis=1)[:, :n_nearest]
        is_other = np.isfinite(np.take_along_axis(scores, nearest, axis=1))
        both = np.stack([np.repeat(block, n_nearest), nearest.ravel()], axis=1)
        pairs.append(np.sort(both[is_other.ravel()], axis=1))
    return np.concatenate(pairs)


def _align(one: Float16Array, other: Float16Array) -> Float32Array:
    """Return the best mean cosine of two courses over shifts and paces, shape (n_pairs,)."""
    products = one.astype(np.float32) @ other.astype(np.float32).transpose(0, 2, 1)
    ways = np.stack(list(_ways()), axis=1)
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


def _spread(n_all: int, n_wanted: int, *, repeat: bool = False) -> IntArray:
    """Return evenly spaced places among `n_all`: all of them, or some twice, if these are fewer."""
    n_chosen = n_wanted if repeat else min(n_all, n_wanted)
    return np.rint(np.linspace(0, n_all - 1, n_chosen)).astype(np.int64)


def _number(names: Sequence[str]) -> IntArray:
    """Return the same number for the same name."""
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _unit(vectors: Float32Array) -> Float32Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Float32Array = vectors / np.maximum(length, np.finfo(np.float32).tiny)
    return unit
