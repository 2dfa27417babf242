"""Annotation files that are tables: which column says what, and what is refused as unclear.

Several classes of a clip stand in one cell, or in a column for each class.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from features.clips.annotations import (
    ALIASES,
    ONE_LABEL,
    ROLES,
    Annotation,
    AnnotationFile,
    Annotations,
    fold,
    name_labels,
    read_label_map,
    squash,
)
from features.clips.layout import is_split_word
from features.errors import ManifestError
from features.records import TimeUnit
from features.system.text import format_count

_FIRST_COUNTS = ("path",)
# Names that would change what a row means, had they a role.
_LIKE_A_BOUND = re.compile(
    r"(?:start|begin|onset|end|stop|offset|finish)(?:ms|msec|millis.*|secs|s|f|frames|idx|index)"
    r"|onset|offset|finish|(?:time|t|frame|f)?(?:from|to)|(?:from|to)(?:time|frame|sec|seconds)"
    r"|t[01]|f[01]|(?:first|last)frame|segments?|spans?|intervals?|(?:time|frame)range"
)
# What people call those who are seen, and the column that says what clips are trained on.
_LIKE_A_GROUP = re.compile(
    r"(?:subject|person|participant|performer|actor|signer)s?(?:id|name|no|nr|number|index)?"
)
_LIKE_A_PART = re.compile(
    r"(?:is|in|use|for)?(?:train|training|val|valid|validation|test)(?:set)?|fold"
)
_NOTHING = frozenset({"nan", "<na>", "#n/a", "#n/a n/a"})  # as pandas and Excel write it
# What separates classes: hardly any class has these in its name. Commas are in many.
_SEPARATORS = (";", "|")
_QUOTED_LIST = re.compile(r"""\[\s*(?:(['"]).*\1\s*)?\]""")
_LIST = re.compile(r"[\[(].*[\])]")
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:[.,]\d+)?)")


@dataclass(frozen=True, slots=True)
class _LabelCells:
    """What cells of labels mean.

    Attributes
    ----------
    labels : mapping of str to tuple of str
        By cell; empty if a cell is the name of one class.
    detail : str
        How cells were divided, in a few words; empty if they were not.
    notes : tuple of str
        What may be a mistake.
    """

    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    detail: str = ""
    notes: tuple[str, ...] = ()


def read_table(file: AnnotationFile) -> Annotations | None:
    """Read any table that names its columns; None if no column holds paths."""
    chosen = _choose_columns(file)
    if "path" not in chosen:
        return None
    cells, emptied = _empty_nothing(tuple(file.table))
    _require_closed_quotes(file, cells)
    _require_named_classes(file, chosen, cells)
    classes = _choose_class_columns(file, chosen, cells)
    _require_well_spelt(file, chosen, classes)
    read = [_read_row(file, chosen, row, where) for where, row in cells]
    rows, divided, remarks = divide_labels(file, read)
    numbers = [(row.path, n) for row in rows for n in row.labels or (row.label,) if n]
    if names := read_label_map(file, numbers):
        rows = tuple(_name_row(row, names) for row in rows)
        divided = f"; {name_labels(file, names)}{divided}"
    if classes:
        divided = f"; a column for each class: {', '.join(classes)}"
        rows = tuple(
            replace(annotation, labels=_read_class_columns(row, classes, where))
            for annotation, (where, row) in zip(rows, cells, strict=True)
        )
    left_out = [name for name in file.header if name and name not in (*chosen.values(), *classes)]
    if "split" not in chosen and "split" not in file.columns:
        _require_no_split(file, left_out, [row for _, row in cells])
    used = ", ".join(
        role if fold(name) == role else f"{role} = {name}" for role, name in chosen.items()
    )
    if "fps" in chosen and (
        _choose_unit(file, chosen) == "seconds" or all(row.start is None for row in rows)
    ):
        _require_no_rate(file, chosen, rows)
        if all(row.frame_rate is None for row in rows):  # videos tell theirs
            left_out.append(chosen["fps"])
    notes = (f"columns that say nothing here: {', '.join(left_out)}",) if left_out else ()
    return Annotations(rows, f"columns {used}{divided}", (*notes, *emptied, *remarks))


def _empty_nothing(
    cells: Sequence[tuple[str, dict[str, str]]],
) -> tuple[tuple[tuple[str, dict[str, str]], ...], tuple[str, ...]]:
    """Empty the cells that say that they are; and a note of how many there are."""
    found = [cell for _, row in cells for cell in row.values() if cell.lower() in _NOTHING]
    if not found:
        return tuple(cells), ()
    emptied = tuple(
        (where, {name: "" if cell.lower() in _NOTHING else cell for name, cell in row.items()})
        for where, row in cells
    )
    return emptied, (f"{format_count(len(found), 'cell')} with '{found[0]}' read as empty",)


def _require_closed_quotes(
    file: AnnotationFile, cells: Sequence[tuple[str, Mapping[str, str]]]
) -> None:
    """Refuse a cell that swallowed further rows because of a quote that was not meant."""
    for where, row in cells:
        for cell in row.values():
            below = cell.split("\n")[1:]
            fields = [part.strip(' "') for line in below for part in line.split(file.delimiter)]
            if len(fields) > len(below) and not file.find(cell) and any(map(file.find, fields)):
                raise ManifestError(
                    f"A quote that opens is closed in the same row. The row that ends in {where} "
                    f"has a cell that goes on over {len(below) + 1} lines.",
                    hint="delete the quote, or double it if it belongs to the text",
                )


def _require_named_classes(
    file: AnnotationFile, chosen: Mapping[str, str], cells: Sequence[tuple[str, Mapping[str, str]]]
) -> None:
    """Refuse numbers as labels where another column seems to have the names of the classes."""
    label = chosen.get("label")
    if label is None or "label" in file.columns:
        return
    if not all(_is_number(row[label]) for _, row in cells):
        return
    others = [
        name
        for name in file.header
        if squash(name) in ALIASES["label"]
        and name != label
        and not all(_is_number(row[name]) for _, row in cells)
    ]
    if others:
        raise ManifestError(
            f"An annotation file has one column for each role. '{file.path}' has '{label}', which "
            f"holds numbers, and '{others[0]}' for label.",
            hint=f"--columns label={others[0]}, or --columns label={label}",
        )


def _name_row(row: Annotation, names: Mapping[str, str]) -> Annotation:
    labels = None if row.labels is None else tuple(names[number] for number in row.labels)
    return replace(row, label=names.get(row.label, row.label), labels=labels)


def divide_labels(
    file: AnnotationFile, rows: Sequence[Annotation]
) -> tuple[tuple[Annotation, ...], str, tuple[str, ...]]:
    """Divide labels that name several classes; also how, to put behind other details, and notes."""
    cells = _divide_cells({row.label for row in rows}, file.label_separator, where=f"'{file.path}'")
    divided = (
        replace(row, labels=cells.labels[row.label]) if row.label in cells.labels else row
        for row in rows
    )
    return tuple(divided), f"; {cells.detail}" if cells.detail else "", cells.notes


def read_time(file: AnnotationFile, text: str, where: str) -> float | None:
    """Read a number or H:MM:SS; None if nothing is written."""
    if not text:
        return None
    clock = _CLOCK.fullmatch(text)
    if clock:
        return (
            3600.0 * int(clock[1] or 0) + 60.0 * int(clock[2]) + float(clock[3].replace(",", "."))
        )
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


def _choose_columns(file: AnnotationFile) -> dict[str, str]:
    """Say which column has which role, by --columns and then by well-known names."""
    by_name = {fold(name): name for name in reversed(file.header)}
    by_alias = {squash(name): name for name in reversed(file.header)}
    mapped = {squash(name) for name in file.columns.values()}
    chosen: dict[str, str] = {}
    doubtful: dict[str, list[str]] = {}
    for role in ROLES:
        if role in file.columns:
            wanted = file.columns[role]
            if role == "label" and _name_class_columns(file):
                continue
            if wanted and fold(wanted) not in by_name:
                raise ManifestError(
                    f"--columns names columns of the annotation file. '{file.path}' has no "
                    f"'{wanted}', but: {', '.join(file.header) or 'nothing'}."
                )
            if wanted:
                chosen[role] = by_name[fold(wanted)]
            continue
        there = [name for name in ALIASES[role] if name in by_alias and name not in mapped]
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
    return chosen


def _name_class_columns(file: AnnotationFile) -> list[str]:
    """List the columns that ``--columns "label=run|jump"`` names, if there is none of that name."""
    by_name = {fold(name): name for name in reversed(file.header)}
    wanted = file.columns.get("label", "")
    names = [by_name.get(fold(name), "") for name in wanted.split("|")]
    return names if fold(wanted) not in by_name and len(names) > 1 and all(names) else []


def _choose_class_columns(
    file: AnnotationFile, chosen: Mapping[str, str], cells: Sequence[tuple[str, dict[str, str]]]
) -> list[str]:
    """Say which columns stand for a class each: those that are named, or that hold 0 and 1."""
    if "label" in chosen or "label" in file.columns or len(set(file.header)) < len(file.header):
        return _name_class_columns(file)
    left_out = [
        name
        for name in file.header
        if name and name not in chosen.values() and not squash(name).startswith("unnamed")
    ]
    found = _find_class_columns(cells, left_out)
    others = [
        name
        for name in left_out
        if name not in found and not all(_is_number(row[name]) for _, row in cells)
    ]
    if len(found) < 2:
        return []
    parts = [name for name in found if _LIKE_A_PART.fullmatch(squash(name))]
    if parts:
        classes = [name for name in found if name not in parts]
        raise ManifestError(
            "Columns of 0 and 1 stand for a class each, and the part of the split is in a column "
            f"called split. '{file.path}' has {', '.join(map(repr, parts))}.",
            hint=f"write a column split; or --columns 'label={'|'.join(classes)}' to leave it out",
        )
    if others:
        raise ManifestError(
            f"The label is in a column called label, or in a column for each class. '{file.path}' "
            f"has {', '.join(map(repr, others[:12]))}, which may be it, and 0 and 1 in "
            f"{', '.join(map(repr, found[:12]))}.",
            hint=f"--columns label={others[-1]}, or --columns 'label={'|'.join(found)}'",
        )
    return found


def _require_well_spelt(
    file: AnnotationFile, chosen: Mapping[str, str], classes: Sequence[str]
) -> None:
    """Refuse columns that would change what rows mean if they had a role."""
    known = {*chosen, *file.columns, *(["label"] if classes else [])}
    missing = [role for role in ROLES if role not in known]
    left_out = [name for name in file.header if name and name not in (*chosen.values(), *classes)]
    twice = [name for name in file.header if name and file.header.count(name) > 1]
    if twice:
        raise ManifestError(
            f"Every column of an annotation file has a name of its own. '{file.path}' has several "
            f"called '{twice[0]}'.",
            hint="rename all but one of them",
        )
    bounds = [name for name in left_out if _LIKE_A_BOUND.fullmatch(squash(name))]
    if bounds and {"start", "end"} & set(missing):
        raise ManifestError(
            "Spans are in columns called start and end, in seconds or in frames. "
            f"'{file.path}' has {', '.join(map(repr, bounds))}.",
            hint="if these are spans: --columns start=NAME,end=NAME, with --time-unit frames for "
            "frames; if not: --columns start=,end=",
        )
    groups = [name for name in left_out if _LIKE_A_GROUP.fullmatch(squash(name))]
    if groups and "group" in missing:
        raise ManifestError(
            f"What clips share is in a column called group. '{file.path}' has '{groups[0]}', which "
            "may be it: clips of one person in training and test make an accuracy too high.",
            hint=f"if it is meant: --columns group={groups[0]}; if not: --columns group=",
        )
    for name in left_out:
        close = difflib.get_close_matches(fold(name), missing, cutoff=0.75)
        if close:
            raise ManifestError(
                "The columns of an annotation file are named path, label, group, split, start, "
                f"end. '{file.path}' has '{name}'.",
                hint=f"if it is meant: --columns {close[0]}={name}; if not: --columns {close[0]}=",
            )
    lengths = [
        name for name in left_out if squash(name) in ("duration", "length", "dur", "nframes")
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
    unknown = [name for name in left_out if not squash(name).startswith("unnamed")]
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
        is_flags = {word.lower() for word in words} <= {*_YES, *_NO}
        if words and is_flags and _LIKE_A_PART.fullmatch(squash(name)):
            raise ManifestError(
                "The parts of a split are in a column called split, as train, val and test. "
                f"'{file.path}' has '{name}'.",
                hint="write a column split; or --columns split= if it means something else",
            )
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
    return "frame" in squash(chosen.get(role, ""))


def _read_row(
    file: AnnotationFile, chosen: Mapping[str, str], row: Mapping[str, str], where: str
) -> Annotation:
    def value(role: str) -> str:
        return row[chosen[role]] if role in chosen else ""

    if not value("path"):
        raise ManifestError(f"Every row of an annotation file needs a path. {where} has none.")
    start, end = (read_time(file, value(role), where) for role in ("start", "end"))
    if start is None and end is not None:
        start = 0.0
    unit = _choose_unit(file, chosen)
    rate = None
    is_pictures = any(map(file.is_pictures, file.find(value("path"))))
    if value("fps") and (is_pictures or (unit == "frames" and start is not None)):
        rate = read_time(file, value("fps"), where)
        if not rate:
            raise ManifestError(f"A frame rate is above 0. {where} has fps='{value('fps')}'.")
    if rate and unit == "frames" and start is not None:
        start, end, unit = start / rate, None if end is None else end / rate, "seconds"
    return Annotation(
        path=value("path"),
        label=value("label"),
        group=value("group"),
        split=value("split"),
        start=start,
        end=end,
        unit=unit,
        where=where,
        frame_rate=rate if is_pictures else None,
    )


def _choose_unit(file: AnnotationFile, chosen: Mapping[str, str]) -> TimeUnit:
    in_frames = _in_frames(chosen, "start") or _in_frames(chosen, "end")
    return "frames" if in_frames else file.time_unit


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d*[.,]?\d*(?:e-?\d+)?", text.lower()) is not None


def _divide_cells(cells: Collection[str], separator: str | None, *, where: str) -> _LabelCells:
    """Find out whether cells name several classes, and which.

    ``;`` and ``|`` separate classes. So does a comma if what it separates occurs in other cells
    as well; names of classes may hold commas. ManifestError where that cannot be told.
    """
    named = sorted(set(cells) - {""})
    if separator == ONE_LABEL or not named:
        return _LabelCells()
    if separator is not None:
        if any(separator in cell for cell in named):
            return _divided(named, separator)
        return _LabelCells(notes=(f"no label holds the separator '{separator}'",))
    if all(map(_LIST.fullmatch, named)) and any(cell.startswith("[") for cell in named):
        return _LabelCells({cell: _read_list(cell, where) for cell in named}, "labels are lists")
    lists = [cell for cell in named if _QUOTED_LIST.fullmatch(cell)]
    if lists:
        other = next(cell for cell in named if cell not in lists)
        raise ManifestError(
            f"Labels of one file are lists, or names. {where} has {lists[0]} and '{other}'.",
            hint=f"write {[other]} for the latter; or --label-separator {ONE_LABEL} if a cell is "
            "the name of one class",
        )
    if all(re.fullmatch(r"\d+(?:\s+\d+)*", cell) for cell in named):
        return _divided(named, " ") if any(" " in cell for cell in named) else _LabelCells()
    found = [mark for mark in _SEPARATORS if any(mark in cell for cell in named)]
    if len(found) > 1:
        raise ManifestError(
            f"Labels of one file have one separator. {where} has {' and '.join(map(repr, found))}.",
            hint=f"--label-separator '{found[0]}', or --label-separator {ONE_LABEL} if a cell is "
            "the name of one class",
        )
    return _divided(named, found[0]) if found else _judge_commas(named, where)


def _find_class_columns(
    rows: Sequence[tuple[str, Mapping[str, str]]], names: Sequence[str]
) -> list[str]:
    """Find the columns that say of one class each whether a clip has it."""
    columns = {name: {row[name].lower() for _, row in rows} - {""} for name in names}
    return [name for name, values in columns.items() if values and values <= {*_YES, *_NO}]


def _read_class_columns(
    row: Mapping[str, str], names: Sequence[str], where: str
) -> tuple[str, ...] | None:
    """Read which classes a row has; None if all cells are empty."""
    cells = {name: row[name].lower() for name in names}
    if not any(cells.values()):
        return None
    odd = [name for name, cell in cells.items() if cell not in (*_YES, *_NO)]
    if odd:
        raise ManifestError(
            "The cells of class columns are 0 or 1, or all of a row are empty where nobody knows. "
            f"{where} has '{row[odd[0]]}' for '{odd[0]}'.",
            hint=f"write 0 if the clip does not show '{odd[0]}', 1 if it does",
        )
    return tuple(name for name, cell in cells.items() if cell in _YES)


def _divided(named: Collection[str], separator: str) -> _LabelCells:
    labels = {cell: _split(cell, separator) for cell in named}
    return _LabelCells(labels, f"labels separated by '{separator}'")


def _split(cell: str, separator: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in cell.split(separator) if part.strip())


def _judge_commas(named: Sequence[str], where: str) -> _LabelCells:
    divided = {cell: set(_split(cell, ",")) for cell in named}
    n_cells = Counter(part for parts in divided.values() for part in parts)
    several = [cell for cell in named if len(divided[cell]) > 1]
    parts = sorted({part for cell in several for part in divided[cell]})
    alone = [part for part in parts if n_cells[part] == 1]
    if several and not alone:
        return _divided(named, ",")
    remedy = f"--label-separator , if they separate classes, --label-separator {ONE_LABEL} if not"
    if len(alone) < len(parts):
        raise ManifestError(
            f"Commas in labels separate classes, or belong to their names. {where} has "
            f"'{several[0]}'; '{alone[0]}' occurs in one label only, other parts in several.",
            hint=remedy,
        )
    if not several:
        return _LabelCells()
    count = format_count(len(several), "label")
    note = f"{count} with a comma, such as '{several[0]}', taken for one class; {remedy}"
    return _LabelCells(notes=(note,))


def _read_list(cell: str, where: str) -> tuple[str, ...]:
    """Read a list as Python and pandas write it."""
    try:
        items = ast.literal_eval(cell)
        if all(isinstance(item, (str, int)) for item in items):
            return tuple(str(item).strip() for item in items)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    raise ManifestError(
        f"A label in brackets is a list of names. {where} has {cell}.",
        hint=f"--label-separator {ONE_LABEL} if it is the name of one class",
    )
