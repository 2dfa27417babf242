"""Writing results so that they are complete or not there at all."""

from __future__ import annotations

import csv
import json
import os
import shutil
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


def require_free(out: Path, *, marker: str, what: str, overwrite: bool) -> None:
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
        ``OUT.partial``, empty.

    Raises
    ------
    OutputUnwritable
    """
    partial = out.with_name(f"{out.name}.partial")
    with report_unwritable(out):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            retired = out.with_name(f"{out.name}.old")
            if out.exists():
                shutil.rmtree(retired, ignore_errors=True)
                out.rename(retired)
            partial.rename(out)
            shutil.rmtree(retired, ignore_errors=True)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
