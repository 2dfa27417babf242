"""Training an LSTM on cached embeddings: ours against Keras' own, and against no cache.

    python benchmarks/train.py
    python benchmarks/train.py --videos FOLDER --weights imagenet --alpha 0.35

Ours is one epoch of what `train-head --head lstm` does, dropout included; the other is ``fit`` of
a stock ``keras.layers.LSTM`` with a softmax on it. Both see the same clips in batches of the same
size, in turns, and the median of the ratios is printed. With a folder of videos, the time that
decoding and embedding its clips takes is put beside an epoch on their embeddings: that is what
training end to end pays in every epoch.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from features.system.keras import import_keras
from pipeline.data.sequences import Sequences
from pipeline.heads.model import build_head, fit_front, prepare
from pipeline.heads.registry import HeadOptions
from pipeline.training.trainers import TrainingData, make_trainer

N_CLASSES = 10


def make_clips(n_clips: int, n_frames: int, dim: int) -> Sequences:
    """Make random embeddings in the type of a store."""
    rng = np.random.default_rng(0)
    return Sequences(
        rng.normal(size=(n_clips, n_frames, dim)).astype(np.float16),
        np.ones((n_clips, n_frames), dtype=np.bool_),
        rng.integers(0, N_CLASSES, n_clips),
        tuple(str(i) for i in range(n_clips)),
    )


def build_ours(clips: Sequences, units: int, batch: int, reduce: str | None) -> Callable[[], Any]:
    """Return a function that trains for one epoch as `pipeline.training.fit.fit_head` does."""
    keras = import_keras()
    dim = clips.vectors.shape[2]
    options = HeadOptions(units=units, reduce=reduce)
    head = build_head("lstm", embedding_dim=dim, n_classes=N_CLASSES, options=options)
    head.core.compile(
        optimizer=keras.optimizers.AdamW(1e-3, weight_decay=0.01, clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
        jit_compile=False,
    )
    fit_front(head, clips)
    head.core.optimizer.build(head.core.trainable_variables)
    data = TrainingData(prepare(head, clips), np.ones(len(clips.clip_ids), dtype=np.float32))
    trainer = make_trainer(head.core, batch)
    order = np.random.default_rng(0).permutation(len(data.weights))
    return lambda: trainer.train(data, order)


def build_stock(clips: Sequences, units: int, batch: int) -> Callable[[], Any]:
    """Return a function that fits Keras' own layer for one epoch."""
    keras = import_keras()
    vectors = clips.vectors.astype(np.float32)
    model = keras.Sequential(
        [
            keras.Input(vectors.shape[1:]),
            keras.layers.LSTM(units),
            keras.layers.Dense(N_CLASSES, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return lambda: model.fit(vectors, clips.class_indices, batch_size=batch, verbose=0)


def measure(call: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure_products(n_rows: int, dim: int, units: int) -> float:
    """Return the GFLOP per second of the matrix product that makes up most of the work."""
    import tensorflow as tf

    frames, kernel = tf.random.normal((n_rows, dim)), tf.random.normal((dim, 4 * units))
    product = tf.function(lambda: frames @ kernel)
    product()
    seconds = min(measure(product) for _ in range(10))
    return 2e-9 * n_rows * dim * 4 * units / seconds


def count_mflop(n_frames: int, dim: int, units: int) -> float:
    """Count the arithmetic of one clip, forward and backward, without gradients of frames."""
    projection, recurrence = dim * 4 * units, units * 4 * units
    return 2e-6 * n_frames * (2 * projection + 3 * recurrence)


def compare_with_stock(clips: Sequences, units: int, batch: int, repeats: int) -> None:
    """Print clips per second of both, their ratio, and the share of the machine's rate."""
    n_clips, n_frames, dim = clips.vectors.shape
    ours, stock = build_ours(clips, units, batch, None), build_stock(clips, units, batch)
    reduced = build_ours(clips, units, batch, "pca:256")
    for call in (ours, stock, reduced):
        call()  # compiles
    rows = []
    for _ in range(repeats):
        rate = measure_products(batch * n_frames, dim, units)
        rows.append((rate, measure(ours), measure(stock), measure(reduced)))
    rate, own, other, small = (statistics.median(column) for column in zip(*rows, strict=True))
    ratios = [row[2] / row[1] for row in rows]
    gflop = count_mflop(n_frames, dim, units) / 1000
    print(f"{n_clips} clips x {n_frames} frames x {dim}, LSTM({units}), batches of {batch}")
    print(f"matrix product     {rate:7.0f} GFLOP/s, enough for {rate / gflop:.0f} clips/s")
    print(f"keras.layers.LSTM  {n_clips / other:7.0f} clips/s in fit")
    print(f"ours               {n_clips / own:7.0f} clips/s, with dropout and AdamW")
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"  times Keras      {middle:7.2f}, from {low:.2f} to {high:.2f}")
    print(f"  share of product {n_clips * gflop / own / rate:7.0%}")
    print(f"ours, pca:256      {n_clips / small:7.0f} clips/s")


def compare_with_no_cache(
    videos: Path, weights: str, alpha: float, units: int, batch: int, repeats: int
) -> None:
    """Print what decoding and embedding adds to an epoch."""
    from features.extract import extract_features
    from features.store.store import open_store
    from pipeline.data.sequences import load_sequences
    from pipeline.splits.choose import usable_clips

    extractions = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            path = Path(folder) / f"{number}.h5"
            extract = partial(extract_features, videos, path, weights=weights, alpha=alpha)
            extractions.append(measure(extract))
        store = open_store(path)
        records = usable_clips(store)
        labels = sorted({record.label for record in records})[:N_CLASSES]
        clips = load_sequences(store, [r.clip_id for r in records if r.label in labels], labels)
    ours = build_ours(clips, units, batch, None)
    ours()
    epoch = statistics.median(measure(ours) for _ in range(repeats))
    embed = statistics.median(extractions)
    print(f"\n{len(clips.clip_ids)} clips of '{videos.name}', alpha {alpha:g}")
    print(f"decode and embed   {embed:7.2f} s, once with a cache, in every epoch without")
    print(f"epoch from cache   {epoch:7.3f} s")
    print(f"  times quicker    {(embed + epoch) / epoch:7.0f}")


@click.command()
@click.option("--clips", default=1024, show_default=True)
@click.option("--frames", default=32, show_default=True)
@click.option("--dim", default=1280, show_default=True)
@click.option("--units", default=256, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--videos", type=click.Path(path_type=Path, exists=True))
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--alpha", default=1.0, show_default=True)
def main(
    clips: int,
    frames: int,
    dim: int,
    units: int,
    batch: int,
    repeats: int,
    videos: Path | None,
    weights: str,
    alpha: float,
) -> None:
    """Compare training with training the usual way."""
    compare_with_stock(make_clips(clips, frames, dim), units, batch, repeats)
    if videos is not None:
        compare_with_no_cache(videos, weights, alpha, units, batch, repeats)


if __name__ == "__main__":
    main()
