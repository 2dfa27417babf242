"""Writing a store: lock it, commit clips as part files, merge the parts."""

from __future__ import annotations

import errno
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from features.errors import OutputUnwritable, StoreBusy
from features.records import ClipRecord, EmbeddedClip, StoreHeader
from features.store.hdf5 import clip_crc32, read_pieces, write_store_file
from features.store.store import Store, open_store, parts_folder
from features.system.files import clear_partials
from features.system.locks import LockHeld, hold_lock


@contextmanager
def lock_store(path: Path) -> Iterator[None]:
    """Hold a store for writing, and clear what killed writers left; StoreBusy if another does."""
    lock_path = path.with_name(f".{path.name}.lock")
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(f"'{path}' is a folder")
            # Where it cannot be created, a lock would only seem to be taken.
            lock_path.touch()
            stack.enter_context(hold_lock(lock_path, wait=False))
        except LockHeld as problem:
            raise StoreBusy(
                f"Only one process may write to a store. '{path}' is in use by {problem}.",
                hint="wait until the other extract-features has ended, or give another --out",
            ) from problem
        except OSError as problem:
            raise OutputUnwritable(
                f"The store's folder must be writable. Creating '{path}' failed: {problem}.",
                hint="give a shorter --out"
                if problem.errno == errno.ENAMETOOLONG
                else "give --out in a folder where you may write",
            ) from problem
        clear_partials(path)
        for leftover in parts_folder(path).glob("*.partial*"):
            leftover.unlink()
        with suppress(OSError):
            parts_folder(path).rmdir()  # if that is all it held
        yield


def commit_clips(
    path: Path, header: StoreHeader, pending: Sequence[EmbeddedClip], entry: dict[str, Any]
) -> None:
    """Make finished clips safe against anything that happens to this process.

    Vectors must already have the type `header.dtype`. `entry` is the extraction's history; a
    commit of no clips marks that it has begun. If the disk is full, earlier commits stay.
    """
    folder = parts_folder(path)
    try:
        folder.mkdir(exist_ok=True)
        numbers = [int(part.stem.split("-")[1]) for part in folder.glob("part-*.h5")]
    except OSError as problem:
        raise OutputUnwritable(
            f"The store's folder must be writable. Creating '{folder}' failed: {problem}.",
            hint="give --out in a folder where you may write",
        ) from problem
    records = [_with_crc32(clip) for clip in pending]
    pieces = [clip.embedding for clip in pending if clip.embedding is not None]
    # A name that never comes again: a merge remembers which parts it has taken in.
    part = folder / f"part-{max(numbers, default=0) + 1:06d}-{secrets.token_hex(4)}.h5"
    write_store_file(part, header, records, pieces, [entry])


def merge_parts(
    path: Path, *, update: Callable[[ClipRecord], ClipRecord] = lambda record: record
) -> Store:
    """Make one file of a store and its parts; if that fails, all of them stay as they were.

    Clips come out sorted by id, so that the content does not depend on how often the extraction
    was interrupted. `update` gives each row its newest label, group, split and, if its file
    moved, id. Nothing is written if nothing would change.
    """
    store = open_store(path, allow_unfinished=True)
    rows = sorted(
        zip(map(update, store.clips), store.ranges, strict=True), key=lambda row: row[0].clip_id
    )
    records = tuple(record for record, _ in rows)
    if store.n_parts or records != store.clips:
        pieces = read_pieces(frames for _, frames in rows)
        parts = [part.name for part in parts_folder(path).glob("part-*.h5")]
        write_store_file(path, store.header, records, pieces, store.history, merged_parts=parts)
    shutil.rmtree(parts_folder(path), ignore_errors=True)
    return open_store(path)


def _with_crc32(clip: EmbeddedClip) -> ClipRecord:
    if clip.embedding is None:
        return clip.record
    crc = clip_crc32(
        clip.embedding.vectors, clip.embedding.timestamps_seconds, clip.embedding.frame_indices
    )
    return replace(clip.record, crc32=crc)
