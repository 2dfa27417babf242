"""Where the bytes of a clip are, by its path: a file, a folder of pictures, or in an archive.

A path leads into an archive as it would into a folder: ``clips.zip/jump/a.avi``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from features.errors import ArchiveUnreadable, VideoUnreadable
from features.places.archives import Archive, Member, is_archive, open_member, read_archive
from features.places.pictures import PictureSequence, find_sequence, is_picture
from features.records import SourceFile

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    size_bytes: int
    mtime_ns: int


def find_in_archive(path: Path) -> tuple[Archive, str] | None:
    """Find the archive that a path leads into, and the name inside; None for one on the disk.

    The name of the archive itself is ".".
    """
    for parent in (path, *path.parents):
        if parent.is_dir():
            return None
        if is_archive(parent):
            return read_archive(parent), path.relative_to(parent).as_posix()
    return None


def find_member(path: Path) -> tuple[Archive, Member] | None:
    """Find the member of an archive that a path means; None if it means none."""
    inside = None if os.path.lexists(path) else find_in_archive(path)
    member = inside[0].members.get(inside[1]) if inside else None
    return (inside[0], member) if inside and member else None


def is_there(path: Path) -> bool:
    """Tell whether a path leads to a file or to a folder of pictures."""
    try:
        if is_folder(path):
            return any(_list_pictures(path))
        return path.exists() or find_member(path) is not None
    except (OSError, ValueError, ArchiveUnreadable):
        return False


def is_folder(path: Path) -> bool:
    """Tell whether a path leads to a folder, of the disk or in an archive."""
    if os.path.lexists(path):
        return path.is_dir()
    inside = find_in_archive(path)
    return inside is not None and inside[1] in inside[0].folders


def open_binary(path: Path) -> BinaryIO:
    """Open a file, or a member of an archive, for reading; FileNotFoundError."""
    found = find_member(path)
    if found is None and not os.path.lexists(path):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return path.open("rb") if found is None else open_member(*found)


def read_pictures_of(path: Path) -> PictureSequence | None:
    """Find the numbered pictures of a clip; None if it is no folder.

    VideoUnreadable if they are no clip.
    """
    if not is_folder(path):
        return None
    sequence = find_sequence(path.name, (entry.name for entry in _list_pictures(path)))
    if sequence.problem:
        raise VideoUnreadable(f"a folder is a clip if it holds its frames: {sequence.problem}")
    return sequence


def stat_source(path: Path) -> SourceFile:
    """Describe what a clip is made of without reading it; what is missing has size and time 0.

    Of a folder of pictures the size is that of all, and the time a checksum of names, sizes and
    times.
    """
    try:
        if not is_folder(path):
            found = find_member(path)
            if found is not None:
                return SourceFile(found[1].size_bytes, found[0].mtime_ns, "")
            facts = path.stat()
            return SourceFile(facts.st_size, facts.st_mtime_ns, "")
        entries = sorted(_list_pictures(path), key=lambda entry: entry.name)
    except (OSError, ArchiveUnreadable):
        return SourceFile(0, 0, "")
    if not entries:
        return SourceFile(0, 0, "")
    text = repr([(entry.name, entry.size_bytes, entry.mtime_ns) for entry in entries])
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    size_bytes = sum(entry.size_bytes for entry in entries)
    return SourceFile(size_bytes, int.from_bytes(digest[:8], "big") >> 1, "")


def hash_source(path: Path, on_block: Callable[[], None] = lambda: None) -> str:
    """Return the SHA-256 of what a clip is made of; of a folder, over names and contents."""
    digest = hashlib.sha256()
    if is_folder(path):
        names = sorted(entry.name for entry in _list_pictures(path))
        if not names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        for name in names:
            digest.update(f"{name}\0".encode("utf-8", "surrogateescape"))
            inner = hashlib.sha256()
            with suppress(OSError):  # one that cannot be read is a damaged frame
                for block in _read_blocks(path / name):
                    inner.update(block)
                    on_block()
            digest.update(inner.digest())
        return digest.hexdigest()
    for block in _read_blocks(path):
        digest.update(block)
        on_block()
    return digest.hexdigest()


def _read_blocks(path: Path) -> Iterator[bytes]:
    with open_binary(path) as file:
        while block := file.read(_BLOCK_BYTES):
            yield block


def _list_pictures(folder: Path) -> Iterator[_Entry]:
    """List the pictures that lie directly in a folder, of the disk or of an archive."""
    if folder.is_dir():
        with os.scandir(folder) as items:
            for item in items:
                if is_picture(item.name) and not item.name.startswith("."):
                    try:
                        facts = item.stat()
                    except OSError:  # a link to nowhere
                        continue
                    if stat.S_ISREG(facts.st_mode):
                        yield _Entry(item.name, facts.st_size, facts.st_mtime_ns)
        return
    inside = find_in_archive(folder)
    if inside is not None:
        archive, name = inside
        for path in filter(is_picture, archive.folders.get(name, ())):
            name = PurePosixPath(path).name
            if not name.startswith("."):
                yield _Entry(name, archive.members[path].size_bytes, archive.mtime_ns)
