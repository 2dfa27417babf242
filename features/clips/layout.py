"""What class folders and split folders say: the label and the split of every file below them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from features.clips.walk import fold_name
from features.errors import LayoutUnclear
from features.system.text import format_count

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    "eval": "",  # validation beside a test part, else the test part
}
_LIKE_A_SPLIT = re.compile(
    rf"^(?:{'|'.join(_SPLIT_WORDS)})[\s_-]*(?:set|data|videos?|clips?|split|\d+)$", re.IGNORECASE
)
# Pieces in which large collections come: videos_train and videos_val, Anomaly-Videos-Part-1 and 2.
_PIECE = re.compile(
    rf"(?<![a-z])(?:{'|'.join(_SPLIT_WORDS)}"
    r"|(?:part|split|chunk|shard|batch|fold|disc|disk|dvd|volume|vol)[\s_-]*\d+)(?![a-z])",
    re.IGNORECASE,
)
_MOST_NAMED = 4
_REMEDY = (
    "say which clips are of which class with --labels FILE.csv, or embed them without labels with "
    "--labels none"
)


@dataclass(frozen=True, slots=True)
class Layout:
    """How folders were read: label and split of every file, and that in words."""

    labels: dict[str, str]
    splits: dict[str, str]
    labels_from: str
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Folder:
    folders: dict[str, _Folder] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)

    def all_files(self) -> Iterator[str]:
        yield from self.files
        for folder in self.folders.values():
            yield from folder.all_files()

    def all_folders(self) -> Iterator[str]:
        for name, folder in self.folders.items():
            yield name
            yield from folder.all_folders()


def is_split_word(name: str) -> bool:
    """Tell whether a name is one of those that people give to the parts of a split."""
    return name.strip().lower() in _SPLIT_WORDS


def find_split_word(stem: str) -> str:
    """Find the name of a part of a split in that of a file, such as trainlist01; empty if none."""
    words = {
        word
        for text in re.findall("[a-z]+", stem.lower())
        for word in (text, *(text.removesuffix(end) for end in ("list", "set", "split", "data")))
        if word in _SPLIT_WORDS
    }
    return words.pop() if len(words) == 1 else ""


def name_parts(words: Collection[str]) -> dict[str, str]:
    """Say which part of a split each word means, seen together."""
    parts = {word: _SPLIT_WORDS[word.strip().lower()] for word in words}
    rest = "val" if "test" in parts.values() else "test"
    return {word: part or rest for word, part in parts.items()}


def read_layout(names: Sequence[str]) -> Layout:
    """Read labels and splits off the folders of files; LayoutUnclear if two readings are possible.

    The label is the folder at the first level where folders branch. Split folders (train, val,
    test and their other names) stand above the class folders, or inside each of them.
    """
    node = _make_tree(names)
    stray: list[str] = []
    notes: list[str] = []
    while (wrapper := _find_wrapper(node)) is not None:
        if is_split_word(wrapper):
            notes.append(f"'{wrapper}' is the only split folder: its clips are marked for no part")
        stray += node.files
        node = node.folders[wrapper]
    splits = [name for name in node.folders if is_split_word(name)]
    others = [name for name in node.folders if not is_split_word(name)]
    stray += node.files
    if splits and others:
        raise LayoutUnclear(
            f"A folder that is called like a split stands above all class folders or in each. "
            f"{_name(splits)} {_stand(splits)} beside {_name(others)}: a part of the data, or a "
            "class?",
            hint=f"rename it or move the class folders into split folders; or {_REMEDY}",
        )
    if len(splits) > 1:
        layout = _read_split_folders({name: node.folders[name] for name in splits})
    elif splits:
        layout = Layout({}, {}, "no class folders: no labels", ())
        stray += node.folders[splits[0]].all_files()
        notes.append(f"'{splits[0]}' is called like a split, not like a class: its clips have none")
    elif others:
        layout = _read_class_folders(node.folders)
    else:
        layout = Layout({}, {}, "no class folders: no labels", ())
    if stray and layout.labels:
        text = f"{format_count(len(stray), 'clip')} beside the class folders without a label"
        notes.append(f"{text}: {_name(sorted(stray))}")
    _require_different(set(layout.labels.values()))
    labels = {name: unicodedata.normalize("NFC", layout.labels.get(name, "")) for name in names}
    return Layout(labels, layout.splits, layout.labels_from, (*notes, *layout.notes))


def _make_tree(names: Sequence[str]) -> _Folder:
    root = _Folder()
    for name in names:
        node = root
        for part in PurePosixPath(name).parts[:-1]:
            node = node.folders.setdefault(part, _Folder())
        node.files.append(name)
    return root


def _find_wrapper(node: _Folder) -> str | None:
    """Name the only folder of a node if it holds what counts, rather than being a class."""
    if len(node.folders) != 1:
        return None
    ((name, inner),) = node.folders.items()
    if not inner.folders:
        return None
    n_splits = sum(map(is_split_word, inner.folders))
    if not inner.files or n_splits > 1 or is_split_word(name):
        return name
    if len(inner.folders) == 1:
        return None
    raise LayoutUnclear(
        "One folder is a class if it holds files, and holds the classes if it holds folders. "
        f"'{name}' holds {format_count(len(inner.files), 'file')} ({_name(inner.files)}) and "
        f"{len(inner.folders)} folders ({_name(list(inner.folders))}).",
        hint=f"move those files away or into a class folder; or {_REMEDY}",
    )


def _read_split_folders(folders: dict[str, _Folder]) -> Layout:
    part_of = name_parts(folders)
    splits = {file: part_of[name] for name, node in folders.items() for file in node.all_files()}
    level = {name: _unpack_twice(name, node) for name, node in folders.items()}
    while (inner := _common_wrapper(list(level.values()))) is not None:
        level = {
            name: node.folders[inner] if node.folders else _Folder() for name, node in level.items()
        }
    labels: dict[str, str] = {}
    for name, node in level.items():
        for label, below in node.folders.items():
            if is_split_word(label):
                raise LayoutUnclear(
                    f"Folders inside of split folders are classes. '{name}' holds '{label}', which "
                    "is called like a split.",
                    hint=f"rename it if it is a class; or {_REMEDY}",
                )
            _require_no_splits(label, below)
            labels |= dict.fromkeys(below.all_files(), label)
    classes: dict[str, _Folder] = {}
    for node in level.values():
        for label, below in node.folders.items():
            classes.setdefault(label, _Folder()).folders.update(below.folders)
    _require_classes(classes)
    _require_one_level(classes)
    flat = sorted(name for name, node in folders.items() if not node.folders)
    loose = sorted(file for file in splits if file not in labels)
    notes = []
    if labels and loose:
        where = f"in {_name(flat)}" if flat else "beside the class folders of a split folder"
        text = f"{format_count(len(loose), 'clip')} {where} without a label"
        notes.append(f"{text}: {_name(loose)}")
    names = _name_split_folders(part_of)
    notes += _note_levels(classes)
    what = "class folders" if labels else "no class folders"
    return Layout(labels, splits, f"{what} below the split folders {names}", tuple(notes))


def _unpack_twice(name: str, node: _Folder) -> _Folder:
    """Go into train/train, as unpacking an archive into a folder of its name leaves it."""
    inner = node.folders.get(name)
    is_alone = inner is not None and inner.folders and not inner.files
    return inner if inner and is_alone and len(node.folders) == 1 and not node.files else node


def _common_wrapper(level: list[_Folder]) -> str | None:
    """Name the folder that stands alone in all split folders and holds only folders."""
    branching = [node for node in level if node.folders]
    names = {name for node in branching for name in node.folders}
    if len(names) != 1 or any(node.files for node in branching):
        return None
    (name,) = names
    inner = [node.folders[name] for node in branching]
    return name if all(node.folders and not node.files for node in inner) else None


def _read_class_folders(folders: dict[str, _Folder]) -> Layout:
    labels = {file: label for label, node in folders.items() for file in node.all_files()}
    _require_classes(folders)
    inner = {word for node in folders.values() for word in node.folders if is_split_word(word)}
    parts = name_parts(inner)
    if len(set(parts.values())) < 2:
        for label, node in folders.items():
            _require_no_splits(label, node)
        _require_one_level(folders)
        return Layout(labels, {}, "class folders", _note_levels(folders))
    splits: dict[str, str] = {}
    for label, node in folders.items():
        odd = [name for name in node.folders if not is_split_word(name)]
        deep = [f"{name}/{next(iter(n.folders))}" for name, n in node.folders.items() if n.folders]
        found = odd or node.files or deep
        if found:
            raise LayoutUnclear(
                "Split folders inside of class folders hold all files of every class. "
                f"'{label}' holds {_name(found)} besides, while other classes are divided into "
                f"{_name(sorted(inner))}.",
                hint=f"lay the clips out as SPLIT/CLASS/CLIP or CLASS/SPLIT/CLIP; or {_REMEDY}",
            )
        for word, below in node.folders.items():
            splits |= dict.fromkeys(below.all_files(), parts[word])
    names = _name_split_folders(parts)
    return Layout(labels, splits, f"class folders, each divided into {names}", ())


def _require_classes(names: Collection[str]) -> None:
    """Refuse folders that are called like pieces of one collection rather than like classes."""
    pieces = [name for name in names if _LIKE_A_SPLIT.match(name)] if len(names) > 1 else []
    alike: dict[str, list[str]] = {}
    for name in names:
        rest, n_found = _PIECE.subn("*", name.lower())
        if n_found:  # 01_train and 02_test as well
            alike.setdefault(re.sub(r"\d+", "#", rest), []).append(name)
    pieces += [name for same in alike.values() if len(same) > 1 for name in same]
    if pieces:
        raise LayoutUnclear(
            "Class folders are named after classes. "
            f"{_name(sorted(set(pieces)))} {_are(set(pieces))} called like parts of a split or of "
            "an archive.",
            hint="call split folders train, val and test, and move class folders of other parts "
            f"into one folder; or {_REMEDY}",
        )


def _require_one_level(folders: dict[str, _Folder]) -> None:
    """Refuse class folders that seem to hold the classes, such as cam1/jump and cam2/jump."""
    inside: dict[str, list[str]] = {}
    for label, node in folders.items():
        for name in node.folders:
            inside.setdefault(name, []).append(label)
    twice = [name for name, labels in inside.items() if name in folders and labels != [name]]
    shared = [name for name, labels in inside.items() if len(labels) > 1]
    kinds = {re.sub(r"\d+", "#", name) for name in folders}
    n_shared_kinds = len({re.sub(r"\d+", "#", name) for name in shared})
    is_numbered = len(folders) > 1 and len(kinds) == 1 and n_shared_kinds > 1
    if twice or is_numbered:
        name = (twice or shared)[0]
        which = next(label for label in inside[name] if label != name)
        found = (
            f"'{name}' is one of them, and lies in '{which}' as well"
            if twice
            else f"{_name(list(folders))} differ in their numbers, and hold the same folders: "
            f"{_name(shared)}"
        )
        raise LayoutUnclear(
            f"Class folders lie side by side, and are named after classes. {found}.",
            hint=f"lay the clips out as CLASS/CLIP, with further folders below; or {_REMEDY}",
        )


def _note_levels(folders: dict[str, _Folder]) -> tuple[str, ...]:
    """Say what may be read in another way: folders in class folders, and a class alone."""
    notes = []
    deep = {label: list(node.folders) for label, node in folders.items() if len(node.folders) > 1}
    if deep:
        label, inner = next(iter(deep.items()))
        notes.append(
            f"folders inside of class folders are no classes: '{label}' holds {_name(inner)}; if "
            "they are, name the clips with --labels FILE.csv"
        )
    if len(folders) == 1:
        notes.append(
            f"one class only: '{next(iter(folders))}'; if that folder is none, name the clips with "
            "--labels FILE.csv"
        )
    return tuple(notes)


def _name_split_folders(part_of: dict[str, str]) -> str:
    """List split folders, with the part where their name is another."""
    return ", ".join(
        name if name == part else f"{name} (= {part})" for name, part in sorted(part_of.items())
    )


def _require_no_splits(label: str, node: _Folder) -> None:
    words = sorted({name for name in node.all_folders() if is_split_word(name)})
    if len(set(name_parts(words).values())) > 1:
        raise LayoutUnclear(
            "Split folders stand above all class folders or directly in each. "
            f"'{label}' holds {_name(words)} further below.",
            hint=f"lay the clips out as SPLIT/CLASS/CLIP; or {_REMEDY}",
        )


def find_alike(labels: Collection[str]) -> list[list[str]]:
    """Find names of classes that differ only in case, spaces, underscores and hyphens."""
    spellings: dict[str, set[str]] = {}
    for label in labels:
        squashed = re.sub("[\\s_\u00ad\u200b-\u200d\u2060\ufeff-]+", " ", fold_name(label)).strip()
        spellings.setdefault(squashed, set()).add(unicodedata.normalize("NFC", label))
    return [sorted(same) for same in spellings.values() if len(same) > 1]


def _require_different(labels: set[str]) -> None:
    for same in find_alike(labels):
        raise LayoutUnclear(
            "Class names must differ in more than case, spaces and underscores. "
            f"{_name(same)} do not.",
            hint=f"rename one of the folders; or {_REMEDY}",
        )


def _name(items: Sequence[str]) -> str:
    shown = [f"'{item}'" for item in items[:_MOST_NAMED]]
    more = len(items) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def _are(items: Collection[str]) -> str:
    return "is" if len(items) == 1 else "are"


def _stand(items: Sequence[str]) -> str:
    return "stands" if len(items) == 1 else "stand"
