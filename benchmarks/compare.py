"""How long a comparison takes: heads x seeds x folds on a store of random clips.

    python benchmarks/compare.py
    python benchmarks/compare.py --clips 80 --heads mean-linear,lstm

Every class has a direction of its own among the embeddings, under so much noise that training
takes as many epochs as on real clips; groups have directions as well. The seconds of each trial
stand in the comparison's files.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np

from features.records import (
    BackboneSpec,
    ClipEmbedding,
    ClipRecord,
    EmbeddedClip,
    FrameSampling,
    SourceFile,
    StoreHeader,
    VideoFacts,
)
from features.store.commit import commit_clips, merge_parts
from features.system.text import format_table
from pipeline import compare_heads
from pipeline.compare.trials import Trial

HEADS = "mean-linear,mlp,lstm,bilstm,gru,lstm-attention,tcn,transformer"
DIM = 1280
N_CLASSES, N_GROUPS = 10, 12


def write_store(path: Path, n_clips: int, n_frames: int) -> None:
    """Write a store of random clips."""
    rng = np.random.default_rng(0)
    header = StoreHeader(
        BackboneSpec("MobileNetV2", "random", "0" * 64, 1.0, 224, DIM),
        FrameSampling("uniform", float(n_frames)),
        "float16",
    )
    of_class = rng.normal(scale=0.15, size=(N_CLASSES, DIM))
    of_group = rng.normal(scale=0.3, size=(N_CLASSES, N_GROUPS, DIM))
    clips = []
    for number in range(n_clips):
        label, group = number % N_CLASSES, number // N_CLASSES % N_GROUPS
        vectors = rng.normal(size=(n_frames, DIM)) + of_class[label] + of_group[label, group]
        name = f"class{label}/v_class{label}_g{group:02d}_c{number:05d}.avi"
        record = ClipRecord(
            name,
            f"class{label}",
            f"class{label}_g{group:02d}",
            "",
            "done",
            "",
            n_frames,
            SourceFile(1, 1, "00"),
            VideoFacts(),
        )
        times = np.arange(n_frames)
        embedding = ClipEmbedding(vectors.astype(np.float16), times / 25, times)
        clips.append(EmbeddedClip(record, embedding))
    commit_clips(path, header, clips, {"by": "benchmark"})
    merge_parts(path)


@click.command()
@click.option("--clips", default=730, show_default=True)
@click.option("--frames", default=20, show_default=True)
@click.option("--heads", default=HEADS, show_default=True)
@click.option("--seeds", default=3, show_default=True)
@click.option("--folds", default=5, show_default=True)
@click.option("--jobs", type=int)
def main(clips: int, frames: int, heads: str, seeds: int, folds: int, jobs: int | None) -> None:
    """Time a comparison from start to report."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store.h5"
        write_store(store, clips, frames)
        started = time.perf_counter()
        first: dict[Trial, float] = {}
        comparison = compare_heads(
            store,
            Path(folder) / "comparison",
            heads=heads.split(","),
            seeds=seeds,
            folds=folds,
            jobs=jobs,
            on_trial=lambda p: first.setdefault(p.trial, time.perf_counter() - started),
        )
        seconds = time.perf_counter() - started
    rows = [
        [head.name, str(head.accuracy), f"{head.train_seconds:.1f}", f"{head.latency_ms:.2f}"]
        for head in comparison.heads
    ]
    print(format_table(["head", "accuracy", "train s", "ms/clip"], rows))
    print(
        f"\n{comparison.n_trials} trials on {clips} clips of {frames} frames: {seconds:.0f} s, "
        f"the first after {min(first.values()):.1f} s"
    )


if __name__ == "__main__":
    main()
