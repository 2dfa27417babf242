"""From finished trials to a ranking of heads, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.records import IntArray
from features.system.text import format_count
from pipeline.compare.trials import Trial, TrialResult
from pipeline.scores.intervals import Score, accuracy_interval
from pipeline.scores.joint import Contender
from pipeline.scores.labels import LabelScores
from pipeline.scores.metrics import (
    ReliabilityBin,
    balanced_accuracy,
    calibration_error,
    calibration_floor,
    macro_f1,
    most_frequent,
    reliability_bins,
)
from pipeline.scores.paired import (
    HeadPair,
    compare_pairs,
    compare_with_guesses,
    judge_guesses,
    summarise_pairs,
)
from pipeline.scores.shortcuts import FILE_FACTS
from pipeline.scores.variance import overlap_of_folds
from pipeline.scores.winner import accuracy_of_winner
from pipeline.splits.split import Split

# The simplest head: whatever is not better is not worth its time.
BASELINE = "mean-linear"


@dataclass(frozen=True, slots=True)
class HeadResult:
    """What a comparison found out about one head.

    Attributes
    ----------
    name : str
    accuracy : Score
        Over the tested clips, averaged over seeds; interval over groups and seeds. Of one seed
        it is about these trained models.
    balanced_accuracy, macro_f1, calibration_error : float
        Of all test parts together, averaged over seeds.
    calibration_floor : float
        The calibration error that a perfectly calibrated head would show on so few clips.
    reliability : tuple of ReliabilityBin
        Of all test parts and seeds together.
    above_majority, above_facts : bool
        Whether it is better, by more than chance, than always naming the most frequent class,
        and than the facts of the files alone.
    top5 : float or None
        None for five classes or fewer.
    backwards, shuffled : float
        Accuracies on the same clips in another order of frames, see `pipeline.scores.frameorder`.
    n_parameters : int
    train_seconds, latency_ms : float
        Medians over trials, several of which ran side by side.
    n_trials : int
    labels : LabelScores or None
        Scores where clips may have several classes, averaged over seeds; None where every clip
        has one. Heads are ranked by their mean average precision then, `accuracy` is the share of
        clips of which every class is right, and the other scores count answers about one class.
    """

    name: str
    accuracy: Score
    balanced_accuracy: float
    macro_f1: float
    calibration_error: float
    calibration_floor: float
    reliability: tuple[ReliabilityBin, ...]
    above_majority: bool
    above_facts: bool
    top5: float | None
    backwards: float
    shuffled: float
    n_parameters: int
    train_seconds: float
    latency_ms: float
    n_trials: int
    labels: LabelScores | None = None


@dataclass(frozen=True, slots=True)
class GuessResult:
    """What is right without a head: always naming a class, or going by the files' facts.

    Attributes
    ----------
    name : str
    accuracy : Score
        On the same test clips.
    """

    name: str
    accuracy: Score


@dataclass(frozen=True, slots=True)
class Ranking:
    """How heads compare, best first, with every pair tested and all this in sentences.

    The majority classes are the most frequent ones of the training parts, each once; their
    accuracy is that of always naming them. `winner_accuracy` is that of the first head without
    what being picked as the best adds.
    """

    heads: tuple[HeadResult, ...]
    pairs: tuple[HeadPair, ...]
    guesses: tuple[GuessResult, ...]
    guess_pairs: tuple[HeadPair, ...]
    majority_classes: tuple[str, ...]
    majority_accuracy: float
    winner_accuracy: float
    verdicts: tuple[str, ...]


def rank_heads(
    results: Mapping[Trial, TrialResult],
    splits: Sequence[Split],
    class_indices: Mapping[str, int],
    groups: Mapping[str, str],
    classes: Sequence[str],
    *,
    by_facts: Sequence[Sequence[str]] | None = None,
    seed: int = 0,
) -> Ranking:
    """Summarise trials by head and test every pair of heads.

    Best first; of equal heads the smaller one. Every head has the same seeds and splits, and
    test parts do not overlap. `by_facts` are the answers of `guess_by_facts`.
    """
    ids = [clip_id for split in splits for clip_id in split.test]
    truth = np.array([class_indices[clip_id] for clip_id in ids], dtype=np.int64)
    clip_groups = [groups[clip_id] for clip_id in ids]
    constants = [most_frequent([class_indices[i] for i in split.train]) for split in splits]
    answers = np.repeat(constants, [len(split.test) for split in splits])
    majority_accuracy = float((answers == truth).mean())
    majority_classes = tuple(dict.fromkeys(classes[index] for index in constants))
    guesses = [_as_guess(_always_naming(majority_classes), answers == truth)]
    if by_facts is not None:
        named = [label for part in by_facts for label in part]
        right = np.array([classes[index] for index in truth]) == np.array(named)
        guesses.append(_as_guess(FILE_FACTS, right))
    found = []
    for name in dict.fromkeys(trial.head for trial in results):
        mine = {trial: result for trial, result in results.items() if trial.head == name}
        pooled = _pool(mine, len(splits))
        hits = (pooled["predicted"] == truth).astype(np.float64)
        overlap = overlap_of_folds(
            float(hits.mean()),
            float(np.mean([result.trained_accuracy for result in mine.values()])),
            majority_accuracy,
            n_folds=len(splits),
            n_trainings=len(hits),
        )
        found.append((Contender(name, hits, overlap), list(mine.values()), pooled))
    found.sort(key=lambda item: (-item[0].hits.mean(), item[1][0].n_parameters))
    heads = [contender for contender, _, _ in found]
    guess_pairs = compare_with_guesses(heads, guesses, clip_groups, seed=seed)
    is_above = {(pair.a, pair.b): pair.is_told_apart for pair in guess_pairs}
    summaries = tuple(
        _summarise(
            contender,
            mine,
            pooled,
            truth,
            clip_groups,
            above_majority=is_above[contender.name, guesses[0].name],
            above_facts=is_above.get((contender.name, FILE_FACTS), True),
            n_classes=len(classes),
        )
        for contender, mine, pooled in found
    )
    names = [head.name for head in heads]
    pairs = compare_pairs(heads, clip_groups, BASELINE, seed=seed)
    winner = accuracy_of_winner([head.hits for head in heads], clip_groups, seed=seed)
    verdicts = [
        *summarise_pairs(names, pairs, BASELINE, n_groups=len(set(clip_groups))),
        *describe_winner(names, summaries[0].accuracy.mean, winner),
        *judge_guesses(guess_pairs),
    ]
    return Ranking(
        heads=summaries,
        pairs=pairs,
        guesses=tuple(
            GuessResult(guess.name, accuracy_interval(guess.hits, clip_groups)) for guess in guesses
        ),
        guess_pairs=guess_pairs,
        majority_classes=majority_classes,
        majority_accuracy=majority_accuracy,
        winner_accuracy=winner,
        verdicts=tuple(verdicts),
    )


def _as_guess(name: str, right: npt.NDArray[np.bool_]) -> Contender:
    return Contender(name, right[np.newaxis].astype(np.float64))


def _always_naming(labels: Sequence[str]) -> str:
    return "always naming " + " or ".join(f"'{label}'" for label in labels)


def describe_winner(names: Sequence[str], score: float, winner: float) -> tuple[str, ...]:
    """Say what the score of the first head owes to being the first."""
    if len(names) == 1:
        return ()
    return (
        f"{names[0]} comes first of {format_count(len(names), 'head')}, which flatters it: "
        f"without that, its {score:.1%} would be about {winner:.1%}.",
    )


def _summarise(
    contender: Contender,
    results: Sequence[TrialResult],
    pooled: Mapping[str, npt.NDArray[Any]],
    truth: IntArray,
    groups: Sequence[str],
    *,
    above_majority: bool,
    above_facts: bool,
    n_classes: int,
) -> HeadResult:
    rows = pooled["predicted"]
    hits = rows == truth
    bins = [reliability_bins(c, h) for c, h in zip(pooled["confidence"], hits, strict=True)]
    return HeadResult(
        name=contender.name,
        accuracy=accuracy_interval(contender.hits, groups, overlap=contender.overlap),
        balanced_accuracy=float(np.mean([balanced_accuracy(truth, row) for row in rows])),
        macro_f1=float(np.mean([macro_f1(truth, row) for row in rows])),
        calibration_error=float(np.mean([calibration_error(item) for item in bins])),
        calibration_floor=float(np.mean([calibration_floor(row) for row in pooled["confidence"]])),
        reliability=reliability_bins(pooled["confidence"].ravel(), hits.ravel()),
        above_majority=above_majority,
        above_facts=above_facts,
        top5=float(pooled["in_top5"].mean()) if n_classes > 5 else None,
        backwards=_average(results, "backwards"),
        shuffled=_average(results, "shuffled"),
        n_parameters=results[0].n_parameters,
        train_seconds=float(np.median([result.train_seconds for result in results])),
        latency_ms=float(np.median([result.latency_ms for result in results])),
        n_trials=len(results),
    )


def _average(results: Sequence[TrialResult], name: str) -> float:
    values = [getattr(result, name) for result in results]
    return float(np.average(values, weights=[len(result.predicted) for result in results]))


def _pool(results: Mapping[Trial, TrialResult], n_splits: int) -> dict[str, npt.NDArray[Any]]:
    """Line up one head's test parts of all splits: arrays of shape (n_seeds, n_tested_clips)."""
    found = {(trial.seed, trial.fold): result for trial, result in results.items()}
    seeds = sorted({seed for seed, _ in found})
    return {
        name: np.array(
            [
                [value for fold in range(n_splits) for value in getattr(found[seed, fold], name)]
                for seed in seeds
            ]
        )
        for name in ("predicted", "confidence", "in_top5")
    }
