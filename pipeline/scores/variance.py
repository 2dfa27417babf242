"""How far an accuracy is off by chance: which groups were tested, and how training went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from features.records import FloatArray, IntArray

# How much more than between groups a cross-validated accuracy varies at most, by whether it is
# the mean of several trainings. See `overlap_of_folds`.
_MOST_OVERLAP = 0.95
_MOST_OVERLAP_OF_ONE_TRAINING = 0.6


@dataclass(frozen=True, slots=True)
class Variance:
    """Where the variance of a mean over clips comes from.

    Attributes
    ----------
    between_groups : float
        As the groups that happened to be tested show it, in the mean of all trainings.
    shared : float
        What of this comes from trainings that did differently on the same groups.
    between_trainings : float
        As the trainings show it: first weights, the order of clips, dropout. 0 for one training,
        which says nothing about it.
    n_groups : int
    freedom : float
        Degrees of freedom behind `between_trainings`.
    """

    between_groups: float
    shared: float
    between_trainings: float
    n_groups: int
    freedom: float

    @property
    def of_groups(self) -> float:
        """What varies with the groups however training went."""
        return max(0.0, self.between_groups - self.shared)

    @property
    def of_training(self) -> float:
        """What varies with training; never less than single groups show of it.

        Two or three trainings may come out alike by luck.
        """
        return max(self.between_trainings, self.shared)


def number_groups(groups: Sequence[str]) -> IntArray:
    """Give the groups of clips numbers from 0."""
    numbers = {name: number for number, name in enumerate(sorted(set(groups)))}
    return np.array([numbers[name] for name in groups], dtype=np.int64)


def sum_groups(values: FloatArray, membership: IntArray) -> FloatArray:
    """Add up the values of each group's clips: (..., n_clips) to (..., n_groups)."""
    n_groups = int(membership.max()) + 1
    rows = values.reshape(-1, values.shape[-1])
    sums = np.array([np.bincount(membership, weights=row, minlength=n_groups) for row in rows])
    return sums.reshape(*values.shape[:-1], n_groups).astype(np.float64)


def jackknife_variance(sums: FloatArray, sizes: FloatArray) -> FloatArray:
    """Estimate the variance of means over clips by leaving out each group in turn.

    `sums` has one group per entry of its last axis. Unlike the usual formula it does not come
    out too small where few groups are much larger than the others.
    """
    n_groups, n_clips = len(sizes), sizes.sum()
    if n_groups == 1:
        return np.zeros(sums.shape[:-1])
    means = (sums.sum(axis=-1, keepdims=True) - sums) / (n_clips - sizes)
    spread = np.square(means - means.mean(axis=-1, keepdims=True)).sum(axis=-1)
    variance: FloatArray = (n_groups - 1) / n_groups * spread
    return variance


def split_variance(hits: FloatArray, membership: IntArray) -> Variance:
    """Tell apart how the accuracy of several trainings varies with groups and with training.

    `hits` says what each training got right, shape (n_trainings, n_clips). Groups and trainings
    are crossed, and both are drawn at random.
    """
    sizes = np.bincount(membership).astype(np.float64)
    sums = sum_groups(hits, membership)
    n_trainings, n_groups = sums.shape
    between_groups = float(jackknife_variance(sums.mean(axis=0), sizes))
    if n_trainings == 1:
        return Variance(between_groups, 0.0, 0.0, n_groups, np.inf)
    means = sums.sum(axis=1) / sizes.sum()
    own = sums - means[:, np.newaxis] * sizes
    own -= own.mean(axis=0)
    freedom = (n_trainings - 1) * max(1, n_groups - 1) / n_groups
    shared = float(np.square(own).sum()) / freedom / sizes.sum() ** 2 / n_trainings
    between_trainings = float(means.var(ddof=1)) / n_trainings
    return Variance(between_groups, shared, between_trainings, n_groups, n_trainings - 1)


def difference_variance(one: FloatArray, other: FloatArray, membership: IntArray) -> Variance:
    """Do the same for the difference of two heads, which were trained independently."""
    sizes = np.bincount(membership).astype(np.float64)
    sums = sum_groups(one.mean(axis=0) - other.mean(axis=0), membership)
    sides = [split_variance(side, membership) for side in (one, other)]
    of_training = sum(side.of_training for side in sides)
    squares = sum(side.of_training**2 / side.freedom for side in sides)
    return Variance(
        between_groups=float(jackknife_variance(sums, sizes)),
        shared=sum(side.shared for side in sides),
        between_trainings=of_training,
        n_groups=len(sizes),
        freedom=of_training**2 / squares if squares > 0 else np.inf,
    )


def overlap_of_folds(
    tested: float, trained: float | None, chance: float, *, n_folds: int, n_trainings: int
) -> float:
    """Say how many times larger the variance between groups is because folds share clips.

    In a cross-validation every clip is tested once and helps to train what tests the others, so
    that the answers for two clips of different folds vary together, which groups do not show.
    No unbiased estimate of this exists (Bengio and Grandvalet, "No unbiased estimator of the
    variance of k-fold cross-validation", JMLR 5, 2004). Where nothing is learned, a score is a
    sum over pairs of clips, each counted from both sides: its variance is twice as large, and
    1 + 2 / pi = 1.64 times after right and wrong are told apart by a threshold. Simulated with
    heads of few and many dimensions, two and four classes, it is 1.4 to 1.8 times there; it
    stays so as long as heads learn their training clips by heart; and it falls towards 1 as
    accuracies on training and test clips meet at a high level. Hence the larger of two shares
    is taken: of the way from chance to certainty that is not learned, and of the errors that
    are not made on training clips.

    `tested` and `trained` are accuracies on test and training clips, `chance` is that of a
    constant guess. A hold-out, `n_folds` 1, tests what it never trains on.
    """
    if n_folds == 1:
        return 1.0
    unlearned = 1 - max(0.0, tested - chance) / (1 - chance) if chance < 1 else 1.0
    by_heart = 1.0
    if trained is not None and tested < 1:
        by_heart = min(1.0, max(0.0, trained - tested) / (1 - tested))
    most = _MOST_OVERLAP if n_trainings > 1 else _MOST_OVERLAP_OF_ONE_TRAINING
    return 1 + most * max(unlearned, by_heart)
