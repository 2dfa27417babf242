"""Which clips a video folder holds: by class folders, or exactly as a CSV names them."""

from __future__ import annotations

import csv
import difflib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from features.clips.groups import infer_group, match_groups
from features.errors import ManifestError, NoClips, VideosNotFound
from features.records import Clip, Discovery, IgnoredFile

VIDEO_SUFFIXES = (
    *(".3gp", ".asf", ".avi", ".divx", ".dv", ".flv", ".gif", ".m2ts", ".m4v", ".mjpeg", ".mjpg"),
    *(".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm"),
    *(".wmv", ".y4m"),
)

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
_SPLIT_NAMES = ("", "train", "val", "test")
_COLUMNS = ("path", "label", "group", "split")


def discover_clips(
    folder: str | Path, *, labels: str | Path | None = None, group_regex: str | None = None
) -> Discovery:
    """Find the clips of a folder, with label, group and split, and list what is passed over.

    Without a CSV, the label is the folder at the first level where folders branch:
    ``videos/UCF-101/Archery/a.avi`` and ``videos/Archery/day1/a.avi`` are both "Archery". Folders
    named train, val and test above the class folders set the split.

    The CSV `labels` names the clips exactly: other files are passed over, and listed ones that
    are missing become failed clips later. `group_regex` is preferred to its groups; without
    either, groups are read off the names of well-known collections.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise VideosNotFound(
            f"VIDEOS must be a folder of video files. '{root}' {what}.",
            hint="give the folder above the class folders, such as videos/ in videos/jump/a.mp4",
        )
    found, ignored = _walk(root)
    if labels is None:
        clips = _clips_from_folders(root, found)
    else:
        clips = _clips_from_csv(root, Path(labels))
        listed = {clip.clip_id for clip in clips}
        ignored += [IgnoredFile(name, "not in the CSV") for name in found if name not in listed]
    if not clips:
        raise NoClips(
            f"VIDEOS must hold at least one video file. '{root}' holds none "
            f"({len(ignored)} other files).",
            hint=f"file types that count: {' '.join(VIDEO_SUFFIXES)}",
        )
    clips = _assign_groups(clips, group_regex)
    return Discovery(root, tuple(sorted(clips, key=lambda clip: clip.clip_id)), tuple(ignored))


def _walk(root: Path) -> tuple[list[str], list[IgnoredFile]]:
    found: list[str] = []
    ignored: list[IgnoredFile] = []
    visited: set[str] = set()
    for here, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(here)
        relative = Path(here).relative_to(root)
        if real in visited:  # a link back up would never end
            folders.clear()
            ignored.append(IgnoredFile(relative.as_posix(), "a link to a folder seen before"))
            continue
        visited.add(real)
        for name in [name for name in folders if name.startswith(".")]:
            folders.remove(name)
            ignored.append(IgnoredFile((relative / name).as_posix(), "hidden folder"))
        # Real folders first, so that a link never takes the place of what it points to.
        folders.sort(key=lambda name: ((root / relative / name).is_symlink(), name))
        for name in sorted(files):
            path = relative / name
            reason = _reason_to_ignore(root / path)
            if reason:
                ignored.append(IgnoredFile(path.as_posix(), reason))
            else:
                found.append(path.as_posix())
    return found, ignored


def _reason_to_ignore(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden file"
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return "not a video file type"
    if not path.exists():
        return "broken link"
    return "" if path.is_file() else "not a regular file"


def _clips_from_folders(root: Path, names: list[str]) -> list[Clip]:
    parts = {name: PurePosixPath(name).parts for name in names}
    tops = {path[0] for path in parts.values()}
    depth = 0
    has_splits = (
        all(len(path) > 2 and path[0].lower() in _SPLIT_FOLDERS for path in parts.values())
        and len(tops) > 1
    )
    if has_splits:
        depth = 1
    else:
        # Walk down while everything lies in one folder that holds only folders.
        while all(len(path) > depth + 2 for path in parts.values()) and (
            len({path[depth] for path in parts.values()}) == 1
        ):
            depth += 1
    return [
        Clip(
            clip_id=name,
            path=root / name,
            label=path[depth] if len(path) > depth + 1 else "",
            split=_SPLIT_FOLDERS[path[0].lower()] if has_splits else "",
        )
        for name, path in parts.items()
    ]


def _clips_from_csv(root: Path, csv_path: Path) -> list[Clip]:
    clips: dict[str, Clip] = {}
    for line, row in _read_rows(csv_path):
        where = f"'{csv_path}' line {line}"
        name = (row.get("path") or "").strip()
        if not name:
            raise ManifestError(f"Every row of a CSV of clips needs a path. {where} has none.")
        clip_id = _id_inside(root, name)
        if clip_id is None:
            raise ManifestError(
                f"Paths in a CSV of clips lie inside VIDEOS. {where} names '{name}', which is "
                f"outside of '{root}'.",
                hint="write paths relative to the video folder",
            )
        if clip_id in clips:
            raise ManifestError(f"A CSV of clips names each file once. {where} repeats '{name}'.")
        split = (row.get("split") or "").strip().lower()
        split = _SPLIT_FOLDERS.get(split, split)
        if split not in _SPLIT_NAMES:
            raise ManifestError(
                f"A split is train, val, test or empty. {where} has split='{split}'."
            )
        label = (row.get("label") or "").strip()
        group = (row.get("group") or "").strip()
        clips[clip_id] = Clip(clip_id, root / clip_id, label, group, split)
    return list(clips.values())


def _read_rows(csv_path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    try:
        with csv_path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if "path" not in columns:
                raise ManifestError(
                    "A CSV of clips starts with a header line that names the columns path, "
                    f"label, group, split. '{csv_path}' has: {', '.join(columns) or 'nothing'}.",
                    hint="make 'path,label,group,split' its first line",
                )
            misspelt = [name for name in columns if _looks_like_known(name)]
            if misspelt:
                raise ManifestError(
                    "The columns of a CSV of clips are named path, label, group, split. "
                    f"'{csv_path}' has '{misspelt[0]}'.",
                    hint="correct its first line, or give the column a name that is less alike",
                )
            for row in reader:
                if None in row:
                    raise ManifestError(
                        f"A row of a CSV of clips has {len(columns)} fields, as its first line. "
                        f"'{csv_path}' line {reader.line_num} has more.",
                        hint="put names that contain a comma into double quotes",
                    )
                yield reader.line_num, row
    except (OSError, csv.Error) as problem:
        if isinstance(problem, ManifestError):
            raise
        raise ManifestError(
            f"The CSV of clips must be readable. Reading '{csv_path}' failed: {problem}.",
            hint="check the path given to --labels",
        ) from problem


def _looks_like_known(column: str) -> bool:
    return column not in _COLUMNS and bool(
        difflib.get_close_matches(column.strip().lower(), _COLUMNS, cutoff=0.75)
    )


def _id_inside(root: Path, name: str) -> str | None:
    path = Path(os.path.normpath(root / name))
    base = Path(os.path.normpath(root))
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else None


def _assign_groups(clips: list[Clip], group_regex: str | None) -> list[Clip]:
    if group_regex is None:
        return [replace(c, group=c.group or infer_group(c.clip_id, c.label)) for c in clips]
    groups = match_groups([clip.clip_id for clip in clips], group_regex)
    return [replace(clip, group=groups[clip.clip_id]) for clip in clips]
