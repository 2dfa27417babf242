"""Splits: which clips train, validate and test a head, with groups kept whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from features.errors import OptionInvalid, SplitImpossible
from features.records import ClipRecord
from features.system.text import printable
from pipeline.splits.groups import (
    Groups,
    count_groups_per_class,
    cut_part,
    groups_are_known,
)

PARTS = ("train", "val", "test")
_MOST_NAMED = 5


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
    groups_from : str
        What said which clips belong together when the split was made, for people; empty
        where nobody recorded it.
    store_fingerprint : str
        Of the store that the split was made for (how its embeddings were made, not which
        clips it holds); empty where nobody recorded it.
    joined_above : float or None
        Similarity from which clips counted as one group when the split was made, as found
        in that store; None where near-duplicates were not joined.
    missing : tuple of str
        Clips that a split file names and the store lacks, if that was allowed.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    method: str
    seed: int = 0
    groups_known: bool = True
    leaks: bool = False
    excluded: tuple[str, ...] = ()
    groups_from: str = ""
    store_fingerprint: str = ""
    joined_above: float | None = None
    missing: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show sizes instead of clip ids."""
        sizes = f"train={len(self.train)}, val={len(self.val)}, test={len(self.test)}"
        return f"Split({sizes}, excluded={len(self.excluded)}, method={self.method!r})"


def finish_split(
    clips: Sequence[ClipRecord],
    groups: Groups,
    marked: Mapping[str, str],
    method: str,
    val_fraction: float,
    seed: int,
) -> Split:
    """Make a split of clips marked "train", "val", "test" or "" (left out).

    Validation is cut from the training part if no clip is marked for it.
    """
    used = [clip for clip in clips if marked[clip.clip_id]]
    require_classes(used)
    is_multilabel = any(clip.labels is not None for clip in used)
    marked = dict(marked)
    if "val" not in marked.values():
        training = [clip for clip in clips if marked[clip.clip_id] == "train"]
        marked.update(dict.fromkeys(_validation_ids(training, groups, val_fraction, seed), "val"))
    trained = list_classes(c for c in clips if marked[c.clip_id] == "train")
    tested = list_classes(c for c in clips if marked[c.clip_id] in ("val", "test"))
    missing = [label for label in tested if label not in trained]
    # Of several classes a rare one may be left out of what is learned; that is reported.
    if missing and not (is_multilabel and trained):
        raise SplitImpossible(
            f"Every class that is tested must be trained on. Class '{missing[0]}' has no clip in "
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
    require_fraction("--val-fraction", val_fraction)
    validated = cut_part(training, groups, val_fraction, seed=seed)
    if not validated:
        raise SplitImpossible(
            "Validation needs a group that training can spare. "
            f"{describe_groups(training, groups)}",
            hint="extract clips of more groups, mark a 'val' part in the CSV, or name smaller "
            "groups with --group-regex",
        )
    return [clip.clip_id for clip in training if groups[clip.clip_id] in validated]


def list_classes(clips: Iterable[ClipRecord]) -> tuple[str, ...]:
    """List the classes of clips, sorted."""
    return tuple(sorted({label for clip in clips for label in clip.classes}))


def require_classes(clips: Sequence[ClipRecord]) -> None:
    """Refuse clips that cannot be told apart: without labels, or of one class only."""
    unlabelled = [clip.clip_id for clip in clips if not clip.is_labelled]
    if unlabelled:
        raise SplitImpossible(
            f"Every clip must have a label. {len(unlabelled)} of {len(clips)} have none, the "
            f"first being '{unlabelled[0]}'.",
            hint="run extract-features again with class folders, or with --labels FILE.csv",
        )
    classes = list_classes(clips)
    is_multilabel = any(clip.labels is not None for clip in clips)
    if len(classes) < (1 if is_multilabel else 2):
        raise SplitImpossible(
            f"A head must tell at least two classes apart. The {len(clips)} clips have "
            f"{len(classes)}: {', '.join(classes) or 'none'}.",
            hint="extract clips of another class into the same store",
        )


def require_fraction(name: str, value: float) -> None:
    """Refuse a share of an option that is nothing, everything or more."""
    if not 0 < value < 1:
        raise OptionInvalid(f"{name} must lie between 0 and 1. Received: {value}.")


def find_class_gaps(clips: Sequence[ClipRecord], splits: Sequence[Split]) -> dict[str, list[str]]:
    """List the classes of labelled clips without a clip in a part of any split, by part."""
    by_id = {clip.clip_id: clip for clip in clips}
    classes = set(list_classes(clips))
    there = {
        part: set(
            list_classes(by_id[i] for split in splits for i in getattr(split, part) if i in by_id)
        )
        for part in PARTS
    }
    return {part: gaps for part in PARTS if (gaps := sorted(classes - there[part]))}


def describe_class_gaps(
    gaps: Mapping[str, Sequence[str]], n_classes: int, *, is_multilabel: bool = False
) -> list[str]:
    """Say which of all classes lack clips in a part, and what that does to scores."""
    n_others = n_classes - len(gaps.get("test", ()))
    said = []
    for part, name in (("test", "test"), ("val", "validation"), ("train", "training")):
        if not (labels := gaps.get(part)):
            continue
        it = "it" if len(labels) == 1 else "them"
        consequence = {
            "train": f"a head never names {it}, and no score counts {it}",
            "val": f"early stopping does not watch {it}"
            + (", and the threshold stays at 0.5" if is_multilabel else ""),
            "test": f"the mean average precision is that of the other {n_others} of {n_classes} "
            "classes"
            if is_multilabel
            else f"balanced accuracy is the mean of the other {n_others} of {n_classes} "
            f"classes, and macro-F1 counts {it} only where predicted, as 0",
        }[part]
        said.append(f"No {name} clip of {_name_some(labels)}: {consequence}")
    return said


def _name_some(labels: Sequence[str]) -> str:
    shown = ", ".join(f"'{printable(label)}'" for label in labels[:_MOST_NAMED])
    more = len(labels) - _MOST_NAMED
    what = "class" if len(labels) == 1 else "classes"
    return f"{what} {shown} and {more} more" if more > 0 else f"{what} {shown}"


def describe_groups(clips: Sequence[ClipRecord], groups: Groups) -> str:
    """Say how many groups there are, for messages."""
    per_class = count_groups_per_class(clips, groups) or {"": 0}
    rarest = min(per_class, key=lambda label: per_class[label])
    n_groups = len({groups[clip.clip_id] for clip in clips})
    return (
        f"{len(clips)} clips are in {n_groups} groups; class '{rarest}' is in {per_class[rarest]}."
    )


def _ids(marked: Mapping[str, str], part: str) -> tuple[str, ...]:
    return tuple(sorted(clip_id for clip_id, value in marked.items() if value == part))
