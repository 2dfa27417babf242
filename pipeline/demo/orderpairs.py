"""Which head tells actions apart that differ only in the order of their frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.system.files import read_csv
from pipeline.scores.joint import Contender
from pipeline.scores.paired import compare_pairs
from pipeline.scores.variance import overlap_of_folds

# One movement round and round, forward or backward, from anywhere in it: which poses there are, and
# which come early or late in a clip, is the same for both.
ORDER_PAIRS = (("drill", "drill-back"),)


@dataclass(frozen=True, slots=True)
class OrderScores:
    """How two heads do on the clips of `ORDER_PAIRS`.

    Attributes
    ----------
    without_order, with_order : str
        Names of a head that sees little of the order of frames, and of one that sees it.
    accuracy_without, accuracy_with : float
    p_value : float or None
        Of no difference, by a paired test over groups and seeds; None with one seed.
    n_clips : int
    sentence : str
        What this shows, in one sentence.
    """

    without_order: str
    with_order: str
    accuracy_without: float
    accuracy_with: float
    p_value: float | None
    n_clips: int
    sentence: str


def score_order_pairs(comparison: Path, heads: Sequence[str], *, seed: int = 0) -> OrderScores:
    """Score two heads, one nearly blind to order, by the ``predictions.csv`` of a comparison."""
    labels = {label for pair in ORDER_PAIRS for label in pair}
    rows = [row for row in read_csv(comparison / "predictions.csv") if row["label"] in labels]
    clips = {row["clip_id"]: row["group"] for row in rows}
    n_folds = len({row["fold"] for row in rows})
    found = [_read_answers(head, rows, sorted(clips), n_folds) for head in heads]
    groups = [clips[clip_id] for clip_id in sorted(clips)]
    without, with_order = heads
    pair = compare_pairs(found[::-1], groups, without, seed=seed)[0]
    low, high = (float(contender.hits.mean()) for contender in found)
    if high <= low:
        verdict = f"here {with_order} is not better"
    elif pair.p_value is None:
        verdict = "whether that is luck in training, one seed cannot tell"
    elif pair.is_told_apart:
        verdict = f"{with_order} is better, by more than chance (p = {pair.p_value:.2g})"
    else:
        verdict = f"that may be chance (p = {pair.p_value:.2g})"
    names = ", ".join(f"{one}/{other}" for one, other in ORDER_PAIRS)
    return OrderScores(
        without_order=without,
        with_order=with_order,
        accuracy_without=low,
        accuracy_with=high,
        p_value=pair.p_value,
        n_clips=len(clips),
        sentence=(
            f"Of the {len(clips)} clips that only the order of poses tells apart, not when they "
            f"come ({names}), {with_order} gets {high:.1%} right, {without} {low:.1%}: {verdict}."
        ),
    )


def _read_answers(
    head: str, rows: Sequence[Mapping[str, str]], clips: Sequence[str], n_folds: int
) -> Contender:
    """Gather what each seed of a head got right, clip by clip."""
    right = {
        (row["seed"], row["clip_id"]): row["predicted"] == row["label"]
        for row in rows
        if row["head"] == head
    }
    seeds = sorted({seed for seed, _ in right})
    hits = np.array([[right[seed, clip_id] for clip_id in clips] for seed in seeds], dtype=float)
    overlap = overlap_of_folds(
        float(hits.mean()), None, 1 / 2, n_folds=n_folds, n_trainings=len(seeds)
    )
    return Contender(head, hits, overlap)
