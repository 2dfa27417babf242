"""One test for many pairs: how far apart heads are, against chance, all at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from features.records import FloatArray, IntArray
from pipeline.scores.variance import Variance, number_groups, split_variance, sum_groups

# The chance of a false alarm that people commonly accept.
ALPHA = 0.05
# Up to this many groups all patterns of signs are tried, beyond it random ones.
_MOST_EXACT_GROUPS = 12
_DRAWS = 4096
_DRAWS_AT_ONCE = 1024
# Below this a variance is that of equal numbers.
_NOTHING = 1e-18
# What is believed of luck in training before it is seen: that its variance is some times what
# single groups show, as if from two more trainings. Chosen by simulation, see `judge_pairs`.
_BELIEVED_LUCK = 3.0
_BELIEVED_FREEDOM = 2.0


@dataclass(frozen=True, slots=True, repr=False)
class Contender:
    """What a head or a guess got right of the clips that all were tested on.

    Attributes
    ----------
    name : str
    hits : ndarray of float, shape (n_trainings, n_clips)
        1 where right. A guess, which no training decides, has one row.
    overlap : float
        See `pipeline.scores.variance.overlap_of_folds`; 1 for a guess.
    """

    name: str
    hits: FloatArray
    overlap: float = 1.0


@dataclass(frozen=True, slots=True, repr=False)
class JointTest:
    """What testing many pairs found, one entry per pair.

    Attributes
    ----------
    p_values, p_adjusted : ndarray of float
        Each by itself, and corrected for all. Two-sided.
    least_found : ndarray of float
        The difference that would just have been told from chance; infinite where none would.
    """

    p_values: FloatArray
    p_adjusted: FloatArray
    least_found: FloatArray


def judge_pairs(
    contenders: Sequence[Contender],
    pairs: Sequence[tuple[int, int]],
    groups: Sequence[str],
    *,
    planned: Sequence[bool] | None = None,
    seed: int = 0,
    n_draws: int = _DRAWS,
) -> JointTest:
    """Test many paired differences at once, by flipping the signs of whole groups in all of them.

    Each difference is divided by its standard error, and what is compared with chance is the
    largest of all, then of those left, and so on (max-T of Westfall and Young,
    "Resampling-Based Multiple Testing", 1993). A correction of p-values one by one asks for
    ever more groups when there are more heads; here differences between the same heads are
    known to be related, because flipping a group changes all of them together. Its signs are
    equally likely if two heads are equally good (Fisher, "The Design of Experiments", 1935,
    section 21).

    How differently trainings of one head come out is drawn besides, from Student's t with the
    spread that was seen. Two or three trainings may come out alike by luck: their spread is
    drawn towards that of other heads and towards three times what single groups show of it, by
    which heads of equal truth were told apart in at most 6 % of simulated comparisons with two
    to seventeen heads. Differences between groups count as much more as the overlap of folds
    asks for, save for what trainings did differently on the same groups.

    `planned` marks pairs that are a family
    of their own, with as much of the 5 % as all the others together; by default there is one
    family.
    """
    units = _measure(contenders, pairs, number_groups(groups))
    observed = _standardise(units, units.differences, units.variances)
    drawn = np.concatenate(list(_draw(units, np.random.default_rng(seed), n_draws)))
    n_drawn = len(drawn)
    is_planned = np.zeros(len(pairs), bool) if planned is None else np.asarray(planned, bool)
    families = [np.flatnonzero(is_planned == wanted) for wanted in (True, False)]
    families = [family for family in families if len(family)]
    largest = [drawn[:, family].max(axis=1) for family in families]
    # How rare each drawn comparison is, by the family in which it is rarer.
    ranks = [_count_at_least(np.sort(values), values) for values in largest]
    rarities = np.sort(np.min(ranks, axis=0))
    p_values, p_adjusted = np.ones(len(pairs)), np.ones(len(pairs))
    least = np.full(len(pairs), np.inf)
    for family, values in zip(families, largest, strict=True):
        order = family[np.argsort(-observed[family], kind="stable")]
        left = np.maximum.accumulate(drawn[:, order[::-1]], axis=1)[:, ::-1]
        worst = 0
        for place, pair in enumerate(order):
            alone = int((drawn[:, pair] >= observed[pair] - 1e-9).sum())
            rank = int((left[:, place] >= observed[pair] - 1e-9).sum())
            worst = max(worst, int(np.searchsorted(rarities, rank, side="right")))
            # The observed pattern and its mirror are among the possible ones, however training
            # went, so p is never 0.
            p_values[pair] = max((alone + 1) / (n_drawn + 1), 2.0 ** (1 - len(units.sizes)))
            p_adjusted[pair] = max((worst + 1) / (n_drawn + 1), p_values[pair])
        critical = _critical(values, rarities, len(units.sizes))
        # Heads that never differ, or always by as much, have no standard error.
        can_tell = family[units.errors[family] > np.sqrt(_NOTHING)]
        least[can_tell] = critical * units.errors[can_tell]
    return JointTest(p_values, p_adjusted, least)


@dataclass(frozen=True, slots=True, repr=False)
class _Units:
    """Differences of pairs, group by group, and where their variance comes from."""

    by_group: FloatArray  # (n_groups, n_pairs): clips that the first got right more often
    sizes: FloatArray  # of the groups
    differences: FloatArray  # (n_pairs,) of accuracies
    variances: FloatArray  # (n_pairs,) of them, between groups
    weights: FloatArray  # (n_pairs,) what to multiply these with
    training: FloatArray  # (n_contenders,) variances of the means of trainings
    freedom: FloatArray  # (n_contenders,) behind them
    firsts: IntArray  # (n_pairs,) which contenders
    seconds: IntArray

    @property
    def errors(self) -> FloatArray:
        """Standard errors of the differences."""
        training = self.training[self.firsts] + self.training[self.seconds]
        return np.sqrt(self.weights * self.variances + training)


def _measure(
    contenders: Sequence[Contender], pairs: Sequence[tuple[int, int]], membership: IntArray
) -> _Units:
    sizes = np.bincount(membership).astype(np.float64)
    firsts, seconds = (np.array(side, dtype=np.int64) for side in zip(*pairs, strict=True))
    means = np.array([contender.hits.mean(axis=0) for contender in contenders])
    sums = sum_groups(means, membership).T
    by_group = sums[:, firsts] - sums[:, seconds]
    parts = [split_variance(contender.hits, membership) for contender in contenders]
    shared = np.array([part.shared for part in parts])
    differences = by_group.sum(axis=0) / sizes.sum()
    variances = _vary(np.ones((1, len(sizes))), by_group, sizes)[0]
    ours = np.clip(variances - shared[firsts] - shared[seconds], 0, None)
    share = np.divide(ours, variances, out=np.ones_like(ours), where=variances > _NOTHING)
    overlaps = np.array([contender.overlap for contender in contenders])
    training, freedom = _moderate(parts)
    return _Units(
        by_group=by_group,
        sizes=sizes,
        differences=differences,
        variances=variances,
        weights=1 + share * (np.maximum(overlaps[firsts], overlaps[seconds]) - 1),
        training=training,
        freedom=freedom,
        firsts=firsts,
        seconds=seconds,
    )


def _moderate(parts: Sequence[Variance]) -> tuple[FloatArray, FloatArray]:
    """Estimate the variance between trainings of each head with the help of the other heads.

    Two or three trainings say little. How many times more whole trainings differ than their
    groups show is drawn towards what it is for all heads together, the more so the more alike
    heads are in it (Smyth, Statistical Applications in Genetics and Molecular Biology 3, 2004).
    Also returns the degrees of freedom.
    """
    training = np.array([part.between_trainings for part in parts])
    freedom = np.array([part.freedom for part in parts])
    noisy = np.flatnonzero([part.shared > _NOTHING for part in parts])
    shared = np.array([part.shared for part in parts])[noisy]
    if len(noisy) > 2:
        training[noisy], freedom[noisy] = _pool(training[noisy], shared, freedom[noisy])
    known = freedom[noisy] + _BELIEVED_FREEDOM
    believed = _BELIEVED_FREEDOM * _BELIEVED_LUCK * shared
    training[noisy] = (freedom[noisy] * training[noisy] + believed) / known
    freedom[noisy] = known
    return training, freedom


def _pool(
    training: FloatArray, shared: FloatArray, own: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Let at least three heads learn from each other how luck in training varies."""
    from scipy import special

    ratios = np.maximum(training / shared, 1e-3)
    logs = np.log(ratios) - special.digamma(own / 2) + np.log(own / 2)
    unlike = logs.var(ddof=1) - special.polygamma(1, own / 2).mean()
    # The others know at most what they have seen, and each is compared with one of them.
    most = own * (len(own) - 2) / 2
    lent = most if unlike <= 0 else np.minimum(most, 2 / unlike)
    pooled: FloatArray = (lent * ratios.mean() + own * ratios) / (lent + own) * shared
    return pooled, lent + own


def _vary(signs: FloatArray, by_group: FloatArray, sizes: FloatArray) -> FloatArray:
    """Estimate the variance between groups of each difference after a change of signs."""
    n_clips, n_groups = sizes.sum(), len(sizes)
    means = signs @ by_group / n_clips
    crossed = signs @ (by_group * sizes[:, np.newaxis])
    squares = np.square(by_group).sum(axis=0)
    rest = squares - 2 * means * crossed + np.square(means) * np.square(sizes).sum()
    variances: FloatArray = np.clip(rest, 0, None) / n_clips**2 * n_groups / max(1, n_groups - 1)
    return variances


def _standardise(units: _Units, differences: FloatArray, variances: FloatArray) -> FloatArray:
    """Divide differences by their standard errors; 0 by 0 is 0."""
    training = units.training[units.firsts] + units.training[units.seconds]
    squares = units.weights * variances + training
    distances = np.abs(differences)
    large = np.where(distances > 1e-9, np.inf, 0.0)
    return np.divide(distances, np.sqrt(squares), out=large, where=squares > _NOTHING)


def _draw(units: _Units, rng: np.random.Generator, n_draws: int) -> Iterator[FloatArray]:
    """Draw standardised differences as chance makes them, in blocks."""
    n_groups, n_contenders = len(units.sizes), len(units.training)
    if n_groups <= _MOST_EXACT_GROUPS:
        # Flipping all signs changes no distance: the first one may stay.
        patterns = np.arange(2 ** (n_groups - 1))
        numbers = np.tile(patterns, -(-n_draws // len(patterns)))
        bits = (numbers[:, np.newaxis] >> np.arange(n_groups)) & 1
    else:
        bits = rng.integers(2, size=(n_draws, n_groups), dtype=np.int8)
    is_random = bool((units.training > 0).any())
    for start in range(0, len(bits), _DRAWS_AT_ONCE):
        signs = 1 - 2 * bits[start : start + _DRAWS_AT_ONCE].astype(np.float64)
        differences = signs @ units.by_group / units.sizes.sum() * np.sqrt(units.weights)
        variances = _vary(signs, units.by_group, units.sizes)
        if is_random:
            shape = (len(signs), n_contenders)
            freedom = np.where(np.isfinite(units.freedom), units.freedom, 1.0)
            luck = rng.standard_t(freedom, size=shape) * np.sqrt(units.training)
            differences += luck[:, units.firsts] - luck[:, units.seconds]
        yield _standardise(units, differences, variances)


def _count_at_least(ranked: FloatArray, values: FloatArray) -> IntArray:
    """Count for each value how many of the sorted ones are as large."""
    counts: IntArray = len(ranked) - np.searchsorted(ranked, values - 1e-9, side="left")
    return counts


def _critical(largest: FloatArray, rarities: IntArray, n_groups: int) -> float:
    """Find what a standardised difference must exceed, or infinity if none is found at all."""
    n_drawn = len(largest)
    n_allowed = int(np.ceil(ALPHA * (n_drawn + 1))) - 2
    # The rarest draws that may be as rare as what is found.
    rank = int(rarities[n_allowed]) - 1 if n_allowed >= 0 else -1
    ranked = np.sort(largest)
    n_first = int((ranked >= ranked[-1] - 1e-9).sum())
    # No p is below that of the observed pattern of signs, nor below that of the rarest draws.
    can_be_found = rank >= n_first and 2.0 ** (1 - n_groups) < ALPHA
    return float(ranked[-rank - 1]) if can_be_found else np.inf
