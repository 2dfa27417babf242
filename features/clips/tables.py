"""Annotation files that are tables: which column says what, and what is refused as unclear."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence

from features.clips.annotations import (
    ALIASES,
    ROLES,
    Annotation,
    AnnotationFile,
    Annotations,
    fold,
    squash,
)
from features.clips.layout import is_split_word
from features.errors import ManifestError
from features.records import TimeUnit

_FIRST_COUNTS = ("path",)
# Names that would change what a row means, had they a role.
_LIKE_A_BOUND = re.compile(
    r"(?:start|begin|onset|end|stop|offset|finish)(?:ms|msec|millis.*|secs|s|f|frames|idx|index)"
    r"|onset|offset|finish|from|to|t[01]|f[01]"
)
_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{1,2}(?:\.\d+)?)")


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
        role if fold(name) == role else f"{role} = {name}" for role, name in chosen.items()
    )
    if "fps" in chosen and (
        _choose_unit(file, chosen) == "seconds" or all(row.start is None for row in rows)
    ):
        _require_no_rate(file, chosen, rows)
        left_out.append(chosen["fps"])
    notes = (f"columns that say nothing here: {', '.join(left_out)}",) if left_out else ()
    return Annotations(rows, f"columns {used}", notes)


def read_time(file: AnnotationFile, text: str, where: str) -> float | None:
    """Read a number or H:MM:SS; None if nothing is written."""
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
    bounds = [name for name in left_out if _LIKE_A_BOUND.fullmatch(squash(name))]
    if bounds and {"start", "end"} & set(missing):
        raise ManifestError(
            "Spans are in columns called start and end, in seconds or in frames. "
            f"'{file.path}' has {', '.join(map(repr, bounds))}.",
            hint="if these are spans: --columns start=NAME,end=NAME, with --time-unit frames for "
            "frames; if not: --columns start=,end=",
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
    if unit == "frames" and start is not None and value("fps"):
        rate = read_time(file, value("fps"), where)
        if not rate:
            raise ManifestError(f"A frame rate is above 0. {where} has fps='{value('fps')}'.")
        start, end, unit = start / rate, None if end is None else end / rate, "seconds"
    return Annotation(
        value("path"), value("label"), value("group"), value("split"), start, end, unit, where
    )


def _choose_unit(file: AnnotationFile, chosen: Mapping[str, str]) -> TimeUnit:
    in_frames = _in_frames(chosen, "start") or _in_frames(chosen, "end")
    return "frames" if in_frames else file.time_unit
