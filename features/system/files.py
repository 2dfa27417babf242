"""Writing results so that they are complete or not there at all."""

from __future__ import annotations

import csv
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from features.errors import FrameHeadError, OutputExists, OutputUnwritable
from features.system.locks import LockHeld, hold_lock

# Names have a limit, which what is added to them must not pass.
_MOST_NAME_CHARACTERS = 40
_PARTIAL_NAME = re.compile(r"\..+\.\d+\.partial(\..*)?")
_LOCK_NAME = ".in-use"
_RETIRED_NAME = "replaced"
# A folder is locked within milliseconds of being made; after this long nobody will.
_UNLOCKED_SECONDS = 60.0


@contextmanager
def whole_file(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Write a file under another name beside its place, and rename it when it is complete."""
    partial = path.with_name(f"{_partial_prefix(path)}{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        if sync:
            _sync(partial)
        partial.replace(path)
        if sync and os.name != "nt":  # Windows cannot open a folder for syncing
            _sync(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def clear_partials(path: Path) -> None:
    """Delete what killed writers of a file left; only for who holds the only right to write it."""
    prefix = _partial_prefix(path)
    # Exactly our names: those of "store.h5" begin like those of a file "store".
    ours = re.compile(rf"{re.escape(prefix)}\d+\.partial{re.escape(path.suffix)}")
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*"):
        if ours.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def clear_partials_in(folder: Path) -> None:
    """Delete what killed writers of files left anywhere in a folder that is ours alone."""
    for leftover in folder.rglob(".*.partial*"):
        if _PARTIAL_NAME.fullmatch(leftover.name) and leftover.is_file():
            leftover.unlink(missing_ok=True)


@contextmanager
def sole_writer(path: Path) -> Iterator[None]:
    """Wait for the only right to write a file, and clear what killed writers left of it.

    Where no lock can be had (the folder is not writable), several may write at once, and
    nothing is cleared.
    """
    lock_path = path.with_name(f"{_partial_prefix(path)}lock")
    with ExitStack() as stack:
        with suppress(OSError):
            lock_path.touch()  # where that fails, Windows would wait for the lock for ever
            stack.enter_context(hold_lock(lock_path))
            clear_partials(path)
        yield


@contextmanager
def private_folder(near: Path) -> Iterator[Path]:
    """Make a folder beside `near` that is this call's alone and is deleted at the end.

    Folders that killed processes left there are deleted first.
    """
    prefix = _partial_prefix(near)
    near.parent.mkdir(parents=True, exist_ok=True)
    clear_abandoned(near)
    with ExitStack() as stack:
        while True:
            # A name of our own: the user may have named a folder in any way that we could guess.
            folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=".partial", dir=near.parent))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(hold_lock(folder / _LOCK_NAME))
            if (folder / _LOCK_NAME).exists():
                break
            stack.close()  # another process took the folder for an abandoned one
        yield folder


def clear_abandoned(near: Path) -> None:
    """Delete the private folders that killed processes left beside `near`.

    They are known by a lock that nobody holds any more. What `replace_folder` had moved into one
    comes back if nothing has taken its place.
    """
    # Eight characters, as tempfile makes them: no folder of a path that begins like this one.
    pattern = f"{glob.escape(_partial_prefix(near))}{'?' * 8}.partial"
    for leftover in near.parent.glob(pattern):
        _remove_if_abandoned(leftover, near)


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """Fill a folder beside its final place, and move it there when it is complete.

    A folder that stands there is replaced. What fails while the new one is filled keeps its
    kind; what fails in making or moving it is OutputUnwritable.
    """
    out = out.absolute()
    with ExitStack() as stack:
        with report_unwritable(out):
            folder = stack.enter_context(private_folder(out)) / "new"
            folder.mkdir()
        yield folder
        with report_unwritable(out):
            replace_folder(folder, out)


@contextmanager
def staged_file(out: Path) -> Iterator[Path]:
    """Write a file as `whole_file` does, making its folder; it may take an empty folder's place."""
    out = out.absolute()
    with report_unwritable(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(out) as partial:
        yield partial
        with report_unwritable(out):
            if out.is_dir() and not out.is_symlink():
                out.rmdir()


def replace_folder(folder: Path, out: Path) -> None:
    """Move a folder to where another may stand, which is gone only when this one is there."""
    had_one = os.path.lexists(out)
    retired = folder.with_name(_RETIRED_NAME)
    if had_one:
        out.rename(retired)
    try:
        folder.rename(out)
    except BaseException:  # Ctrl-C as well: what was there comes back
        if had_one and not os.path.lexists(out):
            retired.rename(out)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole; text that is not UTF-8 is escaped, NaN and infinity are refused."""
    with whole_file(path) as partial:
        partial.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="ascii")


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote."""
    return json.loads(path.read_text(encoding="ascii"))


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def open_csv(path: Path) -> TextIO:
    """Open a text file for writing rows; file names that are not UTF-8 come out as they were."""
    return path.open("w", encoding="utf-8", errors="surrogateescape", newline="")


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whole."""
    with whole_file(path) as partial, open_csv(partial) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read a table that `write_csv` wrote: one dictionary per row, by column name."""
    return list(stream_csv(path))


def stream_csv(path: Path) -> Iterator[dict[str, str]]:
    """Read a table that may be large row by row; see `read_csv`."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        yield from csv.DictReader(file)


def hash_file(path: Path, on_block: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of a file, in hexadecimal; `on_block` is called once a megabyte."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
            on_block()
    return digest.hexdigest()


def digest_json(content: Any) -> str:
    """Return the hexadecimal SHA-256 of JSON-ready values."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


@contextmanager
def report_unwritable(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write `path` into OutputUnwritable."""
    try:
        yield
    except FrameHeadError:
        raise
    except OSError as problem:
        raise OutputUnwritable(
            f"The output must be writable. Writing '{path}' failed: {problem}.",
            hint="give a shorter name"
            if problem.errno == errno.ENAMETOOLONG
            else "free disk space, or give a place where you may write",
        ) from problem


def require_free(out: Path, *, marker: str, what: str, overwrite: bool, source: Path) -> None:
    """Refuse to write over something with OutputExists."""
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
    """Refuse to replace something that is, or holds, what a result is made of."""
    if out.exists() and source.resolve().is_relative_to(out.resolve()):
        raise OutputExists(
            f"--out must not be or hold what the result is made of. '{out}' would take "
            f"'{source}' with it, and is left alone even with --overwrite.",
            hint="give another --out",
        )


def _partial_prefix(path: Path) -> str:
    """Begin the names of all that is written beside a path before it is complete."""
    name = path.name
    if len(name) > _MOST_NAME_CHARACTERS:
        # Long names that begin alike must not share it: one's leftovers may be another's work.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()
        name = f"{name[:_MOST_NAME_CHARACTERS]}{digest[:8]}"
    return f".{name}."


def _remove_if_abandoned(folder: Path, near: Path) -> None:
    lock_path = folder / _LOCK_NAME
    with suppress(OSError, LockHeld):
        # Without a lock it was made this moment, or its maker was killed before locking it.
        if not lock_path.exists() and time.time() - folder.stat().st_mtime < _UNLOCKED_SECONDS:
            return
        with hold_lock(lock_path, wait=False):
            retired = folder / _RETIRED_NAME
            if retired.exists() and not os.path.lexists(near):
                retired.rename(near)  # killed between the two renames of `replace_folder`
            shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    # Windows syncs only what is open for writing, and no folder is.
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
