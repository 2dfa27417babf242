"""Stage 1 as a whole, on videos that the tests write and an untrained backbone."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from conftest import children_of, linux_only, noisy_frames, tiny_backbone, write_video

from features import (
    BackboneOptions,
    EmbedOptions,
    ExtractSummary,
    FolderOptions,
    FrameSampling,
    Progress,
    choose_sampling,
    done_clips,
    extract_features,
    open_store,
    read_clip,
    read_embeddings,
)
from features.backbone.converted import convert_backbone
from features.backbone.engines import EngineChoice, KerasEngine, choose_engine
from features.backbone.litert import LiteRTEngine
from features.backbone.weights import find_backbone
from features.embed import embed_rows
from features.errors import (
    EngineUnavailable,
    Interrupted,
    OptionInvalid,
    OutputExists,
    OutputUnwritable,
    StoreMismatch,
    WeightsNotFound,
    WeightsUnreadable,
)
from features.records import Clip, FrameArray, SourceFile, VideoFacts
from features.workers.pool import decode_clips
from features.workers.process import ClipEnd, ClipRows, WorkerSettings


def extract(videos: Path, out: Path, weights: Path, **options: Any) -> ExtractSummary:
    settings: dict[str, Any] = {
        "backbone": tiny_backbone(weights),
        "sampling": choose_sampling(n_frames=6),
        "embedding": EmbedOptions(n_workers=2),
        **options,
    }
    return extract_features(videos, out, **settings)


def counts(summary: ExtractSummary) -> tuple[int, int, int]:
    return summary.count("done"), summary.count("already"), summary.count("failed")


SAME = 0.99999
ENGINES: tuple[EngineChoice, ...] = ("litert", "keras")
ONE_WORKER = EmbedOptions(n_workers=1)


def least_cosine(one: Any, other: Any) -> float:
    """Compare vectors row by row."""
    assert one.shape == other.shape
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return float(((one * other).sum(axis=1) / norms).min())


@pytest.fixture
def videos(video_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(video_folder, tmp_path / "videos"))


def test_every_file_is_accounted_for(videos: Path, tmp_path: Path, tiny_weights: Path) -> None:
    seen: list[Progress] = []
    summary = extract(videos, tmp_path / "s.h5", tiny_weights, on_progress=seen.append)
    assert counts(summary) == (12, 0, 1)
    assert summary.frames == 72
    assert [item.reason for item in summary.ignored] == ["not a video file type"]
    assert [(f.clip_id, f.reason) for f in summary.failures] == [
        (
            "walk/v_walk_g04_c01.avi",
            "no video stream in the file, or its header is missing or damaged",
        )
    ]
    assert [item.n_finished for item in seen] == list(range(14))
    store = open_store(tmp_path / "s.h5")
    assert {clip.label for clip in store.clips} == {"jump", "walk"}
    assert store.clips[0].group == "v_jump_g01"
    assert not (tmp_path / "s.h5.parts").exists()


def test_running_again_is_free_and_changes_nothing(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    store = tmp_path / "s.h5"
    extract(videos, store, tiny_weights)
    before = store.read_bytes()
    summary = extract(videos, store, tiny_weights)
    assert counts(summary) == (0, 12, 1)
    assert store.read_bytes() == before
    retried = extract(videos, store, tiny_weights, retry_failed=True)
    assert counts(retried) == (0, 12, 1)
    touched = videos / "jump" / "v_jump_g01_c01.avi"
    os.utime(touched, (1, 1))  # another time, the same content
    assert counts(extract(videos, store, tiny_weights)) == (0, 12, 1)


def test_new_changed_moved_and_vanished_files_are_told_apart(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    store = tmp_path / "s.h5"
    extract(videos, store, tiny_weights)
    kept = read_clip(open_store(store), "jump/v_jump_g02_c01.avi")
    write_video(videos / "jump" / "v_jump_g09_c01.avi", noisy_frames(9, seed=900))
    write_video(videos / "jump" / "v_jump_g01_c01.avi", noisy_frames(9, seed=901))
    (videos / "jump" / "v_jump_g02_c01.avi").rename(videos / "walk" / "v_walk_g02_c09.avi")
    (videos / "walk" / "v_walk_g01_c01.avi").unlink()
    summary = extract(videos, store, tiny_weights)
    assert counts(summary) == (2, 10, 1)
    assert summary.changed == ("jump/v_jump_g01_c01.avi",)
    assert summary.moved == (("jump/v_jump_g02_c01.avi", "walk/v_walk_g02_c09.avi"),)
    assert summary.vanished == ("walk/v_walk_g01_c01.avi",)
    rows = {clip.clip_id: clip for clip in open_store(store).clips}
    assert "walk/v_walk_g01_c01.avi" in rows, "nothing committed is lost"
    assert "jump/v_jump_g02_c01.avi" not in rows
    assert rows["walk/v_walk_g02_c09.avi"].label == "walk"
    moved = read_clip(open_store(store), "walk/v_walk_g02_c09.avi")
    np.testing.assert_array_equal(moved.vectors, kept.vectors)


def test_the_same_name_in_two_folders_does_not_collide(tmp_path: Path, tiny_weights: Path) -> None:
    for number, label in enumerate(("a", "b")):
        write_video(tmp_path / "v" / label / "clip.avi", noisy_frames(8, seed=number))
    extract(tmp_path / "v", tmp_path / "s.h5", tiny_weights)
    store = open_store(tmp_path / "s.h5")
    first, second = (read_clip(store, f"{label}/clip.avi").vectors for label in "ab")
    assert not np.array_equal(first, second)


def test_new_labels_need_no_decoding(videos: Path, tmp_path: Path, tiny_weights: Path) -> None:
    store = tmp_path / "s.h5"
    extract(videos, store, tiny_weights)
    csv = tmp_path / "labels.csv"
    csv.write_text("path,label,group,split\njump/v_jump_g01_c01.avi,hop,anna,test\n")
    summary = extract(videos, store, tiny_weights, folder=FolderOptions(labels=csv))
    assert counts(summary) == (0, 1, 0)
    row = open_store(store).clips[0]
    assert (row.label, row.group, row.split) == ("hop", "anna", "test")


def test_clips_not_in_the_csv_are_kept_but_not_trained_on(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    store = tmp_path / "s.h5"
    extract(videos, store, tiny_weights)
    csv = tmp_path / "labels.csv"
    csv.write_text("path,label\njump/v_jump_g01_c01.avi,hop\nwalk/v_walk_g01_c01.avi,go\n")
    (videos / "walk" / "v_walk_g01_c02.avi").unlink()
    summary = extract(videos, store, tiny_weights, folder=FolderOptions(labels=csv))
    assert len(summary.unlisted) == 10
    assert summary.vanished == ("walk/v_walk_g01_c02.avi",)
    opened = open_store(store)
    assert {clip.label for clip in done_clips(opened)} == {"hop", "go"}
    assert read_embeddings(opened).vectors.shape[0] == 12
    assert len(opened.clips) == 13, "nothing committed is lost"
    back = extract(videos, store, tiny_weights)
    assert counts(back) == (0, 11, 1), "and none is decoded again when it is wanted again"
    assert len(done_clips(open_store(store))) == 11


def test_a_folder_that_vanishes_in_mid_run_costs_nothing_for_good(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    away = tmp_path / "away"

    def vanish(progress: Progress) -> None:
        if progress.n_finished == 4:
            videos.rename(away)

    store = tmp_path / "s.h5"
    summary = extract(videos, store, tiny_weights, embedding=ONE_WORKER, on_progress=vanish)
    assert summary.count("done") + summary.count("failed") == 13
    reasons = {item.reason for item in summary.failures}
    assert "the file does not exist" in reasons
    # One clip may have been read, but not opened yet, when the folder went.
    assert reasons <= {
        "the file does not exist",
        "the file cannot be opened: No such file or directory",
    }
    n_done = summary.count("done")
    away.rename(videos)
    again = extract(videos, store, tiny_weights)
    assert counts(again) == (12 - n_done, n_done, 1), "what failed is tried again by itself"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(videos: Path, tmp_path: Path, tiny_weights: Path) -> None:
    folder = tmp_path / "readonly"
    folder.mkdir(mode=0o555)
    with pytest.raises(OutputUnwritable, match="folder must be writable"):
        extract(videos, folder / "s.h5", tiny_weights)


def test_overwrite_replaces_only_a_store(videos: Path, tmp_path: Path, tiny_weights: Path) -> None:
    precious = videos / "jump" / "v_jump_g01_c01.avi"
    before = precious.read_bytes()
    with pytest.raises(OutputExists, match="replaces only a store"):
        extract(videos, precious, tiny_weights, overwrite=True)
    assert precious.read_bytes() == before


def test_a_system_out_of_files_is_an_error_and_not_an_empty_store(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    script = (
        "import resource, sys\n"
        "sys.path[:0] = ['tests', '.']\n"
        "from test_extract import *\n"
        "from features.workers.pool import decode_clips\n"
        "settings = WorkerSettings(FrameSampling('stride', 1), 32, None, 'float32', 30.0, 2**31)\n"
        "clips = [Clip(str(n), Path('none')) for n in range(9)]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (12, 12))\n"
        "try:\n"
        "    list(decode_clips(clips, settings, n_workers=4))\n"
        "except EngineUnavailable as problem:\n"
        "    print(problem)\n"
    )
    root = Path(__file__).parent.parent
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True
    )
    assert "A decode worker could not be started" in finished.stdout, finished.stderr
    assert "lower --workers" in finished.stdout


def test_a_listed_file_that_is_missing_is_a_failed_clip(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text("path,label\nnone.avi,hop\n")
    summary = extract(videos, tmp_path / "s.h5", tiny_weights, folder=FolderOptions(labels=csv))
    assert [item.reason for item in summary.failures] == ["the file does not exist"]


def test_other_settings_are_refused_and_nothing_is_lost(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    store = tmp_path / "s.h5"
    extract(videos, store, tiny_weights)
    before = store.read_bytes()
    with pytest.raises(StoreMismatch, match="sampling: store --frames 6, asked --stride 2"):
        extract(videos, store, tiny_weights, sampling=choose_sampling(stride=2))
    assert store.read_bytes() == before
    summary = extract(
        videos, store, tiny_weights, sampling=choose_sampling(stride=2), overwrite=True
    )
    assert counts(summary) == (12, 0, 1)
    assert open_store(store).clips[0].n_frames == 7


def test_engines_agree_with_keras_applications(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    """Order, colour and scaling proven against Keras' own preprocessing."""
    import keras

    from features.video.decode import read_frames
    from features.video.frames import FrameBatch

    path = videos / "jump" / "v_jump_g01_c01.avi"
    batch = next(iter(read_frames(path, FrameSampling("uniform", 6), size_px=32)))
    assert isinstance(batch, FrameBatch)
    network = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    network.load_weights(tiny_weights)
    scaled = keras.applications.mobilenet_v2.preprocess_input(batch.frames.astype(np.float32))
    reference = network.predict(scaled, verbose=0)

    backbone = find_backbone(tiny_backbone(tiny_weights))
    litert = LiteRTEngine(convert_backbone(backbone.spec, backbone.weights_path))
    vectors = np.concatenate([litert.embed(batch.frames[start : start + 4]) for start in (0, 4)])
    assert least_cosine(vectors, reference) > SAME
    assert least_cosine(KerasEngine(backbone).embed(batch.frames), reference) > SAME
    swapped = litert.embed(np.ascontiguousarray(batch.frames[:4, :, :, ::-1]))
    assert least_cosine(swapped, reference[:4]) < 0.99, "BGR would give other vectors"

    for engine in ENGINES:
        embedding = EmbedOptions(engine=engine)
        out = tmp_path / f"{engine}.h5"
        extract(videos, out, tiny_weights, embedding=embedding, dtype="float32")
    stored = [read_embeddings(open_store(tmp_path / f"{engine}.h5")).vectors for engine in ENGINES]
    assert least_cosine(stored[0], stored[1]) > SAME
    assert least_cosine(stored[0][:6], reference) > SAME


def test_a_clip_of_many_batches_and_streams(tmp_path: Path, tiny_weights: Path) -> None:
    """Batches are filled across clips; every row must still end up in its own clip."""
    lengths = {"a/1.avi": 45, "a/2.avi": 3, "b/3.avi": 70, "b/4.avi": 1}
    for number, (name, n_frames) in enumerate(lengths.items()):
        write_video(tmp_path / "v" / name, noisy_frames(n_frames, seed=number))
    every = choose_sampling(all_frames=True)
    for engine in ENGINES:
        extract(
            tmp_path / "v",
            tmp_path / f"{engine}.h5",
            tiny_weights,
            embedding=EmbedOptions(engine=engine),
            sampling=every,
            dtype="float32",
        )
    one, other = (open_store(tmp_path / f"{engine}.h5") for engine in ENGINES)
    assert {clip.clip_id: clip.n_frames for clip in one.clips} == lengths
    for clip_id in lengths:
        vectors = read_clip(one, clip_id).vectors, read_clip(other, clip_id).vectors
        assert least_cosine(*vectors) > SAME


class _MeanEngine:
    """Embeds a frame as its mean colour, and remembers how full its batches were."""

    batch_frames = 256

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def embed(self, frames: FrameArray) -> npt.NDArray[np.float32]:
        self.sizes.append(len(frames))
        vectors: npt.NDArray[np.float32] = frames.mean(axis=(1, 2), dtype=np.float32)
        return vectors


def _frame_events(lengths: Sequence[int]) -> Iterator[ClipRows | ClipEnd]:
    shade = 0
    for number, length in enumerate(lengths):
        clip = Clip(f"{number}.avi", Path(f"{number}.avi"))
        for start in range(0, length, 32):
            n = min(32, length - start)
            rows = np.empty((n, 4, 4, 3), np.uint8)
            rows[:] = (np.arange(shade, shade + n) % 251).reshape(-1, 1, 1, 1)
            shade += n
            yield ClipRows(clip, rows, [0.0] * n, list(range(start, start + n)))
        yield ClipEnd(clip, SourceFile(0, 0, ""), VideoFacts(), "")


@pytest.mark.parametrize("lengths", [[20] * 40, [1, 700, 3], [256], [0, 5, 0]])
def test_batches_are_full_and_rows_stay_in_order(lengths: list[int]) -> None:
    engine = _MeanEngine()
    expected = list(_frame_events(lengths))
    found = list(embed_rows(iter(expected), engine, "float32"))
    full, rest = divmod(sum(lengths), 256)
    assert engine.sizes == [256] * full + [rest] * (rest > 0)
    assert len(found) == len(expected)
    for one, other in zip(expected, found, strict=True):
        assert type(one) is type(other)
        assert one.clip == other.clip
        if isinstance(one, ClipRows) and isinstance(other, ClipRows):
            np.testing.assert_array_equal(other.rows, one.rows[:, 0, 0])


def test_a_fault_of_the_engine_is_not_lost() -> None:
    class Broken(_MeanEngine):
        def embed(self, frames: FrameArray) -> npt.NDArray[np.float32]:
            raise EngineUnavailable("out of memory")

    with pytest.raises(EngineUnavailable, match="out of memory"):
        list(embed_rows(_frame_events([20] * 40), Broken(), "float32"))


def test_options_out_of_range(tiny_weights: Path) -> None:
    with pytest.raises(OptionInvalid, match="--workers must be at least 1. Received: workers=0"):
        EmbedOptions(n_workers=0)
    with pytest.raises(OptionInvalid, match="--clip-timeout must be above 0"):
        EmbedOptions(stall_seconds=0)
    with pytest.raises(OptionInvalid, match="--clip-memory must be at least"):
        EmbedOptions(memory_gib=0)
    with pytest.raises(OptionInvalid, match="ImageNet weights exist for alpha 0.35"):
        find_backbone(BackboneOptions(alpha=0.4))
    with pytest.raises(OptionInvalid, match="exist for image sizes 96, 128"):
        find_backbone(BackboneOptions(size_px=100))
    with pytest.raises(OptionInvalid, match="multiple of 32"):
        find_backbone(BackboneOptions(tiny_weights, size_px=100))


def test_weights_that_are_not_there_or_not_whole(
    videos: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsNotFound, match="is not a file. Hint: check the path"):
        find_backbone(BackboneOptions(tmp_path / "none.h5"))
    cut = tmp_path / "cut.weights.h5"
    cut.write_bytes(tiny_weights.read_bytes()[:100_000])
    with pytest.raises(WeightsUnreadable, match=r"cut.weights.h5' \(100000 bytes\) failed"):
        extract(videos, tmp_path / "s.h5", cut)
    wide = BackboneOptions(tiny_weights, alpha=0.5, size_px=32)
    with pytest.raises(WeightsUnreadable, match="alpha=0.5.*Hint: give the --alpha"):
        extract(videos, tmp_path / "s.h5", tiny_weights, backbone=wide, overwrite=True)
    # No proxy listens on port 9: the download fails at once, as without a network.
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    started = time.monotonic()
    with pytest.raises(WeightsNotFound) as caught:
        find_backbone(BackboneOptions(alpha=0.35))
    assert time.monotonic() - started < 20
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_224_no_top.h5"
    for part in (
        f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{name}",
        str(tmp_path / "keras" / "models"),
        "KERAS_HOME",
        "--weights PATH",
    ):
        assert part in str(caught.value)


def test_litert_asked_for_but_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.backbone.engines.is_installed", lambda name: False)
    with pytest.raises(EngineUnavailable, match="not installed. Hint: pip install ai-edge-litert"):
        choose_engine("litert")
    plan = choose_engine("auto")
    assert plan.name == "keras"
    assert "several times longer" in plan.reason


def long_clips(folder: Path, n_clips: int = 4) -> list[Clip]:
    paths = [
        write_video(folder / f"{n}.avi", noisy_frames(200, seed=n, size=(480, 640)), codec="mp4v")
        for n in range(n_clips)
    ]
    return [Clip(path.name, path) for path in paths]


@linux_only
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (signal.SIGKILL, r"the decoder crashed with signal 9 \(SIGKILL\)"),
        (signal.SIGSEGV, r"the decoder crashed with signal 11 \(SIGSEGV\)"),
        (signal.SIGSTOP, "decoding made no progress for 3 s"),
    ],
)
def test_a_worker_that_dies_or_hangs_costs_its_clip_only(
    tmp_path: Path, harm: signal.Signals, reason: str
) -> None:
    import re

    clips = long_clips(tmp_path)
    settings = WorkerSettings(FrameSampling("stride", 1), 32, None, "float32", 3.0, 2**31)
    before = children_of(os.getpid())
    harmed = False
    failures = {}
    rows: dict[str, int] = {}
    for event in decode_clips(clips, settings, n_workers=1):
        if hasattr(event, "rows"):
            rows[event.clip.clip_id] = rows.get(event.clip.clip_id, 0) + len(event.rows)
            if not harmed:
                (worker,) = children_of(os.getpid()) - before
                os.kill(worker, harm)
                harmed = True
        else:
            failures[event.clip.clip_id] = event.failure
    assert re.fullmatch(reason, failures["0.avi"])
    assert [failures[f"{n}.avi"] for n in (1, 2, 3)] == ["", "", ""]
    assert all(rows[f"{n}.avi"] == 200 for n in (1, 2, 3))


@linux_only
def test_a_clip_that_eats_memory_costs_itself_only(tmp_path: Path) -> None:
    """One frame of 9000 x 9000 takes 243 MB as RGB; the workers may have 300 for all."""
    write_video(tmp_path / "huge.avi", noisy_frames(2, seed=1, size=(9000, 9000)))
    write_video(tmp_path / "small.avi", noisy_frames(9, seed=2))
    clips = [Clip(name, tmp_path / name) for name in ("huge.avi", "small.avi")]
    for n_mebibytes, is_enough in ((300, False), (2000, True)):
        settings = WorkerSettings(
            FrameSampling("stride", 1), 32, None, "float32", 30.0, n_mebibytes * 2**20
        )
        ends = {
            event.clip.clip_id: event.failure
            for event in decode_clips(clips, settings, n_workers=1)
            if isinstance(event, ClipEnd)
        }
        assert ends["small.avi"] == ""
        assert (ends["huge.avi"] == "") == is_enough, ends


@linux_only
def test_giving_up_in_the_middle_leaves_no_process(tmp_path: Path) -> None:
    before = children_of(os.getpid())
    threads = threading.active_count()
    settings = WorkerSettings(FrameSampling("stride", 1), 32, None, "float32", 30.0, 2**31)
    events = decode_clips(long_clips(tmp_path), settings, n_workers=2)
    next(events)
    events.close()
    assert children_of(os.getpid()) <= before
    deadline = time.monotonic() + 5  # a timer that was called off takes a moment to end
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == threads


def test_interrupting_commits_what_is_finished(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.n_finished == 5:
            raise KeyboardInterrupt

    store = tmp_path / "s.h5"
    with pytest.raises(Interrupted, match=r"5 of 13 clips are committed .*run the same command"):
        extract(videos, store, tiny_weights, on_progress=interrupt)
    assert len(open_store(store, allow_unfinished=True).clips) == 5
    summary = extract(videos, store, tiny_weights)
    assert summary.count("done") + summary.count("already") == 12
    undisturbed = tmp_path / "u.h5"
    extract(videos, undisturbed, tiny_weights)
    one, other = open_store(store), open_store(undisturbed)
    assert one.clips == other.clips
    np.testing.assert_array_equal(read_embeddings(one).vectors, read_embeddings(other).vectors)


def test_a_script_without_a_main_guard_works(
    videos: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    """Workers must not import the caller's program once more."""
    script = tmp_path / "script.py"
    script.write_text(
        "from features import BackboneOptions, extract_features\n"
        f"backbone = BackboneOptions({str(tiny_weights)!r}, alpha=0.35, size_px=32)\n"
        f"s = extract_features({str(videos)!r}, 's.h5', backbone=backbone)\n"
        "print('once', s.count('done'))\n"
    )
    root = str(Path(__file__).parent.parent)
    finished = subprocess.run(
        [sys.executable, script.name],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert finished.stdout == "once 12\n", finished.stderr
