"""The built-in weights: in the package, found without a network, and of use on drawn clips."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.backbone.converted import convert_backbone, converted_path
from features.backbone.litert import LiteRTEngine
from features.backbone.model import build_backbone
from features.backbone.weights import (
    BUILTIN,
    BUILTIN_ALPHA,
    BUILTIN_SIZE_PX,
    BackboneOptions,
    builtin_path,
    find_backbone,
)
from features.clips.discover import FolderOptions
from features.errors import OptionInvalid
from features.extract import extract_features
from features.records import FrameArray
from features.store.store import open_store, read_clip
from features.video.frames import import_cv2, resize_frame
from pipeline.demo.drawing.sample import SampleSpec, draw_frames, list_clips, make_sample

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 2_000_000


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the built-in weights need no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("KERAS_HOME", "/nonexistent")


def drawn_frames(seed: int) -> FrameArray:
    cv2 = import_cv2()
    spec = SampleSpec(1, 1, ("wave", "squat"), 96, seed)
    frames = [frame for clip in list_clips(spec) for frame in draw_frames(clip, spec)[::9]]
    return np.stack(
        [cv2.cvtColor(resize_frame(frame, BUILTIN_SIZE_PX), cv2.COLOR_BGR2RGB) for frame in frames]
    )


def test_the_file_is_small_and_goes_into_the_wheel() -> None:
    assert 0 < builtin_path().stat().st_size < MOST_BYTES
    package_data = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert "builtin/*.h5" in package_data
    assert builtin_path().parent == ROOT / "features" / "backbone" / "builtin"


def test_it_brings_its_own_width_and_size() -> None:
    spec = find_backbone(BackboneOptions(BUILTIN)).spec
    assert (spec.alpha, spec.size_px, spec.weights) == (BUILTIN_ALPHA, BUILTIN_SIZE_PX, BUILTIN)
    assert len(spec.weights_sha256) == 64
    assert find_backbone(BackboneOptions(BUILTIN, BUILTIN_ALPHA, BUILTIN_SIZE_PX)).spec == spec


@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"size_px": 224}])
def test_another_width_or_size_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionInvalid, match="built-in weights are for alpha 0.35.*Hint: leave"):
        find_backbone(BackboneOptions(BUILTIN, **options))


def test_a_killed_conversion_leaves_nothing() -> None:
    backbone = find_backbone(BackboneOptions(BUILTIN))
    out = converted_path(backbone.spec)
    out.unlink(missing_ok=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    code = "from features.backbone.model import main; main()"
    words = [backbone.weights_path, out, BUILTIN_ALPHA, BUILTIN_SIZE_PX, "float32"]
    killed = subprocess.Popen([sys.executable, "-c", code, *map(str, words)], cwd=ROOT)
    while not list(out.parent.glob("*.partial")):
        time.sleep(0.01)
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    assert list(out.parent.glob(".*.partial")), "it was killed too late: the test shows nothing"
    assert convert_backbone(backbone.spec, backbone.weights_path) == out
    assert not list(out.parent.glob("*.partial*"))


def test_engines_agree_and_the_vectors_mean_something() -> None:
    backbone = find_backbone(BackboneOptions(BUILTIN))
    frames = drawn_frames(seed=1)
    model = build_backbone(builtin_path(), alpha=BUILTIN_ALPHA, size_px=BUILTIN_SIZE_PX)
    by_keras = np.asarray(model.predict_on_batch(frames), np.float64)
    by_litert = (
        LiteRTEngine(convert_backbone(backbone.spec, backbone.weights_path))
        .embed(frames)
        .astype(np.float64)
    )
    likeness = (by_keras * by_litert).sum(1) / (
        np.linalg.norm(by_keras, axis=1) * np.linalg.norm(by_litert, axis=1)
    )
    assert likeness.min() > 0.9999
    # Sound batch statistics: no dead and no saturated layer at the end.
    assert np.isfinite(by_keras).all()
    assert (by_keras.std(axis=0) > 0.01).mean() > 0.5
    assert 0.01 < by_keras.mean() < 3


def test_drawn_clips_are_extracted_and_told_apart(tmp_path: Path) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sample = make_sample(
        tmp_path / "clips", SampleSpec(8, 1, actions=("bow", "star-jump"), seed=77)
    )
    extract_features(
        sample.folder,
        tmp_path / "s.h5",
        folder=FolderOptions(labels=sample.csv_path),
        backbone=BackboneOptions(BUILTIN),
    )
    store = open_store(tmp_path / "s.h5")
    assert store.header.backbone == find_backbone(BackboneOptions(BUILTIN)).spec
    vectors = np.stack([read_clip(store, clip.clip_id).vectors.mean(0) for clip in store.clips])
    labels = np.array([clip.label for clip in store.clips])
    is_train = np.array([clip.group < "person06" for clip in store.clips])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    model.fit(vectors[is_train].astype(np.float32), labels[is_train])
    right = model.predict(vectors[~is_train].astype(np.float32)) == labels[~is_train]
    assert right.sum() >= 5, "of 6 clips of three unseen actors"
