"""File names are data: odd ones survive every command, unchanged and harmless."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY_OPTIONS, RunCli, noisy_frames, parse_json, write_video

from features import open_store

STEMS = [
    "quote'and\"double",
    "new\nline",
    "percent%02d%s",
    "dots..in..it",
    "<b>html & co",
    "tab\tand,comma;",
    "$(touch pwned) `id`",
    "=1+1",
    os.fsdecode(b"caf\xe9"),
    "ключ-クリップ",
    "\x1b[31mred",
    " space ",
]


@pytest.fixture
def odd_videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for number, stem in enumerate(STEMS):
        for label in ("a\nb", os.fsdecode(b"\xff")):
            path = write_video(tmp_path / "plain.avi", noisy_frames(6, seed=number))
            (root / label).mkdir(parents=True, exist_ok=True)
            path.rename(root / label / f"{stem}.avi")
    return root


def test_odd_names_survive_every_command(
    run_cli: RunCli, odd_videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    store, run = tmp_path / "s.h5", tmp_path / "run"
    quick = ("--epochs", "2", "--units", "4")
    result = run_cli(
        "extract-features",
        odd_videos,
        "--out",
        store,
        "--weights",
        tiny_weights,
        *TINY_OPTIONS,
        "--frames",
        "4",
    )
    assert result.exit_code == 0, result.output
    wanted = {f"{label}/{stem}.avi" for label in ("a\nb", "\udcff") for stem in STEMS}
    assert {clip.clip_id for clip in open_store(store).clips} == wanted
    assert run_cli("inspect", store, "--verify").exit_code == 0
    assert set(parse_json(run_cli("inspect", store, "--json"))["labels"]) == {"a\nb", "\udcff"}

    assert run_cli("train-head", store, "--out", run, *quick).exit_code == 0
    with (run / "predictions.csv").open(errors="surrogateescape", newline="") as file:
        tested = {row["clip_id"] for row in csv.DictReader(file)}
    assert tested
    assert tested <= wanted
    result = run_cli(
        "compare-heads",
        store,
        "--out",
        tmp_path / "c",
        "--heads",
        "mean-linear",
        "--seeds",
        "1",
        "--folds",
        "2",
        "--jobs",
        "1",
        *quick,
    )
    assert result.exit_code == 0, result.output

    for suffix in ("npz", "csv", "parquet"):
        out = tmp_path / f"e.{suffix}"
        result = run_cli("export-embeddings", store, "--out", out, "--level", "clip")
        assert result.exit_code == 0, result.output
    with (tmp_path / "e.csv").open(errors="surrogateescape", newline="") as file:
        assert {row["clip_id"] for row in csv.DictReader(file)} == wanted
    with np.load(tmp_path / "e.npz", allow_pickle=False) as arrays:
        assert len(arrays["clip_id"]) == len(wanted)
    result = run_cli("export-embeddings", store, "--out", tmp_path / "projector")
    assert result.exit_code == 0
    lines = (tmp_path / "projector" / "metadata.tsv").read_bytes().splitlines()
    assert len(lines) == 1 + 4 * len(wanted)

    result = run_cli("predict", run, odd_videos, "--json")
    assert result.exit_code == 0
    paths = {item["path"] for item in parse_json(result)["predictions"]}
    assert paths == {str(odd_videos / clip_id) for clip_id in wanted}
    text = run_cli("predict", run, odd_videos).stdout
    assert "\x1b" not in text
    assert len(text.splitlines()) == 1 + len(wanted)
