"""The clips of a folder or archive: each once, and every other file with the reason why not."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from features.errors import OptionInvalid
from features.places.archives import ARCHIVE_SUFFIXES, is_packed
from features.places.pictures import PictureSequence, find_sequence, is_picture
from features.places.places import find_in_archive, hash_source, is_folder, is_there, stat_source
from features.records import IgnoredFile

VIDEO_SUFFIXES = (
    *(".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".dav", ".divx", ".dv", ".f4v", ".flv"),
    *(".gif", ".h264", ".h265", ".hevc", ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v", ".mjpeg"),
    *(".mjpg", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".obu"),
    *(".ogg", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob", ".webm", ".wmv", ".y4m"),
)
# What lies beside videos and is none; files with other suffixes may be videos.
_OTHER_SUFFIXES = (
    *(".csv", ".db", ".doc", ".docx", ".gz", ".h5", ".hdf5", ".html", ".ini", ".ipynb", ".json"),
    *(".jsonl", ".log", ".mat", ".md", ".mp3", ".npy", ".npz", ".pdf", ".pkl", ".py", ".rtf"),
    *(".srt", ".sh", ".tsv", ".txt", ".vtt", ".wav", ".xls", ".xlsx", ".xml", ".yaml", ".yml"),
)
# Folders that systems make: what lies there was thrown away, or is made of other files.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "$recycle.bin", "#recycle", "@eadir", "lost+found", "system volume information"}
)
EVERY_SUFFIX = "all"
_DRIVE = re.compile(r"[A-Za-z]:/")


@dataclass(frozen=True, slots=True)
class VideoFiles:
    """The video files and the folders of pictures in a folder or archive.

    Attributes
    ----------
    names : tuple of str
        Relative to the folder; sorted; every path of a file that has several.
    twins : dict of str to (str, str)
        Path of a file that another path leads to as well: that path, and how both are one.
    ignored : tuple of IgnoredFile
    pictures : dict of str to PictureSequence
        Those of `names` that are folders of numbered pictures.
    """

    names: tuple[str, ...]
    twins: dict[str, tuple[str, str]]
    ignored: tuple[IgnoredFile, ...]
    pictures: dict[str, PictureSequence]


def read_suffixes(given: str | Collection[str] | None) -> frozenset[str]:
    """Add the suffixes of ``--suffixes`` to the known ones; the empty set takes every file."""
    items = given.split(",") if isinstance(given, str) else (given or ())
    wanted = [item.strip().lower() for item in items if item.strip()]
    if EVERY_SUFFIX in wanted:
        return frozenset()
    odd = [item for item in wanted if "/" in item or not item.strip(".*")]
    if odd:
        raise OptionInvalid(
            f"--suffixes are endings of file names, such as dat,vid. Received: '{odd[0]}'.",
            hint=f"--suffixes {EVERY_SUFFIX} takes every file",
        )
    return frozenset([*VIDEO_SUFFIXES, *(f".{item.lstrip('.*')}" for item in wanted)])


def find_video_files(root: Path, suffixes: frozenset[str]) -> VideoFiles:
    """Search a folder or archive to any depth; hidden files and folders are passed over."""
    search = _search_folder if root.is_dir() else _search_archive
    found, links, ignored, pictures_in = search(root, suffixes)
    sequences, no_clips = _find_sequences(found, pictures_in)
    for folder, reason in no_clips.items():
        names = pictures_in[folder]
        if not suffixes:  # every file is wanted
            found += [str(PurePosixPath(folder, name)) for name in names]
        elif len(names) == 1:
            ignored.append(
                IgnoredFile(str(PurePosixPath(folder, names[0])), f"a picture, {reason}")
            )
        else:
            where = str(PurePosixPath(folder, "*"))
            ignored.append(IgnoredFile(where, f"{len(names)} pictures, {reason}"))
    found = sorted([*found, *sequences])
    twins = _find_twins(root, found, links)
    return VideoFiles(tuple(found), twins, tuple(ignored), sequences)


_Search = tuple[list[str], set[str], list[IgnoredFile], dict[str, list[str]]]


def _search_archive(path: Path, suffixes: frozenset[str]) -> _Search:
    found: list[str] = []
    ignored: list[IgnoredFile] = []
    pictures_in: dict[str, list[str]] = {}
    inside = find_in_archive(path)
    if inside is None:
        return found, set(), ignored, pictures_in
    archive, top = inside
    ignored += archive.ignored if top == "." else ()
    for folder, names in archive.folders.items():
        if top not in (".", folder) and not folder.startswith(f"{top}/"):
            continue
        folder = PurePosixPath(folder).relative_to(top).as_posix()
        for member in names:
            name = PurePosixPath(member).relative_to(top).as_posix()
            parts = PurePosixPath(name).parts
            is_hidden = any(part.startswith(".") for part in parts)
            is_of_system = not is_hidden and any(map(_is_passed_over, parts[:-1]))
            reason = "hidden file" if is_hidden else _judge_suffix(parts[-1], suffixes)
            reason = "in a folder of the system" if is_of_system else reason
            if not (is_hidden or is_of_system) and _is_frame(name, suffixes):
                pictures_in.setdefault(folder, []).append(parts[-1])
            elif reason:
                ignored.append(IgnoredFile(name, reason))
            else:
                found.append(name)
    return found, set(), ignored, pictures_in


def _find_sequences(
    videos: Collection[str], pictures_in: Mapping[str, Sequence[str]]
) -> tuple[dict[str, PictureSequence], dict[str, str]]:
    """Tell which folders of pictures are clips, and why others are none."""
    beside = {_folder_of(name) for name in videos}
    above = {folder for name in videos for folder in _folders_above(_folder_of(name))}
    sequences: dict[str, PictureSequence] = {}
    no_clips: dict[str, str] = {}
    for folder in sorted(pictures_in, key=lambda name: -name.count("/")):
        sequence = find_sequence(PurePosixPath(folder).name, pictures_in[folder])
        if folder in beside:
            no_clips[folder] = "beside videos"
        elif sequence.problem or sequence.doubt:
            no_clips[folder] = f"no clip: {sequence.problem or sequence.doubt}"
        elif folder == ".":
            no_clips[folder] = "no clip: it needs a folder of its own inside of VIDEOS"
        elif folder in above:
            no_clips[folder] = "no clip: beside folders of clips"
        else:
            sequences[folder] = sequence
            above.update(_folders_above(folder))
    return sequences, no_clips


def _folder_of(name: str) -> str:
    return str(PurePosixPath(name).parent)


def _folders_above(folder: str) -> Iterator[str]:
    return map(str, PurePosixPath(folder).parents)


def _search_folder(root: Path, suffixes: frozenset[str]) -> _Search:
    found: list[str] = []
    pictures_in: dict[str, list[str]] = {}
    links: set[str] = set()
    ignored: list[IgnoredFile] = []
    visited: set[str] = set()
    linked_folders: set[str] = set()
    for here, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        relative = Path(here).relative_to(root)
        if real in visited:  # a link back up would never end
            folders.clear()
            ignored.append(IgnoredFile(relative.as_posix(), "a link to a folder seen before"))
            continue
        visited.add(real)
        is_linked = here != str(root) and (
            Path(here).is_symlink() or str(relative.parent) in linked_folders
        )
        if is_linked:
            linked_folders.add(str(relative))
        for name in list(filter(_is_passed_over, folders)):
            folders.remove(name)
            what = "hidden folder" if name.startswith(".") else "a folder of the system"
            ignored.append(IgnoredFile((relative / name).as_posix(), what))
        # Real folders first, so that a link never takes the place of what it points to.
        folders.sort(key=lambda name: ((root / relative / name).is_symlink(), name))
        for name in sorted(files):
            if not name.startswith(".") and _is_frame(name, suffixes):
                pictures_in.setdefault(relative.as_posix(), []).append(name)
                continue
            path = relative / name
            reason = _reason_to_ignore(root / path, suffixes)
            if reason:
                ignored.append(IgnoredFile(path.as_posix(), reason))
                continue
            found.append(path.as_posix())
            if is_linked or (root / path).is_symlink():
                links.add(path.as_posix())
    return found, links, ignored, pictures_in


def _is_passed_over(folder: str) -> bool:
    return folder.startswith(".") or folder.lower() in _SYSTEM_FOLDERS


def fold_name(name: str) -> str:
    """Make names equal that differ only in case or in Unicode's ways to write a letter."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _reason_to_ignore(path: Path, suffixes: frozenset[str]) -> str:
    if path.name.startswith("."):
        return "hidden file"
    reason = _judge_suffix(path.name, suffixes)
    if reason:
        return reason
    try:
        mode = path.stat().st_mode
    except OSError:
        return "broken link"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _is_frame(name: str, suffixes: frozenset[str]) -> bool:
    """Tell whether a file may be one picture of a clip; --suffixes jpg makes it a clip itself."""
    return is_picture(name) and PurePosixPath(name.lower()).suffix not in suffixes


def _judge_suffix(name: str, suffixes: frozenset[str]) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    if not suffixes or suffix in suffixes:
        return ""
    if suffix in ARCHIVE_SUFFIXES:
        return "an archive: give it as VIDEOS itself, or unpack it"
    if is_packed(name):
        return "an archive that cannot be read in place: unpack it"
    if suffix in _OTHER_SUFFIXES:
        return "not a video file type"
    if not suffix:
        return f"it has no suffix; --suffixes {EVERY_SUFFIX} takes it"
    return f"its suffix '{suffix}' is not known as a video's; --suffixes {suffix[1:]} takes it"


def _find_twins(root: Path, found: list[str], links: set[str]) -> dict[str, tuple[str, str]]:
    twins: dict[str, tuple[str, str]] = {}
    first: dict[tuple[int, int], str] = {}
    # Real files first: they keep their place, and links to them are passed over.
    for name in sorted(found, key=lambda name: (name in links, name)):
        if not (root / name).is_file():
            continue  # links to folders are not followed twice, and archives have none
        facts = (root / name).stat()
        if facts.st_ino and (facts.st_nlink > 1 or name in links or links):
            kept = first.setdefault((facts.st_dev, facts.st_ino), name)
            if kept != name:
                how = "a link to" if name in links else "a hard link of"
                twins[name] = (kept, f"{how} '{kept}'")
    for same in _group(name for name in sorted(found) if name not in twins):
        for name in same[1:]:
            kept = next((other for other in same if _have_same_content(root, other, name)), name)
            if kept != name:
                folded = (unicodedata.normalize("NFC", item) for item in (kept, name))
                what = "the Unicode form of its name" if len(set(folded)) == 1 else "case"
                twins[name] = (kept, f"the same content as '{kept}', which differs only in {what}")
    return twins


def _group(names: Iterable[str]) -> list[list[str]]:
    """Gather paths that differ only in case or Unicode form."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(fold_name(name), []).append(name)
    return [same for same in groups.values() if len(same) > 1]


def _have_same_content(root: Path, one: str, other: str) -> bool:
    if stat_source(root / one).size_bytes != stat_source(root / other).size_bytes:
        return False
    return hash_source(root / one) == hash_source(root / other)


class PathFinder:
    """Finds the video file that an annotation file means by a path, however it writes it.

    A path may be absolute, relative to the video folder or to an annotation file, a tail or a
    longer form of a path in the folder, in other case, and without its suffix or with that of
    another container.
    """

    def __init__(self, root: Path, beside: Collection[Path], files: VideoFiles) -> None:
        self._root = Path(os.path.normpath(root.absolute()))
        self._places_to_look = (self._root, *dict.fromkeys(path.absolute() for path in beside))
        self._files = files
        self._names = frozenset(files.names)
        self._by_stem: dict[str, list[str]] = {}
        self._places: dict[str, None] = {}  # what stands for the video folder elsewhere
        for name in files.names:
            self._by_stem.setdefault(fold_name(PurePosixPath(name).stem), []).append(name)

    def find(self, path: str) -> list[str]:
        """Return the files that a path may mean: none, one, or several that fit equally well."""
        for written in dict.fromkeys((path, path.replace("\\", "/"))):
            for place in self._places_to_look:
                inside = self._relative_to_root(place / written)
                if not inside or inside == ".":
                    continue
                if inside in self._names or is_there(self._root / inside):
                    return [inside]
        parts = PurePosixPath(path.replace("\\", "/")).parts
        wanted = [fold_name(part) for part in parts if part not in ("/", ".", "..")]
        if not wanted:
            return []
        best: list[str] = []
        best_fit = (0, 0, 0)
        for name in self._candidates(wanted[-1]):
            # Ids may differ in case alone: what is written exactly so counts more.
            is_exact = PurePosixPath(name).stem == PurePosixPath(parts[-1]).stem
            fit = (*self._compare(wanted, PurePosixPath(name)), is_exact)
            if not fit[0]:
                continue
            if fit > best_fit:
                best, best_fit = [name], fit
            elif fit == best_fit:
                best.append(name)
        whole = PurePosixPath(path.replace("\\", "/"))
        if len(best) == 1 and best_fit[0] == len(PurePosixPath(best[0]).parts):
            above = whole.parts[: len(whole.parts) - best_fit[0]]
            if above:
                self._places.setdefault(f"{PurePosixPath(*above)}/".replace("//", "/"))
        return best

    def is_pictures(self, name: str) -> bool:
        """Tell whether a file that was found is a folder, as it is where pictures are the clip."""
        return name in self._files.pictures or is_folder(self._root / name)

    def real_name(self, name: str) -> str:
        """Return the one name of a file that has several."""
        return self._files.twins.get(name, (name, ""))[0]

    def place(self, path: str) -> str | None:
        """Give the id of a path that is not there; None if it lies outside the video folder.

        Where files were found by the tail of a path, as if from another machine, the rest of
        that path stands for the video folder.
        """
        written = path.replace("\\", "/")
        is_foreign = written.startswith("/") or _DRIVE.match(written) is not None
        inside = (
            None
            if is_foreign and _DRIVE.match(written)
            else self._relative_to_root(self._root / written)
        )
        if inside is None and is_foreign:
            inside = next(
                (
                    written.removeprefix(place)
                    for place in self._places
                    if written.startswith(place)
                ),
                None,
            )
        return None if inside == "." else inside

    def _relative_to_root(self, path: Path) -> str | None:
        whole = Path(os.path.normpath(path))
        if not whole.is_relative_to(self._root):
            # The folder may be named through a link on one side only.
            real_root = Path(os.path.realpath(self._root))
            if not whole.is_relative_to(real_root):
                return None
            return whole.relative_to(real_root).as_posix()
        return whole.relative_to(self._root).as_posix()

    def _candidates(self, last: str) -> list[str]:
        stem = PurePosixPath(last).stem
        return list(dict.fromkeys([*self._by_stem.get(last, ()), *self._by_stem.get(stem, ())]))

    @staticmethod
    def _compare(wanted: list[str], name: PurePosixPath) -> tuple[int, int]:
        """Count the folders that agree, and rate the file names; zeros if they do not agree."""
        have = [fold_name(part) for part in name.parts]
        folders = list(zip(reversed(wanted[:-1]), reversed(have[:-1]), strict=False))
        if any(one != other for one, other in folders):
            return 0, 0
        last = PurePosixPath(wanted[-1])
        if have[-1] == wanted[-1]:
            return len(folders) + 1, 2
        if fold_name(name.stem) == wanted[-1]:
            return len(folders) + 1, 1
        return (len(folders) + 1, 1) if last.suffix in VIDEO_SUFFIXES else (0, 0)
