"""The formats of annotation files that people have: each is one function, found by the content.

A plug-in adds its own with `register_annotation_format`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from features.clips.annotations import (
    Annotation,
    AnnotationFile,
    Annotations,
    fold,
    name_labels,
    read_annotation_text,
    read_label_map,
    role_of,
)
from features.clips.tables import divide_labels, read_table, read_time
from features.clips.walk import VIDEO_SUFFIXES
from features.errors import FrameHeadError, ManifestError, PluginUnusable
from features.system.text import format_count

# Half of the three seconds around a key frame that AVA's annotators saw.
_AVA_HALF_SECONDS = 1.5
_HMDB_NAME = re.compile(r"[^/]+_[fhlu]_(?:cm|nm)_np\d_(?:ba|fr|le|ri)_(?:bad|goo|med)_\d+\.\w+")
Reader = Callable[[AnnotationFile], Annotations | None]


@dataclass(frozen=True, slots=True)
class AnnotationFormat:
    """A format of annotation files: its name, what it is in a few words, and its reader."""

    name: str
    help: str
    read: Reader


ANNOTATION_FORMATS: dict[str, AnnotationFormat] = {}


def register_annotation_format(name: str, help: str) -> Callable[[Reader], Reader]:
    """Add a format of annotation files to those that ``--labels`` understands.

    The function gets an `AnnotationFile`, and returns `Annotations`, or None if the file is of
    another format. The format that was registered last is tried first.

    Parameters
    ----------
    name : str
        Short and unique.
    help : str
        What such a file is, in a few words.

    Returns
    -------
    callable
        A decorator that returns the function as it is.

    Raises
    ------
    ValueError
        If the name is taken.
    """

    def register(read: Reader) -> Reader:
        if name in ANNOTATION_FORMATS:
            raise ValueError(f"An annotation format needs a name of its own. Got '{name}'.")
        ANNOTATION_FORMATS[name] = AnnotationFormat(name, help, read)
        return read

    return register


def read_annotations(file: AnnotationFile) -> tuple[AnnotationFormat, Annotations]:
    """Find the format of an annotation file by its content, and read it; or raise ManifestError."""
    for form in reversed(list(ANNOTATION_FORMATS.values())):
        try:
            found = form.read(file)
        except csv.Error as problem:
            raise ManifestError(
                f"The annotation file must be readable. Reading '{file.path}' failed: {problem}."
            ) from problem
        except (FrameHeadError, OSError, MemoryError):
            raise
        except Exception as problem:
            if form.read.__module__ in (__name__, read_table.__module__):
                raise
            raise PluginUnusable(
                f"The annotation format '{form.name}' must read a file, or return None for one of "
                f"another format. Reading '{file.path}', it raised {type(problem).__name__}: "
                f"{problem}.",
                hint="--debug shows the traceback",
            ) from problem
        if found is not None and not isinstance(found, Annotations):
            raise PluginUnusable(
                f"The annotation format '{form.name}' must return Annotations or None. It "
                f"returned {type(found).__name__}."
            )
        if found is not None:
            return form, found
    raise _unknown_format(file)


def _unknown_format(file: AnnotationFile) -> ManifestError:
    if file.text.lstrip().startswith(("{", "[")):
        try:
            keys = json.loads(file.text)
        except ValueError as problem:
            found = f"is no valid JSON: {problem}"
        else:
            first = keys[0] if isinstance(keys, list) and keys else keys
            names = ", ".join(map(repr, list(first)[:4])) if isinstance(first, dict) else "no names"
            found = f"is JSON of another kind, with {names}"
        return ManifestError(
            "A JSON of annotations is that of ActivityNet, Kinetics or Something-Something. "
            f"'{file.path}' {found}.",
            hint="write a CSV with the columns path, label",
        )
    columns = ", ".join(file.header[:12]) or "nothing"
    first_line = file.delimiter.join(("path", "label", "group", "split")[: len(file.header) or 4])
    return ManifestError(
        "An annotation file starts with a header line that names the columns path, label, group, "
        "split, between commas, semicolons or tabs, or is of a known format. "
        f"'{file.path}' is of none, and its first line has: "
        f"{columns}.",
        hint="if that line names columns, say which: --columns path=NAME,label=NAME; if not, "
        f"write one above it, such as '{first_line}'",
    )


register_annotation_format("table", "a table with a header line")(read_table)


@register_annotation_format("list", "a list without a header line: path and label")
def read_plain_list(file: AnnotationFile) -> Annotations | None:
    """Read rows of a path and a label between semicolons, tabs or commas, as of Jester."""
    if _is_json(file):
        return None
    for delimiter in (";", "\t", ","):
        table = csv.reader(io.StringIO(file.text), delimiter=delimiter, skipinitialspace=True)
        cells = [(table.line_num, [cell.strip() for cell in row]) for row in table if any(row)]
        if cells and all(len(row) == 2 and all(row) for _, row in cells):
            break
    else:
        return None
    n_paths = sum(_is_path(file, row[0]) for _, row in cells)
    if _has_path_column(file) or not _is_path(file, cells[0][1][0]) or 2 * n_paths < len(cells):
        return None
    if delimiter == "," and n_paths < len(cells):
        return None  # it may be a table of which the first line names columns
    names = read_label_map(file, [(row[0], row[1]) for _, row in cells])
    rows, divided, notes = divide_labels(
        file,
        [
            Annotation(row[0], names.get(row[1], row[1]), where=file.where(line))
            for line, row in cells
        ],
    )
    return Annotations(rows, f"{name_labels(file, names)}{divided}", notes)


@register_annotation_format("mmaction2", "a list of paths, each with a label behind a space")
def read_list(file: AnnotationFile) -> Annotations | None:
    """Read a list as MMAction2 and SlowFast use it."""
    found = [(number, _divide_line(file, line)) for number, line in file.lines]
    pairs = [pair for _, pair in found if pair]
    if not pairs or len(pairs) < len(found):
        return None
    numbers = [(path, number) for path, label in pairs for number in _list_numbers(label)]
    names = read_label_map(file, numbers)
    annotations = []
    for number, pair in found:
        if pair:
            labels = tuple(names.get(label, label) for label in _list_numbers(pair[1]))
            row = Annotation(pair[0], labels[0], where=file.where(number))
            annotations.append(row if len(labels) == 1 else replace(row, label="", labels=labels))
    rows, divided, notes = divide_labels(file, annotations)
    return Annotations(rows, f"{name_labels(file, names)}{divided}", notes)


@register_annotation_format(
    "mmaction2-rawframes", "a list of rawframes: path, number of frames, label"
)
def read_rawframes_list(file: AnnotationFile) -> Annotations | None:
    """Read MMAction2's list of rawframes; with four columns the second is an offset."""
    pattern = re.compile(r"(.+?)(?:\s+(\d+))?\s+(\d+)\s+(\d+)")
    found = [(number, pattern.fullmatch(line)) for number, line in file.lines]
    if not found or not all(match and _is_path(file, match[1]) for _, match in found):
        return None
    if any(match and _is_video(match[1]) for _, match in found):
        return None  # several labels rather than a count
    # Rows of different lengths have several labels rather than an offset.
    several = [re.fullmatch(r"(.+?)\s+(\d+)((?:\s+\d+)+)", line) for _, line in file.lines]
    counts = {len(match[3].split()) for match in several if match}
    if len(counts) > 1 or max(counts) > 2:
        return _read_rawframes_labels(file, several)
    names = read_label_map(file, [(match[1], match[4]) for _, match in found if match])
    rows = []
    for number, match in found:
        if match is None:
            continue
        row = Annotation(match[1], names.get(match[4], match[4]), where=file.where(number))
        if match[2] is not None:
            start = float(match[2])
            row = replace(row, start=start, end=start + float(match[3]), unit="frames")
        else:
            row = replace(row, n_pictures=int(match[3]))
        rows.append(row)
    return Annotations(tuple(rows), name_labels(file, names))


def _read_rawframes_labels(
    file: AnnotationFile, found: Sequence[re.Match[str] | None]
) -> Annotations:
    """Read a path, the number of frames, and the numbers of one or several classes."""
    matches = [(n, match) for (n, _), match in zip(file.lines, found, strict=True) if match]
    numbers = [(match[1], number) for _, match in matches for number in match[3].split()]
    names = read_label_map(file, numbers)
    rows = tuple(
        Annotation(
            match[1],
            labels=tuple(names.get(number, number) for number in match[3].split()),
            where=file.where(n),
            n_pictures=int(match[2]),
        )
        for n, match in matches
    )
    return Annotations(rows, f"{name_labels(file, names)}; several numbers are several classes")


@register_annotation_format("ucf101", "a list of UCF101")
def read_ucf_list(file: AnnotationFile) -> Annotations | None:
    """Read a list of UCF101: a path per line, perhaps with the number of its class."""
    pattern = re.compile(r"(?:(?:.*/)?([^/]+)/)?(v_(\w+?)_g\d+_c\d+(?:\.\w+)?)(?:\s+(\d+))?")
    lines = [(number, line.replace("\\", "/")) for number, line in file.lines]
    found = [(number, pattern.fullmatch(line)) for number, line in lines]
    if not found or not all(match for _, match in found):
        return None
    rows: list[Annotation] = []
    number_of: dict[str, str] = {}
    label_of: dict[str, str] = {}
    for line, match in found:
        if match is None:
            continue
        label, index = match[1] or match[3], match[4]
        path = f"{match[1]}/{match[2]}" if match[1] else match[2]
        rows.append(Annotation(path, label, where=file.where(line)))
        if index is None:
            continue
        if (
            number_of.setdefault(label, index) != index
            or label_of.setdefault(index, label) != label
        ):
            raise ManifestError(
                "A class of a UCF101 list has one number. "
                f"{file.where(line)} gives '{label}' the number {index}, a line before "
                f"'{label_of.get(index, label)}' the number {number_of[label]}.",
                hint="correct the list, or write a CSV with the columns path, label",
            )
    return Annotations(tuple(rows), "labels from the class in the path")


@register_annotation_format("hmdb51", "a list of HMDB51")
def read_hmdb_list(file: AnnotationFile) -> Annotations | None:
    """Read a list of HMDB51: each file with 1 (train), 2 (test) or 0 (neither)."""
    name = re.fullmatch(r"(.+)_test_split\d+\.txt", file.path.name)
    found = [(number, re.fullmatch(r"(.+\.\w+)\s+([012])", line)) for number, line in file.lines]
    if not found or not all(match for _, match in found):
        return None
    if name is None and not all(match and _HMDB_NAME.fullmatch(match[1]) for _, match in found):
        return None  # with folders before the names it is MMAction2's
    parts = {"0": "", "1": "train", "2": "test"}
    rows = tuple(
        Annotation(
            match[1],
            name[1] if name else _find_hmdb_class(file, match[1], file.where(number)),
            split=parts[match[2]],
            where=file.where(number),
        )
        for number, match in found
        if match
    )
    source = f"label '{name[1]}' from the list's name" if name else "labels from class folders"
    return Annotations(rows, source)


def _find_hmdb_class(file: AnnotationFile, path: str, where: str) -> str:
    """Name the class of a file whose list does not: its folder, which is in its name as well."""
    for found in file.find(path):
        folder = PurePosixPath(found).parent.name
        if folder and f"_{folder}_" in f"_{PurePosixPath(path).name}":
            return folder
    raise ManifestError(
        "A list of HMDB51 has the class in its name, or its files lie in class folders. "
        f"{where} names '{path}', and the class is in neither.",
        hint="rename the list to CLASS_test_split1.txt",
    )


@register_annotation_format("ucf-crime", "the temporal list of UCF-Crime")
def read_ucf_crime_list(file: AnnotationFile) -> Annotations | None:
    """Read UCF-Crime's list: a file, its class, and up to two spans in frames."""
    pattern = re.compile(r"(\S+)\s+(\S+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)")
    found = [(number, pattern.fullmatch(line)) for number, line in file.lines]
    if not found or not all(match for _, match in found):
        return None
    rows: list[Annotation] = []
    for number, match in found:
        if match is None:
            continue
        whole = Annotation(match[1], match[2], where=file.where(number))
        bounds = [(int(match[3]), int(match[4])), (int(match[5]), int(match[6]))]
        spans = [(start, end) for start, end in bounds if start >= 0]
        rows += [replace(whole, start=start, end=end, unit="frames") for start, end in spans]
        rows += [] if spans else [whole]
    return Annotations(tuple(rows), "spans in frames")


@register_annotation_format("ava", "rows of AVA")
def read_ava_rows(file: AnnotationFile) -> Annotations | None:
    """Read rows of AVA: a video, the second of a key frame, a box, an action."""
    rows = [(n, [cell.strip() for cell in line.split(",")]) for n, line in file.lines]
    if rows and rows[0][1][0] in ("video_id", "video"):
        del rows[0]  # a header line
    n_rows = len(rows)
    rows = [(n, cells) for n, cells in rows if len(cells) not in (7, 8) or any(cells[2:])]
    if not rows or not all(len(cells) in (7, 8) and _is_ava(cells) for _, cells in rows):
        return None
    names = _read_action_list(file)
    n_empty = n_rows - len(rows)
    empty = (f"{format_count(n_empty, 'row')} without an action left out",) if n_empty else ()
    # Several people may do the same at the same moment: that is one clip here.
    spans: dict[tuple[str, str, str], Annotation] = {}
    for number, cells in rows:
        second = float(cells[1])
        spans.setdefault(
            (cells[0], cells[1], cells[6]),
            Annotation(
                path=cells[0],
                label=names.get(cells[6], cells[6]),
                start=max(0.0, second - _AVA_HALF_SECONDS),
                end=second + _AVA_HALF_SECONDS,
                where=file.where(number),
            ),
        )
    return Annotations(
        tuple(spans.values()),
        f"spans of {2 * _AVA_HALF_SECONDS:g} s around each key frame",
        ("boxes are left out: whole pictures are embedded", *empty),
    )


@register_annotation_format("keras", "a CSV of the Keras examples")
def read_keras_csv(file: AnnotationFile) -> Annotations | None:
    """Read a CSV with the columns video_name and tag."""
    names = set(map(fold, file.header))
    if file.columns or not {"video_name", "tag"} <= names or "path" in names:
        return None
    return read_table(replace(file, columns={"path": "video_name", "label": "tag"}))


@register_annotation_format("charades", "a CSV of Charades")
def read_charades_csv(file: AnnotationFile) -> Annotations | None:
    """Read videos whose column actions lists classes with their times in seconds."""
    if file.columns or not {"id", "actions"} <= set(map(fold, file.header)):
        return None
    rows: list[Annotation] = []
    n_nothing = 0
    for where, cells in file.table:
        row = {fold(name): cell for name, cell in cells.items()}
        actions = [action.split() for action in row["actions"].split(";") if action.strip()]
        n_nothing += not actions
        rows += [] if actions else [Annotation(row["id"], where=where)]
        if actions and all(len(action) == 1 for action in actions):  # of the whole video
            names = tuple(name for (name,) in actions)
            rows.append(Annotation(row["id"], where=where, labels=names))
            continue
        for action in actions:
            if len(action) != 3:
                raise ManifestError(
                    "An action of a Charades CSV has a class, a start and an end. "
                    f"{where} has '{' '.join(action)}'."
                )
            start, end = (read_time(file, text, where) for text in action[1:])
            rows.append(Annotation(row["id"], action[0], start=start, end=end, where=where))
    text = f"{format_count(n_nothing, 'video')} without an action: whole clips without a label"
    return Annotations(tuple(rows), "spans in seconds", (text,) if n_nothing else ())


@register_annotation_format("kinetics", "a CSV of Kinetics")
def read_kinetics_csv(file: AnnotationFile) -> Annotations | None:
    """Read a CSV with youtube_id, time_start, time_end, and perhaps label and split."""
    if file.columns or not {"youtube_id", "time_start", "time_end"} <= set(map(fold, file.header)):
        return None
    rows = []
    for where, cells in file.table:
        row = {fold(name): cell for name, cell in cells.items()}
        video = row["youtube_id"]
        start, end = (read_time(file, row[name], where) for name in ("time_start", "time_end"))
        if not video or start is None or end is None:
            raise ManifestError(f"A row of a Kinetics CSV names a video and its span. {where}.")
        label, split = row.get("label", ""), row.get("split", "")
        rows.append(
            _place_kinetics(file, Annotation(video, label, split=split, where=where), start, end)
        )
    return Annotations(tuple(rows), "columns youtube_id, time_start, time_end", _note_spans(rows))


@register_annotation_format("kinetics-json", "a JSON of Kinetics")
def read_kinetics_json(file: AnnotationFile) -> Annotations | None:
    """Read videos by their YouTube id, each with a label and a segment in seconds."""
    videos = file.json
    if not isinstance(videos, dict) or not videos:
        return None
    if not all(
        isinstance(entry, dict) and isinstance(entry.get("annotations"), dict)
        for entry in videos.values()
    ):
        return None
    rows = []
    for video, entry in videos.items():
        where = f"'{file.path}' video {video}"
        said = entry["annotations"]
        try:
            start, end = map(float, said["segment"])
        except (KeyError, TypeError, ValueError) as problem:
            raise ManifestError(
                "A video of a Kinetics JSON has annotations with a segment in seconds. "
                f"{where} has not: {type(problem).__name__} {problem}."
            ) from problem
        label, split = str(said.get("label", "")), str(entry.get("subset", ""))
        rows.append(
            _place_kinetics(file, Annotation(video, label, split=split, where=where), start, end)
        )
    return Annotations(tuple(rows), "labels and segments", _note_spans(rows))


def _place_kinetics(file: AnnotationFile, row: Annotation, start: float, end: float) -> Annotation:
    """Name the file of a clip that was cut out; or the span, if only the whole video is there."""
    video = row.path
    cut_out = f"{video}_{int(start):06d}_{int(end):06d}"
    if not file.find(cut_out) and file.find(video):
        return replace(row, group=video, start=start, end=end)
    return replace(row, path=cut_out, group=video)


def _note_spans(rows: Sequence[Annotation]) -> tuple[str, ...]:
    n_spans = sum(row.start is not None for row in rows)
    return (f"{format_count(n_spans, 'clip')} found as part of a whole video",) if n_spans else ()


@register_annotation_format("something-something", "a JSON of Something-Something")
def read_something_json(file: AnnotationFile) -> Annotations | None:
    """Read a list of ids with templates."""
    items = file.json
    if not isinstance(items, list) or not items:
        return None
    if not all(isinstance(item, dict) and {"id"} <= item.keys() for item in items):
        return None
    if not all(item.keys() <= {"id", "label", "template", "placeholders"} for item in items):
        return None
    rows = tuple(
        Annotation(
            str(item["id"]),
            re.sub(r"[\[\]]", "", str(item.get("template") or item.get("label", ""))),
            where=f"'{file.path}' id {item['id']}",
        )
        for item in items
    )
    return Annotations(rows, "labels from the templates")


@register_annotation_format("activitynet", "a JSON of ActivityNet")
def read_activitynet_json(file: AnnotationFile) -> Annotations | None:
    """Read videos with segments in seconds."""
    database = file.json.get("database") if isinstance(file.json, dict) else None
    if not isinstance(database, dict) or not database:
        return None
    rows: list[Annotation] = []
    n_nothing = 0
    for video, entry in database.items():
        where = f"'{file.path}' video {video}"
        try:
            path = next((name for name in (f"v_{video}", video) if file.find(name)), f"v_{video}")
            split = str(entry.get("subset", ""))
            segments = entry.get("annotations", [])
            n_nothing += not segments
            rows += [
                Annotation(
                    path,
                    str(segment["label"]),
                    split=split,
                    start=float(segment["segment"][0]),
                    end=float(segment["segment"][1]),
                    where=where,
                )
                for segment in segments
            ]
            rows += [] if segments else [Annotation(path, split=split, where=where)]
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as problem:
            raise ManifestError(
                "A video of an ActivityNet JSON has annotations with label and segment. "
                f"{where} has not: {type(problem).__name__} {problem}."
            ) from problem
    notes = (f"{n_nothing} videos without a segment are whole clips without a label",)
    return Annotations(tuple(rows), "spans in seconds", notes if n_nothing else ())


def _is_json(file: AnnotationFile) -> bool:
    """Tell JSON, or a line of it as in JSON Lines, from a list of odd names."""
    try:
        first = json.loads(file.lines[0][1]) if file.lines else None
    except ValueError:
        first = None
    return file.json is not None or isinstance(first, dict)


def _has_path_column(file: AnnotationFile) -> bool:
    return "path" in map(role_of, file.header)


def _is_path(file: AnnotationFile, text: str) -> bool:
    return "/" in text or _is_video(text) or bool(file.find(text))


def _is_video(text: str) -> bool:
    return PurePosixPath(text.lower()).suffix in VIDEO_SUFFIXES


def _divide_line(file: AnnotationFile, line: str) -> tuple[str, str] | None:
    """Divide a line of a list into path and label; both may hold spaces behind a suffix."""
    for gap in re.finditer(r"\s+", line):
        if _is_video(line[: gap.start()]):
            return line[: gap.start()], line[gap.end() :]
    match = re.fullmatch(r"(.+?)\s+(\S+)", line)
    if match is None or match[1].endswith((",", ";")):
        return None  # a list with commas
    return (match[1], match[2]) if _is_path(file, match[1]) else None


def _is_ava(cells: list[str]) -> bool:
    def is_number(text: str) -> bool:
        return re.fullmatch(r"\d+(?:\.\d+)?", text) is not None

    return is_number(cells[1]) and all(map(is_number, cells[2:7])) and not is_number(cells[0])


def _list_numbers(label: str) -> list[str]:
    """Divide the numbers of several classes; anything else is one label."""
    return label.split() if re.fullmatch(r"\d+(?:\s+\d+)+", label) else [label]


def _read_action_list(file: AnnotationFile) -> dict[str, str]:
    """Read the names of AVA's actions from a .pbtxt beside the file, if there is exactly one."""
    lists = sorted(file.path.parent.glob("*.pbtxt"))
    if len(lists) != 1:
        return {}
    text = read_annotation_text(lists[0])
    items = re.findall(r'name:\s*"([^"]*)"\s*(?:label_)?id:\s*(\d+)', text)
    return {number: name for name, number in items}
