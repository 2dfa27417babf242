"""Which head tells actions apart that differ only in the order of their frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.system.files import read_csv
from pipeline.scores.paired import compare_pairs

ORDER_PAIRS = (("sit-down", "stand-up"), ("pick-up", "put-down"))


@dataclass(frozen=True, slots=True)
class OrderScores:
    """How two heads do on the clips of `ORDER_PAIRS`.

    Attributes
    ----------
    without_order, with_order : str
        Names of a head that cannot see the order of frames, and of one that can.
    accuracy_without, accuracy_with : float
    p_value : float
        Of no difference, by a paired test over groups.
    n_clips : int
    sentence : str
        What this shows, in one sentence.
    """

    without_order: str
    with_order: str
    accuracy_without: float
    accuracy_with: float
    p_value: float
    n_clips: int
    sentence: str


def score_order_pairs(comparison: Path, heads: Sequence[str], *, seed: int = 0) -> OrderScores:
    """Score two heads, blind to order and not, by the ``predictions.csv`` of a comparison."""
    labels = {label for pair in ORDER_PAIRS for label in pair}
    rows = [row for row in read_csv(comparison / "predictions.csv") if row["label"] in labels]
    mine = {
        head: sorted((r for r in rows if r["head"] == head), key=lambda r: r["clip_id"])
        for head in heads
    }
    correct = {
        head: np.array([row["predicted"] == row["label"] for row in found], dtype=np.float64)
        for head, found in mine.items()
    }
    without, with_order = heads
    pair = compare_pairs(
        [with_order, without], correct, [row["group"] for row in mine[without]], seed=seed
    )[0]
    low, high = float(correct[without].mean()), float(correct[with_order].mean())
    if high <= low:
        verdict = f"here {with_order} is not better"
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
        n_clips=len(mine[without]),
        sentence=(
            f"Of the {len(mine[without])} clips that only the order of frames tells apart "
            f"({names}), {with_order} gets {high:.1%} right, {without} {low:.1%}: {verdict}."
        ),
    )
