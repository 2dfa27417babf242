"""compare-heads: same splits for all, resumable, and honest about differences."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage2_helpers import make_clips, write_store

from features.errors import HeadUnknown, OptionInvalid, OutputExists, TrainingFailed
from pipeline.compare.compare import TrialProgress, compare_heads
from pipeline.compare.comparison import Comparison
from pipeline.compare.trials import Trial
from pipeline.compare.workers import choose_jobs, run_trials

QUICK: dict[str, Any] = {
    "heads": ("mean-linear", "mlp"),
    "seeds": 1,
    "folds": 2,
    "epochs": 4,
    "learning_rate": 0.02,
    "jobs": 1,
}
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("store") / "s.h5", make_clips(n_groups=5))


@pytest.fixture(scope="module")
def finished(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Run from a script without a main guard, in another folder that holds a trap."""
    out = tmp_path_factory.mktemp("compared")
    (out / "keras.py").write_text("raise RuntimeError('the working directory was imported')")
    script = out / "script.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pipeline.compare.compare import compare_heads\n"
        f"compare_heads({str(store_path)!r}, 'out', **{QUICK!r})\n"
    )
    subprocess.run([sys.executable, "-P", script.name], cwd=out, check=True, timeout=300)
    return compare_heads(store_path, out / "out", **QUICK)


def test_finished_comparison_is_not_repeated(finished: Comparison) -> None:
    assert (finished.n_trials, finished.n_reused) == (4, 4)


def test_outputs_agree(finished: Comparison) -> None:
    folder = Path(finished.path)
    content = json.loads((folder / "comparison.json").read_text())
    assert content["schema"] == 1
    names = [head["name"] for head in content["heads"]]
    assert names == [head.name for head in finished.heads]
    assert sorted(names) == ["mean-linear", "mlp"]
    means = [head["accuracy"]["mean"] for head in content["heads"]]
    assert means == sorted(means, reverse=True)
    for head in content["heads"]:
        assert head["accuracy"]["low"] <= head["accuracy"]["mean"] <= head["accuracy"]["high"]
        assert head["accuracy"]["n"] == 30
    assert [(pair["a"], pair["b"]) for pair in content["pairs"]] == [tuple(names)]
    assert content["pairs"][0]["low"] <= content["pairs"][0]["difference"]
    assert content["verdicts"] == list(finished.verdicts) != []
    assert content["majority_classes"] == list(finished.majority_classes)
    # Three classes with equally many clips: the guess is right for a third, more or less.
    assert content["majority_accuracy"] == pytest.approx(1 / 3, abs=0.15)
    assert len(content["splits"]) == 2
    with (folder / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for head in content["heads"]:
        mine = [row for row in rows if row["head"] == head["name"]]
        assert len({row["clip_id"] for row in mine}) == len(mine) == 30
        right = np.mean([row["label"] == row["predicted"] for row in mine])
        assert right == pytest.approx(head["accuracy"]["mean"])
    with (folder / "comparison.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == names
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")


def test_killed_comparison_repeats_only_what_is_missing(
    finished: Comparison, store_path: Path
) -> None:
    results = sorted((Path(finished.path) / "trials").glob("*.json"))
    assert len(results) == 4
    before = results[0].read_bytes()
    results[0].write_bytes(before[:50])  # as if the disk had been full
    seen: list[TrialProgress] = []
    again = compare_heads(store_path, finished.path, **QUICK, on_trial=seen.append)
    assert [(p.n_done, p.n_trials) for p in seen] == [(4, 4)]
    assert again.n_reused == 3
    assert [h.accuracy for h in again.heads] == [h.accuracy for h in finished.heads]


def test_other_settings_are_refused(finished: Comparison, store_path: Path) -> None:
    with pytest.raises(OutputExists, match=r"epochs: 4, asked 5.*--overwrite"):
        compare_heads(store_path, finished.path, **{**QUICK, "epochs": 5})


def test_foreign_folder_is_left_alone(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExists, match="is left alone"):
            compare_heads(store_path, tmp_path, **QUICK, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_options_are_checked_first(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadUnknown):
        compare_heads(store_path, tmp_path / "o", heads=["nope"])
    with pytest.raises(OptionInvalid, match="different heads"):
        compare_heads(store_path, tmp_path / "o", heads=["mlp", "mlp"])
    with pytest.raises(OptionInvalid, match="--seeds"):
        compare_heads(store_path, tmp_path / "o", seeds=0)
    refused: list[tuple[dict[str, Any], str]] = [
        ({"jobs": 0}, "--jobs must be at least 1"),
        ({"seed": -1}, "--seed must be"),
        ({"seed": 2**32 - 2}, "--seed must be from 0 to 4294967293 with --seeds 3"),
        ({"folds": 2, "split": "s.json"}, "--folds and --split exclude"),
        ({"folds": 2, "test_lists": "lists"}, "--folds and --test-lists exclude"),
        ({"fold": 2}, "without --test-lists"),
    ]
    for options, message in refused:
        with pytest.raises(OptionInvalid, match=message):
            compare_heads(store_path, tmp_path / "o", **options)
    assert not (tmp_path / "o").exists()
    with pytest.raises(OptionInvalid, match="--jobs"):
        choose_jobs(0, 5)
    assert choose_jobs(6, 2) == 2
    assert 1 <= choose_jobs(None, 100) <= 8


def test_worker_that_dies_is_reported(tmp_path: Path) -> None:
    trial = Trial("lstm", 0, 0, "k" * 64)
    with pytest.raises(TrainingFailed, match=r"lstm-seed0-fold0.*ended with 1: .*none\.json"):
        list(run_trials(tmp_path / "none.json", tmp_path, [trial], jobs=1))


def test_answer_that_is_none_ends_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talker = "import sys; sys.stdin.readline(); print('hello', flush=True); sys.stdin.read()"
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda command, **options: start([sys.executable, "-c", talker], **options),
    )
    trial = Trial("lstm", 0, 0, "k" * 64)
    with pytest.raises(TrainingFailed, match=r"lstm-seed0-fold0.*JSONDecodeError"):
        list(run_trials(tmp_path / "plan.json", tmp_path, [trial], jobs=1))


def test_no_worker_outlives_one_that_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def start_once(command: list[str], **options: Any) -> subprocess.Popen[str]:
        if started:
            raise OSError("no more processes")
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        started.append(start(sleeper, **options))
        return started[0]

    monkeypatch.setattr(subprocess, "Popen", start_once)
    trials = [Trial("lstm", seed, 0, "k" * 64) for seed in (0, 1)]
    with pytest.raises(TrainingFailed, match=r"no more processes.*--jobs"):
        list(run_trials(tmp_path / "plan.json", tmp_path, trials, jobs=2))
    assert started[0].returncode is not None


def test_interrupt_ends_threads_before_their_streams_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = 'import sys; sys.stdin.readline(); print(\'{"kind": "done"}\', flush=True); ' + (
        "import time; time.sleep(600)"
    )
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess,
        "Popen",
        lambda command, **options: start([sys.executable, "-c", once], **options),
    )
    faults: list[object] = []
    monkeypatch.setattr(threading, "excepthook", faults.append)
    trials = [Trial("lstm", seed, 0, "k" * 64) for seed in range(8)]
    running = run_trials(tmp_path / "plan.json", tmp_path, trials, jobs=2)
    next(running)
    with pytest.raises(KeyboardInterrupt):
        running.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert faults == []
    assert not [thread for thread in threading.enumerate() if "_drive" in thread.name]


def test_error_of_a_trial_keeps_its_kind(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionInvalid, match=r"pca:999 for embeddings of"):
        compare_heads(store_path, tmp_path / "out", **QUICK, reduce="pca:999")
    # Nothing is left of the sequences that the workers shared.
    assert [path.name for path in (tmp_path / "out").iterdir() if path.is_dir()] == ["trials"]
    assert not any((tmp_path / "out" / "trials").iterdir())
    assert (tmp_path / "out" / "settings.json").exists()


def test_the_stores_own_split_is_used_unless_folds_are_asked_for(tmp_path: Path) -> None:
    parts = {1: "test", 2: "val", 3: "train", 4: "train"}
    clips = [replace(clip, split=parts[int(clip.group[-2:])]) for clip in make_clips(n_groups=4)]
    store = write_store(tmp_path / "s.h5", clips)
    quick: dict[str, Any] = {"heads": ["mean-linear"], "seeds": 1, "epochs": 2, "jobs": 1}
    own = compare_heads(store, tmp_path / "own", **quick)
    assert (own.n_splits, own.n_clips) == (1, 6)
    folded = compare_heads(store, tmp_path / "folds", folds=2, **quick)
    assert (folded.n_splits, folded.n_clips) == (2, 24)
