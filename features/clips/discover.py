"""Which clips a video folder holds: by class folders, or exactly as an annotation file says."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from features.clips.annotations import (
    ONE_LABEL,
    Annotation,
    AnnotationFile,
    Annotations,
    read_annotation_text,
    read_columns,
    read_separator,
)
from features.clips.formats import read_annotations
from features.clips.groups import infer_groups, match_groups, show_regex
from features.clips.layout import (
    find_alike,
    find_split_word,
    is_split_word,
    name_parts,
    read_layout,
)
from features.clips.walk import (
    EVERY_SUFFIX,
    VIDEO_SUFFIXES,
    PathFinder,
    VideoFiles,
    find_video_files,
    read_suffixes,
)
from features.errors import LayoutUnclear, ManifestError, NoClips, OptionInvalid, VideosNotFound
from features.places.archives import is_archive, refuse_packed
from features.places.pictures import PictureSequence
from features.places.places import find_in_archive, is_folder, is_there
from features.records import (
    LABEL_JOINT,
    Clip,
    Discovery,
    IgnoredFile,
    TimeUnit,
    split_clip_id,
)
from features.system.text import format_count, printable
from features.video.sampling import require_frame_rate

FOLDER_LABELS = "folder"
NO_LABELS = "none"
_MOST_NAMED = 4


@dataclass(frozen=True, slots=True)
class FolderOptions:
    """Which files of a folder are clips, and what says their labels and groups.

    Attributes
    ----------
    labels : str or Path, or sequence of these, default "folder"
        Take labels from class folders, from an annotation file, or take none. A file names the
        clips exactly: CSV or TSV with the columns path, label, group, split, start, end, or a
        list in the format of a well-known collection. Of several files, separated by commas, a
        name such as trainlist01.txt says the part of the split.
    columns : str or mapping of str to str, optional
        Which column of the annotation file is which, such as path=video_name,label=tag; an
        empty name leaves a column out.
    time_unit : {"seconds", "frames"}, default "seconds"
        Unit of the times in the columns start and end.
    label_separator : str, optional
        What separates several classes in one cell of the annotation file; none if every clip has
        one class. By default ; or |, or a comma between classes that other cells name as well.
    group_regex : str, optional
        Regular expression whose first parenthesis names the group in a clip's path. By default
        read off file names as in UCF101, KTH, HMDB51, NTU and Kinetics, if all follow one of
        them.
    no_groups : bool, default False
        Do not read groups off file names.
    suffixes : str or collection of str, optional
        Further suffixes of video files, separated by commas; all takes every file.
    frame_rate : float, optional
        Frames per second of folders of pictures, where the annotation file says nothing else.
        Above 0. Without it their times are counted at 25, and --fps is refused.

    Raises
    ------
    OptionInvalid
        If options exclude each other or cannot be read.
    """

    labels: str | Path | Sequence[str | Path] = field(
        default=FOLDER_LABELS, metadata={"metavar": f"{FOLDER_LABELS}|FILE,...|{NO_LABELS}"}
    )
    columns: str | Mapping[str, str] | None = field(
        default=None, metadata={"metavar": "ROLE=NAME,..."}
    )
    time_unit: TimeUnit = "seconds"
    label_separator: str | None = field(default=None, metadata={"metavar": f"TEXT|{ONE_LABEL}"})
    group_regex: str | None = field(default=None, metadata={"metavar": "REGEX"})
    no_groups: bool = False
    suffixes: str | Collection[str] | None = field(default=None, metadata={"metavar": "SUFFIX,..."})
    frame_rate: float | None = None

    def __post_init__(self) -> None:
        """Refuse options that would have no effect."""
        if self.no_groups and self.group_regex is not None:
            raise OptionInvalid(
                "--no-groups and --group-regex exclude each other. Received: both.",
                hint="leave one of them out",
            )
        about_files = {
            "--columns": self.columns is not None,
            "--time-unit": self.time_unit != "seconds",
            "--label-separator": self.label_separator is not None,
        }
        if not self.labels_files and any(about_files.values()):
            name = next(name for name, is_given in about_files.items() if is_given)
            raise OptionInvalid(
                f"{name} is about an annotation file. Received: {name} without one.",
                hint="give --labels FILE as well",
            )
        read_columns(self.columns)
        read_separator(self.label_separator)
        read_suffixes(self.suffixes)
        require_frame_rate(self.frame_rate)

    @property
    def labels_files(self) -> tuple[Path, ...]:
        """The annotation files, if any were given."""
        if not isinstance(self.labels, str | Path):
            return tuple(map(Path, self.labels))
        text = str(self.labels)
        if text in (FOLDER_LABELS, NO_LABELS):
            return ()
        if "," not in text or Path(text).exists():
            return (Path(text),)
        return tuple(Path(item.strip()) for item in text.split(",") if item.strip())


def discover_clips(folder: str | Path, options: FolderOptions = FolderOptions()) -> Discovery:
    """Find the clips of a folder, with label, group and split, and list what is passed over.

    An annotation file names the clips exactly: other files are passed over, and listed ones that
    are missing become failed clips later. Its groups and those of `group_regex` are preferred to
    what file names say. VideosNotFound, NoClips, ArchiveUnreadable, ManifestError, LayoutUnclear,
    OptionInvalid.
    """
    root = Path(folder)
    if not (is_folder(root) or is_archive(root)):
        refuse_packed(root)
        what = "is a file" if root.exists() else "does not exist"
        raise VideosNotFound(
            f"VIDEOS must be a folder of video files, or a .zip or .tar of them. '{root}' {what}.",
            hint="give the folder above the class folders, such as videos/ in videos/jump/a.mp4",
        )
    files = find_video_files(root, read_suffixes(options.suffixes))
    ignored = list(files.ignored)
    if options.labels_files:
        found = _clips_from_files(root, files, options)
        listed = {split_clip_id(clip.clip_id)[0] for clip in found.clips}
        listed |= {clip.clip_id for clip in found.clips}
        ignored += [
            IgnoredFile(name, "not in the annotation file")
            for name in files.names
            if name not in listed
        ]
    elif options.labels == NO_LABELS:
        clips = tuple(Clip(name, root / name) for name in files.names)
        found = Discovery(root, clips, labels_from="nothing: --labels none")
    else:
        found = _clips_from_folders(root, files)
    if not found.clips:
        raise _no_clips(root, ignored)
    found = _complete_pictures(found, files, options)
    kept, twins = _drop_twins(found.clips, files.twins)
    grouped, groups_from = _assign_groups(kept, files.twins, options)
    found = replace(
        found,
        clips=tuple(sorted(grouped, key=lambda clip: clip.clip_id)),
        ignored=(*_drop_listed(ignored, found.clips), *found.ignored, *twins),
        groups_from=groups_from,
    )
    return found if root.is_dir() else _name_archive(found)


def _drop_listed(ignored: Sequence[IgnoredFile], clips: Sequence[Clip]) -> Iterator[IgnoredFile]:
    """Leave out what was passed over as no clip, where the annotation file says that it is one."""
    listed = {split_clip_id(clip.clip_id)[0] for clip in clips if clip.is_pictures}
    return (item for item in ignored if str(PurePosixPath(item.path).parent) not in listed)


def _no_clips(root: Path, ignored: Sequence[IgnoredFile]) -> NoClips:
    first = f", such as '{ignored[0].path}': {ignored[0].reason}" if ignored else ""
    return NoClips(
        "VIDEOS must hold at least one video file or folder of numbered pictures. "
        f"'{root}' holds none ({format_count(len(ignored), 'other file')}{first}).",
        hint=f"file types that count: {' '.join(VIDEO_SUFFIXES)}; --suffixes adds others, "
        f"--suffixes {EVERY_SUFFIX} takes every file",
    )


def _clips_from_folders(root: Path, files: VideoFiles) -> Discovery:
    names = files.names
    layout = read_layout(names)
    labels = set(layout.labels.values()) - {""}
    strays = [name for name in files.pictures if not layout.labels[name]]
    if files.pictures and len(labels) < 2:
        first = strays[0] if strays else next(iter(files.pictures))
        where = f"in one class, '{labels.pop()}'" if labels else "in no class folder"
        raise LayoutUnclear(
            "A folder of numbered pictures is one clip, and lies in the folder of its class. "
            f"'{first}' ({len(files.pictures[first].names)} pictures) lies {where}: is it a clip, "
            f"or photos?{_name_passed_over(files)}",
            hint="say that they are clips with --labels none, or with --labels FILE; of photos "
            "there is nothing to embed",
        )
    ignored: tuple[IgnoredFile, ...] = ()
    if strays and len(strays) == len(files.pictures):
        names = tuple(name for name in names if name not in strays)
        layout = read_layout(names)
        reason = "pictures, no clip: in no class folder; --labels none takes them"
        ignored = tuple(
            IgnoredFile(f"{name}/*", f"{len(files.pictures[name].names)} {reason}")
            for name in strays
        )
    clips = tuple(
        Clip(name, root / name, label=layout.labels[name], split=layout.splits.get(name, ""))
        for name in names
    )
    notes = (*layout.notes, *_note_namesakes(names, files.pictures))
    return Discovery(root, clips, ignored, layout.labels_from, notes=notes)


def _name_passed_over(files: VideoFiles) -> str:
    """Say why another folder of pictures is no clip, which may be what is the matter."""
    others = [item for item in files.ignored if item.path.endswith("/*")]
    return f" '{others[0].path}' was passed over: {others[0].reason}." if others else ""


def _note_namesakes(names: Sequence[str], pictures: Mapping[str, PictureSequence]) -> Iterator[str]:
    """Say which clips may be one in two forms: a video and its copy, or and its pictures."""
    forms: dict[str, list[str]] = {}
    for name in names:
        stem = name if name in pictures else str(PurePosixPath(name).with_suffix(""))
        forms.setdefault(stem, []).append(name)
    same = [found for found in forms.values() if len(found) > 1]
    if same:
        yield (
            f"{format_count(len(same), 'clip')} in several forms of one name, such as "
            f"{_name(same[0])}: each counts as a clip of its own; if they show the same, move all "
            "but one away, or the same clip may be trained on and tested"
        )


def _complete_pictures(found: Discovery, files: VideoFiles, options: FolderOptions) -> Discovery:
    """Mark the clips that are folders of pictures, and give them their frame rate."""
    clips = [
        replace(clip, is_pictures=True, frame_rate=clip.frame_rate or options.frame_rate)
        if clip.is_pictures or clip.clip_id in files.pictures
        else clip
        for clip in found.clips
    ]
    pictures = [clip for clip in clips if clip.is_pictures]
    notes = []
    if pictures:
        rates = sorted({clip.frame_rate for clip in pictures if clip.frame_rate is not None})
        shown = ", ".join(f"{rate:g}" for rate in rates[:_MOST_NAMED])
        n_unknown = sum(clip.frame_rate is None for clip in pictures)
        if n_unknown:
            shown += f"{' and ' if rates else ''}unknown, so times are counted at 25 (--frame-rate)"
        text = f"{format_count(len(pictures), 'clip')} of numbered pictures"
        notes.append(f"{text}, such as '{pictures[0].clip_id}'; frames per second: {shown}")
        notes += _note_pictures(files.pictures)
    elif options.frame_rate is not None:
        notes.append("--frame-rate says nothing here: no clip is a folder of pictures")
    return replace(found, clips=tuple(clips), notes=(*found.notes, *notes))


def _note_pictures(pictures: Mapping[str, PictureSequence]) -> Iterator[str]:
    n_flow = sum(sequence.n_flow for sequence in pictures.values())
    if n_flow:
        yield f"{format_count(n_flow, 'picture')} of optical flow left out"
    steps = {name: sequence.step for name, sequence in pictures.items() if sequence.step > 1}
    if steps:
        name, step = next(iter(steps.items()))
        text = f"{format_count(len(steps), 'clip')} of which the numbers go up in steps"
        yield f"{text}, such as '{name}' by {step}; the frame rate counts what is there"


def _name_archive(found: Discovery) -> Discovery:
    """Put the name of the archive before every path, so that the ids count from its folder."""
    inside = find_in_archive(found.folder)
    if inside is None:
        return found
    above = inside[0].path.parent
    name = found.folder.relative_to(above).as_posix()

    def place(clip: Clip) -> Clip:
        is_file = clip.group == split_clip_id(clip.clip_id)[0]
        group = f"{name}/{clip.group}" if is_file else clip.group
        return replace(clip, clip_id=f"{name}/{clip.clip_id}", group=group)

    return replace(
        found,
        folder=above,
        clips=tuple(map(place, found.clips)),
        ignored=tuple(IgnoredFile(f"{name}/{item.path}", item.reason) for item in found.ignored),
    )


def _read_labels(finder: PathFinder, options: FolderOptions) -> Annotations:
    """Read the annotation files as if they were one; the detail says how each was read."""
    rows: list[Annotation] = []
    read: list[str] = []
    notes: list[str] = []
    are_numbers: dict[str, set[bool]] = {}
    for path in options.labels_files:
        file = AnnotationFile(
            path=path,
            text=read_annotation_text(path),
            columns=read_columns(options.columns),
            time_unit=options.time_unit,
            find=finder.find,
            label_separator=options.label_separator,
            is_pictures=finder.is_pictures,
        )
        form, said = read_annotations(file)
        if not said.rows:
            raise NoClips(
                f"An annotation file names at least one clip. '{path}' has no rows (read as "
                f"{form.name}: {form.help}).",
                hint="write a row for each clip below the header line",
            )
        are_numbers[str(path)] = {name.isdigit() for row in said.rows for name in _name_all(row)}
        part = find_split_word(path.stem) if len(options.labels_files) > 1 else ""
        rows += [replace(row, split=row.split or part) for row in said.rows]
        detail = "; ".join(filter(None, (said.detail, part and f"its name says {part}")))
        text = f"'{path}', read as {form.name}: {form.help}"
        read.append(f"{text} ({detail})" if detail else text)
        notes += said.notes
    numbered = [name for name, found in are_numbers.items() if found == {True}]
    named = [name for name, found in are_numbers.items() if found == {False}]
    if numbered and named:
        raise ManifestError(
            "Annotation files that are given together call classes by the same names. "
            f"'{numbered[0]}' has numbers, and '{named[0]}' has names.",
            hint="write the names in both, or lay a label_map.txt with the names of the numbers "
            "beside the former",
        )
    return Annotations(tuple(rows), "; ".join(read), tuple(notes))


def _name_all(row: Annotation) -> tuple[str, ...]:
    return row.labels or ((row.label,) if row.label else ())


def _clips_from_files(root: Path, files: VideoFiles, options: FolderOptions) -> Discovery:
    finder = PathFinder(root, [path.parent for path in options.labels_files], files)
    said = _read_labels(finder, options)
    rows = said.rows
    parts = _name_parts(rows)
    found = {row.path: finder.find(row.path) for row in rows}
    clips: dict[str, Clip] = {}
    repeated: dict[str, None] = {}
    for row in rows:
        clip = _make_clip(root, finder, found[row.path], row, parts.get(row.split, ""))
        _require_text(row, is_found=bool(found[row.path]))
        before = clips.get(clip.clip_id)
        if before is not None:
            clip = _add_labels(row, clip, before, options.label_separator)
            repeated[clip.clip_id] = None
        clips[clip.clip_id] = clip
    clips = _group_with_spans(_settle_labels(clips))
    missing = sorted({str(clip.path) for clip in clips.values() if not is_there(clip.path)})
    notes = (*said.notes, *_compare_counts(rows, found, files))
    if missing:
        text = f"{format_count(len(missing), 'listed file')} missing from '{root}'"
        notes = (*notes, f"{text}, such as '{missing[0]}'")
    if repeated:
        example = clips[next(iter(repeated))]
        notes = (
            *notes,
            f"{format_count(len(repeated), 'clip')} in several rows, which have the classes of "
            f"all of them, such as '{example.clip_id}': {', '.join(example.classes)}; "
            f"--label-separator {ONE_LABEL} refuses that",
        )
    labels = {label for clip in clips.values() for label in clip.classes}
    if options.label_separator is None:
        _require_no_lists(labels)
    notes += tuple(
        f"{_name(same)} differ only in case, spaces or underscores, and are {len(same)} classes"
        for same in find_alike(labels)[:_MOST_NAMED]
    )
    notes += tuple(
        f"{_name(same)} differ only in case, spaces or underscores, and are {len(same)} groups"
        for same in find_alike({row.group for row in rows})[:_MOST_NAMED]
    )
    return Discovery(
        root,
        tuple(clips.values()),
        labels_from=said.detail,
        notes=notes,
    )


def _compare_counts(
    rows: Sequence[Annotation], found: Mapping[str, list[str]], files: VideoFiles
) -> Iterator[str]:
    """Say where a list gives another number of pictures than there are."""
    odd = [
        f"'{row.path}' has {len(files.pictures[name].names)} of {row.n_pictures}"
        for row in rows
        for name in found[row.path]
        if row.n_pictures is not None
        and name in files.pictures
        and len(files.pictures[name].names) != row.n_pictures
    ]
    if odd:
        text = f"{format_count(len(odd), 'clip')} of another number of pictures than listed"
        yield f"{text}, such as: {'; '.join(odd[:_MOST_NAMED])}"


def _group_with_spans(clips: Mapping[str, Clip]) -> dict[str, Clip]:
    """Put a whole file into the group of its spans."""
    with_spans = {split_clip_id(clip.clip_id)[0] for clip in clips.values() if clip.is_span}
    return {
        clip_id: replace(clip, group=clip.group or clip_id) if clip_id in with_spans else clip
        for clip_id, clip in clips.items()
    }


def _require_text(row: Annotation, *, is_found: bool) -> None:
    """Refuse bytes that are not UTF-8, except in the name of a file that is there."""
    labels = (row.label, *(row.labels or ()))
    for value in (*labels, row.group, *(() if is_found else (row.path,))):
        if any("\udc80" <= char <= "\udcff" for char in value):
            raise ManifestError(
                f"An annotation file is text in UTF-8 or UTF-16. {row.where} has "
                f"'{printable(value)}', which is not.",
                hint="save it as CSV UTF-8",
            )


def _make_clip(
    root: Path, finder: PathFinder, found: list[str], row: Annotation, split: str
) -> Clip:
    if len(found) > 1:
        raise ManifestError(
            f"A path of an annotation file means one file. {row.where} names '{row.path}', which "
            f"may be {_name(found)}.",
            hint="write paths relative to the video folder",
        )
    file_id = found[0] if found else finder.place(row.path)
    if file_id is None:
        raise ManifestError(
            f"Paths in an annotation file lie inside VIDEOS. {row.where} names '{row.path}', "
            f"which is outside of '{root}'.",
            hint="write paths relative to the video folder",
        )
    named = row.labels
    if named is None and row.label:
        named = (row.label,)
    labels = None if named is None else tuple(unicodedata.normalize("NFC", n) for n in named)
    clip = Clip(
        file_id,
        root / file_id,
        group=row.group,
        split=split,
        labels=labels,
        is_pictures=finder.is_pictures(file_id),
        frame_rate=row.frame_rate,
    )
    if row.start is None:
        return clip
    last = math.inf if row.end is None else row.end
    if not 0 <= row.start < last or row.end == math.inf:
        raise ManifestError(
            "A span starts at 0 or later, and must end after its start. "
            f"{row.where} has {row.start:g} to {last:g}.",
            hint="correct the times or delete the row; without times it is the whole file",
        )
    clip = replace(clip, group=row.group or finder.real_name(file_id))
    if row.unit == "seconds":
        end = "end" if row.end is None else _write_seconds(row.end)
        name = f"{file_id}#{_write_seconds(row.start)}-{end}"
        return replace(clip, clip_id=name, start_seconds=row.start, end_seconds=row.end)
    if any(bound is not None and bound != int(bound) for bound in (row.start, row.end)):
        raise ManifestError(
            f"Frame numbers must be whole numbers. {row.where} has {row.start}, {row.end}."
        )
    first, until = int(row.start), None if row.end is None else int(row.end)
    name = f"{file_id}#f{first}-" + ("end" if until is None else f"f{until}")
    return replace(clip, clip_id=name, start_frame=first, end_frame=until)


def _write_seconds(value: float) -> str:
    text = f"{value:.3f}".rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def _add_labels(row: Annotation, clip: Clip, before: Clip, separator: str | None) -> Clip:
    """Give a clip the classes of two rows; ManifestError if one of them says nothing new."""
    if clip.split != before.split and clip.classes == before.classes:
        raise ManifestError(
            f"A clip is in one part of the split. {row.where} has '{row.path}' as "
            f"{clip.split or 'of no part'}, a row before as {before.split or 'of no part'}.",
            hint="delete one of the rows; a clip that is trained on cannot be tested",
        )
    what = "each span once" if clip.is_span else "each file once"
    if separator == ONE_LABEL or not set(clip.classes) - set(before.classes) or not before.classes:
        one, other = (LABEL_JOINT.join(item.classes) for item in (before, clip))
        labels = f", as '{one}' and as '{other}'" if one != other else ""
        raise ManifestError(
            f"An annotation file names {what}. {row.where} repeats '{row.path}'{labels}.",
            hint="several clips of one file have different values in the columns start and end"
            if not clip.is_span
            else "delete one of the rows",
        )
    if (clip.group, clip.split) != (before.group, before.split):
        raise ManifestError(
            "Rows of one clip that give it several classes have the same group and split. "
            f"{row.where} has group '{clip.group}', split '{clip.split}' for '{row.path}', a row "
            f"before '{before.group}', '{before.split}'.",
            hint="correct one of the rows, or delete it",
        )
    return replace(before, labels=(*before.classes, *clip.classes))


def _require_no_lists(labels: Collection[str]) -> None:
    """Refuse a class that lists others, where files were read each in its own way."""
    for label in labels:
        parts = [part.strip() for part in label.split(",")]
        if len(parts) > 1 and set(parts) <= set(labels):
            raise ManifestError(
                "A comma separates classes in all labels, or in none. '"
                f"{label}' was taken for one class, and its parts are classes as well.",
                hint=f"--label-separator , if it is several, --label-separator {ONE_LABEL} if not",
            )


def _settle_labels(clips: Mapping[str, Clip]) -> dict[str, Clip]:
    """Give every clip its one class, or all of them several if any has not exactly one."""
    labels = {
        clip_id: None if clip.labels is None else tuple(sorted(set(clip.labels)))
        for clip_id, clip in clips.items()
    }
    is_single = all(named is None or len(named) == 1 for named in labels.values())
    return {
        clip_id: replace(
            clip,
            label=LABEL_JOINT.join(labels[clip_id] or ()),
            labels=None if is_single else labels[clip_id],
        )
        for clip_id, clip in clips.items()
    }


def _name_parts(rows: Collection[Annotation]) -> dict[str, str]:
    """Say which part each entry of the split column means."""
    words = {row.split for row in rows if row.split}
    for row in rows:
        if row.split and not is_split_word(row.split):
            raise ManifestError(
                f"A split is train, val, test or empty. {row.where} has split='{row.split}'.",
                hint="if the column means something else: --columns split=",
            )
    return name_parts(words)


def _drop_twins(
    clips: tuple[Clip, ...], twins: Mapping[str, tuple[str, str]]
) -> tuple[list[Clip], list[IgnoredFile]]:
    """Keep one clip of each file; LayoutUnclear if its paths say different things."""
    kept: dict[tuple[str, str], Clip] = {}
    ignored: dict[str, IgnoredFile] = {}
    spans = {clip.clip_id: _divide(clip) for clip in clips}
    # What is no twin first: it keeps its place.
    for clip in sorted(clips, key=lambda clip: spans[clip.clip_id][0] in twins):
        name, span = spans[clip.clip_id]
        real, how = twins.get(name, (name, ""))
        other = kept.setdefault((real, span), clip)
        if other is clip:
            continue
        if (other.labels, other.label, other.split) != (clip.labels, clip.label, clip.split):
            raise LayoutUnclear(
                f"A file is one clip, of one class and in one part. '{clip.clip_id}' "
                f"({_describe(clip)}) is {how}, and '{other.clip_id}' is of {_describe(other)}.",
                hint="delete one of them, or name the clips with --labels FILE.csv",
            )
        ignored[name] = IgnoredFile(name, how)
    return list(kept.values()), list(ignored.values())


def _divide(clip: Clip) -> tuple[str, str]:
    return split_clip_id(clip.clip_id) if clip.is_span else (clip.clip_id, "")


def _describe(clip: Clip) -> str:
    label = f"class '{clip.label}'" if clip.label else "no class"
    return f"{label}, {clip.split}" if clip.split else label


def _assign_groups(
    clips: list[Clip], twins: Mapping[str, tuple[str, str]], options: FolderOptions
) -> tuple[list[Clip], str]:
    if options.group_regex is not None:
        groups = match_groups([clip.clip_id for clip in clips], options.group_regex)
        named = [replace(clip, group=groups[clip.clip_id]) for clip in clips]
        return named, show_regex(groups, options.group_regex)

    def is_own_group(clip: Clip) -> bool:
        name = split_clip_id(clip.clip_id)[0]
        return clip.group == twins.get(name, (name, ""))[0]

    is_open = {clip.clip_id: not clip.group or is_own_group(clip) for clip in clips}
    sources = ["the annotation file"] if not all(is_open.values()) else []
    if options.no_groups:
        groups, inferred = {}, "--no-groups"
    elif any(is_open.values()):
        found = infer_groups(clips)
        groups, inferred = found.groups, found.groups_from
    else:
        return clips, sources[0]
    named = [
        replace(clip, group=groups.get(clip.clip_id, clip.group)) if is_open[clip.clip_id] else clip
        for clip in clips
    ]
    if any(map(is_own_group, named)):
        sources.append("the file of each span")
    if groups or not sources or inferred.startswith("unknown:"):
        sources.append(inferred)
    return named, "; ".join(sources)


def _name(items: list[str]) -> str:
    shown = [f"'{item}'" for item in items[:_MOST_NAMED]]
    more = len(items) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")
