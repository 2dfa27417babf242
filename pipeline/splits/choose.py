"""Which split a command uses: a file, official lists, the store's column, or a fresh one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from features.errors import OptionInvalid, SplitImpossible
from features.records import ClipRecord
from features.store.store import Store, done_clips
from pipeline.splits.duplicates import DUPLICATE_ABOVE, find_near_duplicates
from pipeline.splits.files import read_split
from pipeline.splits.folds import split_into_folds
from pipeline.splits.groups import Groups, assign_groups, join_groups, separate_clips
from pipeline.splits.holdout import split_by_column, split_by_groups, split_by_lists
from pipeline.splits.leaks import require_no_leaks
from pipeline.splits.split import Split, finish_split
from pipeline.splits.splitrequest import SplitRequest, excluding_options

DEFAULT_TEST_FRACTION = 0.2
DEFAULT_FOLDS = 5


def usable_clips(store: Store) -> tuple[ClipRecord, ...]:
    """Return the clips that a head can train on or be tested with: done, with frames."""
    return tuple(clip for clip in done_clips(store) if clip.n_frames > 0)


def choose_split(store: Store, request: SplitRequest) -> tuple[Split, Groups]:
    """Make or read the split that was asked for, and refuse one that leaks.

    Without a split file or lists, the store's split column is used if any clip has an
    entry there, and else whole groups are cut off for testing.

    Parameters
    ----------
    store : Store
    request : SplitRequest

    Returns
    -------
    Split
    dict of str to str
        Group of every usable clip.

    Raises
    ------
    SplitImpossible
        If the clips cannot be divided so, or a split file names clips the store lacks.
    SplitLeaks
        If a group stands in several parts and `allow_leaks` is False.
    OptionInvalid
        If a fraction is not between 0 and 1, or `test_fraction` or `ignore_groups` is given
        and the store's split column says which clips are tested.
    """
    clips = usable_clips(store)
    groups, groups_from = _choose_groups(store, clips, request)
    val_fraction, seed = request.val_fraction, request.seed
    if request.split is not None:
        split = _fit_to_store(store, clips, groups, request)
    elif request.test_lists is not None:
        fold = 1 if request.fold is None else request.fold
        split = split_by_lists(
            clips,
            Path(request.test_lists),
            fold,
            groups=groups,
            val_fraction=val_fraction,
            seed=seed,
        )
    elif any(clip.split for clip in clips):
        _require_no_column(store, request)
        split = split_by_column(clips, groups=groups, val_fraction=val_fraction, seed=seed)
    else:
        share = DEFAULT_TEST_FRACTION if request.test_fraction is None else request.test_fraction
        split = split_by_groups(
            clips,
            groups=separate_clips(clips) if request.ignore_groups else groups,
            test_fraction=share,
            val_fraction=val_fraction,
            seed=seed,
        )
    return _finish(store, split, groups, groups_from, request), groups


def choose_splits(
    store: Store, request: SplitRequest, n_folds: int | None = None
) -> tuple[tuple[Split, ...], Groups]:
    """Choose the splits of a comparison: the one that was asked for, or else folds.

    Parameters
    ----------
    store : Store
    request : SplitRequest
    n_folds : int, optional
        By default the store's own split if its split column names a test part, else 5.

    Returns
    -------
    tuple of Split
    dict of str to str
        Group of every usable clip.

    Raises
    ------
    SplitImpossible, SplitLeaks
        As `choose_split`, and if a class has fewer groups than there are folds.
    OptionInvalid
        As `choose_split`, and if `n_folds` is given with a split or lists.
    """
    for chosen in ("split", "test_lists"):
        if n_folds is not None and getattr(request, chosen) is not None:
            raise excluding_options("folds", chosen)
    clips = usable_clips(store)
    has_own = n_folds is None and any(clip.split == "test" for clip in clips)
    if request.split is not None or request.test_lists is not None or has_own:
        split, groups = choose_split(store, request)
        return (split,), groups
    groups, groups_from = _choose_groups(store, clips, request)
    folds = split_into_folds(
        clips,
        DEFAULT_FOLDS if n_folds is None else n_folds,
        groups=separate_clips(clips) if request.ignore_groups else groups,
        val_fraction=request.val_fraction,
        seed=request.seed,
    )
    return tuple(_finish(store, item, groups, groups_from, request) for item in folds), groups


def _choose_groups(
    store: Store, clips: Sequence[ClipRecord], request: SplitRequest
) -> tuple[Groups, str]:
    groups = assign_groups(clips, request.group_regex)
    if request.group_regex is not None:
        groups_from = f"--group-regex '{request.group_regex}'"
    else:
        n_unknown = sum(not clip.group for clip in clips)
        groups_from = f"the store, unknown for {n_unknown} of {len(clips)} clips"
        groups_from = groups_from if n_unknown else "the store"
    if request.join_near_duplicates:
        pairs = find_near_duplicates(store, groups)
        groups = join_groups(groups, [(one, other) for one, other, _ in pairs])
        groups_from += ", near-duplicates joined"
    return groups, groups_from


def _finish(
    store: Store, split: Split, groups: Groups, groups_from: str, request: SplitRequest
) -> Split:
    """Refuse leaks, and record what made the split unless the split tells that already."""
    if request.ignore_groups:
        split = replace(split, method=f"{split.method}, groups ignored")
    if request.join_near_duplicates or not split.groups_from:
        joined_above = DUPLICATE_ABOVE if request.join_near_duplicates else None
        split = replace(split, groups_from=groups_from, joined_above=joined_above)
    if not split.store_fingerprint:
        split = replace(split, store_fingerprint=store.header.fingerprint)
    return require_no_leaks(split, groups, allow_leaks=request.allow_leaks)


def _require_no_column(store: Store, request: SplitRequest) -> None:
    fraction = request.test_fraction
    given = "" if fraction is None else f"--test-fraction {fraction}"
    given = "--ignore-groups" if request.ignore_groups else given
    if given:
        raise OptionInvalid(
            f"{given.split()[0]} cannot be used with a store whose split column says which clips "
            f"are tested. Received: {given} for '{store.path}'.",
            hint=f"leave {given.split()[0]} out, or write a split of your own and give --split",
        )


def _fit_to_store(
    store: Store, clips: Sequence[ClipRecord], groups: Groups, request: SplitRequest
) -> Split:
    given = request.split if isinstance(request.split, Split) else read_split(str(request.split))
    part_of = {
        clip_id: part for part in ("train", "val", "test") for clip_id in getattr(given, part)
    }
    known = {clip.clip_id for clip in store.clips}
    unknown = [clip_id for clip_id in part_of if clip_id not in known]
    if unknown:
        raise SplitImpossible(
            f"A split must name clips of the store. '{store.path}' lacks {len(unknown)} of "
            f"{len(part_of)}, the first being '{unknown[0]}'.",
            hint="use the split of this store, or make a new one by leaving --split out",
        )
    marked = {clip.clip_id: part_of.get(clip.clip_id, "") for clip in clips}
    for part in ("train", "test"):
        if part not in marked.values():
            raise SplitImpossible(f"Every {part} clip of the split has failed in '{store.path}'.")
    made = finish_split(clips, groups, marked, given.method, request.val_fraction, given.seed)
    return replace(given, train=made.train, val=made.val, test=made.test, excluded=made.excluded)
