"""Ranking heads where clips may have several classes: by mean average precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import FloatArray
from pipeline.compare.ranking import BASELINE, HeadResult, Ranking, describe_winner
from pipeline.compare.trials import Trial, TrialResult
from pipeline.scores.intervals import accuracy_interval
from pipeline.scores.joint import Contender
from pipeline.scores.labels import (
    LabelScores,
    average_precisions,
    chance_precision,
    clip_credits,
    join_labels,
    macro_f1,
    macro_recall,
    micro_f1,
    most_frequent_labels,
)
from pipeline.scores.metrics import calibration_error, calibration_floor, reliability_bins
from pipeline.scores.paired import compare_pairs, summarise_pairs
from pipeline.scores.variance import overlap_of_folds
from pipeline.scores.winner import accuracy_of_winner
from pipeline.splits.split import Split

Array = npt.NDArray[Any]


def rank_label_heads(
    results: Mapping[Trial, TrialResult],
    splits: Sequence[Split],
    targets: Mapping[str, Array],
    groups: Mapping[str, str],
    classes: Sequence[str],
    *,
    seed: int = 0,
) -> Ranking:
    """Summarise trials by head and test every pair; see `rank_heads`.

    `targets` has a row of 0 and 1 for every trained and tested clip, in the order of the classes.
    Average precisions are those of each test part by itself, averaged over its clips: ranks among
    the answers of different models mean little (Forman and Scholz, "Apples-to-apples in
    cross-validation studies", SIGKDD Explorations 12, 2010).
    """
    truth = np.array([targets[clip_id] for split in splits for clip_id in split.test])
    clip_groups = [groups[clip_id] for split in splits for clip_id in split.test]
    constants = [most_frequent_labels(np.array([targets[i] for i in s.train])) for s in splits]
    parts = _find_parts(splits)
    guesses = np.repeat(constants, [len(split.test) for split in splits], axis=0)
    chance = float(_average(parts, [chance_precision(truth[part]) for part in parts])[0])
    found = []
    for name in dict.fromkeys(trial.head for trial in results):
        mine = {trial: result for trial, result in results.items() if trial.head == name}
        shares, named = _pool(mine, splits)
        credits = np.array(
            [
                np.concatenate(
                    [clip_credits(truth[part], rows[part], clip_groups[part]) for part in parts]
                )
                for rows in shares
            ]
        )
        overlap = overlap_of_folds(
            float(credits.mean()),
            float(np.mean([result.trained_accuracy for result in mine.values()])),
            chance,
            n_folds=len(splits),
            n_trainings=len(credits),
        )
        contender = Contender(name, credits, overlap)
        pooled = _Pooled(shares, named, truth, parts, clip_groups, classes)
        found.append((_summarise(contender, list(mine.values()), pooled, chance), contender))
    found.sort(key=lambda item: (-_mean(item[0]), item[0].n_parameters))
    heads = tuple(head for head, _ in found)
    contenders = [contender for _, contender in found]
    names = [head.name for head in heads]
    pairs = compare_pairs(contenders, clip_groups, BASELINE, seed=seed)
    winner = accuracy_of_winner([item.hits for item in contenders], clip_groups, seed=seed)
    verdicts = (
        *summarise_pairs(names, pairs, BASELINE, n_groups=len(set(clip_groups))),
        *describe_winner(names, _mean(heads[0]), winner),
        *_judge_against_chance(heads),
    )
    return Ranking(
        heads=heads,
        pairs=pairs,
        guesses=(),
        guess_pairs=(),
        majority_classes=tuple(dict.fromkeys(join_labels(row, classes) for row in constants)),
        majority_accuracy=float((guesses == truth).all(axis=1).mean()),
        winner_accuracy=winner,
        verdicts=verdicts,
    )


def _average(parts: Sequence[slice], values: Sequence[Any]) -> Array:
    """Average over test parts, each as large as it is, without those that have NaN."""
    sizes = np.array([part.stop - part.start for part in parts], dtype=np.float64)
    rows = np.atleast_2d(np.array(values, dtype=np.float64).T).T
    weights = sizes[:, np.newaxis] * ~np.isnan(rows)
    totals = weights.sum(axis=0)
    found: Array = np.where(
        totals > 0, (weights * np.nan_to_num(rows)).sum(axis=0) / np.maximum(totals, 1), np.nan
    )
    return found


@dataclass(frozen=True, slots=True)
class _Pooled:
    """The test parts of one head in a row, and what is true of them."""

    shares: FloatArray  # probabilities, (n_seeds, n_clips, n_classes)
    named: Array  # bool, of the same shape
    truth: Array  # (n_clips, n_classes)
    parts: tuple[slice, ...]  # where each test part lies
    groups: Sequence[str]
    classes: Sequence[str]


def _find_parts(splits: Sequence[Split]) -> tuple[slice, ...]:
    ends = np.cumsum([len(split.test) for split in splits]).tolist()
    return tuple(slice(start, end) for start, end in zip([0, *ends], ends, strict=False))


def _mean(head: HeadResult) -> float:
    return head.labels.mean_average_precision.mean if head.labels else 0.0


def _pool(
    results: Mapping[Trial, TrialResult], splits: Sequence[Split]
) -> tuple[FloatArray, Array]:
    """Line up the test parts: probabilities, and what is named; (n_seeds, n_clips, n_classes)."""
    found = {(trial.seed, trial.fold): result for trial, result in results.items()}
    seeds = sorted({seed for seed, _ in found})
    shares, named = [], []
    for seed in seeds:
        parts = [found[seed, fold] for fold in range(len(splits))]
        rows = [np.array(part.probabilities, dtype=np.float64) for part in parts]
        above = [row >= np.array(p.thresholds) for row, p in zip(rows, parts, strict=True)]
        shares.append(np.concatenate(rows))
        named.append(np.concatenate(above))
    return np.array(shares), np.array(named)


def _summarise(
    contender: Contender, trials: Sequence[TrialResult], pooled: _Pooled, chance: float
) -> HeadResult:
    shares, named, truth, groups = pooled.shares, pooled.named, pooled.truth, pooled.groups
    right = (named == (truth == 1)).all(axis=2)
    precisions = np.mean(
        [
            _average(pooled.parts, [average_precisions(truth[p], rows[p]) for p in pooled.parts])
            for rows in shares
        ],
        axis=0,
    )
    by_class = dict(zip(pooled.classes, map(float, precisions), strict=True))
    bins = [reliability_bins(rows.ravel(), truth.ravel()) for rows in shares]
    score = accuracy_interval(contender.hits, groups, overlap=contender.overlap)
    sizes = [len(result.probabilities or ()) for result in trials]
    return HeadResult(
        name=contender.name,
        accuracy=accuracy_interval(right, groups, overlap=contender.overlap),
        balanced_accuracy=float(np.mean([macro_recall(truth, rows) for rows in named])),
        macro_f1=float(np.mean([macro_f1(truth, rows) for rows in named])),
        calibration_error=float(np.mean([calibration_error(item) for item in bins])),
        calibration_floor=float(np.mean([calibration_floor(rows.ravel()) for rows in shares])),
        reliability=reliability_bins(shares.ravel(), np.tile(truth.ravel(), len(shares))),
        above_majority=score.low > chance,
        above_facts=True,
        top5=None,
        backwards=float(np.average([trial.backwards for trial in trials], weights=sizes)),
        shuffled=float(np.average([trial.shuffled for trial in trials], weights=sizes)),
        n_parameters=trials[0].n_parameters,
        train_seconds=float(np.median([trial.train_seconds for trial in trials])),
        latency_ms=float(np.median([trial.latency_ms for trial in trials])),
        n_trials=len(trials),
        labels=LabelScores(
            mean_average_precision=score,
            chance=chance,
            micro_f1=float(np.mean([micro_f1(truth, rows) for rows in named])),
            macro_f1=float(np.mean([macro_f1(truth, rows) for rows in named])),
            exact_match=float(right.mean()),
            average_precisions={n: p for n, p in by_class.items() if not np.isnan(p)},
            untested=tuple(n for n, p in by_class.items() if np.isnan(p)),
        ),
    )


def _judge_against_chance(heads: Sequence[HeadResult]) -> tuple[str, ...]:
    below = [head.name for head in heads if not head.above_majority]
    if not below:
        return ()
    if len(below) == len(heads) > 1:
        return ("No head is better than random probabilities.",)
    verb = "is" if len(below) == 1 else "are"
    return (f"{', '.join(below)} {verb} not better than random probabilities.",)
