"""TensorBoard logs: what TensorBoard's own reader finds in them is what the run says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import RunCli
from stage2_helpers import make_clips, write_store

from pipeline.training.options import FitOptions
from pipeline.training.train import train_head


@pytest.fixture(scope="module")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    store = write_store(folder / "s.h5", make_clips())
    train_head(
        store, folder / "run", head="mean-linear", fit=FitOptions(epochs=5), tensorboard=True
    )
    return folder / "run"


def read_events(folder: Path) -> Any:
    from tensorboard.backend.event_processing import event_accumulator

    everything = {event_accumulator.SCALARS: 0, event_accumulator.IMAGES: 0}
    events = event_accumulator.EventAccumulator(str(folder), size_guidance=everything)
    events.Reload()
    return events


@pytest.mark.parametrize(("part", "prefix"), [("train", ""), ("validation", "val_")])
def test_epochs_read_back(run_path: Path, part: str, prefix: str) -> None:
    epochs = json.loads((run_path / "history.json").read_text())["epochs"]
    events = read_events(run_path / "tensorboard" / part)
    assert set(events.Tags()["scalars"]) == {"loss", "accuracy"}
    for name in ("loss", "accuracy"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        wanted = [(epoch["epoch"], pytest.approx(epoch[prefix + name])) for epoch in epochs]
        assert found == wanted


def test_scores_and_pictures_read_back(run_path: Path) -> None:
    scores = json.loads((run_path / "report.json").read_text())
    best = json.loads((run_path / "history.json").read_text())["best_epoch"]
    events = read_events(run_path / "tensorboard" / "test")
    found = {name: events.Scalars(name)[0] for name in events.Tags()["scalars"]}
    assert {event.step for event in found.values()} == {best}
    assert found["accuracy"].value == pytest.approx(scores["accuracy"]["mean"])
    assert found["accuracy_low"].value == pytest.approx(scores["accuracy"]["low"])
    assert found["accuracy_top2"].value == pytest.approx(scores["topk"]["top2"])
    for name in ("balanced_accuracy", "macro_f1", "calibration_error", "majority_accuracy"):
        assert found[name].value == pytest.approx(scores[name])
    for name in ("curves", "confusion", "reliability"):
        [image] = events.Images(name)
        assert image.encoded_image_string == (run_path / f"{name}.png").read_bytes()
        assert image.width > image.height > 0 or name != "curves"


def test_logs_are_written_on_request_also_later(run_cli: RunCli, tmp_path: Path) -> None:
    store = write_store(tmp_path / "s.h5", make_clips())
    command = ("train-head", store, "--out", tmp_path / "run", "--head", "mean-linear")
    assert run_cli(*command, "--epochs", "2").exit_code == 0
    assert not (tmp_path / "run" / "tensorboard").exists()
    result = run_cli(*command, "--epochs", "2", "--tensorboard")
    assert result.exit_code == 0, result.output
    assert "nothing was done" in result.stdout
    assert read_events(tmp_path / "run" / "tensorboard" / "train").Scalars("loss")


def test_logs_need_no_tensorboard_package(run_path: Path, tmp_path: Path) -> None:
    shutil.copytree(run_path, tmp_path / "run", ignore=shutil.ignore_patterns("tensorboard"))
    code = """
import sys
sys.modules["tensorboard"] = None  # as if it were not installed
from pathlib import Path
from pipeline.report.tensorboard import write_tensorboard
write_tensorboard(Path(sys.argv[1]))
"""
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("train", "validation", "test"):
        [written] = (tmp_path / "run" / "tensorboard" / part).iterdir()
        assert written.read_bytes() == (run_path / "tensorboard" / part / written.name).read_bytes()
