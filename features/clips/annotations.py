"""What an annotation file says, row by row, and the file as a reader of a format sees it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from features.errors import ManifestError, OptionInvalid
from features.places.places import open_binary
from features.records import TimeUnit

# What --label-separator says where every clip has one class.
ONE_LABEL = "none"
ROLES = ("path", "label", "group", "split", "start", "end", "fps")
# Names of columns that need no --columns, as `squash` writes them; where several are there for
# the path, the first one counts.
ALIASES = {
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
    labels : tuple of str or None
        Several classes, or none of them, instead of the one in `label`.
    frame_rate : float or None
        Frames per second, should the clip be a folder of pictures.
    n_pictures : int or None
        How many there are to be, should it be one.
    """

    path: str
    label: str = ""
    group: str = ""
    split: str = ""
    start: float | None = None
    end: float | None = None
    unit: TimeUnit = "seconds"
    where: str = ""
    labels: tuple[str, ...] | None = None
    frame_rate: float | None = None
    n_pictures: int | None = None


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
        Lists the clips that a path may mean: video files, or folders of pictures.
    label_separator : str or None
        What ``--label-separator`` says.
    is_pictures : callable
        Tells whether one of these is a folder of pictures.
    """

    path: Path
    text: str
    columns: Mapping[str, str] = field(default_factory=dict)
    time_unit: TimeUnit = "seconds"
    find: Callable[[str], list[str]] = lambda path: []
    label_separator: str | None = None
    is_pictures: Callable[[str], bool] = lambda clip_id: False

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
            roles = {role_of(name) for name in names} | {
                name for name in names if fold(name) in map(fold, self.columns.values())
            }
            return len(roles - {None}) > 0, len(names)

        return max((",", ";", "\t"), key=fitness)

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Names of the columns, stripped; empty for an empty file."""
        for row in self._cells:
            if any(cell.strip() for cell in row):
                return tuple(cell.strip() for cell in row)
        return ()

    @property
    def table(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Rows below the header line, as text by column name, each with its place."""
        reader = self._cells
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
            values = tuple(cell.strip() for cell in cells[:n_columns])
            if values != self.header:  # tables joined by cat repeat it
                yield where, dict(zip(self.header, values, strict=True))

    def where(self, line: int) -> str:
        """Name a line for messages."""
        return f"'{self.path}' line {line}"

    @property
    def _cells(self) -> Any:  # the type of csv.reader has no name
        text = io.StringIO(self._table_text)
        return csv.reader(text, delimiter=self.delimiter, skipinitialspace=True)

    @cached_property
    def _table_text(self) -> str:
        # Excel writes the delimiter into a first line of its own; others begin with comments.
        text = re.sub(r"\A\s*sep=.\r?\n", "\n", self.text, flags=re.IGNORECASE)
        return re.sub(r"\A(?:\s*#\s.*\n)+", lambda found: "\n" * found[0].count("\n"), text)


def read_annotation_text(path: Path) -> str:
    """Decode an annotation file: UTF-8 or UTF-16, with a byte order mark or without."""
    try:
        with open_binary(path) as file:
            content = file.read()
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
        # Files joined by cat keep their marks; old Macs end lines with a carriage return alone.
        text = text.lstrip("\ufeff")
        return text if "\n" in text else text.replace("\r", "\n")
    except UnicodeDecodeError as problem:
        raise ManifestError(
            f"An annotation file is text in UTF-8 or UTF-16. '{path}' is not: {problem}.",
            hint="save it as CSV UTF-8",
        ) from problem


def read_separator(given: str | None) -> str | None:
    """Check ``--label-separator``: a text, "none", or None for what the cells say."""
    if given is not None and not given.strip():
        raise OptionInvalid(
            f"--label-separator is a text such as ';', or {ONE_LABEL}. Received: {given!r}.",
            hint="leave it out to have it found",
        )
    return given


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


def role_of(name: str) -> str | None:
    """Say which role a column has by its name alone, if any."""
    return next((role for role, names in ALIASES.items() if squash(name) in names), None)


def squash(name: str) -> str:
    """Make names equal that differ only in case, spaces and underscores."""
    return re.sub(r"[\s_-]", "", name).lower()


def fold(name: str) -> str:
    """Make names of columns equal that differ only in case."""
    return name.strip().lower()


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


def read_label_map(file: AnnotationFile, rows: Sequence[tuple[str, str]]) -> dict[str, str]:
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
    known = {squash(name) for name in names.values()}
    numbers_of: dict[str, list[str]] = {}
    for path, number in rows:
        numbers_of.setdefault(path, []).append(number)
    for path, (number, *others) in numbers_of.items():
        folders = {squash(part) for part in PurePosixPath(path.replace("\\", "/")).parts[:-1]}
        own = {squash(names[given]) for given in (number, *others)}
        if folders & known and not folders & own:
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


def name_labels(file: AnnotationFile, names: Mapping[str, str]) -> str:
    """Say where the names of classes come from."""
    found = _find_label_map(file)
    return f"names from '{found.name}'" if names and found else "labels as they stand there"
