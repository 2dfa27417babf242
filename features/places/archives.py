"""Archives: the members of a .zip or .tar by name, each read where it lies, nothing unpacked."""

from __future__ import annotations

import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from features.errors import ArchiveUnreadable
from features.records import IgnoredFile
from features.system.text import format_count

ARCHIVE_SUFFIXES = (".zip", ".tar")
# Their members cannot be reached one by one.
_PACKED = re.compile(
    r"\.(?:tgz|tbz2?|txz|tzst|tar\.(?:gz|bz2|xz|zst|lzma|lz4|br|z)|7z|rar)$", re.IGNORECASE
)
_TO_UNPACK = "unpack it, or pack it anew as .zip or as plain .tar"
# Deflate reaches 1032; of videos and pictures nothing is left to gain.
_MOST_RATIO = 200
_LEAST_BOMB_BYTES = 2**28
_BUFFER_BYTES = 1 << 16
# What lies within one block of damage is lost.
_UNPACKED_BYTES = 4096
_MOST_FAULTS = 1000
_ENCRYPTED = 0x1
_IS_UTF8 = 0x800
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DRIVE = re.compile(r"[A-Za-z]:")
_ZIP_FAULTS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError),
    RuntimeError,  # what zipfile cannot do
)


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Attributes
    ----------
    size_bytes : int
        Unpacked, as the archive claims it.
    offset : int
        Where its bytes are, or what the archive says of them.
    packed : zipfile.ZipInfo or None
        If it has to be unpacked while it is read.
    """

    name: str
    size_bytes: int
    offset: int
    packed: zipfile.ZipInfo | None = None


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive holds.

    Attributes
    ----------
    members : mapping of str to Member
        By path inside, with "/" between folders; none leads out.
    folders : mapping of str to list of str
        Paths of the members that lie directly in each folder; the outermost is ".".
    ignored : tuple of IgnoredFile
        What cannot be read, or must not, and why.
    mtime_ns : int
    zip : zipfile.ZipFile or None
        None for a .tar.
    """

    path: Path
    members: Mapping[str, Member]
    folders: Mapping[str, list[str]]
    ignored: tuple[IgnoredFile, ...]
    mtime_ns: int
    zip: zipfile.ZipFile | None


def is_archive(path: Path) -> bool:
    """Tell whether a file has the suffix of an archive that can be read; see `refuse_packed`."""
    return path.suffix.lower() in ARCHIVE_SUFFIXES and path.is_file()


def is_packed(name: str) -> bool:
    """Tell whether a name is that of an archive whose members cannot be reached one by one."""
    return _PACKED.search(name) is not None


def refuse_packed(path: Path) -> None:
    """Raise ArchiveUnreadable for archives whose members cannot be reached one by one."""
    if is_packed(path.name):
        raise ArchiveUnreadable(
            "An archive is read in place if it is a .zip or a .tar without compression. "
            f"'{path}' is neither: to reach one clip, all before it would have to be unpacked.",
            hint=_TO_UNPACK,
        )


def read_archive(path: Path) -> Archive:
    """List what an archive holds; it is remembered until the file changes. ArchiveUnreadable."""
    facts = path.stat()
    return _read_archive(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=4)
def _read_archive(path: Path, size_bytes: int, mtime_ns: int) -> Archive:
    opened = _open_zip(path) if path.suffix.lower() == ".zip" else None
    members: dict[str, Member] = {}
    folders: dict[str, list[str]] = {}
    ignored: list[IgnoredFile] = []
    for item in _read_tar(path) if opened is None else _read_zip(opened, size_bytes):
        if isinstance(item, IgnoredFile):
            ignored.append(item)
            continue
        if item.name in members:  # unpacking would overwrite it as well
            ignored.append(IgnoredFile(item.name, "an earlier member of a name that comes again"))
        else:
            above = PurePosixPath(item.name).parents
            folders.setdefault(str(above[0]), []).append(item.name)
            for folder in map(str, above[1:]):
                folders.setdefault(folder, [])
        members[item.name] = item
    return Archive(path, members, folders, tuple(ignored), mtime_ns, opened)


def open_member(archive: Archive, member: Member) -> BinaryIO:
    """Open a member for reading; it can seek. Where it is damaged, it ends."""
    raw: Any = (
        _Unpacking(archive.zip, member.packed)
        if archive.zip is not None and member.packed is not None
        else _Part(archive.path, member, has_header=archive.zip is not None)
    )
    return io.BufferedReader(raw, _BUFFER_BYTES)


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as problem:
        raise ArchiveUnreadable(
            f"A .zip has a list of its members at its end. '{path}' has none that can be read "
            f"({problem}): it may be cut off.",
            hint=f"copy it anew, or try 'zip -FF {path.name} --out repaired.zip'",
        ) from problem


def _read_zip(archive: zipfile.ZipFile, archive_bytes: int) -> Iterator[Member | IgnoredFile]:
    for info in archive.infolist():
        written = info.orig_filename
        if not info.flag_bits & _IS_UTF8:
            try:  # many programs write UTF-8 and do not say so
                written = written.encode("cp437").decode("utf-8")
            except UnicodeError:
                written = info.filename
        if written.endswith(("/", "\\")):
            continue
        # Windows' own separator is against the rules, and common.
        name = _clean(written.replace("\\", "/"))
        kind = info.external_attr >> 28
        if name is None:
            yield IgnoredFile(written, "its name leads out of the archive")
        elif info.flag_bits & _ENCRYPTED:
            yield IgnoredFile(name, "it is encrypted")
        elif not 0 <= info.header_offset <= archive_bytes - info.compress_size:
            yield IgnoredFile(name, "damaged: it would reach out of the archive")
        elif info.create_system == 3 and kind not in (0, 8):
            yield IgnoredFile(name, "a link or device, not a file")
        elif (
            info.file_size > _LEAST_BOMB_BYTES and info.file_size > _MOST_RATIO * info.compress_size
        ):
            ratio = info.file_size // max(info.compress_size, 1)
            yield IgnoredFile(
                name, f"it would unpack to {ratio} times its size; unpack it if that is meant"
            )
        elif info.compress_type == zipfile.ZIP_STORED:
            yield Member(name, info.compress_size, info.header_offset)
        elif info.compress_type in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            yield Member(name, info.file_size, info.header_offset, info)
        else:
            yield IgnoredFile(name, f"packed by a method ({info.compress_type}) that Python lacks")


def _read_tar(path: Path) -> Iterator[Member | IgnoredFile]:
    """List the members of a .tar; behind damage, it goes on with the next header that it finds."""
    size_bytes = path.stat().st_size
    n_members = n_faults = end = 0
    is_whole = True
    with path.open("rb") as file, _open_tar(path) as archive:
        while n_faults < _MOST_FAULTS and archive.offset < size_bytes:
            try:
                info = archive.next()
            except (tarfile.TarError, ValueError, RecursionError):
                n_faults += 1
                archive.offset += tarfile.BLOCKSIZE
                continue
            if info is None or info.size < 0 or archive.offset <= end:
                break
            archive.members = []  # type: ignore[attr-defined]  # it would keep all of them
            is_whole = is_whole and _has_zeros(file, end, info.offset)
            n_members += 1
            end = archive.offset
            name = _clean(info.name)
            if info.isdir():
                continue
            if name is None:
                yield IgnoredFile(info.name, "its name leads out of the archive")
            elif not info.isreg() or info.issparse():
                what = "a sparse file" if info.issparse() else "a link or device, not a file"
                yield IgnoredFile(name, what)
            else:
                yield Member(name, min(info.size, size_bytes - info.offset_data), info.offset_data)
        is_whole = is_whole and end <= size_bytes and _has_zeros(file, end, end + 1024)
    if not n_members and size_bytes:
        raise _no_tar(path, "has no member that can be read")
    if not is_whole:
        yield IgnoredFile(path.name, f"damaged: {format_count(n_members, 'member')} can be read")


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path, "r:", ignore_zeros=True)
    except (tarfile.TarError, OSError, ValueError, RecursionError) as problem:
        raise _no_tar(path, f"is not ({problem})") from problem


def _no_tar(path: Path, what: str) -> ArchiveUnreadable:
    with path.open("rb") as file:
        is_packed = file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd"))
    what = "is compressed" if is_packed else what
    return ArchiveUnreadable(
        f"A .tar is read in place if it is without compression. '{path}' {what}.", hint=_TO_UNPACK
    )


def _has_zeros(file: BinaryIO, begin: int, end: int) -> bool:
    """Tell whether nothing but zeros is there, as between and behind members."""
    file.seek(begin)
    return begin >= end or not file.read(min(end - begin, 1 << 20)).strip(b"\0")


def _clean(written: str) -> str | None:
    """Normalise a name; None for one that leads elsewhere."""
    parts = [part for part in written.split("/") if part not in ("", ".")]
    if written.startswith("/") or ".." in parts or not parts or _DRIVE.match(parts[0]):
        return None
    return "/".join(parts)


class _Part(io.RawIOBase):
    """A part of a file that reads like a file."""

    def __init__(self, path: Path, member: Member, *, has_header: bool) -> None:
        self.name = member.name
        self._file = path.open("rb", buffering=0)
        self._size = member.size_bytes
        self._at = 0
        self._start = member.offset
        if has_header:
            # A .zip says at its end where the header is, and that how long itself is.
            self._file.seek(member.offset)
            head = self._file.read(_LOCAL_HEADER.size)
            if head.startswith(b"PK\3\4") and len(head) == _LOCAL_HEADER.size:
                _, n_name, n_extra = _LOCAL_HEADER.unpack(head)
                self._start += _LOCAL_HEADER.size + n_name + n_extra
            else:
                self._size = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        n_bytes = min(len(buffer), max(0, self._size - self._at))
        self._file.seek(self._start + self._at)
        content = self._file.read(n_bytes)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


class _Unpacking(io.RawIOBase):
    """A packed member of a .zip that is unpacked while it is read; damage is its end."""

    def __init__(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self.name = info.filename
        self._is_lost = False
        self._file: zipfile.ZipExtFile | None = None
        try:
            self._file = cast(zipfile.ZipExtFile, archive.open(info))
        except _ZIP_FAULTS:
            self._is_lost = True

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            self._is_lost = self._file is None
            return 0 if self._file is None else self._file.seek(offset, whence)
        except _ZIP_FAULTS:
            self._is_lost = True
            return 0

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        content = b""
        if self._file is not None and not self._is_lost:
            try:
                content = self._file.read(min(len(buffer), _UNPACKED_BYTES))
            except _ZIP_FAULTS:
                self._is_lost = True
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()
