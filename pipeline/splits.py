"""Splits: which clips train, validate and test a head, with groups kept whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.errors import OptionInvalid, SplitImpossible
from features.records import ClipRecord
from pipeline.grouping import (
    Groups,
    assign_groups,
    count_groups_per_class,
    cut_part,
    groups_are_known,
)
from pipeline.officiallists import entry_key, read_official_lists


@dataclass(frozen=True, slots=True, repr=False)
class Split:
    """Clip ids of the three parts.

    Attributes
    ----------
    train, val, test : tuple of str
        Clip ids, sorted. Training stops by `val`; `test` is looked at once, at the end.
    method : str
        What made the split, for people.
    seed : int
    groups_known : bool
        False if some clips had no group, so that leaks cannot be ruled out.
    leaks : bool
        True if a group stands in more than one part and the user allowed it.
    excluded : tuple of str
        Clips in no part.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    method: str
    seed: int = 0
    groups_known: bool = True
    leaks: bool = False
    excluded: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show sizes instead of clip ids."""
        sizes = f"train={len(self.train)}, val={len(self.val)}, test={len(self.test)}"
        return f"Split({sizes}, excluded={len(self.excluded)}, method={self.method!r})"


def split_by_column(
    clips: Sequence[ClipRecord],
    *,
    groups: Groups | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Split:
    """Take the parts that the video folder or its CSV assigned.

    Parameters
    ----------
    clips : sequence of ClipRecord
        Labelled clips; those with an empty `split` are excluded.
    groups : dict of str to str, optional
        Clip id to group; by default the groups in the records.
    val_fraction : float, default 0.2
        Share of the training part to validate on if no clip is marked "val".
    seed : int, default 0

    Returns
    -------
    Split

    Raises
    ------
    SplitImpossible
        If "train" or "test" is empty, or nothing can be spared for validation.
    """
    marked = {clip.clip_id: clip.split for clip in clips}
    groups = assign_groups(clips) if groups is None else groups
    for part in ("train", "test"):
        if part not in marked.values():
            found = ", ".join(sorted(set(marked.values()) - {""})) or "none"
            raise SplitImpossible(
                f"The store's split column must mark clips as train and as test. "
                f"No clip of {len(clips)} is marked '{part}'; parts found: {found}.",
                hint="mark a test part in the CSV or folders, or give --split or --test-lists",
            )
    return finish_split(clips, groups, marked, "the split column", val_fraction, seed)


def split_by_lists(
    clips: Sequence[ClipRecord],
    folder: Path,
    fold: int = 1,
    *,
    groups: Groups | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Split:
    """Take the parts that official UCF101 or HMDB51 lists name.

    Parameters
    ----------
    clips : sequence of ClipRecord
        Labelled clips; those in neither list are excluded.
    folder : Path
        See `pipeline.officiallists.read_official_lists`.
    fold : int, default 1
        1, 2 or 3.
    groups, val_fraction, seed
        As in `split_by_column`; validation is cut from the official training part.

    Returns
    -------
    Split

    Raises
    ------
    SplitImpossible
        If there are no such lists, or they name no training or no test clip of the store.
    """
    groups = assign_groups(clips) if groups is None else groups
    entries = read_official_lists(folder, fold)
    flat = {key.rpartition("/")[2]: part for key, part in entries.items()}
    marked = {}
    for clip in clips:
        # A collection unpacked into one folder has lost the class in front of the name.
        known = entries if "/" in clip.clip_id else flat
        part = known.get(entry_key(clip.clip_id), "none")
        marked[clip.clip_id] = "" if part == "none" else part
    for part in ("train", "test"):
        if part not in marked.values():
            raise SplitImpossible(
                f"The lists of fold {fold} in '{folder}' must name clips of the store. Of "
                f"{len(clips)} clips none is in the {part} list; the lists name e.g. "
                f"'{next(iter(entries), '')}', the store '{_first(marked)}'.",
                hint="lay the videos out as CLASS/NAME, or check --test-lists and --fold",
            )
    method = f"official lists, fold {fold}"
    return finish_split(clips, groups, marked, method, val_fraction, seed)


def split_by_groups(
    clips: Sequence[ClipRecord],
    *,
    groups: Groups | None = None,
    test_fraction: float = 0.2,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Split:
    """Cut off a test part that holds whole groups and about equal shares of the classes.

    Parameters
    ----------
    clips : sequence of ClipRecord
        Labelled clips.
    groups : dict of str to str, optional
        Clip id to group; by default the groups in the records.
    test_fraction : float, default 0.2
        Share of each class to test on.
    val_fraction : float, default 0.2
        Share of the rest to validate on.
    seed : int, default 0

    Returns
    -------
    Split

    Raises
    ------
    SplitImpossible
        If no group can be spared for testing or validation.
    OptionInvalid
        If a fraction is not between 0 and 1.
    """
    require_classes(clips)
    _require_fraction("--test-fraction", test_fraction)
    groups = assign_groups(clips) if groups is None else groups
    # Two groups stay with each class that has three or more: one to train, one to validate.
    tested = cut_part(clips, groups, test_fraction, seed=seed, keep_groups=2)
    if not tested:
        raise SplitImpossible(
            f"A test part needs groups that can be spared. {describe_groups(clips, groups)}",
            hint="extract clips of more groups, or name smaller groups with --group-regex",
        )
    marked = {c.clip_id: "test" if groups[c.clip_id] in tested else "train" for c in clips}
    return finish_split(clips, groups, marked, "whole groups, stratified", val_fraction, seed)


def finish_split(
    clips: Sequence[ClipRecord],
    groups: Groups,
    marked: Mapping[str, str],
    method: str,
    val_fraction: float,
    seed: int,
) -> Split:
    """Make a split of clips that are marked already, cutting validation if there is none.

    Parameters
    ----------
    clips : sequence of ClipRecord
    groups : dict of str to str
        Clip id to group.
    marked : mapping of str to str
        Clip id to "train", "val", "test", or "" for a clip to leave out.
    method : str
        See `Split`.
    val_fraction : float
        Share of the training part to validate on if no clip is marked "val".
    seed : int

    Returns
    -------
    Split

    Raises
    ------
    SplitImpossible
        If a used clip has no label, a class is not trained, or no group can be spared
        for validation.
    """
    require_classes([clip for clip in clips if marked[clip.clip_id]])
    marked = dict(marked)
    if "val" not in marked.values():
        training = [clip for clip in clips if marked[clip.clip_id] == "train"]
        marked.update(dict.fromkeys(_validation_ids(training, groups, val_fraction, seed), "val"))
    train_labels = {c.label for c in clips if marked[c.clip_id] == "train"}
    untrained = sorted({c.label for c in clips if marked[c.clip_id] in ("val", "test")})
    missing = [label for label in untrained if label not in train_labels]
    if missing:
        raise SplitImpossible(
            f"Every class that is tested must be trained. Class '{missing[0]}' has no clip in "
            f"the training part ({method}; {len(missing)} such classes). "
            f"{describe_groups(clips, groups)}",
            hint="give that class clips of more groups, or remove it",
        )
    parts = {part: _ids(marked, part) for part in ("train", "val", "test", "")}
    return Split(
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        method=method,
        seed=seed,
        groups_known=groups_are_known(groups),
        excluded=parts[""],
    )


def _validation_ids(
    training: Sequence[ClipRecord], groups: Groups, val_fraction: float, seed: int
) -> list[str]:
    _require_fraction("--val-fraction", val_fraction)
    validated = cut_part(training, groups, val_fraction, seed=seed)
    if not validated:
        raise SplitImpossible(
            "Validation needs a group of some class that training can spare. "
            f"{describe_groups(training, groups)}",
            hint="extract clips of more groups, mark a 'val' part in the CSV, or name smaller "
            "groups with --group-regex",
        )
    return [clip.clip_id for clip in training if groups[clip.clip_id] in validated]


def require_classes(clips: Sequence[ClipRecord]) -> None:
    """Refuse clips that cannot be told apart: without labels, or of one class only.

    Parameters
    ----------
    clips : sequence of ClipRecord

    Raises
    ------
    SplitImpossible
    """
    unlabelled = [clip.clip_id for clip in clips if not clip.label]
    if unlabelled:
        raise SplitImpossible(
            f"Every clip must have a label. {len(unlabelled)} of {len(clips)} have none, the "
            f"first being '{unlabelled[0]}'.",
            hint="run extract-features again with class folders, or with --labels FILE.csv",
        )
    classes = sorted({clip.label for clip in clips})
    if len(classes) < 2:
        raise SplitImpossible(
            f"A head must tell at least two classes apart. The {len(clips)} clips have "
            f"{len(classes)}: {', '.join(classes) or 'none'}.",
            hint="extract clips of another class into the same store",
        )


def _require_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise OptionInvalid(f"{name} must lie between 0 and 1. Received: {value}.")


def describe_groups(clips: Sequence[ClipRecord], groups: Groups) -> str:
    """Say how many groups there are, for messages."""
    per_class = count_groups_per_class(clips, groups)
    rarest = min(per_class, key=lambda label: per_class[label])
    n_groups = len({groups[clip.clip_id] for clip in clips})
    return (
        f"{len(clips)} clips are in {n_groups} groups; class '{rarest}' is in {per_class[rarest]}."
    )


def _ids(marked: Mapping[str, str], part: str) -> tuple[str, ...]:
    return tuple(sorted(clip_id for clip_id, value in marked.items() if value == part))


def _first(ids: Iterable[str]) -> str:
    return next(iter(ids), "")
