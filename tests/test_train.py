"""train-head's library function: a run holds everything, and doing it again is free."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stage2_helpers import make_clip, make_clips, write_store

from features import open_store
from features.errors import (
    HeadUnknown,
    OptionInvalid,
    OutputExists,
    OutputUnwritable,
    RunDamaged,
    RunNotFound,
    SplitImpossible,
    SplitLeaks,
    StoreNotFound,
)
from features.system.files import staged_file, staged_folder
from pipeline import (
    FitOptions,
    SplitOptions,
    load_model,
    read_run,
    read_split,
    train_head,
)
from pipeline.data.sequences import load_sequences
from pipeline.heads.model import predict_probabilities
from pipeline.runs.run import read_predictions

QUICK: dict[str, Any] = {
    "head": "mean-linear",
    "fit": FitOptions(epochs=8, learning_rate=0.02),
}
ONE_EPOCH: dict[str, Any] = {"head": "mean-linear", "fit": FitOptions(epochs=1)}


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    clips = [*make_clips(n_groups=8), make_clip("walk/odd\udcff.avi", "walk", "walk_odd")]
    failed = [make_clip("dive/broken.avi", "dive", "dive_g01")]
    return write_store(tmp_path_factory.mktemp("store") / "s.h5", clips, failed=failed)


@pytest.fixture(scope="module")
def run_path(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    train_head(store_path, path, **QUICK)
    return path


def test_run_holds_everything(run_path: Path, store_path: Path) -> None:
    names = {path.name for path in run_path.iterdir()}
    assert names == {
        "model.keras",
        "run.json",
        "history.json",
        "history.csv",
        "calibration.json",
        "predictions.csv",
        "report.json",
        "split.json",
        "curves.png",
        "confusion.png",
        "reliability.png",
        "report.html",
    }
    run = read_run(run_path)
    store = open_store(store_path)
    assert run.classes == ("dive", "jump", "walk")
    assert run.header == store.header
    assert run.fingerprint == store.header.fingerprint
    assert run.split == read_split(run_path / "split.json")
    content = json.loads((run_path / "run.json").read_text())
    assert content["schema"] == 1
    assert content["store"]["path"] == str(store_path.resolve())
    assert {"python", "keras", "numpy", "backend"} <= content["versions"].keys()
    assert content["settings"]["seed"] == 0
    summary = run.summary
    assert summary.n_train + summary.n_val + summary.n_test == 49
    assert (summary.n_failed, summary.n_excluded, summary.leaks) == (1, 0, False)
    assert summary.accuracy >= 0.9
    assert summary.low < summary.accuracy <= summary.high


def test_predictions_are_those_of_the_saved_model(run_path: Path, store_path: Path) -> None:
    run = read_run(run_path)
    test = load_sequences(open_store(store_path), run.split.test, run.classes)
    probabilities = predict_probabilities(load_model(run), test)
    rows = read_predictions(run)
    assert tuple(row["clip_id"] for row in rows) == run.split.test
    kept = [[float(row[f"probability:{label}"]) for label in run.classes] for row in rows]
    np.testing.assert_allclose(kept, probabilities, atol=1e-5)
    right = [row["label"] == row["predicted"] for row in rows]
    assert run.summary.accuracy == pytest.approx(np.mean(right))
    report = json.loads((run_path / "report.json").read_text())
    assert sum(score["support"] for score in report["classes"]) == len(rows)


def test_history_has_every_epoch(run_path: Path) -> None:
    history = json.loads((run_path / "history.json").read_text())
    with (run_path / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(history["epochs"]) == read_run(run_path).summary.epochs_run
    assert float(rows[-1]["val_loss"]) == history["epochs"][-1]["val_loss"]


def test_model_is_saved_without_its_optimizer(run_path: Path) -> None:
    with zipfile.ZipFile(run_path / "model.keras") as archive:
        assert not json.loads(archive.read("config.json")).get("compile_config")


def test_same_again_is_free_and_other_settings_are_refused(
    run_path: Path, store_path: Path
) -> None:
    before = (run_path / "model.keras").stat().st_mtime_ns
    calls: list[object] = []
    again = train_head(store_path, run_path, **QUICK, on_epoch=calls.append)
    assert not calls
    assert (run_path / "model.keras").stat().st_mtime_ns == before
    assert again == replace(read_run(run_path).summary, path=str(run_path))
    assert not again.is_new
    with pytest.raises(OutputExists, match="seed: 0, asked 1.*--overwrite"):
        train_head(store_path, run_path, **QUICK, seed=1)


def test_same_seed_gives_the_same_run_and_overwrite_replaces_it(
    run_path: Path, store_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "run"
    train_head(store_path, path, **ONE_EPOCH)
    (path / "note.txt").write_text("of the old run")
    train_head(store_path, path, **QUICK, overwrite=True)
    assert (path / "predictions.csv").read_bytes() == (run_path / "predictions.csv").read_bytes()
    assert not (path / "note.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_run_that_was_being_replaced_comes_back(
    run_path: Path, store_path: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(run_path, tmp_path / "run"))
    # Killed when the old run was moved away, and the new one not yet in its place.
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from features.system.files import staged_folder\n"
        "renamed = []\n"
        "def watch(event, arguments):\n"
        "    if event == 'os.rename':\n"
        "        renamed.append(event)\n"
        "        if len(renamed) == 2:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(watch)\n"
        "with staged_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'run.json').write_text('of the new run')\n"
    )
    root = Path(__file__).resolve().parent.parent
    killed = subprocess.run([sys.executable, "-c", script, str(run)], cwd=root)
    assert killed.returncode == -signal.SIGKILL
    assert not run.exists()
    assert not train_head(store_path, run, **QUICK).is_new
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_changed_embeddings_are_other_settings(
    run_path: Path, store_path: Path, tmp_path: Path
) -> None:
    clips = [*make_clips(n_groups=8), make_clip("walk/odd\udcff.avi", "walk", "walk_odd")]
    other = write_store(tmp_path / "s.h5", clips, seed=1)
    with pytest.raises(OutputExists, match="other clips, labels or groups"):
        train_head(other, run_path, **QUICK)


def test_foreign_folders_are_never_deleted(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(OutputExists, match="is left alone"):
            train_head(store_path, tmp_path, **QUICK, overwrite=overwrite)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_folder_that_holds_the_store_is_never_replaced(store_path: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    store = run / "s.h5"
    store.write_bytes(store_path.read_bytes())
    with pytest.raises(OutputExists, match="made of.*left alone even"):
        train_head(store, run, **QUICK, overwrite=True)
    assert store.exists()


def test_unwritable_place_is_found_before_training(store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    calls: list[object] = []
    with pytest.raises(OutputUnwritable, match="must be writable"):
        train_head(store_path, tmp_path / "file" / "run", **QUICK, on_epoch=calls.append)
    assert not calls


def test_failure_leaves_nothing_behind(store_path: Path, tmp_path: Path) -> None:
    def stop(report: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_head(store_path, tmp_path / "run", **QUICK, on_epoch=stop)
    assert list(tmp_path.iterdir()) == []


def test_error_in_training_is_not_called_an_unwritable_output(
    store_path: Path, tmp_path: Path
) -> None:
    def fail(report: object) -> None:
        raise OSError("of the caller")

    with pytest.raises(OSError, match="of the caller") as caught:
        train_head(store_path, tmp_path / "run", **QUICK, on_epoch=fail)
    assert type(caught.value) is OSError
    assert list(tmp_path.iterdir()) == []


def test_run_that_another_process_finished_meanwhile_is_kept(
    store_path: Path, tmp_path: Path
) -> None:
    started: list[object] = []

    def other_run(report: object) -> None:
        if not started:
            started.append(report)
            train_head(store_path, tmp_path / "run", **QUICK, seed=1)

    with pytest.raises(OutputExists, match="other settings"):
        train_head(store_path, tmp_path / "run", **QUICK, on_epoch=other_run)
    assert read_run(tmp_path / "run").settings["seed"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_staged_folders_of_one_place_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "run"
    for name in ("run.partial", "run.old", "run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note.txt").write_text(f"mine, in {name}")
    with staged_folder(out) as first, staged_folder(out) as second:
        assert first != second
        (first / "a").write_text("first")
        (second / "a").write_text("second")
    # The inner one ends first, and is replaced like what stood there before.
    assert [path.name for path in out.iterdir()] == ["a"]
    assert (out / "a").read_text() == "first"
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.old", "run.partial"}
    for name in ("run.partial", "run.old"):
        assert (tmp_path / name / "note.txt").read_text() == f"mine, in {name}"
    (tmp_path / "plain").mkdir()
    assert out.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_folder_that_cannot_be_replaced_comes_back(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "note.txt").write_text("mine")
    with pytest.raises(OutputUnwritable), staged_folder(out) as folder:
        folder.rmdir()
    assert (out / "note.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_staged_file_replaces_or_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / ("long" * 50)
    with staged_file(out) as partial:
        partial.write_text("new")
    assert out.read_text() == "new"

    def write_half() -> None:
        with staged_file(out) as partial:
            partial.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert out.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "--seed must be from 0 to 4294967295. Received: -1"),
        ({"seed": 2**32}, "--seed must be"),
        ({"split": {"test_fraction": 1.5}}, "--test-fraction must lie between 0 and 1"),
        ({"split": {"val_fraction": 0.0}}, "--val-fraction must lie between 0 and 1"),
        ({"split": {"split": "s.json", "test_lists": "lists"}}, "--split and --test-lists exclude"),
        ({"split": {"fold": 2}}, "--fold 2 without --test-lists"),
        ({"split": {"split": "s.json", "fold": 1}}, "--fold 1 without --test-lists"),
        (
            {"split": {"split": "s.json", "test_fraction": 0.2}},
            "--test-fraction and --split exclude",
        ),
        (
            {"split": {"test_lists": "l", "test_fraction": 0.2}},
            "--test-fraction and --test-lists exclude",
        ),
    ],
)
def test_options_out_of_range_or_without_effect_are_refused(
    store_path: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    def train() -> None:
        split = SplitOptions(**options.get("split", {}))
        train_head(store_path, tmp_path / "run", **QUICK, split=split, seed=options.get("seed", 0))

    with pytest.raises(OptionInvalid, match=message):
        train()
    assert list(tmp_path.iterdir()) == []


def test_leaky_split_is_marked_everywhere(store_path: Path, tmp_path: Path) -> None:
    ids = [clip.clip_id for clip in open_store(store_path).clips if clip.status == "done"]
    split = {"train": ids[1:40:2] + ids[41:], "test": ids[:40:2]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    leaky = SplitOptions(split=tmp_path / "split.json")
    with pytest.raises(SplitLeaks, match="--allow-leaks"):
        train_head(store_path, tmp_path / "run", **QUICK, split=leaky)
    allowed = replace(leaky, allow_leaks=True)
    summary = train_head(store_path, tmp_path / "run", **QUICK, split=allowed)
    assert summary.leaks
    assert json.loads((tmp_path / "run" / "run.json").read_text())["leaks"]
    assert read_run(tmp_path / "run").split.leaks


def test_unknown_groups_are_admitted(tmp_path: Path) -> None:
    clips = [replace(clip, group="") for clip in make_clips(n_groups=4)]
    store = write_store(tmp_path / "s.h5", clips)
    summary = train_head(store, tmp_path / "run", **ONE_EPOCH)
    assert not summary.groups_known
    assert summary.group_doubts[0].startswith("Groups unknown: every clip counts as its own group")
    by_name = SplitOptions(group_regex=r"(v_\w+_g\d+)")
    known = train_head(store, tmp_path / "run2", **ONE_EPOCH, split=by_name)
    assert known.groups_known
    assert known.group_doubts == ()


def test_errors_come_before_any_work(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound):
        train_head(tmp_path / "none.h5", tmp_path / "run")
    with pytest.raises(HeadUnknown):
        train_head(store_path, tmp_path / "run", head="lstn")
    one = write_store(tmp_path / "one.h5", make_clips(classes=["dive"]))
    with pytest.raises(SplitImpossible, match="two classes"):
        train_head(one, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_missing_and_damaged_runs_are_named(run_path: Path, tmp_path: Path) -> None:
    with pytest.raises(RunNotFound, match="is not a folder"):
        read_run(tmp_path / "none")
    with pytest.raises(RunNotFound, match=r"has no run\.json"):
        read_run(tmp_path)
    text = (run_path / "run.json").read_text()
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunDamaged, match=r"model\.keras is missing"):
        read_run(tmp_path)
    (tmp_path / "model.keras").write_bytes(b"PK no")
    with pytest.raises(RunDamaged, match=r"loading model\.keras failed"):
        load_model(read_run(tmp_path))
    for spoilt in (
        text[:200],
        text.replace('"classes"', '"klasses"'),
        text.replace('"schema": 1', '"schema": 9'),
    ):
        (tmp_path / "run.json").write_text(spoilt)
        with pytest.raises(RunDamaged, match="--overwrite"):
            read_run(tmp_path)
