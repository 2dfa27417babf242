"""What a folder holds, counted: classes with their clips, groups and parts of the split."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from features.records import Clip, Discovery


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many clips and groups a class has; a clip of several classes counts in each.

    Attributes
    ----------
    label : str
        Empty for clips without a label.
    clips : int
    groups : int
        Those that are known.
    train, val, test : int
        Clips in each part of the split.
    """

    label: str
    clips: int
    groups: int
    train: int
    val: int
    test: int


@dataclass(frozen=True, slots=True)
class FolderSummary:
    """What was found in a folder, before anything is decoded.

    Attributes
    ----------
    classes : tuple of ClassCount
        Sorted by name; clips without a label come last.
    clips, groups : int
    unlabelled : int
        Clips without a label.
    several, nothing : int or None
        Clips of several classes, and of none of them; None where every clip has one.
    labels_from, groups_from : str
        What gave labels and groups, for people.
    notes : tuple of str
        What may be a mistake, in sentences.
    """

    classes: tuple[ClassCount, ...]
    clips: int
    groups: int
    unlabelled: int
    labels_from: str
    groups_from: str
    notes: tuple[str, ...]
    several: int | None = None
    nothing: int | None = None

    @property
    def has_splits(self) -> bool:
        """Whether any clip is marked for a part."""
        return any(item.train or item.val or item.test for item in self.classes)


def summarise_folder(found: Discovery) -> FolderSummary:
    """Count what `features.clips.discover.discover_clips` found."""
    members: dict[str, list[Clip]] = {}
    for clip in found.clips:
        for label in clip.classes:
            members.setdefault(label, []).append(clip)
    unlabelled = [clip for clip in found.clips if not clip.is_labelled]
    if unlabelled:
        members[""] = unlabelled
    is_multilabel = any(clip.labels is not None for clip in found.clips)
    labels = sorted(members, key=lambda label: (not label, label))
    return FolderSummary(
        classes=tuple(_count(label, members[label]) for label in labels),
        clips=len(found.clips),
        groups=len({clip.group for clip in found.clips} - {""}),
        unlabelled=len(unlabelled),
        several=sum(len(clip.classes) > 1 for clip in found.clips) if is_multilabel else None,
        nothing=sum(clip.labels == () for clip in found.clips) if is_multilabel else None,
        labels_from=found.labels_from,
        groups_from=found.groups_from,
        notes=found.notes,
    )


def _count(label: str, clips: list[Clip]) -> ClassCount:
    parts = Counter(clip.split for clip in clips)
    n_groups = len({clip.group for clip in clips} - {""})
    return ClassCount(label, len(clips), n_groups, parts["train"], parts["val"], parts["test"])
