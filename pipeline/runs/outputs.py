"""Writing results so that they are complete or not there at all."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from features.errors import FrameHeadError, OutputExists, OutputUnwritable


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one rename; text that is not UTF-8 is escaped.

    Parameters
    ----------
    path : Path
    content : Any
        JSON-ready; NaN and infinity are refused.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="ascii")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="ascii"))


def open_csv(path: Path) -> TextIO:
    """Open a text file for writing rows; file names that are not UTF-8 come out as they were."""
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table.

    Parameters
    ----------
    path : Path
    header : sequence of str
    rows : iterable of sequence
    """
    with open_csv(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a table that `write_csv` wrote: one dictionary per row, by column name."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


@contextmanager
def report_unwritable(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into our error.

    Parameters
    ----------
    path : Path
        What was to be written.

    Raises
    ------
    OutputUnwritable
    """
    try:
        yield
    except FrameHeadError:
        raise
    except OSError as problem:
        raise OutputUnwritable(
            f"The output must be writable. Writing '{path}' failed: {problem}.",
            hint="free disk space, or give --out in a folder where you may write",
        ) from problem


def require_free(out: Path, *, marker: str, what: str, overwrite: bool, source: Path) -> None:
    """Refuse to write over something.

    Parameters
    ----------
    out : Path
        Folder that is to be made.
    marker : str
        File by which a folder of ours is known; no other folder is ever deleted.
    what : str
        Kind of result, for the message.
    overwrite : bool
        Whether a folder of ours may be replaced.
    source : Path
        What the result is made of; a folder that holds it is never replaced.

    Raises
    ------
    OutputExists
    """
    if not os.path.lexists(out) or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out.is_dir() and (out / marker).exists()):
        raise OutputExists(
            f"--out must be new, empty or a {what}. '{out}' is none of these, and is left alone.",
            hint="give another --out",
        )
    if not overwrite:
        raise OutputExists(
            f"A {what} is only written once. '{out}' holds one that was made with other settings.",
            hint="give another --out, or --overwrite to replace it",
        )
    require_outside(out, source)


def require_outside(out: Path, source: Path) -> None:
    """Refuse to replace something that is, or holds, what a result is made of.

    Parameters
    ----------
    out : Path
    source : Path

    Raises
    ------
    OutputExists
    """
    if out.exists() and source.resolve().is_relative_to(out.resolve()):
        raise OutputExists(
            f"--out must not be or hold what the result is made of. '{out}' would take "
            f"'{source}' with it, and is left alone even with --overwrite.",
            hint="give another --out",
        )


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Fill a folder beside its final place, and move it there when it is complete.

    Parameters
    ----------
    out : Path
        Final place; a folder that stands there is replaced.

    Yields
    ------
    Path
        A new, empty folder that is this call's alone.

    Raises
    ------
    OutputUnwritable
        If there is no place for the folder, or it cannot be moved to `out`. What fails while
        it is filled keeps its kind.
    """
    out = out.absolute()
    with _staging(out) as room:
        folder = room / "new"
        with report_unwritable(out):
            folder.mkdir()
        yield folder
        with report_unwritable(out):
            _replace_folder(folder, out, retired=room / "old")


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """Write a file beside its final place, and move it there when it is complete.

    Parameters
    ----------
    out : Path
        Final place; a file or an empty folder that stands there is replaced.

    Yields
    ------
    Path
        Where to write; nothing is there yet.

    Raises
    ------
    OutputUnwritable
        As `staged_folder` does.
    """
    out = out.absolute()
    with _staging(out) as room:
        yield room / "new"
        with report_unwritable(out):
            if out.is_dir() and not out.is_symlink():
                out.rmdir()
            (room / "new").replace(out)


@contextmanager
def _staging(out: Path) -> Iterator[Path]:
    with report_unwritable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        # A name of our own: another process may write to the same place, and a folder of the
        # user may bear any name that we could guess. Cut short, for names have a limit.
        room = Path(
            tempfile.mkdtemp(prefix=f".{out.name[:40]}.", suffix=".partial", dir=out.parent)
        )
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _replace_folder(folder: Path, out: Path, *, retired: Path) -> None:
    had_one = os.path.lexists(out)
    if had_one:
        out.rename(retired)
    try:
        folder.rename(out)
    except BaseException:  # Ctrl-C as well: what was there comes back
        if had_one and not os.path.lexists(out):
            retired.rename(out)
        raise
