"""The whole path on real clips and real weights; skipped where they are absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import ODD, OFFICIAL_LISTS, UCF_MINI, WEIGHTS_FULL, RunCli, parse_json

from features import open_store, read_clip
from features.backbone.weights import imagenet_path
from features.records import FrameSampling, VectorArray, VideoFacts
from features.video.decode import read_frames
from features.video.frames import FrameBatch, resize_frame

pytestmark = pytest.mark.usefixtures("material")


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store of the real clips for all tests of this file; they do not change it."""
    return tmp_path_factory.mktemp("real") / "ucf.h5"


@pytest.fixture
def ucf_store(run_cli: RunCli, material: Path, shared_store: Path) -> Path:
    result = run_cli("extract-features", UCF_MINI, "--out", shared_store, "--alpha", "0.35")
    assert result.exit_code == 0, result.output
    return shared_store


def test_vectors_equal_keras_applications_on_the_same_frames(ucf_store: Path) -> None:
    import keras

    store = open_store(ucf_store)
    network = keras.applications.MobileNetV2(
        input_shape=(224, 224, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    network.load_weights(imagenet_path(0.35, 224))  # Keras reads KERAS_HOME only once
    for clip in store.clips[::16]:
        batches = read_frames(UCF_MINI / clip.clip_id, FrameSampling("uniform", 20), size_px=224)
        frames = np.concatenate([b.frames for b in batches if isinstance(b, FrameBatch)])
        scaled = keras.applications.mobilenet_v2.preprocess_input(frames.astype(np.float32))
        reference = network.predict(scaled, verbose=0)
        stored = read_clip(store, clip.clip_id).vectors.astype(np.float32)
        assert cosines(stored, reference).min() > 0.9999
        swapped = network.predict(scaled[..., ::-1], verbose=0)
        assert cosines(stored, swapped).mean() < 0.99, "RGB and BGR must differ"


def cosines(one: VectorArray, other: VectorArray) -> VectorArray:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / norms)


@pytest.mark.parametrize("head", ["mean-linear", "lstm"])
def test_official_split_reaches_ninety_percent(
    run_cli: RunCli, ucf_store: Path, tmp_path: Path, head: str
) -> None:
    run = tmp_path / "run"
    result = run_cli(
        "train-head",
        ucf_store,
        "--out",
        run,
        "--head",
        head,
        "--test-lists",
        OFFICIAL_LISTS,
        "--fold",
        "1",
        "--json",
    )
    assert result.exit_code == 0, result.output
    report = parse_json(result)
    assert report["n_test"] == 24
    assert report["n_train"] + report["n_val"] == 56
    assert report["accuracy"] >= 0.9
    assert report["balanced_accuracy"] >= 0.9
    assert report["macro_f1"] >= 0.9
    split = json.loads((run / "run.json").read_text())["split"]
    assert {name.split("_")[2] for name in split["test"]} == {"g01", "g02", "g03"}
    for name in ("model.keras", "history.csv", "predictions.csv", "report.json"):
        assert (run / name).stat().st_size > 0
    for name in ("curves.png", "confusion.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")


def test_predicting_needs_neither_store_nor_place(
    run_cli: RunCli, ucf_store: Path, tmp_path: Path
) -> None:
    """A run whose store is gone still predicts, and equals what training saw."""
    store = Path(shutil.copy(ucf_store, tmp_path / "ucf.h5"))
    run_cli(
        "train-head",
        store,
        "--out",
        tmp_path / "run",
        "--head",
        "mean-linear",
        "--test-lists",
        OFFICIAL_LISTS,
    )
    store.unlink()
    (tmp_path / "run").rename(tmp_path / "moved")
    lines = (tmp_path / "moved" / "predictions.csv").read_text().splitlines()
    wanted = dict(zip(lines[0].split(","), lines[1].split(","), strict=True))
    clip = UCF_MINI / wanted["clip_id"]
    result = run_cli("predict", tmp_path / "moved", clip, ODD / "text_not_video.mp4", "--json")
    assert result.exit_code == 3
    report = parse_json(result)
    assert [item["path"] for item in report["predictions"]] == [str(clip)]
    prediction = report["predictions"][0]
    assert prediction["label"] == wanted["predicted"]
    for label, value in prediction["probabilities"].items():
        assert value == pytest.approx(float(wanted[f"probability:{label}"]), abs=1e-5)
    assert [item["id"] for item in report["failures"]] == [str(ODD / "text_not_video.mp4")]


def test_full_weights_from_a_file(run_cli: RunCli, tmp_path: Path) -> None:
    store = tmp_path / "s.h5"
    result = run_cli("extract-features", UCF_MINI, "--out", store, "--weights", WEIGHTS_FULL)
    assert result.exit_code == 0, result.output
    for head in ("mean-linear", "lstm"):
        result = run_cli(
            "train-head",
            store,
            "--out",
            tmp_path / head,
            "--head",
            head,
            "--test-lists",
            OFFICIAL_LISTS,
            "--json",
        )
        assert parse_json(result)["accuracy"] >= 0.9


def test_every_odd_file_is_accounted_for(run_cli: RunCli, tmp_path: Path) -> None:
    store = tmp_path / "odd.h5"
    result = run_cli(
        "extract-features", ODD, "--out", store, "--alpha", "0.35", "--json", "--clip-timeout", "30"
    )
    assert result.exit_code == 3
    assert result.stderr == ""
    report = parse_json(result)
    n_files = sum(path.is_file() for path in ODD.rglob("*"))
    n_clips = report["clips_done"] + report["clips_failed"]
    assert n_clips + len(report["ignored"]) == n_files
    rows = {clip.clip_id: clip for clip in open_store(store).clips}
    assert len(rows) == n_clips
    assert all(clip.reason for clip in rows.values() if clip.status == "failed")
    assert rows["no_duration.webm"].facts.n_frames_header == 0 < rows["no_duration.webm"].n_frames
    assert "0 bytes" in rows["empty_0_bytes.avi"].reason
    assert "the header claims 254" in rows["truncated_half.avi"].reason
    assert rows["UPPERCASE.AVI"].status == "done"
    times = read_clip(open_store(store), "newtonscradle.gif").timestamps_seconds
    assert len(set(np.diff(times).round(3))) > 1, "a variable frame rate gives true times"


def test_rotation_is_applied() -> None:
    """The picture is turned by what its container says, and only then resized."""
    import cv2

    capture = cv2.VideoCapture(str(ODD / "video_180.mov"), cv2.CAP_FFMPEG)
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    _, as_stored = capture.read()
    turned = cv2.cvtColor(as_stored, cv2.COLOR_BGR2RGB)[::-1, ::-1]
    items = list(read_frames(ODD / "video_180.mov", FrameSampling("stride", 1), size_px=64))
    assert isinstance(items[0], FrameBatch)
    # OpenCV converts the whole picture, coarsely, framehead the square, exactly.
    difference = items[0].frames[0].astype(int) - resize_frame(turned, 64)
    assert np.abs(difference).mean() < 2
    assert np.abs(items[0].frames[0][::-1, ::-1].astype(int) - resize_frame(turned, 64)).mean() > 9
    *_, facts = read_frames(ODD / "video_rotation_90.mp4", FrameSampling("stride", 1), size_px=64)
    assert isinstance(facts, VideoFacts)
    assert (facts.width_px, facts.height_px) == (60, 100)


def damaged_copies(folder: Path, *, n_files: int, seed: int) -> None:
    """Real clips with flipped bits, or cut off at a random place."""
    generator = np.random.default_rng(seed)
    sources = [*sorted(UCF_MINI.glob("*/*_g0[12]_c01.avi")), ODD / "example.mp4", ODD / "p1.mp4"]
    sources += [ODD / "big_buck_bunny_432_433.webm", ODD / "flipping_a_pancake.mkv"]
    folder.mkdir()
    for number in range(n_files):
        source = sources[number % len(sources)]
        content = bytearray(source.read_bytes())
        if number % 2:
            content = content[: generator.integers(len(content))]
        else:
            for place in generator.integers(len(content), size=int(generator.integers(1, 60))):
                content[place] ^= 1 << int(generator.integers(8))
        (folder / f"{number:03d}{source.suffix}").write_bytes(content)


def extract_damaged(run_cli: RunCli, folder: Path, *, n_files: int, seed: int) -> None:
    damaged_copies(folder / "v", n_files=n_files, seed=seed)
    result = run_cli(
        "extract-features",
        folder / "v",
        "--out",
        folder / "s.h5",
        "--alpha",
        "0.35",
        "--clip-timeout",
        "20",
        "--json",
    )
    assert result.exit_code in (0, 3), result.output
    assert result.stderr == "", "FFmpeg's chatter stays out of the terminal"
    report = parse_json(result)
    assert report["clips_done"] + report["clips_failed"] == n_files
    assert not [item for item in report["failures"] if "no progress" in item["reason"]]
    for clip in open_store(folder / "s.h5").clips:
        if clip.status == "done":
            assert clip.n_frames == min(20, clip.facts.n_frames_decoded)
            indices = read_clip(open_store(folder / "s.h5"), clip.clip_id).frame_indices
            assert (indices[0], indices[-1]) == (0, clip.facts.n_frames_decoded - 1)


def test_damaged_copies_of_real_clips(run_cli: RunCli, tmp_path: Path) -> None:
    extract_damaged(run_cli, tmp_path, n_files=40, seed=0)


@pytest.mark.soak
def test_two_hundred_damaged_copies(run_cli: RunCli, tmp_path: Path) -> None:
    for seed in range(1, 6):
        folder = tmp_path / str(seed)
        folder.mkdir()
        extract_damaged(run_cli, folder, n_files=200, seed=seed)
