"""SIGKILL in the middle of extractions: nothing committed is lost, and the same command finishes.

Commits and merges alone, killed much more often, are in test_store.py.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import noisy_frames, write_video

from features.errors import StoreNotFound
from features.store.store import Store, find_damage, open_store, parts_folder, read_embeddings

ROOT = Path(__file__).resolve().parent.parent
N_CLIPS = 24

# Slowed down, so that there are several commits, which lie at least two seconds apart.
SCRIPT = """
import sys, time
from features.backbone.weights import BackboneOptions
from features.embed import EmbedOptions
from features.extract import extract_features
from features.records import FrameSampling
videos, out, pace = sys.argv[1:]
extract_features(
    videos, out, backbone=BackboneOptions("builtin"),
    sampling=FrameSampling("uniform", 6), embedding=EmbedOptions("litert", 1),
    on_progress=lambda progress: time.sleep(float(pace)),
)
"""


class Extraction:
    """One folder of videos that is extracted into one store, again and again."""

    def __init__(self, videos: Path, out: Path) -> None:
        self.out = out
        self._words = [str(videos), str(out)]
        self._committed: set[str] = set()

    def start(self, *, pace: float) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *self._words, str(pace)],
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )

    def finish(self) -> None:
        assert self.start(pace=0).wait() == 0

    def kill_when(self, is_time: Callable[[], bool]) -> None:
        process = self.start(pace=0.3)
        while not is_time() and process.poll() is None:
            time.sleep(0.005)
        process.kill()
        process.wait()

    def n_parts(self) -> int:
        return len(list(parts_folder(self.out).glob("part-*.h5")))

    def check_commits(self) -> str:
        """Check that the store opens and has lost nothing; returns the state that it is in."""
        try:
            store = open_store(self.out, allow_unfinished=True)
        except StoreNotFound:
            assert not self._committed
            return "nothing yet"
        ids = {clip.clip_id for clip in store.clips}
        assert self._committed <= ids, "a committed clip was lost"
        assert find_damage(store) == ()
        self._committed = ids
        return "unfinished" if store.n_parts else "finished"

    def start_over(self) -> None:
        self.out.unlink()
        self._committed = set()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for number in range(N_CLIPS):
        write_video(root / "jump" / f"{number:02d}.avi", noisy_frames(10, seed=number))
    return root


def undisturbed_store(videos: Path, folder: Path) -> Store:
    folder.mkdir()
    Extraction(videos, folder / "s.h5").finish()
    return open_store(folder / "s.h5")


def check_end(extraction: Extraction, expected: Store, cache_home: Path) -> None:
    """Check that the same command finishes, with the same content, and leaves nothing else."""
    extraction.finish()
    store = open_store(extraction.out)
    assert store.clips == expected.clips
    assert len(store.clips) == N_CLIPS
    np.testing.assert_array_equal(read_embeddings(store).vectors, read_embeddings(expected).vectors)
    out = extraction.out
    assert {item.name for item in out.parent.iterdir()} == {out.name, f".{out.name}.lock"}
    assert not list(cache_home.rglob("*.partial*"))


def test_killed_after_commits_and_before(videos: Path, tmp_path: Path, cache_home: Path) -> None:
    expected = undisturbed_store(videos, tmp_path / "undisturbed")
    (tmp_path / "killed").mkdir()
    extraction = Extraction(videos, tmp_path / "killed" / "s.h5")
    # The first part of an extraction is empty: it says that one has begun.
    for n_parts in (1, 3, 4):
        extraction.kill_when(lambda n=n_parts: extraction.n_parts() >= n)  # type: ignore[misc]
        assert extraction.check_commits() == "unfinished"
    check_end(extraction, expected, cache_home)


@pytest.mark.soak
def test_killed_at_two_hundred_moments(videos: Path, tmp_path: Path, cache_home: Path) -> None:
    expected = undisturbed_store(videos, tmp_path / "undisturbed")
    states = set()
    for seed in range(20):
        chance = random.Random(seed)
        (tmp_path / str(seed)).mkdir()
        extraction = Extraction(videos, tmp_path / str(seed) / "s.h5")
        for _ in range(10):
            moment = time.monotonic() + chance.uniform(0.05, 6)
            extraction.kill_when(lambda moment=moment: time.monotonic() > moment)  # type: ignore[misc]
            state = extraction.check_commits()
            states.add(state)
            if state == "finished" and chance.random() < 0.3:
                extraction.start_over()  # so that later kills meet early stages again
        check_end(extraction, expected, cache_home)
    assert states == {"nothing yet", "unfinished", "finished"}
