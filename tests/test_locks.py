"""Locks on file systems without them, made by a library that lets `flock` fail."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from features.system.locks import LockHeld, hold_lock

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = """
#include <errno.h>
#include <stdlib.h>
int flock(int descriptor, int operation) {
    errno = atoi(getenv("FLOCK_ERRNO"));
    return -1;
}
"""
NO_LOCKS = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="preloads a library")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("flock")
    (folder / "flock.c").write_text(LIBRARY)
    files = (str(folder / "flock.so"), str(folder / "flock.c"))
    command = [compiler, "-shared", "-fPIC", "-o", *files]
    subprocess.run(command, check=True)
    return folder / "flock.so"


def environment(library: Path, number: int, **more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    preload = {"LD_PRELOAD": str(library), "FLOCK_ERRNO": str(number), "PYTHONPATH": paths}
    return {**os.environ, **preload, **more}


def run(code: str, env: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


WRITE = """
import sys
from store_helpers import Path, lock_store, make_clip, write_store
from features.system.files import private_folder, sole_writer
path = Path(sys.argv[1])
with lock_store(path):
    pass
write_store(path, [make_clip("a.avi", 3)], [make_clip("b.avi", 4)])
with sole_writer(path), private_folder(path) as folder:
    assert folder.is_dir()
print(sorted(item.name for item in path.parent.iterdir()))
"""
TWO = """
import sys
from store_helpers import Path, lock_store
with lock_store(Path(sys.argv[1])):
    try:
        with lock_store(Path(sys.argv[1])):
            pass
    except OSError as problem:
        print(problem)
"""
DIE = """
import os, signal, sys
from store_helpers import Path, lock_store
with lock_store(Path(sys.argv[1])):
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("number", NO_LOCKS, ids=map(errno.errorcode.get, NO_LOCKS))
def test_a_store_is_written_where_flock_fails(library: Path, tmp_path: Path, number: int) -> None:
    env = environment(library, number)
    finished = run(WRITE, env, tmp_path / "s.h5")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "['.s.h5.lock', 's.h5']"
    busy = run(TWO, env, tmp_path / "s.h5")
    assert "in use by process" in busy.stdout, busy.stderr
    assert f"on {socket.gethostname()}" in busy.stdout
    assert not (tmp_path / ".s.h5.lock.held").exists()


def test_the_lock_of_a_killed_process_is_taken_over(library: Path, tmp_path: Path) -> None:
    env = environment(library, errno.ENOLCK)
    assert run(DIE, env, tmp_path / "s.h5").returncode < 0
    assert (tmp_path / ".s.h5.lock.held").exists()
    finished = run(WRITE, env, tmp_path / "s.h5")
    assert finished.returncode == 0, finished.stderr
    assert not (tmp_path / ".s.h5.lock.held").exists()


def test_other_errors_of_flock_are_told(library: Path, tmp_path: Path) -> None:
    finished = run(TWO, environment(library, errno.EIO), tmp_path / "s.h5")
    assert "OutputUnwritable" in finished.stderr
    assert "Input/output error" in finished.stderr


def test_hdf5_told_to_lock_says_what_is_the_matter(library: Path, tmp_path: Path) -> None:
    env = environment(library, errno.ENOLCK, HDF5_USE_FILE_LOCKING="TRUE")
    finished = run(WRITE, env, tmp_path / "s.h5")
    assert "OutputUnwritable" in finished.stderr
    assert "HDF5_USE_FILE_LOCKING=TRUE" in finished.stderr
    assert run(WRITE, environment(library, errno.ENOLCK), tmp_path / "s.h5").returncode == 0
    read = "import sys, features; features.open_store(sys.argv[1])"
    unread = run(read, env, tmp_path / "s.h5")
    assert "HDF5_USE_FILE_LOCKING=TRUE" in unread.stderr


def write_holder(path: Path, **fields: object) -> Path:
    holder = path.with_name(f"{path.name}.held")
    holder.write_text(json.dumps({"host": socket.gethostname(), "process": os.getpid(), **fields}))
    return holder


def test_a_holder_on_another_machine_is_believed(tmp_path: Path) -> None:
    write_holder(tmp_path / "lock", host="node7", process=4711)
    with (
        pytest.raises(LockHeld, match="process 4711 on node7 .* if that process is gone, delete"),
        hold_lock(tmp_path / "lock", wait=False),
    ):
        pass


def test_a_number_that_another_process_has_now_is_no_holder(tmp_path: Path) -> None:
    write_holder(tmp_path / "lock", started="1")
    with hold_lock(tmp_path / "lock", wait=False):
        pass


def test_only_one_holds_a_lock(tmp_path: Path) -> None:
    with (
        hold_lock(tmp_path / "lock"),
        pytest.raises(LockHeld, match="another process"),
        hold_lock(tmp_path / "lock", wait=False),
    ):
        pass
    with hold_lock(tmp_path / "lock", wait=False):
        pass


@pytest.mark.parametrize("content", ["", "{}", "garbage"])
def test_a_holder_that_says_nothing_is_waited_for_a_minute(tmp_path: Path, content: str) -> None:
    holder = tmp_path / "lock.held"
    holder.write_text(content)
    with pytest.raises(LockHeld), hold_lock(tmp_path / "lock", wait=False):
        pass
    os.utime(holder, (1, 1))
    if content != "{}":
        with hold_lock(tmp_path / "lock", wait=False):
            pass
