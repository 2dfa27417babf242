"""Finding groups that stand on both sides of a split, and refusing them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from features.errors import SplitLeaks
from pipeline.grouping import groups_are_known
from pipeline.splits import Split


def find_leaks(split: Split, groups: Mapping[str, str]) -> tuple[str, ...]:
    """Find the groups that stand in more than one part.

    Parameters
    ----------
    split : Split
    groups : mapping of str to str
        Clip id to group.

    Returns
    -------
    tuple of str
        Sorted.
    """
    train, val, test = ({groups[i] for i in ids} for ids in (split.train, split.val, split.test))
    return tuple(sorted((train & val) | (train & test) | (val & test)))


def require_no_leaks(split: Split, groups: Mapping[str, str], *, allow_leaks: bool) -> Split:
    """Refuse a split in which a group stands on both sides.

    Parameters
    ----------
    split : Split
    groups : mapping of str to str
        Clip id to group.
    allow_leaks : bool
        Accept it and mark it instead; every result then says LEAKY.

    Returns
    -------
    Split
        With `leaks` and `groups_known` set to what was found.

    Raises
    ------
    SplitLeaks
        If groups leak and `allow_leaks` is False.
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
            "split by leaving --split and --test-lists out",
        )
    return replace(split, leaks=bool(leaking), groups_known=known)


def _holds(split: Split, part: str, groups: Mapping[str, str], group: str) -> bool:
    return any(groups[clip_id] == group for clip_id in getattr(split, part))
