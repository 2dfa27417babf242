"""What stands on both sides of a split: groups, which are refused, and near-duplicate clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from features.errors import SplitLeaks
from features.store.store import Store
from features.system.text import format_count, printable
from pipeline.splits.duplicates import find_near_duplicates
from pipeline.splits.groups import groups_are_known
from pipeline.splits.split import Split

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Two clips of different parts that seem to be one recording.

    Attributes
    ----------
    clip_id : str
    part : {"test", "val"}
        Where it stands.
    other_id : str
    other_part : {"train", "val"}
        Where the other stands; nearer to training than `part`.
    similarity : float
        See `pipeline.splits.duplicates.find_near_duplicates`.
    """

    clip_id: str
    part: str
    other_id: str
    other_part: str
    similarity: float


def find_leaks(split: Split, groups: Mapping[str, str]) -> tuple[str, ...]:
    """Find the groups that stand in more than one part, sorted."""
    train, val, test = ({groups[i] for i in ids} for ids in (split.train, split.val, split.test))
    return tuple(sorted((train & val) | (train & test) | (val & test)))


def require_no_leaks(split: Split, groups: Mapping[str, str], *, allow_leaks: bool) -> Split:
    """Refuse a split in which a group stands on both sides, or mark it LEAKY if that is allowed.

    A split that was marked before stays so, even where `groups` do not show why.
    """
    used = (*split.train, *split.val, *split.test)
    known = groups_are_known({clip_id: groups[clip_id] for clip_id in used})
    leaking = frozenset(find_leaks(split, groups))
    if leaking and not allow_leaks:
        example = min(leaking)
        where = [part for part in ("train", "val", "test") if _holds(split, part, groups, example)]
        n_tested = sum(groups[clip_id] in leaking for clip_id in split.test)
        raise SplitLeaks(
            f"A group must stand in one part of a split. Group '{example}' is in "
            f"{' and '.join(where)}; {len(leaking)} groups are in several parts, and "
            f"{n_tested} of {len(split.test)} test clips have relatives outside the test part.",
            hint="--allow-leaks to go on with a result marked LEAKY, or let whole groups be "
            "split by leaving --split, --test-lists and --ignore-groups out",
        )
    if split.leaks and not allow_leaks:
        raise SplitLeaks(
            "A split must not be marked LEAKY. When this one was made, groups stood on both "
            f"sides of it ({split.method}).",
            hint="--allow-leaks to go on with a result marked LEAKY, or make a new split by "
            "leaving --split out",
        )
    return replace(split, leaks=bool(leaking) or split.leaks, groups_known=known)


def find_straddling_duplicates(
    store: Store, splits: Sequence[Split], groups: Mapping[str, str]
) -> tuple[tuple[NearDuplicate, ...], int]:
    """Find the near-duplicates that make a result look better than it is.

    They are found by likeness and not known for certain, as groups are: reported, not refused.
    Those of test clips come first, then the most alike; of folds, only those of test clips,
    each as its own fold sees it. Also counts the test clips that have one.
    """
    parts = [
        {clip_id: part for part in ("train", "val", "test") for clip_id in getattr(split, part)}
        for split in splits
    ]
    tested_by = {clip_id: i for i, split in enumerate(splits) for clip_id in split.test}
    if len(splits) == 1:
        sides = parts[0]
    else:
        sides = {clip_id: str(tested_by.get(clip_id)) for part in parts for clip_id in part}
    found = []
    for one, other, similarity in find_near_duplicates(store, sides, groups).pairs:
        for clip_id, other_id in ((one, other), (other, one)):
            part = parts[tested_by.get(clip_id, 0)]
            standing = part.get(clip_id, ""), part.get(other_id, "")
            if standing in (("test", "train"), ("test", "val"), ("val", "train")):
                found.append(NearDuplicate(clip_id, standing[0], other_id, standing[1], similarity))
    if len(splits) > 1:
        found = [item for item in found if item.part == "test"]
    found.sort(key=lambda item: (item.part, -item.similarity, item.clip_id, item.other_id))
    return tuple(found), len({item.clip_id for item in found if item.part == "test"})


def describe_near_duplicates(pairs: Sequence[NearDuplicate], n_found: int, n_test: int) -> str:
    """Say how many of `n_test` test clips have a near-duplicate, and name some; or nothing."""
    if not pairs:
        return ""
    named: dict[frozenset[str], str] = {}
    for item in pairs:
        text = f"{printable(item.clip_id)} ~ {printable(item.other_id)} ({item.similarity:.2f})"
        named.setdefault(frozenset((item.clip_id, item.other_id)), text)
    listed = ", ".join(list(named.values())[:_MOST_NAMED])
    if len(named) > _MOST_NAMED:
        listed += f", and {format_count(len(named) - _MOST_NAMED, 'pair')} more"
    if n_found:
        return (
            f"{n_found} of {n_test} test clips have a near-duplicate in training or validation: "
            f"{listed}; the accuracy may be too high. Keep them together with "
            "--join-near-duplicates"
        )
    n_val = len({item.clip_id for item in pairs})
    return (
        f"{format_count(n_val, 'validation clip')} with a near-duplicate in training: {listed}; "
        "training may have stopped late. Keep them together with --join-near-duplicates"
    )


def _holds(split: Split, part: str, groups: Mapping[str, str], group: str) -> bool:
    return any(groups[clip_id] == group for clip_id in getattr(split, part))
