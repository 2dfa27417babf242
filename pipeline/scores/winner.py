"""What being picked as the best of several adds to an accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.records import FloatArray
from pipeline.scores.variance import number_groups, sum_groups

_RESAMPLES = 1000


def accuracy_of_winner(
    hits: Sequence[FloatArray], groups: Sequence[str], *, seed: int = 0
) -> float:
    """Estimate the accuracy of the best of several heads without what picking it adds.

    The bootstrap bias correction of Tsamardinos, Greasidou and Borboudakis ("Bootstrapping the
    out-of-sample predictions for efficient and accurate cross-validation", Machine Learning
    107, 2018), over whole groups and over trainings: the head that is best on the groups and
    trainings that were drawn is scored on the groups that were not. `hits` has one array
    (n_trainings, n_clips) per head. Nothing is trained again.
    """
    membership = number_groups(groups)
    sizes = np.bincount(membership).astype(np.float64)
    n_groups = len(sizes)
    if n_groups == 1 or len(hits) == 1:
        return float(max(head.mean() for head in hits))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=_RESAMPLES)
    left_out = (drawn == 0).astype(np.float64)
    is_scored = left_out @ sizes > 0
    picked_on, scored_on = [], []
    for head in hits:
        sums = sum_groups(head, membership)  # (n_trainings, n_groups)
        shares = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=_RESAMPLES)
        mixed = shares @ sums / len(sums)  # (n_resamples, n_groups)
        picked_on.append((drawn * mixed).sum(axis=1) / (drawn @ sizes))
        scored_on.append(left_out @ sums.mean(axis=0) / np.maximum(left_out @ sizes, 1))
    best = np.argmax(picked_on, axis=0)
    scores = np.array(scored_on)[best, np.arange(_RESAMPLES)]
    weights = left_out @ sizes
    found = float(np.average(scores[is_scored], weights=weights[is_scored]))
    return min(found, float(max(head.mean() for head in hits)))
