"""How fast is stage 1: against the usual way, and against what the machine can do.

    python benchmarks/extract.py VIDEOS --weights imagenet --alpha 1.0 --repeats 3

Prints one table from one run on the same clips. Times drift from machine to machine and
from minute to minute; the ratios, measured in turn in each repeat, hold.

* usual: decode a clip with OpenCV, `model.predict` on its frames, next clip.
* framehead: `extract_features` into a new store, start of workers included.
* decode, engine: core-seconds per clip of each alone, in this process on one thread.
* bound: cores divided by the sum of the two.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from features.discovery import discover_clips
from features.engines import KerasEngine, choose_engine, litert_model_path
from features.extract import extract_features
from features.frames import FrameBatch, import_cv2
from features.litert import LiteRTEngine
from features.pool import default_n_workers
from features.quiet import import_keras
from features.records import FrameArray
from features.sampling import choose_sampling, sample_indices
from features.text import format_table
from features.video import read_frames
from features.weights import BackboneFiles, find_backbone

N_FRAMES = 20


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


def engine_alone(backbone: BackboneFiles, batches: list[FrameArray]) -> float:
    """Return core-seconds per frame of the engine on one thread."""
    engine = LiteRTEngine(litert_model_path(backbone))
    engine.embed(batches[0])
    started = time.process_time()
    n_frames = 0
    for batch in batches:
        engine.embed(batch)
        n_frames += len(batch)
    return (time.process_time() - started) / n_frames


def framehead_way(videos: Path, backbone: BackboneFiles, weights: str) -> tuple[float, int]:
    """Return seconds and frames of one extraction into a new store."""
    with tempfile.TemporaryDirectory() as folder:
        summary = extract_features(
            videos,
            Path(folder) / "store.h5",
            weights=weights,
            alpha=backbone.spec.alpha,
            size_px=backbone.spec.size_px,
            sampling=choose_sampling(n_frames=N_FRAMES),
        )
    return summary.seconds, summary.frames


@click.command()
@click.argument("videos", type=click.Path(path_type=Path, exists=True))
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--alpha", default=1.0, show_default=True)
@click.option("--image-size", default=224, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--skip-usual", is_flag=True, help="Leave the slow comparison out.")
def main(
    videos: Path, weights: str, alpha: float, image_size: int, repeats: int, skip_usual: bool
) -> None:
    """Measure stage 1 on the folder VIDEOS."""
    backbone = find_backbone(weights, alpha=alpha, size_px=image_size)
    paths = [clip.path for clip in discover_clips(videos).clips]
    plan = choose_engine()
    cores = default_n_workers()
    if plan.name == "litert":
        litert_model_path(backbone)
    else:
        KerasEngine(backbone)
    framehead_way(videos, backbone, weights)  # fills the file cache
    rows, ratios, shares = [], [], []
    for repeat in range(1, repeats + 1):
        seconds, _ = framehead_way(videos, backbone, weights)
        usual = float("nan") if skip_usual else usual_way(paths, backbone)
        decode, batches = decode_alone(paths, image_size)
        decode /= len(paths)
        engine = engine_alone(backbone, batches) * N_FRAMES
        bound = cores / (decode + engine)
        ratios.append(usual / seconds)
        shares.append(len(paths) / seconds / bound)
        rows.append(
            [
                str(repeat),
                f"{len(paths) / usual:.2f}",
                f"{len(paths) / seconds:.2f}",
                f"{ratios[-1]:.2f}",
                f"{decode * 1000:.1f}",
                f"{engine * 1000:.1f}",
                f"{bound:.2f}",
                f"{shares[-1]:.0%}",
            ]
        )
    header = [
        "repeat",
        "usual clips/s",
        "framehead clips/s",
        "times",
        "decode ms",
        "engine ms",
        "bound clips/s",
        "of bound",
    ]
    click.echo(
        f"{len(paths)} clips, {N_FRAMES} frames each, alpha {alpha}, {image_size} px, "
        f"{cores} cores, engine {plan.name}"
    )
    click.echo(format_table(header, rows))
    click.echo(
        f"median: {statistics.median(ratios):.2f} times the usual way, "
        f"{statistics.median(shares):.0%} of the bound"
    )


if __name__ == "__main__":
    main()
