"""What this machine gives a process: cores, memory, room on disk, folders it may write."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def usable_cores(cgroup: Path = _CGROUP) -> float:
    """Count the cores that this process may use, with the quota of its container.

    Parameters
    ----------
    cgroup : Path
        The container's control group, version 2.

    Returns
    -------
    float
        At least a fraction; a quota may grant half a core.
    """
    if hasattr(os, "sched_getaffinity"):
        n_cores = float(len(os.sched_getaffinity(0)))
    else:
        n_cores = float(os.cpu_count() or 1)
    quota, _, period = _first_line(cgroup / "cpu.max").partition(" ")
    if quota.isdigit() and period.isdigit():
        return min(n_cores, int(quota) / int(period))
    return n_cores


def memory_limit_bytes(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Tell how much memory this process may use at most.

    Parameters
    ----------
    cgroup : Path
        The container's control group, version 2 or 1.
    meminfo : Path
        The kernel's table.

    Returns
    -------
    int or None
        Bytes: the container's limit or the machine's memory, whichever is less. None where
        neither is told.
    """
    limits = [
        int(line)
        for name in ("memory.max", "memory/memory.limit_in_bytes")
        if (line := _first_line(cgroup / name)).isdigit()
    ]
    words = _first_line(meminfo).split()
    if len(words) == 3 and words[0] == "MemTotal:":
        limits.append(int(words[1]) * 1024)
    return min(limits, default=None)


def free_bytes(folder: Path) -> int:
    """Tell how much room there is on the disk where a folder is or would be made."""
    return shutil.disk_usage(_nearest(folder)).free


def why_not_writable(folder: Path) -> str:
    """Try to write into a folder that is or would be made.

    Returns
    -------
    str
        What stands in the way; empty if nothing does.
    """
    there = _nearest(folder)
    if not there.is_dir():
        return f"'{there}' is not a folder"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"framehead")
    except OSError as problem:
        return problem.strerror or str(problem)
    return ""


def _nearest(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
