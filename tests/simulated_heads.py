"""Comparisons whose truth is known: quick heads that really train, on drawn clips of groups.

A head is a ridge classifier on random features, which its seed draws, or on the clips as they are,
which no seed changes. How good a trained head is, is measured on clips that nobody else sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from features.records import FloatArray, IntArray
from pipeline.scores.intervals import accuracy_interval, difference_interval
from pipeline.scores.joint import Contender, JointTest, judge_pairs
from pipeline.scores.variance import overlap_of_folds

# Clips that only measure how good a trained head is, by whether that is so in one case alone.
_N_FRESH, _N_FRESH_OF_MODELS = 60, 500
# Trainings of a hold-out that only measure what training gives on average.
_MORE_TRAININGS = 30


@dataclass(frozen=True)
class World:
    """What is compared, and on which clips."""

    n_groups: int = 40  # that are tested
    n_folds: int = 5  # 1: a hold-out, trained on as many groups as `n_trained`
    n_trained: int = 40
    sizes: tuple[int, ...] = (2,)  # of groups, repeated
    n_classes: int = 2
    mixed: bool = False  # groups hold several classes
    signal: float = 1.0  # how far classes are apart; 0: labels mean nothing
    dim: int = 16
    n_seeds: int = 3
    features: tuple[int, ...] = (24,)  # random ones of each head; 0: none, no luck in training
    strengths: tuple[float, ...] = ()  # of the signal in what each head sees, which is its own
    same_start: bool = True  # a seed draws the same features in every fold

    @property
    def is_about_models(self) -> bool:
        """Whether the truth is that of the models that were trained, not of all such ones."""
        return self.n_folds == 1 or (self.n_seeds == 1 and any(self.features))

    def __str__(self) -> str:
        """Name what is not as by default."""
        default = World()
        fields = ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        return ", ".join(f"{n}={v}" for n, v in fields if v != getattr(default, n))


@dataclass(frozen=True)
class Sample:
    """One comparison."""

    contenders: tuple[Contender, ...]
    groups: list[str]
    truths: FloatArray  # (n_heads,): accuracy of the trained models of each head


def draw_samples(
    world: World, n_cases: int, *, with_truth: bool = False, seed: int = 0
) -> Iterator[Sample]:
    """Draw clips, and train and test every head on them, again and again.

    `with_truth` measures how good the trained heads are, which takes longer.
    """
    rng = np.random.default_rng(seed)
    for _ in range(n_cases):
        yield _draw_sample(rng, world, with_truth=with_truth)


def measure_coverage(world: World, n_cases: int, *, overlaps: bool = True) -> tuple[float, float]:
    """Percent of intervals that hold the truth: of accuracies, and of differences of two heads.

    The truth is what such a training gives on average: on training parts of that size in a
    cross-validation, on the one training part of a hold-out. With one seed, luck in training
    cannot be known, and the truth is that of the trained models. `overlaps` False leaves out
    that folds train on each other's test parts.
    """
    samples = list(draw_samples(world, n_cases, with_truth=True))
    on_average = np.mean([sample.truths for sample in samples], axis=0)
    covered, differences_covered = [], []
    for sample in samples:
        truths = sample.truths if world.is_about_models else on_average
        for contender, truth in zip(sample.contenders, truths, strict=True):
            overlap = contender.overlap if overlaps else 1.0
            score = accuracy_interval(contender.hits, sample.groups, overlap=overlap)
            covered.append(score.low <= truth <= score.high)
        if len(truths) == 2:
            one, other = sample.contenders[:2]
            overlap = max(one.overlap, other.overlap) if overlaps else 1.0
            score = difference_interval(one.hits, other.hits, sample.groups, overlap=overlap)
            differences_covered.append(score.low <= truths[0] - truths[1] <= score.high)
    differences = float(np.mean(differences_covered)) if differences_covered else 0.0
    return 100 * float(np.mean(covered)), 100 * differences


def judge(sample: Sample) -> JointTest:
    """Test all pairs of a sample; those with the first head are the planned ones."""
    pairs = list(combinations(range(len(sample.contenders)), 2))
    planned = [0 in pair for pair in pairs]
    return judge_pairs(sample.contenders, pairs, sample.groups, planned=planned, n_draws=1000)


def measure_false_alarms(world: World, n_cases: int) -> float:
    """Percent of comparisons of heads of equal truth in which any two are told apart."""
    alarms = [(judge(s).p_adjusted < 0.05).any() for s in draw_samples(world, n_cases)]
    return 100 * float(np.mean(alarms))


def measure_power(world: World, n_cases: int) -> tuple[float, float]:
    """Percent of the pairs of heads of unequal truth that are told apart: all at once, by Holm."""
    pairs = list(combinations(range(len(world.features)), 2))
    differ = np.array([world.strengths[i] != world.strengths[j] for i, j in pairs])
    found, found_by_holm = [], []
    for sample in draw_samples(world, n_cases):
        test = judge(sample)
        found.append((test.p_adjusted < 0.05)[differ].mean())
        found_by_holm.append((adjust_by_holm(test.p_values) < 0.05)[differ].mean())
    return 100 * float(np.mean(found)), 100 * float(np.mean(found_by_holm))


def adjust_by_holm(p_values: FloatArray) -> FloatArray:
    """Correct p-values for being many one by one, as was done before."""
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1) * p_values[order]
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def _draw_sample(rng: np.random.Generator, world: World, *, with_truth: bool) -> Sample:
    n_views = max(1, len(world.strengths))
    strengths = np.array(world.strengths or (1.0,))
    means = rng.normal(size=(world.n_classes, n_views, world.dim))
    means -= means.mean(axis=0)
    lengths = np.sqrt(np.square(means).sum(axis=2, keepdims=True).mean(axis=0, keepdims=True))
    means *= world.signal * strengths[:, np.newaxis] / lengths
    held_out = world.n_folds == 1
    n_groups = world.n_groups + world.n_trained * held_out
    labels_of = rng.permutation(np.arange(n_groups) % world.n_classes)
    fold_of = np.empty(n_groups, dtype=np.int64)
    order = np.argsort(labels_of, kind="stable")  # every fold gets its share of every class
    if held_out:
        fold_of[order] = rng.permutation(n_groups) >= world.n_groups
    else:
        fold_of[order] = np.arange(n_groups) % world.n_folds
    clips, labels, membership = _draw_clips(rng, world, means, labels_of)
    fresh_world = replace(world, sizes=(1,))
    n_fresh = _N_FRESH_OF_MODELS if world.is_about_models else _N_FRESH
    fresh = np.arange(n_fresh if with_truth else 1) % world.n_classes
    n_more = _MORE_TRAININGS if with_truth and held_out and world.n_seeds > 1 else 0
    fresh_clips, fresh_labels, _ = _draw_clips(rng, fresh_world, means, fresh)
    folds = fold_of[membership]
    is_tested = folds == 0 if held_out else np.ones(len(labels), dtype=bool)
    contenders, truths = [], []
    for number, n_features in enumerate(world.features):
        view = number if world.strengths else 0
        hits, trained, truth = _train(
            rng,
            world,
            n_features,
            n_more if n_features else 0,
            np.concatenate([clips[:, view], fresh_clips[:, view]]),
            labels,
            fresh_labels,
            folds,
        )
        overlap = overlap_of_folds(
            float(hits.mean()),
            trained,
            1 / world.n_classes,
            n_folds=world.n_folds,
            n_trainings=world.n_seeds,
        )
        contenders.append(Contender(f"head{number}", hits[:, is_tested], overlap))
        truths.append(truth)
    groups = [f"g{number:04d}" for number in membership[is_tested]]
    return Sample(tuple(contenders), groups, np.array(truths))


def _draw_clips(
    rng: np.random.Generator, world: World, means: FloatArray, labels_of: IntArray
) -> tuple[FloatArray, IntArray, IntArray]:
    n_groups = len(labels_of)
    membership = np.repeat(np.arange(n_groups), rng.permutation(np.resize(world.sizes, n_groups)))
    labels = labels_of[membership]
    if world.mixed:
        labels = rng.integers(world.n_classes, size=len(membership))
    shape = (n_groups, *means.shape[1:])
    shared = 0.7 * rng.normal(size=shape)[membership]
    return means[labels] + shared + rng.normal(size=shared.shape), labels, membership


def _train(
    rng: np.random.Generator,
    world: World,
    n_features: int,
    n_more: int,
    clips: FloatArray,
    labels: IntArray,
    fresh_labels: IntArray,
    folds: IntArray,
) -> tuple[FloatArray, float, float]:
    """Train one head with every seed in every fold, all at once.

    `n_more` trainings only measure what training gives on average. Returns what each seed got
    right of each clip, and the accuracies on training and fresh clips.
    """
    n_folds, n_clips, dim = world.n_folds, len(labels), clips.shape[1]
    n_seeds = world.n_seeds + n_more
    n_models = n_seeds * n_folds
    seen = np.broadcast_to(clips, (n_models, *clips.shape))
    if n_features:
        n_starts = n_seeds if world.same_start else n_models
        weights = rng.normal(size=(n_starts, dim, n_features)) / np.sqrt(dim)
        biases = rng.normal(size=(n_starts, 1, n_features)) / 2
        started = np.maximum(clips @ weights + biases, 0)
        seen = np.repeat(started, n_folds, axis=0) if world.same_start else started
    tested = np.tile(np.arange(n_folds), n_seeds)
    is_trained = (folds != tested[:, np.newaxis]).astype(np.float64)[..., np.newaxis]
    n_trained = is_trained.sum(axis=1, keepdims=True)
    seen = seen - (seen[:, :n_clips] * is_trained).sum(axis=1, keepdims=True) / n_trained
    wanted = 2 * np.eye(world.n_classes)[labels] - 1
    usual = (is_trained * wanted).sum(axis=1, keepdims=True) / n_trained
    learned = (seen[:, :n_clips] * is_trained).transpose(0, 2, 1)
    products = learned @ seen[:, :n_clips]
    width = products.shape[1]
    ridge = 0.1 * np.trace(products, axis1=1, axis2=2) / width + 1e-6
    products = products + ridge[:, np.newaxis, np.newaxis] * np.eye(width)
    coefficients = np.linalg.solve(products, learned @ (wanted - usual))
    predicted = (seen @ coefficients + usual).argmax(axis=2)
    right = (predicted[:, :n_clips] == labels).reshape(n_seeds, n_folds, n_clips)
    measured = predicted[world.n_seeds :] if n_more else predicted
    fresh = float((measured[:, n_clips:] == fresh_labels).mean())
    is_trained = is_trained.reshape(n_seeds, n_folds, n_clips)
    trained = float((right * is_trained).sum() / is_trained.sum())
    hits = right[: world.n_seeds, np.minimum(folds, n_folds - 1), np.arange(n_clips)]
    hits = hits.astype(np.float64)
    return hits, trained, fresh
