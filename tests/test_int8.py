"""int8: the same file everywhere, vectors like float32's, and never mixed with them."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from conftest import RunCli, parse_json, write_video

from features.backbone.converted import convert_backbone, converted_path
from features.backbone.engines import choose_engine
from features.backbone.int8 import draw_pictures
from features.backbone.litert import LiteRTEngine
from features.backbone.weights import BUILTIN, BackboneFiles, BackboneOptions, find_backbone
from features.errors import OptionInvalid, StoreMismatch, WeightsMismatch
from features.extract import extract_features
from features.records import FrameArray
from features.store.store import open_store, read_clip
from features.system.machine import int8_instructions
from pipeline.doctor.doctor import check_precision
from pipeline.runs.predict import find_run_backbone
from pipeline.runs.run import Run

INT8 = BackboneOptions(BUILTIN, precision="int8")
# Of the built-in weights; so on processors with and without AVX-512 and VNNI.
SHA256 = "4d6ce5d7bf4e733461a6232f0eccf3b3001d0b6c65a16cadbccb765af35500ee"


def embed(backbone: BackboneFiles, frames: FrameArray) -> np.ndarray:
    engine = LiteRTEngine(convert_backbone(backbone.spec, backbone.weights_path))
    return engine.embed(frames).astype(np.float64)


def test_every_machine_quantises_to_the_same_file() -> None:
    assert find_backbone(INT8).spec.model_sha256 == SHA256


def test_vectors_are_like_those_of_float32() -> None:
    exact = find_backbone(replace(INT8, precision="float32"))
    frames = draw_pictures(20, exact.spec.size_px, seed=7)
    wanted, found = embed(exact, frames), embed(find_backbone(INT8), frames)
    lengths = np.linalg.norm(wanted, axis=1) * np.linalg.norm(found, axis=1)
    assert ((wanted * found).sum(axis=1) / lengths).min() > 0.97
    # Corrected biases: no dimension is shifted for all frames alike.
    is_alive = wanted.std(axis=0) > 0.01
    shift = np.abs((found - wanted).mean(axis=0))[is_alive]
    assert np.median(shift / wanted.std(axis=0)[is_alive]) < 0.2


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for number, label in enumerate(("jump", "walk") * 6):
        (folder / label).mkdir(exist_ok=True)
        frames = list(draw_pictures(4, 64, seed=number))
        write_video(folder / label / f"v_{label}_g{number // 2:02}_c01.avi", frames)
    return folder


def test_a_store_says_so_and_mixes_with_no_other(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.h5"
    first = extract_features(videos, out, backbone=INT8)
    store = open_store(out)
    assert store.header.backbone.precision == "int8"
    assert store.header.backbone.model_sha256 == SHA256
    assert read_clip(store, store.clips[0].clip_id).vectors.any()
    assert extract_features(videos, out, backbone=INT8).count("already") == 12
    with pytest.raises(StoreMismatch, match="backbone.precision: store int8, asked float32"):
        extract_features(videos, out, backbone=replace(INT8, precision="float32"))
    other = extract_features(videos, tmp_path / "f.h5", backbone=replace(INT8, precision="float32"))
    assert other.fingerprint != first.fingerprint
    assert "precision" not in open_store(tmp_path / "f.h5").header.to_json()


def test_another_network_than_the_store_was_made_with_is_refused(
    videos: Path, tmp_path: Path
) -> None:
    store = tmp_path / "s.h5"
    extract_features(videos, store, backbone=INT8)
    run = cast(Run, SimpleNamespace(path=tmp_path / "run", header=open_store(store).header))
    assert find_run_backbone(run).spec.model_sha256 == SHA256
    path = converted_path(find_backbone(INT8).spec)
    kept = path.read_bytes()
    path.write_bytes(kept + b"\0")
    try:
        with pytest.raises(
            WeightsMismatch, match=f"asks for sha256 {SHA256[:12]}.*delete '.*int8-"
        ):
            find_run_backbone(run)
        with pytest.raises(StoreMismatch, match="model_sha256.*Hint: delete the int8 file"):
            extract_features(videos, store, backbone=INT8)
    finally:
        path.write_bytes(kept)


@pytest.mark.soak
def test_a_run_predicts_as_its_store_was_made(
    videos: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    store, run = tmp_path / "s.h5", tmp_path / "run"
    options = ("--weights", BUILTIN, "--precision", "int8", "-q")
    assert run_cli("extract-features", videos, "--out", store, *options).exit_code == 0
    trained = run_cli("train-head", store, "--out", run, "--head", "mean-linear", "-q")
    assert trained.exit_code == 0, trained.stderr
    clip = videos / open_store(store).clips[0].clip_id
    before = parse_json(run_cli("predict", run, clip, "--json"))
    converted_path(find_backbone(INT8).spec).unlink()
    after = parse_json(run_cli("predict", run, clip, "--json"))
    assert after["predictions"] == before["predictions"]


def test_only_litert_runs_it() -> None:
    assert choose_engine("auto", "int8").name == "litert"
    with pytest.raises(OptionInvalid, match="int8 runs on LiteRT.*Hint: leave out --engine"):
        choose_engine("keras", "int8")


@pytest.mark.parametrize(
    ("flags", "found"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni fma", "int8 pays \\(avx512_vnni\\)"),
        ("flags\t\t: fpu avx2 fma", "float32: int8 does not pay"),
        ("Features\t: fp asimd asimddp", "int8 pays \\(asimddp\\)"),
        ("", "does not tell|does not pay"),
    ],
)
def test_the_doctor_says_whether_it_pays(flags: str, found: str, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{flags}\n", encoding="ascii")
    check = check_precision(int8_instructions(cpuinfo))
    assert check.status == "ok"
    assert re.search(found, check.found)


def test_where_instructions_are_not_told(tmp_path: Path) -> None:
    check = check_precision(int8_instructions(tmp_path / "none"))
    assert "dry-run" in check.found or sys.platform == "darwin"
