"""Which clips belong together, and cutting a part out of them without tearing a group.

A group is what several clips share: a source video, a person, a camera. Whole groups
move between the parts of a split, never single clips.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from features.clips.groups import match_groups
from features.records import ClipRecord

Groups = dict[str, str]


def assign_groups(clips: Sequence[ClipRecord], group_regex: str | None = None) -> Groups:
    r"""Say which group every clip belongs to.

    Parameters
    ----------
    clips : sequence of ClipRecord
    group_regex : str, optional
        See `features.clips.groups.match_groups`; preferred to the group in the store.

    Returns
    -------
    dict of str to str
        Clip id to group. A clip whose group is unknown is a group of its own, named by
        its clip id; see `groups_are_known`.

    Raises
    ------
    OptionInvalid
        If `group_regex` is not a regular expression or does not match every clip.

    Examples
    --------
    >>> from features.records import SourceFile, VideoFacts
    >>> facts = (SourceFile(0, 0, ""), VideoFacts())
    >>> clip = ClipRecord("run/p07_a.avi", "run", "", "", "done", "", 20, *facts)
    >>> assign_groups([clip], r"p(\d+)")
    {'run/p07_a.avi': '07'}
    """
    if group_regex is None:
        return {clip.clip_id: clip.group or clip.clip_id for clip in clips}
    return match_groups([clip.clip_id for clip in clips], group_regex)


def groups_are_known(groups: Mapping[str, str]) -> bool:
    """Tell whether every clip has a group other than itself.

    Parameters
    ----------
    groups : mapping of str to str
        As `assign_groups` returns it.

    Returns
    -------
    bool
        False if for at least one clip nothing but its own id is known: clips of one
        source may then stand on both sides of a split without anyone noticing.
    """
    return all(group != clip_id for clip_id, group in groups.items())


def separate_clips(clips: Sequence[ClipRecord]) -> Groups:
    """Make every clip a group of its own, whatever it shares with others.

    Parameters
    ----------
    clips : sequence of ClipRecord

    Returns
    -------
    dict of str to str
        Clip id to clip id.
    """
    return {clip.clip_id: clip.clip_id for clip in clips}


def join_groups(groups: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> Groups:
    """Make one group of those that pairs of clips connect, directly or through others.

    Parameters
    ----------
    groups : mapping of str to str
        Clip id to group.
    pairs : iterable of tuple of str
        Clip ids that belong together.

    Returns
    -------
    dict of str to str
        Clip id to group; a joined group has the first of the names, sorted.

    Examples
    --------
    >>> join_groups({"a.avi": "g1", "b.avi": "g2", "c.avi": "g2"}, [("a.avi", "c.avi")])
    {'a.avi': 'g1', 'b.avi': 'g1', 'c.avi': 'g1'}
    """
    parent = {group: group for group in groups.values()}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]  # halves the way for those who come later
            group = parent[group]
        return group

    for one, other in pairs:
        first, second = sorted((root(groups[one]), root(groups[other])))
        parent[second] = first
    return {clip_id: root(group) for clip_id, group in groups.items()}


def name_units(groups: Mapping[str, str]) -> str:
    """Say what a split moves between its parts: "single clips" or "whole groups".

    Parameters
    ----------
    groups : mapping of str to str
        Clip id to group.

    Returns
    -------
    str
    """
    is_alone = all(group == clip_id for clip_id, group in groups.items())
    return "single clips" if is_alone else "whole groups"


def count_groups_per_class(
    clips: Sequence[ClipRecord], groups: Mapping[str, str]
) -> dict[str, int]:
    """Count the groups in which each class occurs.

    Parameters
    ----------
    clips : sequence of ClipRecord
    groups : mapping of str to str
        Clip id to group.

    Returns
    -------
    dict of str to int
        Sorted by class name.
    """
    members: dict[str, set[str]] = {}
    for clip in clips:
        members.setdefault(clip.label, set()).add(groups[clip.clip_id])
    return {label: len(members[label]) for label in sorted(members)}


def cut_part(
    clips: Sequence[ClipRecord],
    groups: Mapping[str, str],
    fraction: float,
    *,
    seed: int,
    keep_groups: int = 1,
) -> frozenset[str]:
    """Choose whole groups that hold about a fraction of every class.

    A k-fold splitter cannot do this: it gives every class 1/k of its groups or nothing,
    where a class of two groups still has one to spare. Here the classes with the fewest
    groups are served first, then groups are added while that brings the parts nearer to
    the fraction.

    Parameters
    ----------
    clips : sequence of ClipRecord
    groups : mapping of str to str
        Clip id to group.
    fraction : float
        Share of each class to take out, above 0 and below 1.
    seed : int
        Decides between groups that serve equally well.
    keep_groups : int, default 1
        Groups that a class keeps if it has more than that many; a class never loses its
        last group.

    Returns
    -------
    frozenset of str
        The chosen groups; empty if no group can be spared.
    """
    names = sorted({groups[clip.clip_id] for clip in clips})
    labels = sorted({clip.label for clip in clips})
    row = {name: index for index, name in enumerate(names)}
    column = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(names), len(labels)), dtype=np.int64)
    np.add.at(
        counts,
        ([row[groups[clip.clip_id]] for clip in clips], [column[clip.label] for clip in clips]),
        1,
    )
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = _choose_rows(counts[order], fraction, keep_groups)
    return frozenset(names[order[index]] for index in chosen)


def _choose_rows(counts: npt.NDArray[np.int64], fraction: float, keep_groups: int) -> list[int]:
    share = counts / counts.sum(axis=0)  # of each class, in each group
    holds = counts > 0
    n_left = holds.sum(axis=0)
    n_kept = np.clip(n_left - 1, 1, keep_groups)
    taken = np.zeros(counts.shape[1])
    is_free = np.ones(len(counts), dtype=bool)
    chosen: list[int] = []

    def miss(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Squared distance from the wanted fraction if each row were taken next."""
        distance: npt.NDArray[np.float64] = np.square(taken + share[rows] - fraction).sum(axis=1)
        return distance

    def take(index: int) -> None:
        nonlocal taken, n_left
        taken = taken + share[index]
        n_left = n_left - holds[index]
        is_free[index] = False
        chosen.append(index)

    def spared() -> npt.NDArray[np.bool_]:
        spared: npt.NDArray[np.bool_] = is_free & (~holds | (n_left > n_kept)).all(axis=1)
        return spared

    for label in np.argsort(n_left, kind="stable"):
        candidates = np.flatnonzero(spared() & holds[:, label])
        if taken[label] == 0 and len(candidates):
            take(int(candidates[np.argmin(miss(candidates))]))
    for index in range(len(counts)):
        is_spared = is_free[index] and bool((~holds[index] | (n_left > n_kept)).all())
        if is_spared and miss(np.array([index]))[0] < np.square(taken - fraction).sum():
            take(index)
    return chosen
