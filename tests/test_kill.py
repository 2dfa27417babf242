"""SIGKILL at random moments: nothing committed is lost, and the same command finishes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import noisy_frames, write_video

from features.errors import StoreNotFound
from features.store.store import find_damage, open_store, parts_folder, read_embeddings

ROOT = Path(__file__).resolve().parent.parent

# Commits after every clip, so that kills fall into commits and merges as well.
SCRIPT = """
import sys
import features.extract
from features.video.sampling import choose_sampling
features.extract._COMMIT_SECONDS = 0.0
videos, out, weights = sys.argv[1:]
features.extract.extract_features(
    videos, out, weights=weights, alpha=0.35, size_px=32, n_workers=1,
    sampling=choose_sampling(n_frames=6), engine="litert",
)
"""


@pytest.fixture(scope="module")
def many_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for number in range(40):
        write_video(root / "jump" / f"{number:02d}.avi", noisy_frames(10, seed=number))
    return root


def start(videos: Path, out: Path, weights: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(videos), str(out), str(weights)],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )


def kill_and_resume(
    videos: Path, folder: Path, weights: Path, undisturbed: Path, *, n_kills: int, seed: int
) -> set[str]:
    """Kill at random moments until one run gets through; returns the states seen."""
    chance = random.Random(seed)
    out = folder / "s.h5"
    committed: set[str] = set()
    states = set()
    for _ in range(n_kills):
        process = start(videos, out, weights)
        time.sleep(chance.uniform(0.05, 1.6))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        try:
            store = open_store(out, allow_unfinished=True)
        except StoreNotFound:
            states.add("nothing yet")
            assert not committed
            continue
        ids = {clip.clip_id for clip in store.clips}
        assert committed <= ids, "a committed clip was lost"
        assert find_damage(store) == ()
        states.add("finished" if not store.n_parts else "unfinished")
        committed = ids
        if chance.random() < 0.3 and not store.n_parts:
            out.unlink()  # start over, so that later kills meet early stages again
            committed = set()
    assert start(videos, out, weights).wait() == 0
    store, reference = open_store(out), open_store(undisturbed)
    assert store.clips == reference.clips
    np.testing.assert_array_equal(
        read_embeddings(store).vectors, read_embeddings(reference).vectors
    )
    assert not parts_folder(out).exists()
    assert not list(folder.rglob("*.partial")), "left by a killed writer, cleared by the next"
    return states


def undisturbed_store(videos: Path, folder: Path, weights: Path) -> Path:
    out = folder / "undisturbed.h5"
    assert start(videos, out, weights).wait() == 0
    return out


def test_killed_at_random_moments(many_clips: Path, tmp_path: Path, tiny_weights: Path) -> None:
    reference = undisturbed_store(many_clips, tmp_path, tiny_weights)
    folder = tmp_path / "killed"
    folder.mkdir()
    states = kill_and_resume(many_clips, folder, tiny_weights, reference, n_kills=12, seed=1)
    assert "unfinished" in states, "no kill fell into the extraction: the test shows nothing"


@pytest.mark.soak
def test_killed_at_two_hundred_moments(
    many_clips: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    reference = undisturbed_store(many_clips, tmp_path, tiny_weights)
    for seed in range(20):
        folder = tmp_path / f"killed{seed}"
        folder.mkdir()
        kill_and_resume(many_clips, folder, tiny_weights, reference, n_kills=10, seed=seed)
