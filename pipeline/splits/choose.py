"""Which split a command uses: a file, official lists, the store's column, or a fresh one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.errors import OptionInvalid, SplitImpossible
from features.records import ClipRecord
from features.store.store import Store, done_clips
from pipeline.splits.duplicates import find_near_duplicates
from pipeline.splits.files import read_split
from pipeline.splits.folds import split_into_folds
from pipeline.splits.groups import Groups, assign_groups, join_groups, separate_clips
from pipeline.splits.holdout import split_by_column, split_by_groups, split_by_lists
from pipeline.splits.leaks import require_no_leaks
from pipeline.splits.split import PARTS, Split, finish_split

DEFAULT_TEST_FRACTION = 0.2
DEFAULT_FOLDS = 5

# Added to the method of a split file whose validation clips are all gone.
_VALIDATION_ANEW = "; validation cut anew"

# Added to the method of a split that the column does not say, though it says something.
NOBODY_TESTED = "; the split column marks no clip with a label for testing"

# What NumPy and Keras take as a seed.
_HIGHEST_SEED = 2**32 - 1


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """Who is trained on and who is tested.

    Attributes
    ----------
    split : str or Path or Split, optional
        Split file to use, such as split.json in the folder of a run. Or the split itself.
    test_lists : str or Path, optional
        Folder with the official lists of UCF101 or HMDB51. Not with `split`.
    fold : int, optional
        Number of the official split, with --test-lists. By default 1.
    test_fraction : float, optional
        Share of the clips to hold out for testing, in whole groups; only if no split is given.
        Between 0 and 1. By default 0.2.
    group_regex : str, optional
        Regular expression whose first parenthesis names the group in a clip's path; replaces
        the groups of the store.
    allow_leaks : bool, default False
        Accept a split that has a group on both sides; every result is then marked LEAKY.
    allow_missing : bool, default False
        Continue although clips of the split file are gone from the store or have no embeddings;
        the result says how many.
    ignore_groups : bool, default False
        Split clip by clip, as much published code does, to see what leaking does; needs
        --allow-leaks.
    join_near_duplicates : bool, default False
        Treat clips that seem to be the same recording as one group, so that they stay on one
        side.
    val_fraction : float, default 0.2
        Share of the training clips to hold out for early stopping, in whole groups. Between 0
        and 1; only if no clip is marked for validation.

    Raises
    ------
    OptionInvalid
        If options exclude each other or would have no effect.
    """

    split: str | Path | Split | None = field(default=None, metadata={"metavar": "PATH"})
    test_lists: str | Path | None = field(default=None, metadata={"metavar": "DIR"})
    fold: int | None = None
    test_fraction: float | None = None
    group_regex: str | None = field(default=None, metadata={"metavar": "REGEX"})
    allow_leaks: bool = False
    allow_missing: bool = False
    ignore_groups: bool = False
    join_near_duplicates: bool = False
    val_fraction: float = 0.2

    def __post_init__(self) -> None:
        """Refuse options that would have no effect."""
        chosen = [name for name in ("split", "test_lists") if getattr(self, name) is not None]
        if self.ignore_groups:
            self._require_chance(chosen)
        if chosen and self.test_fraction is not None:
            raise excluding_options("test_fraction", chosen[0])
        if len(chosen) == 2:
            raise excluding_options("split", "test_lists")
        if self.fold is not None and self.test_lists is None:
            raise OptionInvalid(
                f"--fold says which of the official lists to use. Received: --fold {self.fold} "
                "without --test-lists.",
                hint="give --test-lists FOLDER as well, or leave --fold out",
            )
        if self.allow_missing and self.split is None:
            raise OptionInvalid(
                "--allow-missing is about the clips of a split file. Received: --allow-missing "
                "without --split.",
                hint="give --split FILE as well, or leave --allow-missing out",
            )

    def _require_chance(self, chosen: Sequence[str]) -> None:
        if chosen:
            raise excluding_options("ignore_groups", chosen[0])
        if self.join_near_duplicates:
            raise OptionInvalid(
                "--ignore-groups and --join-near-duplicates exclude each other: one tears groups "
                "apart, the other joins them. Received: both.",
                hint="leave --ignore-groups out",
            )
        if not self.allow_leaks:
            raise OptionInvalid(
                "--ignore-groups needs --allow-leaks: clips of one group may stand on both "
                "sides of the split. Received: --ignore-groups alone.",
                hint="add --allow-leaks to see what leaking does, or leave --ignore-groups out",
            )


@dataclass(frozen=True, slots=True)
class SplitTask:
    """What a split source has to divide, and how."""

    store: Store
    clips: tuple[ClipRecord, ...]
    groups: Groups
    options: SplitOptions
    seed: int
    groups_from: str
    joined_above: float | None

    @property
    def units(self) -> Groups:
        """What moves between the parts as one: the groups, or single clips on request."""
        return separate_clips(self.clips) if self.options.ignore_groups else self.groups


@dataclass(frozen=True, slots=True)
class SplitSource:
    """Where a split may come from: whether it is meant, and the split it makes."""

    is_meant: Callable[[SplitTask], bool]
    make: Callable[[SplitTask], Split]


def usable_clips(store: Store) -> tuple[ClipRecord, ...]:
    """Return the clips that a head can train on or be tested with: done, with frames and label."""
    return tuple(clip for clip in done_clips(store) if clip.n_frames > 0 and clip.is_labelled)


def count_unlabelled(store: Store) -> int:
    """Count the clips that have embeddings, but no label."""
    return sum(clip.n_frames > 0 and not clip.is_labelled for clip in done_clips(store))


def choose_split(store: Store, options: SplitOptions, *, seed: int = 0) -> tuple[Split, Groups]:
    """Make or read the split that is asked for, and refuse one that leaks.

    Also returns the group of every usable clip. Without a split file or lists, the store's
    split column is used if it marks clips for testing; where all are marked for training, or
    none, whole groups are cut off for testing. Raises SplitImpossible, SplitLeaks or OptionInvalid.
    """
    task = _prepare(store, options, seed)
    source = next(source for source in SPLIT_SOURCES if source.is_meant(task))
    return _finish(task, source.make(task)), task.groups


def choose_splits(
    store: Store, options: SplitOptions, n_folds: int | None = None, *, seed: int = 0
) -> tuple[tuple[Split, ...], Groups]:
    """Choose the splits of a comparison: the one that is asked for, or else folds.

    By default the store's own split if its split column names a test part, else 5 folds.
    """
    for chosen in ("split", "test_lists"):
        if n_folds is not None and getattr(options, chosen) is not None:
            raise excluding_options("folds", chosen)
    has_own = n_folds is None and any(clip.split == "test" for clip in usable_clips(store))
    if options.split is not None or options.test_lists is not None or has_own:
        split, groups = choose_split(store, options, seed=seed)
        return (split,), groups
    task = _prepare(store, options, seed)
    folds = split_into_folds(
        task.clips,
        DEFAULT_FOLDS if n_folds is None else n_folds,
        groups=task.units,
        val_fraction=options.val_fraction,
        seed=seed,
    )
    return tuple(_finish(task, fold) for fold in folds), task.groups


def excluding_options(first: str, second: str) -> OptionInvalid:
    """Return the error that two parameters cannot be given together."""
    one, other = (f"--{name.replace('_', '-')}" for name in (first, second))
    return OptionInvalid(
        f"{one} and {other} exclude each other: both say which clips are tested. Received: both.",
        hint=f"leave {one} or {other} out",
    )


def require_seed(seed: int, n_seeds: int = 1) -> None:
    """Refuse seeds that NumPy or Keras would not take; `n_seeds` follow each other."""
    if 0 <= seed <= _HIGHEST_SEED + 1 - n_seeds:
        return
    several = "" if n_seeds == 1 else f" with --seeds {n_seeds}"
    raise OptionInvalid(
        f"--seed must be from 0 to {_HIGHEST_SEED + 1 - n_seeds}{several}. Received: {seed}."
    )


def _split_by_file(task: SplitTask) -> Split:
    given = task.options.split
    split = given if isinstance(given, Split) else read_split(str(given))
    part_of = {clip_id: part for part in PARTS for clip_id in getattr(split, part)}
    usable = {clip.clip_id for clip in task.clips}
    missing = tuple(sorted(clip_id for clip_id in part_of if clip_id not in usable))
    if missing and not task.options.allow_missing:
        known = {clip.clip_id for clip in task.store.clips}
        unknown = [clip_id for clip_id in missing if clip_id not in known]
        first = (unknown or missing)[0]
        raise SplitImpossible(
            f"A split must name clips of the store that have embeddings. '{task.store.path}' lacks "
            f"{describe_missing(missing, split)}; '{first}' "
            f"{'is not in it' if unknown else 'failed, has no label, or is gone from the videos'}.",
            hint="use the split of this store, make a new one by leaving --split out, or go on "
            "without those clips with --allow-missing",
        )
    marked = {clip.clip_id: part_of.get(clip.clip_id, "") for clip in task.clips}
    for part in ("train", "test"):
        if part not in marked.values():
            raise SplitImpossible(
                f"A split needs a {part} clip. '{task.store.path}' has embeddings of none of them."
            )
    method = split.method
    if split.val and "val" not in marked.values() and not method.endswith(_VALIDATION_ANEW):
        method += _VALIDATION_ANEW
    made = finish_split(
        task.clips, task.groups, marked, method, task.options.val_fraction, split.seed
    )
    return replace(
        split,
        method=method,
        train=made.train,
        val=made.val,
        test=made.test,
        excluded=made.excluded,
        missing=tuple(sorted({*split.missing, *missing})),
    )


def describe_missing(missing: Sequence[str], split: Split) -> str:
    """Count the missing clips of a split, part by part."""
    counts = [(part, len(set(missing) & set(getattr(split, part)))) for part in PARTS]
    return " and ".join(
        f"{n} of its {len(getattr(split, part))} {part} clips" for part, n in counts if n
    )


def _split_by_lists(task: SplitTask) -> Split:
    options = task.options
    return split_by_lists(
        task.clips,
        Path(str(options.test_lists)),
        1 if options.fold is None else options.fold,
        groups=task.groups,
        val_fraction=options.val_fraction,
        seed=task.seed,
    )


def _split_by_column(task: SplitTask) -> Split:
    options = task.options
    given = "" if options.test_fraction is None else f"--test-fraction {options.test_fraction}"
    given = "--ignore-groups" if options.ignore_groups else given
    if given:
        raise OptionInvalid(
            f"{given.split()[0]} cannot be used with a store whose split column says which clips "
            f"are tested. Received: {given} for '{task.store.path}'.",
            hint=f"leave {given.split()[0]} out, or write a split of your own and give --split",
        )
    return split_by_column(
        task.clips, groups=task.groups, val_fraction=options.val_fraction, seed=task.seed
    )


def _split_by_chance(task: SplitTask) -> Split:
    share = task.options.test_fraction
    split = split_by_groups(
        task.clips,
        groups=task.units,
        test_fraction=DEFAULT_TEST_FRACTION if share is None else share,
        val_fraction=task.options.val_fraction,
        seed=task.seed,
    )
    is_marked = any(clip.split for clip in task.clips)
    return replace(split, method=f"{split.method}{NOBODY_TESTED}") if is_marked else split


def _column_decides(task: SplitTask) -> bool:
    """Tell whether the split column says who is tested, or at least says more than "train"."""
    parts = {clip.split for clip in task.clips}
    if "test" in parts:
        return True
    return bool(parts - {""}) and parts != {"train"} and task.options.test_fraction is None


# The first one that is meant makes the split.
SPLIT_SOURCES = [
    SplitSource(lambda task: task.options.split is not None, _split_by_file),
    SplitSource(lambda task: task.options.test_lists is not None, _split_by_lists),
    SplitSource(_column_decides, _split_by_column),
    SplitSource(lambda task: True, _split_by_chance),
]


def _prepare(store: Store, options: SplitOptions, seed: int) -> SplitTask:
    """Find the clips and their groups."""
    require_seed(seed)
    clips = usable_clips(store)
    if not clips and (n_unlabelled := count_unlabelled(store)):
        raise SplitImpossible(
            f"A head learns from clips that have a label. None of {n_unlabelled} has one.",
            hint="run extract-features again with class folders, or with --labels FILE.csv; "
            "nothing is decoded a second time",
        )
    groups = assign_groups(clips, options.group_regex)
    if options.group_regex is not None:
        groups_from = f"--group-regex '{options.group_regex}'"
    else:
        n_unknown = sum(not clip.group for clip in clips)
        groups_from = f"the store, unknown for {n_unknown} of {len(clips)} clips"
        groups_from = groups_from if n_unknown else "the store"
    joined_above = None
    if options.join_near_duplicates:
        found = find_near_duplicates(store, groups, groups)
        groups = join_groups(groups, [(one, other) for one, other, _ in found.pairs])
        groups_from += ", near-duplicates joined"
        joined_above = found.above
    return SplitTask(store, clips, groups, options, seed, groups_from, joined_above)


def _finish(task: SplitTask, split: Split) -> Split:
    """Refuse leaks, and record what made the split unless the split tells that already."""
    options = task.options
    if options.ignore_groups:
        split = replace(split, method=f"{split.method}, groups ignored")
    if options.join_near_duplicates or not split.groups_from:
        split = replace(split, groups_from=task.groups_from, joined_above=task.joined_above)
    if not split.store_fingerprint:
        split = replace(split, store_fingerprint=task.store.header.fingerprint)
    return require_no_leaks(split, task.groups, allow_leaks=options.allow_leaks)
