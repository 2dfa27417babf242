"""SIGTERM ends like Ctrl-C, and a rerun clears what SIGKILL left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import children_of, is_alive, linux_only
from stage2_helpers import make_clips, write_store

from pipeline import FitOptions, train_head

pytestmark = linux_only

ROOT = Path(__file__).resolve().parent.parent

# A head that waits, while it is built, until it may go on.
OWN_HEADS = """
import time
from pathlib import Path

from pipeline import register_head

FOLDER = Path(__file__).parent


@register_head("waits", logits_start="zeros")
def waits(frames, mask, units, dropout):
    import keras

    wait()
    return keras.layers.GlobalAveragePooling1D()(frames)


@register_head("drops", logits_start="zeros")
def drops(frames, mask, units, dropout):
    import keras

    Waiting()
    return keras.layers.GlobalAveragePooling1D()(frames)


class Waiting:
    def __del__(self):
        # Python drops what is raised here, an interrupt as well.
        wait()


def wait():
    (FOLDER / "waiting").touch()
    while not (FOLDER / "go").exists():
        time.sleep(0.05)
"""


class Command:
    """A command line that runs in a folder until the head "waits" is built."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self._marker = folder / "waiting"
        self._marker.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "cli.py"), *map(str, arguments), "--plugin", "heads.py"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for_head(self) -> None:
        deadline = time.monotonic() + 200
        while not self._marker.exists() and time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.02)

    def end_by(self, number: signal.Signals) -> tuple[int, str, set[int]]:
        """Return the exit code, standard error, and the helper processes that there were."""
        helpers = children_of(self.process.pid)
        self.process.send_signal(number)
        stdout, stderr = self.process.communicate(timeout=60)
        assert stdout == ""
        return self.process.returncode, stderr, helpers


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "heads.py").write_text(OWN_HEADS)
    return write_store(tmp_path / "s.h5", make_clips())


def leftovers(folder: Path) -> list[Path]:
    return list(folder.rglob("*.partial*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_an_interrupt_that_python_drops_is_repeated(
    store: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = Command(tmp_path, "train-head", store, "--out", "run", "--head", "drops")
    command.wait_for_head()
    returned, stderr, _ = command.end_by(number)
    assert returned == code, stderr
    assert "Traceback" not in stderr
    assert "no run was written" in stderr
    assert not (tmp_path / "run").exists()
    assert not leftovers(tmp_path)


def test_train_head(store: Path, tmp_path: Path) -> None:
    arguments = ("train-head", store, "--out", "run", "--head", "waits")
    command = Command(tmp_path, *arguments)
    command.wait_for_head()
    assert leftovers(tmp_path), "the run is made beside its place"
    code, stderr, helpers = command.end_by(signal.SIGTERM)
    assert code == 143, stderr
    assert stderr == "Error: Interrupted: no run was written to 'run'.\n"
    assert not any(map(is_alive, helpers))
    assert not leftovers(tmp_path)

    command = Command(tmp_path, *arguments)
    command.wait_for_head()
    assert command.end_by(signal.SIGKILL)[0] == -signal.SIGKILL
    assert leftovers(tmp_path)
    assert not (tmp_path / "run").exists()
    train_head(store, tmp_path / "run", head="mean-linear", fit=FitOptions(epochs=1))
    assert not leftovers(tmp_path)


def test_compare_heads(store: Path, tmp_path: Path) -> None:
    # Of the first fold, mean-linear is trained before the other one waits.
    quick = ("--seeds", "1", "--folds", "2", "--jobs", "1", "--epochs", "1", "--json")
    heads = ("--heads", "mean-linear,waits")
    arguments = ("compare-heads", store, "--out", "compared", *heads, *quick)
    command = Command(tmp_path, *arguments)
    command.wait_for_head()
    assert leftovers(tmp_path), "workers share the embeddings through files"
    code, stderr, helpers = command.end_by(signal.SIGTERM)
    assert code == 143, stderr
    assert stderr.splitlines() == [
        "Error: Interrupted: 1 of 4 trials are finished.",
        "Hint: run the same command again to go on",
    ]
    assert len(helpers) == 1
    assert not any(map(is_alive, helpers))
    assert not leftovers(tmp_path)

    command = Command(tmp_path, *arguments)
    command.wait_for_head()
    code, _, helpers = command.end_by(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert leftovers(tmp_path)
    (tmp_path / "go").touch()
    # A worker whose parent is gone ends after the trial that it is at.
    deadline = time.monotonic() + 100
    while any(map(is_alive, helpers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(is_alive, helpers))

    stdout, stderr = Command(tmp_path, *arguments).process.communicate()
    report = json.loads(stdout)
    assert stderr == ""
    assert report["n_trials"] == 4
    assert report["n_reused"] >= 1
    assert not leftovers(tmp_path)
