"""Which split a command uses: a file, official lists, the store's column, or a fresh one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from features.errors import OptionInvalid, SplitImpossible
from features.records import ClipRecord
from features.store import Store, done_clips
from pipeline.grouping import Groups, assign_groups
from pipeline.leaks import require_no_leaks
from pipeline.splitfiles import read_split
from pipeline.splits import (
    Split,
    finish_split,
    split_by_column,
    split_by_groups,
    split_by_lists,
)

DEFAULT_TEST_FRACTION = 0.2

# What NumPy and Keras take as a seed.
_HIGHEST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class SplitRequest:
    """What the user said about the split.

    Attributes
    ----------
    split : Split or str or Path, optional
        A split or a file of one; not with `test_lists`.
    test_lists : str or Path, optional
        Folder of official lists.
    fold : int, optional
        Which of the official folds, by default 1; only with `test_lists`.
    test_fraction : float, optional
        Share of the clips to test on, by default 0.2; only where nothing else says which
        clips are tested.
    val_fraction : float, default 0.2
        Share of the training part to validate on, where no clip is marked for it.
    group_regex : str, optional
        See `pipeline.grouping.assign_groups`.
    allow_leaks : bool, default False
    seed : int, default 0
    """

    split: Split | str | Path | None = None
    test_lists: str | Path | None = None
    fold: int | None = None
    test_fraction: float | None = None
    val_fraction: float = 0.2
    group_regex: str | None = None
    allow_leaks: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options that would have no effect, and seeds out of range."""
        require_seed(self.seed)
        for chosen in ("split", "test_lists"):
            if getattr(self, chosen) is None:
                continue
            if self.test_fraction is not None:
                raise excluding_options("test_fraction", chosen)
            if chosen == "split" and self.test_lists is not None:
                raise excluding_options("split", "test_lists")
        if self.fold is not None and self.test_lists is None:
            raise OptionInvalid(
                f"--fold says which of the official lists to use. Received: --fold {self.fold} "
                "without --test-lists.",
                hint="give --test-lists FOLDER as well, or leave --fold out",
            )


def excluding_options(first: str, second: str) -> OptionInvalid:
    """Return the error that two parameters cannot be given together."""
    one, other = (f"--{name.replace('_', '-')}" for name in (first, second))
    return OptionInvalid(
        f"{one} and {other} exclude each other: both say which clips are tested. Received: both.",
        hint=f"leave {one} or {other} out",
    )


def require_seed(seed: int, n_seeds: int = 1) -> None:
    """Refuse seeds that NumPy or Keras would not take.

    Parameters
    ----------
    seed : int
        The first one.
    n_seeds : int, default 1
        How many follow each other, the first included.

    Raises
    ------
    OptionInvalid
    """
    if 0 <= seed <= _HIGHEST_SEED + 1 - n_seeds:
        return
    several = "" if n_seeds == 1 else f" with --seeds {n_seeds}"
    raise OptionInvalid(
        f"--seed must be from 0 to {_HIGHEST_SEED + 1 - n_seeds}{several}. Received: {seed}."
    )


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
        If a fraction is not between 0 and 1, or `test_fraction` is given and the store's
        split column says which clips are tested.
    """
    clips = usable_clips(store)
    groups = assign_groups(clips, request.group_regex)
    val_fraction, seed = request.val_fraction, request.seed
    if request.split is not None:
        split = _fit_to_store(store, clips, groups, request)
    elif request.test_lists is not None:
        split = split_by_lists(
            clips,
            Path(request.test_lists),
            1 if request.fold is None else request.fold,
            groups=groups,
            val_fraction=val_fraction,
            seed=seed,
        )
    elif any(clip.split for clip in clips):
        if request.test_fraction is not None:
            raise OptionInvalid(
                f"--test-fraction cannot be used with a store whose split column says which clips "
                f"are tested. Received: --test-fraction {request.test_fraction} for "
                f"'{store.path}'.",
                hint="leave --test-fraction out, or write a split of your own and give --split",
            )
        split = split_by_column(clips, groups=groups, val_fraction=val_fraction, seed=seed)
    else:
        split = split_by_groups(
            clips,
            groups=groups,
            test_fraction=(
                DEFAULT_TEST_FRACTION if request.test_fraction is None else request.test_fraction
            ),
            val_fraction=val_fraction,
            seed=seed,
        )
    return require_no_leaks(split, groups, allow_leaks=request.allow_leaks), groups


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
    split = finish_split(clips, groups, marked, given.method, request.val_fraction, given.seed)
    return replace(split, leaks=given.leaks)
