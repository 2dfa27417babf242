"""Annotation files: which clips there are and of which class, in the formats that people have.

Each format is one function, found by the content of the file; a plug-in adds its own with
`register_annotation_format`.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from features.clips.layout import is_split_word
from features.clips.walk import VIDEO_SUFFIXES
from features.errors import ManifestError, OptionInvalid
from features.records import TimeUnit
from features.system.text import format_count

ROLES = ("path", "label", "group", "split", "start", "end", "fps")
# Names of columns that need no --columns, as `_squash` writes them; where several are there for
# the path, the first one counts.
_ALIASES = {
    "path": (
        *("path", "clippath", "videopath", "filepath", "videoname", "filename", "file", "video"),
        *("clipname", "videoid", "clip", "clipid", "id"),
    ),
    "label": ("label", "class", "tag", "action", "category", "classname", "labelname", "activity"),
    "group": ("group",),
    "split": ("split", "subset"),
    **{
        role: tuple(
            form.format(word)
            for form in ("{}", "{}seconds", "{}sec", "{}time", "time{}", "t{}", "{}timestamp")
            for word in words
        )
        + tuple(form.format(word) for form in ("{}frame", "frame{}") for word in words)
        for role, words in {"start": ("start", "begin"), "end": ("end", "stop")}.items()
    },
    "fps": ("fps", "framerate"),
}
_FIRST_COUNTS = ("path",)
# Names that would change what a row means, had they a role.
_LIKE_A_BOUND = re.compile(
    r"(?:start|begin|onset|end|stop|offset|finish)(?:ms|msec|millis.*|secs|s|f|frames|idx|index)"
    r"|onset|offset|finish|from|to|t[01]|f[01]"
)
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
# Half of the three seconds around a key frame that AVA's annotators saw.
_AVA_HALF_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one row of an annotation file says.

    Attributes
    ----------
    path : str
        As the file writes it.
    label, group, split : str
        Empty where the file says nothing.
    start, end : float or None
        A span of the video, the end excluded; None for its beginning and its end.
    unit : {"seconds", "frames"}
        Of `start` and `end`.
    where : str
        Place in the file, for messages.
    """

    path: str
    label: str = ""
    group: str = ""
    split: str = ""
    start: float | None = None
    end: float | None = None
    unit: TimeUnit = "seconds"
    where: str = ""


@dataclass(frozen=True, slots=True)
class Annotations:
    """What an annotation file says, and what should be known of how it was read.

    Attributes
    ----------
    rows : tuple of Annotation
    detail : str
        Which columns were taken for what.
    notes : tuple of str
        What was left out, in sentences.
    """

    rows: tuple[Annotation, ...]
    detail: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnnotationFile:
    """An annotation file, as a reader sees it.

    Attributes
    ----------
    path : Path
    text : str
        All of it, decoded.
    columns : mapping of str to str
        What ``--columns`` says: role to column name.
    time_unit : {"seconds", "frames"}
        What ``--time-unit`` says.
    find : callable
        Lists the video files that a path may mean.
    """

    path: Path
    text: str
    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: TimeUnit = "seconds"
    find: Callable[[str], list[str]] = lambda path: []

    @cached_property
    def lines(self) -> tuple[tuple[int, str], ...]:
        """Lines that are not empty, stripped, each with its number from 1."""
        numbered = enumerate(self.text.splitlines(), start=1)
        return tuple((number, line.strip()) for number, line in numbered if line.strip())

    @cached_property
    def json(self) -> Any:
        """The content as JSON; None if it is none."""
        if not self.text.lstrip().startswith(("{", "[")):
            return None
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    @cached_property
    def delimiter(self) -> str:
        """What separates the columns in the first line: a comma, a semicolon or a tab."""
        first = self._table_text.lstrip("\r\n").partition("\n")[0]

        def fitness(delimiter: str) -> tuple[bool, int]:
            names = next(csv.reader([first], delimiter=delimiter), [])
            roles = {_role_of(name) for name in names} | {
                name for name in names if _fold(name) in map(_fold, self.columns.values())
            }
            return len(roles - {None}) > 0, len(names)

        return max((",", ";", "\t"), key=fitness)

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Names of the columns, stripped; empty for an empty file."""
        for row in csv.reader(io.StringIO(self._table_text), delimiter=self.delimiter):
            if any(cell.strip() for cell in row):
                return tuple(cell.strip() for cell in row)
        return ()

    @property
    def table(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Rows below the header line, as text by column name, each with its place."""
        reader = csv.reader(io.StringIO(self._table_text), delimiter=self.delimiter)
        n_columns = len(self.header)
        is_header = True
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if is_header:
                is_header = False
                continue
            where = self.where(reader.line_num)
            if any(cell.strip() for cell in cells[n_columns:]):
                raise ManifestError(
                    f"A row of an annotation file has {n_columns} fields, as its first line. "
                    f"{where} has more.",
                    hint="put names that contain the delimiter into double quotes",
                )
            cells += [""] * (n_columns - len(cells))
            values = (cell.strip() for cell in cells[:n_columns])
            yield where, dict(zip(self.header, values, strict=True))

    def where(self, line: int) -> str:
        """Name a line for messages."""
        return f"'{self.path}' line {line}"

    @cached_property
    def _table_text(self) -> str:
        # Excel writes the delimiter into a first line of its own.
        return re.sub(r"\A\s*sep=.\r?\n", "\n", self.text, flags=re.IGNORECASE)


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
            "A JSON of annotations is that of ActivityNet or Something-Something. "
            f"'{file.path}' {found}.",
            hint="write a CSV with the columns path, label",
        )
    columns = ", ".join(file.header[:12]) or "nothing"
    first_line = file.delimiter.join(("path", "label", "group", "split")[: len(file.header) or 4])
    return ManifestError(
        "An annotation file starts with a header line that names the columns path, label, group, "
        f"split, or is of a known format. '{file.path}' is of none, and its first line has: "
        f"{columns}.",
        hint="if that line names columns, say which: --columns path=NAME,label=NAME; if not, "
        f"write one above it, such as '{first_line}'",
    )


def read_annotation_text(path: Path) -> str:
    """Decode an annotation file: UTF-8 or UTF-16, with a byte order mark or without."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ManifestError(
            f"The annotation file must be readable. Reading '{path}' failed: {problem}.",
            hint="check the path given to --labels",
        ) from problem
    try:
        text = _decode(content)
        if "\0" in text:
            raise ManifestError(
                "An annotation file is text in UTF-8 or UTF-16. "
                f"'{path}' is not: it has bytes of zero.",
                hint="save it as CSV UTF-8",
            )
        return text
    except UnicodeDecodeError as problem:
        raise ManifestError(
            f"An annotation file is text in UTF-8 or UTF-16. '{path}' is not: {problem}.",
            hint="save it as CSV UTF-8",
        ) from problem


def read_columns(given: str | Mapping[str, str] | None) -> dict[str, str]:
    """Read ``--columns``, such as "path=video_name,label=tag": role to column name."""
    if given is None:
        return {}
    pairs = (
        [item.partition("=")[::2] for item in given.split(",")]
        if isinstance(given, str)
        else given.items()
    )
    columns = {role.strip().lower(): name.strip() for role, name in pairs}
    odd = [role for role in columns if role not in ROLES]
    if odd:
        raise OptionInvalid(
            f"--columns names columns for {', '.join(ROLES)}. Received: '{odd[0]}'.",
            hint="--columns path=video_name,label=tag",
        )
    return columns


def _decode(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    # Text in a Western alphabet has a zero in every second byte of UTF-16.
    start = content[:400].partition(b"\n")[0]
    if start[1::2].count(0) > len(start) // 4:
        return content.decode("utf-16-le")
    if start[::2].count(0) > len(start) // 4:
        return content.decode("utf-16-be")
    # File names need not be UTF-8.
    return content.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


@register_annotation_format("table", "a table with a header line")
def read_table(file: AnnotationFile) -> Annotations | None:
    """Read any table that names its columns; None if no column holds paths."""
    chosen = _choose_columns(file)
    if "path" not in chosen:
        return None
    cells = tuple(file.table)
    rows = tuple(_read_row(file, chosen, row, where) for where, row in cells)
    left_out = [name for name in file.header if name and name not in chosen.values()]
    if "split" not in chosen and "split" not in file.columns:
        _require_no_split(file, left_out, [row for _, row in cells])
    used = ", ".join(
        role if _fold(name) == role else f"{role} = {name}" for role, name in chosen.items()
    )
    if "fps" in chosen and (
        _choose_unit(file, chosen) == "seconds" or all(row.start is None for row in rows)
    ):
        _require_no_rate(file, chosen, rows)
        left_out.append(chosen["fps"])
    notes = (f"columns that say nothing here: {', '.join(left_out)}",) if left_out else ()
    return Annotations(rows, f"columns {used}", notes)


@register_annotation_format("list", "a list without a header line: path and label")
def read_plain_list(file: AnnotationFile) -> Annotations | None:
    """Read rows of a path and a label between semicolons or tabs, as of Jester."""
    for delimiter in (";", "\t"):  # between commas, a first line may be meant as a header
        table = csv.reader(io.StringIO(file.text), delimiter=delimiter)
        cells = [(table.line_num, [cell.strip() for cell in row]) for row in table if any(row)]
        if cells and all(len(row) == 2 and all(row) for _, row in cells):
            break
    else:
        return None
    n_paths = sum(_is_path(file, row[0]) for _, row in cells)
    if _has_path_column(file) or not _is_path(file, cells[0][1][0]) or 2 * n_paths < len(cells):
        return None
    names = _read_label_map(file, [(row[0], row[1]) for _, row in cells])
    rows = (
        Annotation(row[0], names.get(row[1], row[1]), where=file.where(line)) for line, row in cells
    )
    return Annotations(tuple(rows), *_name_labels(file, names))


@register_annotation_format("mmaction2", "a list of paths, each with a label behind a space")
def read_list(file: AnnotationFile) -> Annotations | None:
    """Read a list as MMAction2 and SlowFast use it."""
    found = [(number, _divide_line(file, line)) for number, line in file.lines]
    pairs = [pair for _, pair in found if pair]
    if not pairs or len(pairs) < len(found):
        return None
    for number, pair in found:
        if pair and re.fullmatch(r"\d+(?:\s+\d+)+", pair[1]):
            raise ManifestError(
                "A line of a list has one label. "
                f"{file.where(number)} has '{pair[1]}' behind '{pair[0]}'.",
                hint="write a CSV with the columns path, label, and one label for each path",
            )
    names = _read_label_map(file, pairs)
    rows = tuple(
        Annotation(pair[0], names.get(pair[1], pair[1]), where=file.where(number))
        for number, pair in found
        if pair
    )
    return Annotations(rows, *_name_labels(file, names))


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
    names = _read_label_map(file, [(match[1], match[4]) for _, match in found if match])
    rows = []
    for number, match in found:
        if match is None:
            continue
        row = Annotation(match[1], names.get(match[4], match[4]), where=file.where(number))
        if match[2] is not None:
            start = float(match[2])
            row = replace(row, start=start, end=start + float(match[3]), unit="frames")
        rows.append(row)
    return Annotations(tuple(rows), *_name_labels(file, names))


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
    if name is None or not found or not all(match for _, match in found):
        return None
    parts = {"0": "", "1": "train", "2": "test"}
    rows = tuple(
        Annotation(match[1], name[1], split=parts[match[2]], where=file.where(number))
        for number, match in found
        if match
    )
    return Annotations(rows, f"label '{name[1]}' from the list's name")


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
    names = set(map(_fold, file.header))
    if file.columns or not {"video_name", "tag"} <= names or "path" in names:
        return None
    return read_table(replace(file, columns={"path": "video_name", "label": "tag"}))


@register_annotation_format("charades", "a CSV of Charades")
def read_charades_csv(file: AnnotationFile) -> Annotations | None:
    """Read videos whose column actions lists classes with their times in seconds."""
    if file.columns or not {"id", "actions"} <= set(map(_fold, file.header)):
        return None
    rows: list[Annotation] = []
    n_nothing = 0
    for where, cells in file.table:
        row = {_fold(name): cell for name, cell in cells.items()}
        actions = [action.split() for action in row["actions"].split(";") if action.strip()]
        n_nothing += not actions
        rows += [] if actions else [Annotation(row["id"], where=where)]
        for action in actions:
            if len(action) != 3:
                raise ManifestError(
                    "An action of a Charades CSV has a class, a start and an end. "
                    f"{where} has '{' '.join(action)}'."
                )
            start, end = (_read_time(file, text, where) for text in action[1:])
            rows.append(Annotation(row["id"], action[0], start=start, end=end, where=where))
    text = f"{format_count(n_nothing, 'video')} without an action: whole clips without a label"
    return Annotations(tuple(rows), "spans in seconds", (text,) if n_nothing else ())


@register_annotation_format("kinetics", "a CSV of Kinetics")
def read_kinetics_csv(file: AnnotationFile) -> Annotations | None:
    """Read a CSV with youtube_id, time_start, time_end, and perhaps label and split."""
    if file.columns or not {"youtube_id", "time_start", "time_end"} <= set(map(_fold, file.header)):
        return None
    rows, n_spans = [], 0
    for where, cells in file.table:
        row = {_fold(name): cell for name, cell in cells.items()}
        video = row["youtube_id"]
        start, end = (_read_time(file, row[name], where) for name in ("time_start", "time_end"))
        if not video or start is None or end is None:
            raise ManifestError(f"A row of a Kinetics CSV names a video and its span. {where}.")
        annotation = Annotation(
            f"{video}_{int(start):06d}_{int(end):06d}",
            row.get("label", ""),
            group=video,
            split=row.get("split", ""),
            where=where,
        )
        if not file.find(annotation.path) and file.find(video):
            annotation = replace(annotation, path=video, start=start, end=end)
            n_spans += 1
        rows.append(annotation)
    notes = (f"{format_count(n_spans, 'clip')} found as part of a whole video",) if n_spans else ()
    return Annotations(tuple(rows), "columns youtube_id, time_start, time_end", notes)


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


def _choose_columns(file: AnnotationFile) -> dict[str, str]:
    """Say which column has which role, by --columns and then by well-known names."""
    by_name = {_fold(name): name for name in reversed(file.header)}
    by_alias = {_squash(name): name for name in reversed(file.header)}
    mapped = {_squash(name) for name in file.columns.values()}
    chosen: dict[str, str] = {}
    doubtful: dict[str, list[str]] = {}
    for role in ROLES:
        if role in file.columns:
            wanted = file.columns[role]
            if wanted and _fold(wanted) not in by_name:
                raise ManifestError(
                    f"--columns names columns of the annotation file. '{file.path}' has no "
                    f"'{wanted}', but: {', '.join(file.header) or 'nothing'}."
                )
            if wanted:
                chosen[role] = by_name[_fold(wanted)]
            continue
        there = [name for name in _ALIASES[role] if name in by_alias and name not in mapped]
        if len(there) > 1 and there[0] != role and role not in _FIRST_COUNTS:
            doubtful[role] = [by_alias[name] for name in there]
        if there:
            chosen[role] = by_alias[there[0]]
    if "path" not in chosen:
        return {}
    if doubtful:
        role, names = next(iter(doubtful.items()))
        remedy = ",".join(f"{role}={names[0]}" for role, names in doubtful.items())
        raise ManifestError(
            f"An annotation file has one column for each role. '{file.path}' has "
            f"{' and '.join(map(repr, names))} for {role}.",
            hint=f"--columns {remedy}",
        )
    _require_well_spelt(file, chosen)
    return chosen


def _require_well_spelt(file: AnnotationFile, chosen: Mapping[str, str]) -> None:
    """Refuse columns that would change what rows mean if they had a role."""
    missing = [role for role in ROLES if role not in chosen and role not in file.columns]
    left_out = [name for name in file.header if name and name not in chosen.values()]
    twice = [name for name in file.header if name and file.header.count(name) > 1]
    if twice:
        raise ManifestError(
            f"Every column of an annotation file has a name of its own. '{file.path}' has several "
            f"called '{twice[0]}'.",
            hint="rename all but one of them",
        )
    bounds = [name for name in left_out if _LIKE_A_BOUND.fullmatch(_squash(name))]
    if bounds and {"start", "end"} & set(missing):
        raise ManifestError(
            "Spans are in columns called start and end, in seconds or in frames. "
            f"'{file.path}' has {', '.join(map(repr, bounds))}.",
            hint="if these are spans: --columns start=NAME,end=NAME, with --time-unit frames for "
            "frames; if not: --columns start=,end=",
        )
    for name in left_out:
        close = difflib.get_close_matches(_fold(name), missing, cutoff=0.75)
        if close:
            raise ManifestError(
                "The columns of an annotation file are named path, label, group, split, start, "
                f"end. '{file.path}' has '{name}'.",
                hint=f"if it is meant: --columns {close[0]}={name}; if not: --columns {close[0]}=",
            )
    lengths = [
        name for name in left_out if _squash(name) in ("duration", "length", "dur", "nframes")
    ]
    if lengths and "start" in chosen and "end" in missing:
        raise ManifestError(
            f"A span has a start and an end. '{file.path}' has '{chosen['start']}' and "
            f"'{lengths[0]}', but no end.",
            hint="write a column end; or --columns end= if spans last to the end of the file",
        )
    if (
        "start" in chosen
        and "end" in chosen
        and _in_frames(chosen, "start") != _in_frames(chosen, "end")
    ):
        raise ManifestError(
            f"Start and end are in the same unit. '{file.path}' has '{chosen['start']}' and "
            f"'{chosen['end']}'.",
            hint="rename the columns to start and end, and give --time-unit frames for frames",
        )
    unknown = [name for name in left_out if not _squash(name).startswith("unnamed")]
    if "label" in missing and unknown:
        raise ManifestError(
            f"The label is in a column called label. '{file.path}' has "
            f"{', '.join(map(repr, unknown[:12]))}, which may be it.",
            hint=f"--columns label={unknown[-1]} if that is the label; --columns label= if clips "
            "have none",
        )


def _require_no_split(
    file: AnnotationFile, left_out: Sequence[str], rows: Sequence[Mapping[str, str]]
) -> None:
    """Refuse a column that holds the parts of a split under another name."""
    for name in left_out:
        words = {row[name] for row in rows if row[name]}
        if len(words) > 1 and all(map(is_split_word, words)):
            raise ManifestError(
                f"The parts of a split are in a column called split. '{file.path}' has "
                f"{', '.join(map(repr, sorted(words)))} in '{name}'.",
                hint=f"if it is meant: --columns split={name}; if not: --columns split=",
            )


def _require_no_rate(
    file: AnnotationFile, chosen: Mapping[str, str], rows: Sequence[Annotation]
) -> None:
    """Refuse whole numbers beside a frame rate: they may be seconds or frames."""
    bounds = [bound for row in rows for bound in (row.start, row.end) if bound is not None]
    if bounds and all(bound == int(bound) for bound in bounds):
        raise ManifestError(
            f"Start and end are in seconds. '{file.path}' has whole numbers there and a column "
            f"'{chosen['fps']}': they may be frames.",
            hint="--time-unit frames if they are frames; --columns fps= if they are seconds",
        )


def _in_frames(chosen: Mapping[str, str], role: str) -> bool:
    return "frame" in _squash(chosen.get(role, ""))


def _read_row(
    file: AnnotationFile, chosen: Mapping[str, str], row: Mapping[str, str], where: str
) -> Annotation:
    def value(role: str) -> str:
        return row[chosen[role]] if role in chosen else ""

    if not value("path"):
        raise ManifestError(f"Every row of an annotation file needs a path. {where} has none.")
    start, end = (_read_time(file, value(role), where) for role in ("start", "end"))
    if start is None and end is not None:
        start = 0.0
    unit = _choose_unit(file, chosen)
    if unit == "frames" and start is not None and value("fps"):
        rate = _read_time(file, value("fps"), where)
        if not rate:
            raise ManifestError(f"A frame rate is above 0. {where} has fps='{value('fps')}'.")
        start, end, unit = start / rate, None if end is None else end / rate, "seconds"
    return Annotation(
        value("path"), value("label"), value("group"), value("split"), start, end, unit, where
    )


def _choose_unit(file: AnnotationFile, chosen: Mapping[str, str]) -> TimeUnit:
    in_frames = _in_frames(chosen, "start") or _in_frames(chosen, "end")
    return "frames" if in_frames else file.time_unit


def _read_time(file: AnnotationFile, text: str, where: str) -> float | None:
    if not text:
        return None
    clock = _CLOCK.fullmatch(text)
    if clock:
        return 3600.0 * int(clock[1] or 0) + 60.0 * int(clock[2]) + float(clock[3])
    try:
        number = float(text.replace(",", ".") if file.delimiter != "," else text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ManifestError(
            f"Times are numbers from 0 on, or H:MM:SS. {where} has '{text}'.",
            hint="leave them empty for a whole file",
        )
    return number


def _role_of(name: str) -> str | None:
    return next((role for role, names in _ALIASES.items() if _squash(name) in names), None)


def _has_path_column(file: AnnotationFile) -> bool:
    return "path" in map(_role_of, file.header)


def _squash(name: str) -> str:
    """Make names equal that differ only in case, spaces and underscores."""
    return re.sub(r"[\s_-]", "", name).lower()


def _fold(name: str) -> str:
    return name.strip().lower()


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
    return (match[1], match[2]) if match and _is_path(file, match[1]) else None


def _is_ava(cells: list[str]) -> bool:
    def is_number(text: str) -> bool:
        return re.fullmatch(r"\d+(?:\.\d+)?", text) is not None

    return is_number(cells[1]) and all(map(is_number, cells[2:7])) and not is_number(cells[0])


def _read_label_map(file: AnnotationFile, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Read the names of numbered classes from a list beside the file, if there is exactly one.

    `rows` are paths and labels. ManifestError if folders of the paths say that the list counts
    from another number.
    """
    found = _find_label_map(file)
    numbers = {number for _, number in rows}
    if found is None or not all(number.isdigit() for number in numbers):
        return {}
    lines = [line.strip() for line in read_annotation_text(found).splitlines() if line.strip()]
    pairs = [re.fullmatch(r"(\d+)\s+(.+)", line) for line in lines]
    if all(pairs):
        names = {pair[1]: pair[2] for pair in pairs if pair}
    else:
        names = {str(number): line for number, line in enumerate(lines)}
    if not numbers <= names.keys():
        return {}
    known = {_squash(name) for name in names.values()}
    for path, number in rows:
        folders = {_squash(part) for part in PurePosixPath(path.replace("\\", "/")).parts[:-1]}
        if folders & known and _squash(names[number]) not in folders:
            raise ManifestError(
                f"A list and the names of its classes count from the same number. '{found}' calls "
                f"{number} '{names[number]}', but '{file.path}' gives it to '{path}'.",
                hint=f"correct the numbers, or move '{found.name}' away to keep numbers as labels",
            )
    return names


def _find_label_map(file: AnnotationFile) -> Path | None:
    folder = file.path.parent
    maps = {*folder.glob("label_map*.txt"), *folder.glob("classInd.txt")}
    return next(iter(maps)) if len(maps) == 1 else None


def _name_labels(file: AnnotationFile, names: Mapping[str, str]) -> tuple[str]:
    found = _find_label_map(file)
    return (f"names from '{found.name}'" if names and found else "labels as they stand there",)


def _read_action_list(file: AnnotationFile) -> dict[str, str]:
    """Read the names of AVA's actions from a .pbtxt beside the file, if there is exactly one."""
    lists = sorted(file.path.parent.glob("*.pbtxt"))
    if len(lists) != 1:
        return {}
    text = read_annotation_text(lists[0])
    items = re.findall(r'name:\s*"([^"]*)"\s*(?:label_)?id:\s*(\d+)', text)
    return {number: name for name, number in items}
