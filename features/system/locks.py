"""Locks between processes, also on file systems that have none of their own.

Where the system can lock a file (`flock`), it is: such a lock ends with its process. Where it
cannot (network and cluster file systems that answer ENOSYS, ENOLCK or EOPNOTSUPP), a second file
beside it says who holds the lock; that of a process that is gone is taken over.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", 0)}
_POLL_SECONDS = 0.05
# A holder's file is written within milliseconds of being made; after this long nobody will.
_UNSIGNED_SECONDS = 60.0


class LockHeld(Exception):
    """Another process holds the lock; says which one, as far as is known."""


@contextmanager
def hold_lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock that a file stands for, which is made if it is not there.

    Raises LockHeld if another process holds it and `wait` is False, or OSError where the file
    cannot be made.
    """
    holder = path.with_name(f"{path.name}.held")
    while True:
        try:
            with _take(path, holder):
                yield
                return
        except _Held as held:
            if not wait:
                raise LockHeld(held.by) from None
        time.sleep(_POLL_SECONDS)


class _Held(Exception):
    def __init__(self, by: str) -> None:
        super().__init__(by)
        self.by = by


@contextmanager
def _take(path: Path, holder: Path) -> Iterator[None]:
    descriptor = _lock_by_system(path)
    if descriptor is None:
        with _signed(holder):
            yield
        return
    try:
        # Another machine may see the same folder through a file system without locks.
        by = _read_holder(holder)
        if by is not None and not _is_gone(by):
            raise _Held(_describe(holder, by))
        yield
    finally:
        _unlock(descriptor)


def _lock_by_system(path: Path) -> Any:
    """Lock a file without waiting; None where its file system knows no locks."""
    try:
        import fcntl
    except ImportError:  # Windows, where every file system locks
        lock = FileLock(path, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise _Held("another process") from None
        return lock
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _Held("another process") from None
    except OSError as problem:
        os.close(descriptor)
        if problem.errno in _NO_LOCKS:
            return None
        raise
    return descriptor


def _unlock(lock: Any) -> None:
    if isinstance(lock, int):
        os.close(lock)
    else:
        lock.release()


@contextmanager
def _signed(holder: Path) -> Iterator[None]:
    """Hold a lock by a file that says who does, as long as it is there."""
    mine = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "started": _process_start(os.getpid()),
        "key": secrets.token_hex(8),
    }
    _clear_if_gone(holder)
    try:
        descriptor = os.open(holder, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        raise _Held(_describe(holder, _read_holder(holder))) from None
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump(mine, file)
        yield
    finally:
        if (_read_holder(holder) or {}).get("key") == mine["key"]:
            with suppress(OSError):
                holder.unlink()


def _clear_if_gone(holder: Path) -> None:
    by = _read_holder(holder)
    if by is None or not _is_gone(by):
        return
    # Renamed first: of several processes that find it, one takes it away, once.
    aside = holder.with_name(f"{holder.name}.{secrets.token_hex(4)}")
    with suppress(OSError):
        holder.rename(aside)
        if _read_holder(aside) != by and not holder.exists():
            aside.rename(holder)  # somebody was quicker, and this is theirs
        aside.unlink(missing_ok=True)


def _read_holder(holder: Path) -> dict[str, Any] | None:
    """Read who holds a lock; None if nobody does, an empty dictionary if it does not say."""
    try:
        content = json.loads(holder.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        try:
            age = time.time() - holder.stat().st_mtime
        except OSError:
            return None
        return {"is_unsigned": age > _UNSIGNED_SECONDS}
    return content if isinstance(content, dict) else {}


def _is_gone(by: dict[str, Any]) -> bool:
    """Tell whether a holder has ended for certain; that of another machine never is."""
    if by.get("is_unsigned"):
        return True
    if by.get("host") != socket.gethostname() or "process" not in by:
        return False
    try:
        os.kill(int(by["process"]), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    # Numbers of processes are used again.
    return by.get("started") != _process_start(int(by["process"]))


def _process_start(process_id: int) -> str:
    """Tell when a process began, in the system's own count; empty where that is not known."""
    try:
        text = Path(f"/proc/{process_id}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.rpartition(")")[2].split()[19]


def _describe(holder: Path, by: dict[str, Any] | None) -> str:
    if not by or "process" not in by:
        return "another process"
    return (
        f"process {by['process']} on {by['host']} (its file system has no locks, so that "
        f"'{holder}' stands for one; if that process is gone, delete it)"
    )
