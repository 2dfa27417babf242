"""Which clips belong together, and cutting a part out of them without tearing a group.

A group is what several clips share: a source video, a person, a camera. Whole groups
move between the parts of a split, never single clips.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.clips.groups import match_groups
from features.records import ClipRecord
from features.system.text import printable

Groups = dict[str, str]

_REMEDY = "this accuracy is too high; say which clips belong together with --group-regex or a CSV"


def assign_groups(clips: Sequence[ClipRecord], group_regex: str | None = None) -> Groups:
    r"""Say which group every clip belongs to; one whose group is unknown is its own, by its id.

    A `group_regex` (see `features.clips.groups.match_groups`) is preferred to the group in the
    store, and refused with `OptionInvalid` unless it matches every clip.

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

    Otherwise clips of one source may stand on both sides of a split without anyone noticing.
    """
    return all(group != clip_id for clip_id, group in groups.items())


def find_group_doubts(
    clips: Sequence[ClipRecord], groups: Mapping[str, str], group_regex: str | None = None
) -> tuple[str, ...]:
    """Say why groups may not be what keeps clips of one source together, in sentences.

    Some or all clips have none, every clip has one of its own, or a clip names two of them.
    """
    ids = [clip.clip_id for clip in clips]
    n_unknown = sum(groups[clip_id] == clip_id for clip_id in ids)
    doubts = []
    if n_unknown:
        whose = "every clip counts" if n_unknown == len(ids) else "each of them counts"
        some = "" if n_unknown == len(ids) else f" for {n_unknown} of {len(ids)} clips"
        doubts.append(
            f"Groups unknown{some}: {whose} as its own group. If several clips come from one "
            f"source video, {_REMEDY}"
        )
    elif len({groups[clip_id] for clip_id in ids}) == len(ids):
        by = "" if group_regex is None else f" by --group-regex '{group_regex}'"
        doubts.append(
            f"Groups of one: every clip is a group of its own{by}. If several clips come from one "
            f"source video, {_REMEDY}"
        )
    known = {groups[clip_id] for clip_id in ids}
    several = [
        (clip_id, named) for clip_id in ids if (named := _other_groups(clip_id, groups, known))
    ]
    if several:
        clip_id, named = several[0]
        names = "1 clip names" if len(several) == 1 else f"{len(several)} clips name"
        doubts.append(
            f"Two groups in one name: {names} another group besides its own, the first being "
            f"'{printable(clip_id)}', of '{printable(groups[clip_id])}', which names "
            f"'{printable(named)}'. If both are in it, clips of both must have one group, which a "
            "CSV can say; else this accuracy is too high"
        )
    return tuple(doubts)


def _other_groups(clip_id: str, groups: Mapping[str, str], known: set[str]) -> str:
    """Find a group such as person02 in the file name of a clip of another group, or nothing."""
    words = re.findall(r"(?<![A-Za-z0-9])[A-Za-z]+\d+(?![A-Za-z0-9])", _separate(clip_id))
    return next((word for word in words if word in known and word != groups[clip_id]), "")


def _separate(clip_id: str) -> str:
    return clip_id.rpartition("/")[2].replace("_", " ")


def separate_clips(clips: Sequence[ClipRecord]) -> Groups:
    """Make every clip a group of its own, whatever it shares with others."""
    return {clip.clip_id: clip.clip_id for clip in clips}


def join_groups(groups: Mapping[str, str], pairs: Iterable[tuple[str, str]]) -> Groups:
    """Make one group of those that pairs of clips connect, directly or through others.

    A joined group takes the first of its groups' names, sorted.

    Examples
    --------
    >>> join_groups({"a.avi": "g1", "b.avi": "g2", "c.avi": "g2"}, [("a.avi", "c.avi")])
    {'a.avi': 'g1', 'b.avi': 'g1', 'c.avi': 'g1'}
    """
    from scipy.cluster.hierarchy import DisjointSet

    joined = DisjointSet(set(groups.values()))
    for one, other in pairs:
        joined.merge(groups[one], groups[other])
    names = {group: min(subset) for subset in joined.subsets() for group in subset}
    return {clip_id: names[group] for clip_id, group in groups.items()}


def name_units(groups: Mapping[str, str]) -> str:
    """Say what a split moves between its parts: "single clips" or "whole groups"."""
    is_alone = all(group == clip_id for clip_id, group in groups.items())
    return "single clips" if is_alone else "whole groups"


def count_groups_per_class(
    clips: Sequence[ClipRecord], groups: Mapping[str, str]
) -> dict[str, int]:
    """Count the groups in which each class occurs, sorted by class name."""
    members: dict[str, set[str]] = {}
    for clip in clips:
        for label in clip.classes:
            members.setdefault(label, set()).add(groups[clip.clip_id])
    return {label: len(members[label]) for label in sorted(members)}


def cut_part(
    clips: Sequence[ClipRecord],
    groups: Mapping[str, str],
    fraction: float,
    *,
    seed: int,
    keep_groups: int = 1,
) -> frozenset[str]:
    """Choose whole groups that hold about a fraction of every class; none if none can be spared.

    A k-fold splitter cannot do this: it gives every class 1/k of its groups or nothing,
    where a class of two groups still has one to spare. Here the classes with the fewest
    groups are served first, then groups are added while that brings the parts nearer to
    the fraction. A class of more than `keep_groups` groups keeps that many, any other its
    last one. The seed decides between groups that serve equally well.
    """
    names, counts = count_in_groups(clips, groups)
    order = np.random.default_rng(seed).permutation(len(names))
    chosen = _choose_rows(counts[order], fraction, keep_groups)
    return frozenset(names[order[index]] for index in chosen)


def count_in_groups(
    clips: Sequence[ClipRecord], groups: Mapping[str, str]
) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Name all groups, and count the clips of each class in them, (n_groups, n_classes).

    Where clips may have several classes, those that have none are counted like a further class.
    """
    names = sorted({groups[clip.clip_id] for clip in clips})
    labels = sorted({label for clip in clips for label in clip.classes or ("",)})
    row = {name: index for index, name in enumerate(names)}
    column = {label: index for index, label in enumerate(labels)}
    counts = np.zeros((len(names), len(labels)), dtype=np.int64)
    for clip in clips:
        for label in clip.classes or ("",):
            counts[row[groups[clip.clip_id]], column[label]] += 1
    return names, counts


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

    def can_spare(rows: Any) -> Any:
        return is_free[rows] & (~holds[rows] | (n_left > n_kept)).all(axis=-1)

    for label in np.argsort(n_left, kind="stable"):
        candidates = np.flatnonzero(can_spare(slice(None)) & holds[:, label])
        if taken[label] == 0 and len(candidates):
            take(int(candidates[np.argmin(miss(candidates))]))
    for index in range(len(counts)):
        if can_spare(index) and miss(np.array([index]))[0] < np.square(taken - fraction).sum():
            take(index)
    return chosen
