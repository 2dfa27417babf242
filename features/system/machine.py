"""What this machine gives a process: cores, memory, room on disk, folders it may write."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")
_CPUINFO = Path("/proc/cpuinfo")
# Instructions that add up products of 8-bit integers, as Linux names them.
_INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")


def usable_cores() -> int:
    """Count the cores that this process may use, with the quota of its container."""
    from joblib import cpu_count

    n_cores: int = cpu_count()
    return n_cores


def memory_limit_bytes(cgroup: Path = _CGROUP, meminfo: Path = _MEMINFO) -> int | None:
    """Tell how many bytes of memory this process may use at most: the container's limit or all.

    None where neither is known.
    """
    limits = [
        int(line)
        for name in ("memory.max", "memory/memory.limit_in_bytes")
        if (line := _first_line(cgroup / name)).isdigit()
    ]
    words = _first_line(meminfo).split()
    if len(words) == 3 and words[0] == "MemTotal:":
        limits.append(int(words[1]) * 1024)
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):  # not Linux
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def int8_instructions(cpuinfo: Path = _CPUINFO) -> tuple[str, ...] | None:
    """Name the processor's instructions for products of 8-bit integers; None if it is not known."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return ("asimddp",)
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return tuple(name for name in _INT8_INSTRUCTIONS if name in flags.split())


def free_bytes(folder: Path) -> int:
    """Tell how much room there is on the disk where a folder is or would be made."""
    return shutil.disk_usage(_nearest(folder)).free


def why_not_writable(folder: Path) -> str:
    """Try to write into a folder that is or would be made, and say what stands in the way."""
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
