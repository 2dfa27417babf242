"""One split with a test part: by the store's column, by official lists, or cut off at random."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from features.errors import SplitImpossible
from features.records import ClipRecord
from pipeline.splits.groups import Groups, assign_groups, cut_part, name_units
from pipeline.splits.official import entry_key, read_official_lists
from pipeline.splits.split import (
    Split,
    describe_groups,
    finish_split,
    require_classes,
    require_fraction,
)


def split_by_column(
    clips: Sequence[ClipRecord],
    *,
    groups: Groups | None = None,
    val_fraction: float = 0.2,
    seed: int = 0,
) -> Split:
    """Take the parts that the video folder or its CSV assigned; other clips are excluded."""
    marked = {clip.clip_id: clip.split for clip in clips}
    groups = assign_groups(clips) if groups is None else groups
    for part in ("train", "test"):
        if part not in marked.values():
            found = ", ".join(sorted(set(marked.values()) - {""})) or "none"
            raise SplitImpossible(
                f"The store's split column must mark clips as train and as test. "
                f"No clip of {len(clips)} is marked '{part}'; parts found: {found}.",
                hint="mark a test part in the CSV or folders, give --split or --test-lists, or "
                "leave the column out of account with --test-fraction 0.2"
                if part == "test"
                else "mark a training part in the CSV or folders, or give --split or --test-lists",
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
    """Take the parts that official UCF101 or HMDB51 lists name; other clips are excluded."""
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
                f"'{next(iter(entries), '')}', the store '{next(iter(marked), '')}'.",
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
    """Cut off a test part that holds whole groups and about equal shares of the classes."""
    require_classes(clips)
    require_fraction("--test-fraction", test_fraction)
    groups = assign_groups(clips) if groups is None else groups
    # Two groups stay with each class that has three or more: one to train, one to validate.
    tested = cut_part(clips, groups, test_fraction, seed=seed, keep_groups=2)
    if not tested:
        raise SplitImpossible(
            f"A test part needs groups that can be spared. {describe_groups(clips, groups)}",
            hint="extract clips of more groups, or name smaller groups with --group-regex",
        )
    marked = {c.clip_id: "test" if groups[c.clip_id] in tested else "train" for c in clips}
    method = f"{name_units(groups)}, stratified"
    return finish_split(clips, groups, marked, method, val_fraction, seed)
