"""Intervals of accuracies and of their differences, over groups and trainings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.records import FloatArray, IntArray
from pipeline.scores.variance import (
    Variance,
    difference_variance,
    number_groups,
    split_variance,
)

# What is believed of clips of one group before the clips say anything: a high correlation,
# with the weight of one group that fails. Chosen by simulation, see `accuracy_interval`.
_PRIOR_CORRELATION = 0.8
_PRIOR_FAILING_GROUPS = 1.0
# The larger of what three trainings show of luck and of what single groups show is 1 + 1/e times
# as large as either on average, if luck differs from group to group alone.
_LEAST_LUCK = 1 - float(np.exp(-1))
# Degrees of freedom per group beyond the first, more than one because of that belief.
_FREEDOM = 2


@dataclass(frozen=True, slots=True)
class Score:
    """A mean with its 95 % interval.

    Attributes
    ----------
    mean, low, high : float
        In [0, 1].
    n : int
        Clips behind the mean.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """Show percent, as people read it."""
        return f"{100 * self.mean:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class _Evidence:
    """How much the clips say."""

    # Independent clips that would say as much, divided by the squared quantile of the
    # confidence level: a score interval of this many clips has quantile 1.
    n_effective: float
    clip_variance: float  # of one clip's value
    belief: float  # weight of the belief about groups against what the clips say; in (0, 1]


def accuracy_interval(
    correct: npt.ArrayLike,
    groups: Sequence[str],
    *,
    overlap: float = 1.0,
    level: float = 0.95,
) -> Score:
    """Estimate accuracy and how far it can be trusted, by whole groups and by trainings.

    Clips of one group succeed and fail together, so groups are what was drawn at random. The
    jackknife over groups (Davison and Hinkley, "Bootstrap Methods and their Application",
    1997, section 3.9) gives the standard error. It does not give the ends: percentiles of the
    bootstrap, BCa and studentised ones cover far too seldom with the 12 to 60 groups that
    people have, and a perfect score would be certain. The ends are those of Wilson's score
    interval for as many independent clips as the standard error speaks for (Korn and Graubard,
    Survey Methodology 24, 1998; Dean and Pavlou, "Confidence intervals for proportions
    estimated from complex sample designs", Journal of Survey Statistics and Methodology 3,
    2015), with the quantile of Student's t instead of the normal one. Where few groups fail,
    the standard error is itself uncertain; it is drawn towards that of strongly correlated
    groups, as variances are by Smyth (Statistical Applications in Genetics and Molecular
    Biology 3, 2004).

    Of several trainings, how differently they came out is added, with the degrees of freedom
    of Satterthwaite (Biometrics Bulletin 2, 1946): the interval is about what such a training
    gives on average. Of one training it is about that one trained model.

    `correct` says of each clip whether it was right, shape (n_clips,) or
    (n_trainings, n_clips). `overlap` is that of `pipeline.scores.variance.overlap_of_folds`.
    ``high`` is 1 if every clip is right, ``low`` is 0 if none is.
    """
    hits = np.atleast_2d(np.asarray(correct, dtype=np.float64))
    mean = float(hits.mean())
    rarer = 1 - hits if mean > 0.5 else hits
    membership = number_groups(groups)
    variance = split_variance(rarer, membership)
    evidence = _weigh_evidence(rarer.mean(axis=0), membership, variance, overlap, level)
    binomial = mean * (1 - mean)
    n_effective = evidence.n_effective
    if binomial > 0:
        # Shares of several runs vary less than single runs.
        spread = evidence.clip_variance / binomial
        n_effective /= (1 - evidence.belief) * spread + evidence.belief
    centre = (mean * n_effective + 0.5) / (n_effective + 1)
    reach = np.sqrt(binomial * n_effective + 0.25) / (n_effective + 1)
    low = 0.0 if mean == 0 else max(0.0, float(centre - reach))
    high = 1.0 if mean == 1 else min(1.0, float(centre + reach))
    return Score(mean, min(low, mean), max(high, mean), hits.shape[1])


def difference_interval(
    correct: npt.ArrayLike,
    other: npt.ArrayLike,
    groups: Sequence[str],
    *,
    overlap: float = 1.0,
    level: float = 0.95,
) -> Score:
    """Estimate how much more one head gets right than another of the same clips.

    `correct` and `other` are as in `accuracy_interval`. The standard error comes as there, the
    trainings of the two being independent. So that two heads that agree on every clip are not
    taken for equal with certainty, half a clip is added of which half was told apart, as by
    Agresti and Min ("Simple improved confidence intervals for comparing matched proportions",
    Statistics in Medicine 24, 2005).
    """
    one, another = (np.atleast_2d(np.asarray(side, dtype=np.float64)) for side in (correct, other))
    values = one.mean(axis=0) - another.mean(axis=0)
    mean = float(values.mean())
    membership = number_groups(groups)
    variance = difference_variance(one, another, membership)
    evidence = _weigh_evidence(values, membership, variance, overlap, level)
    n_added = evidence.n_effective + 0.5
    centre = mean * evidence.n_effective / n_added
    square = (float(np.square(values).mean()) * evidence.n_effective + 0.25) / n_added
    reach = float(np.sqrt(max(0.0, square - centre**2) / n_added))
    low, high = max(-1.0, centre - reach), min(1.0, centre + reach)
    return Score(mean, min(low, mean), max(high, mean), len(values))


def _weigh_evidence(
    values: FloatArray, membership: IntArray, variance: Variance, overlap: float, level: float
) -> _Evidence:
    # SciPy comes with scikit-learn; only its functions without compilation cost are used.
    from scipy import special

    sizes = np.bincount(membership).astype(np.float64)
    n_clips, n_groups = len(values), len(sizes)
    clip_variance = float(values.var())
    per_clip = clip_variance / n_clips
    # How much more a mean varies if the clips of each group always agree.
    most = float(np.square(sizes).sum()) / n_clips
    believed = 1 + _PRIOR_CORRELATION * (most - 1)
    if n_groups == 1:
        found = most
    elif clip_variance < 1e-12:
        found = 1.0
    else:
        found = variance.between_groups / per_clip
    failures = np.bincount(membership, weights=np.abs(values))
    squares = float(np.square(failures).sum())
    # Groups of equal failures that would say as much; even a perfect score says something.
    n_failing = float(failures.sum()) ** 2 / squares if squares > 1e-12 else 1.0
    belief = _PRIOR_FAILING_GROUPS / (_PRIOR_FAILING_GROUPS + n_failing)
    of_groups = (1 - belief) * found + belief * believed
    of_training = 0.0
    if variance.of_training > 0 and clip_variance >= 1e-12:
        share = min(1.0, variance.shared / max(variance.between_groups, 1e-300))
        of_training = _LEAST_LUCK * share * of_groups
        of_training += (variance.of_training - variance.shared) / per_clip
        of_groups *= 1 - share
    of_groups *= overlap
    inflation = of_groups + of_training
    doubt = of_groups**2 / max(1, _FREEDOM * (n_groups - 1))
    # What single groups show of the luck in training is worth as much as two more trainings.
    doubt += of_training**2 / (variance.freedom + 2)
    tail = (1 + level) / 2
    of_clips = float(special.stdtrit(max(1, n_clips - 1), tail))
    of_all = float(special.stdtrit(max(1.0, inflation**2 / doubt), tail))
    return _Evidence(n_clips / max(of_clips**2, inflation * of_all**2), clip_variance, belief)
