"""Folds for cross-validation: every clip is tested once, every group stays whole."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np

from features.errors import OptionInvalid, SplitImpossible
from features.records import ClipRecord
from pipeline.splits.groups import (
    Groups,
    assign_groups,
    count_groups_per_class,
    count_in_groups,
    name_units,
)
from pipeline.splits.split import Split, finish_split, require_classes

# Seeds tried in search of folds in which every class is tested every time.
_FOLD_ATTEMPTS = 10


def split_into_folds(
    clips: Sequence[ClipRecord],
    n_folds: int = 5,
    *,
    groups: Groups | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> tuple[Split, ...]:
    """Divide clips into folds that are each tested once, with groups kept whole."""
    require_classes(clips)
    if n_folds < 2:
        raise OptionInvalid(f"--folds must be at least 2. Received: {n_folds}.")
    groups = assign_groups(clips) if groups is None else groups
    is_multilabel = any(clip.labels is not None for clip in clips)
    _require_groups(clips, groups, n_folds, of_every_class=not is_multilabel)
    divide = _parts_of_several_classes if is_multilabel else _stratified_parts
    parts = divide(clips, groups, n_folds, seed)
    folds = []
    for number, tested in enumerate(parts, start=1):
        marked = {c.clip_id: "test" if c.clip_id in tested else "train" for c in clips}
        method = f"fold {number} of {n_folds}, {name_units(groups)}, stratified"
        folds.append(finish_split(clips, groups, marked, method, val_fraction, seed))
    return tuple(folds)


def _require_groups(
    clips: Sequence[ClipRecord], groups: Groups, n_folds: int, *, of_every_class: bool
) -> None:
    """Refuse folds of which some would test nothing, or where asked for, no clip of a class."""
    per_class = count_groups_per_class(clips, groups)
    rarest = min(per_class, key=lambda label: per_class[label])
    most = per_class[rarest] if of_every_class else len({groups[clip.clip_id] for clip in clips})
    if most < n_folds:
        need, have = (
            (" of every class", f"Class '{rarest}' has {most}.")
            if of_every_class
            else ("", f"There are {most}.")
        )
        raise SplitImpossible(
            f"{n_folds} folds need at least {n_folds} groups{need}. {have}",
            hint=f"--folds {most}" if most > 1 else "extract clips of more groups",
        )


def _parts_of_several_classes(
    clips: Sequence[ClipRecord], groups: Groups, n_folds: int, seed: int
) -> list[frozenset[str]]:
    """Deal whole groups out to folds so that each class is spread as evenly as can be.

    As scikit-learn's StratifiedGroupKFold, which takes one class for each clip: the groups with
    the most uneven classes come first, and each goes where the shares of all classes then differ
    least between the folds.
    """
    names, counts = count_in_groups(clips, groups)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-np.std(counts[order], axis=1), kind="stable")]
    totals = counts.sum(axis=0)
    n_clips = Counter(groups[clip.clip_id] for clip in clips)
    in_folds, sizes = np.zeros((n_folds, counts.shape[1])), np.zeros(n_folds)
    fold_of: dict[str, int] = {}
    for index in order:
        added = in_folds + np.eye(n_folds)[:, :, np.newaxis] * counts[index]
        spread = np.std(added / totals, axis=1).mean(axis=1)
        # An empty fold would test nothing.
        ranks = [
            (sizes[f] > 0 and not sizes.all(), round(spread[f], 9), sizes[f])
            for f in range(n_folds)
        ]
        best = min(range(n_folds), key=ranks.__getitem__)
        in_folds[best] += counts[index]
        sizes[best] += n_clips[names[index]]
        fold_of[names[index]] = best
    return [
        frozenset(clip.clip_id for clip in clips if fold_of[groups[clip.clip_id]] == fold)
        for fold in range(n_folds)
    ]


def _stratified_parts(
    clips: Sequence[ClipRecord], groups: Groups, n_folds: int, seed: int
) -> list[frozenset[str]]:
    from sklearn.model_selection import StratifiedGroupKFold

    ids = np.array([clip.clip_id for clip in clips], dtype=object)
    labels = np.array([clip.label for clip in clips], dtype=object)
    names = np.array([groups[clip.clip_id] for clip in clips], dtype=object)
    # Where groups hold several classes, some shuffles leave a class out of a fold.
    best: list[frozenset[str]] = []
    fewest_gaps = -1
    for attempt in range(_FOLD_ATTEMPTS):
        state = int(np.random.SeedSequence([seed, attempt]).generate_state(1)[0])
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=state)
        with warnings.catch_warnings():
            # Class names are text of any kind; scikit-learn only guesses at their type.
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            tested = [rows for _, rows in splitter.split(ids, labels, names)]
        n_classes = len(set(labels))
        gaps = sum(n_classes - len(set(labels[rows])) for rows in tested)
        empty = sum(len(rows) == 0 or len(rows) == len(ids) for rows in tested)
        if not best or gaps + len(clips) * empty < fewest_gaps:
            best = [frozenset(ids[rows]) for rows in tested]
            fewest_gaps = gaps + len(clips) * empty
        if fewest_gaps == 0:
            break
    return best
