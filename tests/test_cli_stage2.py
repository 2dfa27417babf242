"""train-head, compare-heads, export-embeddings and predict on the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_OPTIONS, RunCli, noisy_frames, parse_json, write_video
from stage2_helpers import make_clip, make_clips, make_header, write_store
from test_cli import error_of

from features import open_store, read_embeddings
from features.store.commit import commit_clips
from pipeline import FitOptions, HeadOptions, train_head
from pipeline.heads.registry import HEADS

QUICK = ("--epochs", "6", "--units", "8")
QUICK_HEAD = (*QUICK, "--head", "mlp")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return write_store(tmp_path / "s.h5", make_clips())


@pytest.mark.parametrize("command", ["train-head", "compare-heads"])
def test_help_names_the_heads_that_there_are(run_cli: RunCli, command: str) -> None:
    text = " ".join(run_cli(command, "--help").stdout.split())
    assert ", ".join(HEADS) in text


def test_train_head(run_cli: RunCli, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = run_cli("train-head", store, "--out", run, *QUICK_HEAD, "--json")
    assert result.exit_code == 0, result.output
    report = parse_json(result)
    for key in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert 0 <= report[key] <= 1
    assert report["low"] <= report["accuracy"] <= report["high"]
    assert report["n_test"] > 0
    assert report["is_new"] is True
    text = run_cli("train-head", store, "--out", run, *QUICK_HEAD).stdout
    assert "95 % interval" in text
    assert "Trained before with the same settings" in text

    fit, units = FitOptions(epochs=6), HeadOptions(units=8)
    library = train_head(store, tmp_path / "library", head="mlp", fit=fit, head_options=units)
    assert (library.accuracy, library.macro_f1) == (report["accuracy"], report["macro_f1"])
    assert (run / "predictions.csv").read_bytes() == (
        tmp_path / "library" / "predictions.csv"
    ).read_bytes()


def test_a_leaking_split_is_refused_or_marked(run_cli: RunCli, store: Path, tmp_path: Path) -> None:
    run_cli("train-head", store, "--out", tmp_path / "first", *QUICK_HEAD)
    split = json.loads((tmp_path / "first" / "split.json").read_text())
    split["train"], split["test"] = (
        [*split["train"][1:], split["test"][0]],
        [*split["test"][1:], split["train"][0]],
    )
    path = tmp_path / "leaky.json"
    path.write_text(json.dumps(split))
    arguments = ("train-head", store, "--out", tmp_path / "leaky", "--split", path, *QUICK_HEAD)
    assert "--allow-leaks" in error_of(run_cli(*arguments))
    result = run_cli(*arguments, "--allow-leaks")
    assert result.exit_code == 0
    assert "LEAKY accuracy" in result.stdout
    assert json.loads((tmp_path / "leaky" / "run.json").read_text())["leaks"] is True


def test_clips_that_a_split_file_names_and_the_store_lacks(run_cli: RunCli, tmp_path: Path) -> None:
    clips = make_clips()
    store = write_store(tmp_path / "s.h5", clips)
    made = run_cli("train-head", store, "--out", tmp_path / "first", *QUICK_HEAD)
    assert "left out" not in made.stdout
    path = tmp_path / "first" / "split.json"
    split = json.loads(path.read_text())
    gone = sorted([*split["val"], split["test"][0]])
    rest = write_store(tmp_path / "r.h5", [clip for clip in clips if clip.clip_id not in gone])
    out = tmp_path / "run"
    arguments = ("train-head", rest, "--out", out, "--split", path, *QUICK_HEAD)
    refusal = error_of(run_cli(*arguments))
    n_val, n_test = len(split["val"]), len(split["test"])
    assert f"{n_val} of its {n_val} val clips and 1 of its {n_test} test clips" in refusal
    assert "--allow-missing" in refusal
    result = run_cli(*arguments, "--allow-missing")
    assert result.exit_code == 0, result.output
    said = f"{len(gone)} clips of the split file without embeddings in the store, left out"
    assert f"{said} (split: {split['method']}; validation cut anew)" in result.stdout
    assert json.loads((out / "split.json").read_text())["missing"] == gone
    assert "validation cut anew" in (out / "report.html").read_text()
    assert parse_json(run_cli(*arguments, "--allow-missing", "--json"))["n_missing"] == len(gone)


def test_unknown_groups_are_said(run_cli: RunCli, tmp_path: Path) -> None:
    clips = [make_clip(f"{label}/{n}.avi", label) for label in ("hop", "sit") for n in range(8)]
    store = write_store(tmp_path / "s.h5", clips)
    result = run_cli("train-head", store, "--out", tmp_path / "run", *QUICK_HEAD)
    assert "Groups unknown: every clip counts as its own group" in result.stdout


def test_compare_heads(run_cli: RunCli, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    arguments = (
        "compare-heads",
        store,
        "--out",
        out,
        "--heads",
        "mean-linear,mlp",
        "--seeds",
        "1",
        "--folds",
        "2",
        "--jobs",
        "1",
        *QUICK,
    )
    result = run_cli(*arguments, "--json")
    assert result.exit_code == 0, result.output
    report = parse_json(result)
    assert {head["name"] for head in report["heads"]} == {"mean-linear", "mlp"}
    for head in report["heads"]:
        score = head["accuracy"]
        assert score["low"] <= score["mean"] <= score["high"]
    means = [head["accuracy"]["mean"] for head in report["heads"]]
    assert means == sorted(means, reverse=True)
    saved = json.loads((out / "comparison.json").read_text())
    assert saved["heads"] == report["heads"]
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [head["name"] for head in report["heads"]]
    again = run_cli(*arguments)
    assert "4 trials (4 from before)" in again.stdout
    assert "95 % interval" in again.stdout


@pytest.mark.parametrize("suffix", ["npz", "csv", "parquet"])
@pytest.mark.parametrize("level", ["frame", "clip"])
def test_export(run_cli: RunCli, store: Path, tmp_path: Path, suffix: str, level: str) -> None:
    out = tmp_path / f"e.{suffix}"
    result = run_cli("export-embeddings", store, "--out", out, "--level", level, "--json")
    assert result.exit_code == 0, result.output
    report = parse_json(result)
    assert report["format"] == suffix
    assert report["n_clips"] == 36
    assert report["n_rows"] >= 36
    assert out.stat().st_size > 0
    before = out.read_bytes()
    assert "--overwrite" in error_of(run_cli("export-embeddings", store, "--out", out))
    assert out.read_bytes() == before


def test_predict(
    run_cli: RunCli,
    video_folder: Path,
    tmp_path: Path,
    tiny_weights: Path,
) -> None:
    store, run = tmp_path / "s.h5", tmp_path / "run"
    run_cli(
        "extract-features",
        video_folder,
        "--out",
        store,
        "--weights",
        tiny_weights,
        *TINY_OPTIONS,
        "--frames",
        "6",
    )
    assert run_cli("train-head", store, "--out", run, *QUICK_HEAD).exit_code == 0
    result = run_cli("predict", run, video_folder, "--json")
    assert result.exit_code == 3
    report = parse_json(result)
    assert len(report["predictions"]) == 12
    for item in report["predictions"]:
        assert sum(item["probabilities"].values()) == pytest.approx(1, abs=1e-5)
        assert item["label"] == max(item["probabilities"], key=item["probabilities"].get)
    text = run_cli("predict", run, video_folder / "jump" / "v_jump_g01_c01.avi")
    assert text.exit_code == 0
    assert "v_jump_g01_c01.avi" in text.stdout
    short = write_video(tmp_path / "short.avi", noisy_frames(3, seed=1))
    assert "fewer frames than the 6 asked for" in run_cli("predict", run, short).stdout

    unknown = tmp_path / "odd" / "unknown.avi"
    write_video(unknown, noisy_frames(3, seed=1))
    unknown.write_bytes(unknown.read_bytes().replace(b"MJPG", b"ZZQ9"))
    options = ("--weights", tiny_weights, *TINY_OPTIONS)
    for arguments in (
        ("predict", run, unknown),
        ("extract-features", unknown.parent, "--out", tmp_path / "odd.h5", *options),
    ):
        failed = run_cli(*arguments)
        assert failed.exit_code == 3
        assert "no decoder for its codec: ZZQ9 / 0x39515A5A, 64x48; convert it" in failed.stdout
        assert "ffmpeg -i IN -c:v libx264 -pix_fmt yuv420p OUT.mp4" in failed.stdout

    assert "OpenCV" not in text.stderr
    content = json.loads((run / "run.json").read_text())
    assert content["store"]["header"].pop("decoder") == "pyav"
    (run / "run.json").write_text(json.dumps(content))
    before = run_cli("predict", run, video_folder / "jump" / "v_jump_g01_c01.avi")
    assert before.exit_code == 0
    assert "frames that OpenCV (before PyAV) decoded; PyAV decodes now" in before.stderr
    assert before.stdout == text.stdout

    assert "does not exist" in error_of(run_cli("predict", run, tmp_path / "none.avi"))
    assert "A run must be" in error_of(run_cli("predict", tmp_path / "norun", video_folder))
    other = tmp_path / "other.weights.h5"
    other.write_bytes(tiny_weights.read_bytes() + b"\0")
    message = error_of(run_cli("predict", run, video_folder, "--weights", other))
    assert "predicts with the weights that its embeddings were made with" in message
    (run / "model.keras").write_bytes(b"")
    message = error_of(run_cli("predict", run, video_folder / "jump"))
    assert "A run must be whole" in message


def test_bad_input_of_stage_two(run_cli: RunCli, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    missing = tmp_path / "none.h5"
    for command in ("train-head", "compare-heads"):
        assert "does not exist" in error_of(run_cli(command, missing, "--out", out))
    result = run_cli("export-embeddings", missing, "--out", tmp_path / "e.npz")
    assert "does not exist" in error_of(result)

    result = run_cli("train-head", store, "--out", out, "--head", "lstmm")
    assert "did you mean 'lstm'?" in error_of(result, exit_code=2)
    result = run_cli("compare-heads", store, "--out", out, "--folds", "9")
    assert "--folds" in error_of(result)
    one_class = write_store(tmp_path / "one.h5", make_clips(classes=("walk",)))
    assert "class" in error_of(run_cli("train-head", one_class, "--out", out))
    result = run_cli("train-head", store, "--out", "/proc/none/run", *QUICK_HEAD)
    assert "writable" in error_of(result)
    result = run_cli("train-head", store, "--out", out, "--test-lists", tmp_path / "nolists")
    assert "nolists" in error_of(result)
    assert not out.exists(), "a command that fails leaves nothing behind"


def test_a_head_of_other_embeddings_is_refused(
    run_cli: RunCli, store: Path, tmp_path: Path
) -> None:
    run_cli("train-head", store, "--out", tmp_path / "run", *QUICK_HEAD)
    other = write_store(
        tmp_path / "o.h5", make_clips(), header=make_header(weights_sha256="1" * 64)
    )
    result = run_cli(
        "export-embeddings", other, "--out", tmp_path / "e.npz", "--head", tmp_path / "run"
    )
    assert "backbone.weights_sha256" in error_of(result)


def test_an_unfinished_store_is_not_trained_on(
    run_cli: RunCli, store: Path, tmp_path: Path
) -> None:
    commit_clips(store, make_header(), [], {"started": "x"})
    message = error_of(run_cli("train-head", store, "--out", tmp_path / "run"))
    assert "must be finished before it is used" in message


def test_a_run_of_another_setting_is_kept(run_cli: RunCli, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run_cli("train-head", store, "--out", run, *QUICK_HEAD)
    before = (run / "run.json").read_bytes()
    message = error_of(run_cli("train-head", store, "--out", run, *QUICK_HEAD, "--seed", "5"))
    assert "seed: 0, asked 5" in message
    assert (run / "run.json").read_bytes() == before
    result = run_cli("train-head", store, "--out", run, *QUICK_HEAD, "--seed", "5", "--overwrite")
    assert result.exit_code == 0
    assert not [path for path in tmp_path.iterdir() if "partial" in path.name]


def test_exported_numbers_are_the_stored_ones(run_cli: RunCli, store: Path, tmp_path: Path) -> None:
    run_cli("export-embeddings", store, "--out", tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        vectors = next(arrays[name] for name in arrays.files if arrays[name].ndim == 2)
    np.testing.assert_array_equal(vectors, read_embeddings(open_store(store)).vectors)
