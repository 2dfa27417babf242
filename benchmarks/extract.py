"""How fast is stage 1: against the usual way, and against what the machine can do.

    python benchmarks/extract.py VIDEOS --weights imagenet --alpha 1.0 --repeats 3

Prints one table from one run on the same clips. Times drift from machine to machine and
from minute to minute; the ratios, measured in turn in each repeat, hold.

* usual: decode a clip with OpenCV, `model.predict` on its frames, next clip.
* framehead: `extract_features` into a new store.
* whole: each as a process of its own, from its start to its end, imports included.
* loop: without imports and building of models; framehead with the start of its workers.
* opencv: core-seconds per clip of decoding every frame forward with OpenCV, which converts and
  resizes the same frames; times, decode: what framehead's own decoding saves of that.
* times, forward: core-seconds of the whole command, against those of a process that decodes every
  frame forward with OpenCV, and embeds the same frames with the same engine.
* decode, engine: core-seconds per clip of each alone, in this process on one thread.
* bound: cores divided by the sum of the two.

With the Keras engine (on a GPU, or `--engine keras`) it prints frames per second of decoding
alone, of the forward pass alone, and of both together; KERAS_BACKEND may be tensorflow, jax or
torch.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from features import (
    BackboneOptions,
    EmbedOptions,
    choose_sampling,
    extract_features,
)
from features.backbone.converted import convert_backbone
from features.backbone.engines import EngineChoice, KerasEngine, choose_engine
from features.backbone.litert import LiteRTEngine
from features.backbone.weights import BackboneFiles, find_backbone
from features.clips.discover import discover_clips
from features.records import FrameArray
from features.system.keras import import_keras
from features.system.machine import usable_cores
from features.system.text import format_table
from features.video.decode import read_frames
from features.video.frames import FrameBatch, import_cv2, resize_frame
from features.video.sampling import sample_indices

N_FRAMES = 20
ROOT = Path(__file__).resolve().parent.parent


def usual_way(paths: list[Path], backbone: BackboneFiles) -> float:
    """Return seconds of the decode-predict loop that examples on the web use."""
    keras = import_keras()
    cv2 = import_cv2()
    spec = backbone.spec
    model = keras.applications.MobileNetV2(
        input_shape=(spec.size_px, spec.size_px, 3),
        alpha=spec.alpha,
        include_top=False,
        weights=None,
        pooling="avg",
    )
    model.load_weights(backbone.weights_path)
    model.predict(np.zeros((N_FRAMES, spec.size_px, spec.size_px, 3), np.float32), verbose=0)
    started = time.perf_counter()
    for path in paths:
        capture = cv2.VideoCapture(str(path))
        pictures = []
        while True:
            succeeded, picture = capture.read()
            if not succeeded:
                break
            pictures.append(picture)
        capture.release()
        chosen = [pictures[index] for index in sample_indices(len(pictures), n_wanted=N_FRAMES)]
        frames = np.stack(
            [
                cv2.cvtColor(cv2.resize(picture, (spec.size_px,) * 2), cv2.COLOR_BGR2RGB)
                for picture in chosen
            ]
        )
        scaled = keras.applications.mobilenet_v2.preprocess_input(frames.astype(np.float32))
        model.predict(scaled, verbose=0)
    return time.perf_counter() - started


def decode_alone(paths: list[Path], size_px: int) -> tuple[float, list[FrameArray]]:
    """Return core-seconds of decoding and resizing every clip, and some frames."""
    sampling = choose_sampling(n_frames=N_FRAMES)
    kept: list[FrameArray] = []
    started = time.process_time()
    for path in paths:
        for item in read_frames(path, sampling, size_px=size_px):
            if isinstance(item, FrameBatch) and len(kept) < 20:
                kept.append(item.frames)
    return time.process_time() - started, kept


def opencv_alone(paths: list[Path], size_px: int) -> tuple[float, list[FrameArray]]:
    """Decode forward with OpenCV, converting the wanted frames only; returns core-seconds, too."""
    cv2 = import_cv2()
    clips: list[FrameArray] = []
    started = time.process_time()
    for path in paths:
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        n_frames = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 1)
        wanted = set(sample_indices(n_frames, n_wanted=N_FRAMES).tolist())
        index = 0
        frames = []
        while capture.grab():
            if index in wanted:
                picture = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
                frames.append(resize_frame(picture, size_px))
            index += 1
        capture.release()
        clips.append(np.stack(frames))
    return time.process_time() - started, clips


def engine_alone(backbone: BackboneFiles, batches: list[FrameArray]) -> float:
    """Return core-seconds per frame of the engine on one thread."""
    engine = LiteRTEngine(convert_backbone(backbone.spec, backbone.weights_path))
    engine.embed(batches[0])
    started = time.process_time()
    n_frames = 0
    for batch in batches:
        engine.embed(batch)
        n_frames += len(batch)
    return (time.process_time() - started) / n_frames


def forward_alone(backbone: BackboneFiles) -> float:
    """Return frames per second of the Keras engine on frames that are there already."""
    engine = KerasEngine(backbone)
    shape = (engine.batch_frames, backbone.spec.size_px, backbone.spec.size_px, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    engine.embed(frames)
    started, n_frames = time.perf_counter(), 0
    while time.perf_counter() - started < 3:
        engine.embed(frames)
        n_frames += len(frames)
    return n_frames / (time.perf_counter() - started)


def framehead_way(
    videos: Path, backbone: BackboneFiles, weights: str, engine: EngineChoice
) -> float:
    """Return seconds of one extraction into a new store."""
    with tempfile.TemporaryDirectory() as folder:
        summary = extract_features(
            videos,
            Path(folder) / "store.h5",
            backbone=BackboneOptions(weights, backbone.spec.alpha, backbone.spec.size_px),
            sampling=choose_sampling(n_frames=N_FRAMES),
            embedding=EmbedOptions(engine=engine),
        )
    return summary.seconds


def run_usual(videos: Path, options: list[str]) -> tuple[float, float]:
    """Run the usual way as a process; returns seconds of all of it and of its loop."""
    started = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, __file__, str(videos), *options, "--only-usual"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return time.perf_counter() - started, float(finished.stdout)


def embed_forward(paths: list[Path], backbone: BackboneFiles) -> None:
    """Decode clips forward with OpenCV and embed their frames, as a process would without more."""
    engine = LiteRTEngine(convert_backbone(backbone.spec, backbone.weights_path))
    for path in paths:
        _, clips = opencv_alone([path], backbone.spec.size_px)
        engine.embed(clips[0])


def children_core_seconds() -> float:
    """Return processor seconds of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_forward(videos: Path, options: list[str]) -> float:
    """Run `embed_forward` as a process; returns its core-seconds."""
    before = children_core_seconds()
    command = [sys.executable, __file__, str(videos), *options, "--only-forward"]
    subprocess.run(command, stderr=subprocess.DEVNULL, check=True)
    return children_core_seconds() - before


def run_framehead(videos: Path, options: list[str]) -> float:
    """Run extract-features as a process; returns its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--out", f"{folder}/store.h5", "--quiet"]
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), "extract-features", str(videos), *out, *options],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - started


@click.command()
@click.argument("videos", type=click.Path(path_type=Path, exists=True))
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--alpha", default=1.0, show_default=True)
@click.option("--image-size", default=224, show_default=True)
@click.option("--engine", type=click.Choice(["auto", "litert", "keras"]), default="auto")
@click.option("--repeats", default=3, show_default=True)
@click.option("--skip-usual", is_flag=True, help="Leave the slow comparison out.")
@click.option("--only-usual", is_flag=True, hidden=True)
@click.option("--only-forward", is_flag=True, hidden=True)
def main(
    videos: Path,
    weights: str,
    alpha: float,
    image_size: int,
    engine: EngineChoice,
    repeats: int,
    skip_usual: bool,
    only_usual: bool,
    only_forward: bool,
) -> None:
    """Measure stage 1 on the folder VIDEOS."""
    backbone = find_backbone(BackboneOptions(weights, alpha, image_size))
    paths = [clip.path for clip in discover_clips(videos).clips]
    if only_usual:
        click.echo(usual_way(paths, backbone))
        return
    if only_forward:
        embed_forward(paths, backbone)
        return
    plan = choose_engine(engine)
    cores = usable_cores()
    options = ["--weights", weights, "--alpha", str(alpha), "--image-size", str(image_size)]
    framehead_way(
        videos, backbone, weights, plan.name
    )  # converts the backbone, fills the file cache
    columns: dict[str, list[float]] = {}

    def note(name: str, value: float) -> float:
        columns.setdefault(name, []).append(value)
        return value

    n_clips = len(paths)
    for _ in range(repeats):
        rate = note(
            "framehead clips/s", n_clips / framehead_way(videos, backbone, weights, plan.name)
        )
        if not skip_usual:
            whole, loop = run_usual(videos, options)
            note("usual clips/s", n_clips / loop)
            note("times, loop", rate * loop / n_clips)
            note("times, whole", whole / run_framehead(videos, options))
        seconds, batches = decode_alone(paths, image_size)
        decode = note("decode core-ms/clip", 1000 * seconds / n_clips)
        opencv = 1000 * opencv_alone(paths, image_size)[0] / n_clips
        note("opencv core-ms/clip", opencv)
        note("times, decode", opencv / decode)
        if plan.name == "litert":
            alone = 1000 * engine_alone(backbone, batches) * N_FRAMES
            bound = 1000 * cores / (decode + note("engine core-ms/clip", alone))
            note("bound clips/s", bound)
            note("share of bound", rate / bound)
            before = children_core_seconds()
            run_framehead(videos, options)
            whole = note("whole core-s", children_core_seconds() - before)
            note("times, forward", run_forward(videos, options) / whole)
        else:
            note("forward alone frames/s", forward_alone(backbone))
            note("decode alone frames/s", 1000 * cores * N_FRAMES / decode)
            note("framehead frames/s", rate * N_FRAMES)
    click.echo(
        f"{n_clips} clips, {N_FRAMES} frames each, alpha {alpha}, {image_size} px, "
        f"{cores} cores, engine {plan.name}"
    )
    rows = [
        [name, *(f"{value:.2f}" for value in values), f"{statistics.median(values):.2f}"]
        for name, values in columns.items()
    ]
    repeats_header = [f"repeat {number}" for number in range(1, repeats + 1)]
    click.echo(format_table(["", *repeats_header, "median"], rows))


if __name__ == "__main__":
    main()
