"""Training heads on cached embeddings: against Keras' `fit`, and against no cache.

    python benchmarks/train.py
    python benchmarks/train.py --heads lstm --clips 730 --batch 16
    python benchmarks/train.py --videos FOLDER --weights imagenet --alpha 0.35

Whole fits of a head, its compilation included: by `fit_head`, and by Keras' `fit` of the same
core on the same prepared frames, with `steps_per_execution` and `EarlyStopping`. Both see the
same clips in batches of the same size, in turns, and the median of the ratios is printed. With a
folder of videos, the time that decoding and embedding its clips takes is put beside an epoch on
their embeddings: that is what training end to end pays in every epoch.
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
from pipeline.heads.model import build_head, fit_front, join_halves, prepare
from pipeline.heads.registry import HeadOptions, parse_head
from pipeline.training.fit import fit_head
from pipeline.training.options import FitOptions

N_CLASSES = 10


def make_clips(n_clips: int, n_frames: int, dim: int, seed: int = 0) -> Sequences:
    """Make random embeddings in the type of a store."""
    rng = np.random.default_rng(seed)
    return Sequences(
        rng.normal(size=(n_clips, n_frames, dim)).astype(np.float16),
        np.ones((n_clips, n_frames), dtype=np.bool_),
        rng.integers(0, N_CLASSES, n_clips),
        tuple(str(i) for i in range(n_clips)),
    )


def fit_with_keras(
    train: Sequences, val: Sequences, head: str, options: HeadOptions, batch: int, epochs: int
) -> None:
    """Do what `fit_head` does by Keras' own `fit`."""
    keras = import_keras()
    dim = train.vectors.shape[2]
    built = build_head(head, embedding_dim=dim, n_classes=N_CLASSES, options=options)
    built.core.compile(
        optimizer=keras.optimizers.AdamW(
            parse_head(head)[0].learning_rate, weight_decay=0.01, clipnorm=1.0
        ),
        loss="sparse_categorical_crossentropy",
        weighted_metrics=["accuracy"],
        jit_compile=False,
        steps_per_execution=8,
    )
    fit_front(built, train)
    parts = []
    for part in (train, val):
        frames = prepare(built, part)
        weights = np.ones(len(part.clip_ids), dtype=np.float32)
        inputs = {"vectors": frames.vectors, "mask": frames.mask}
        parts.append((inputs, part.class_indices, weights))
    stopping = keras.callbacks.EarlyStopping(
        "val_loss", min_delta=0.01, patience=epochs, restore_best_weights=True
    )
    built.core.fit(
        parts[0][0],
        parts[0][1],
        sample_weight=parts[0][2],
        validation_data=parts[1],
        validation_batch_size=64,
        batch_size=batch,
        epochs=epochs,
        callbacks=[stopping],
        verbose=0,
    )
    join_halves(built)


def measure(call: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare_with_keras(
    clips: Sequences, heads: list[str], options: HeadOptions, batch: int, epochs: int, repeats: int
) -> None:
    """Print for every head the seconds of whole fits, and how many times as long Keras takes."""
    n_clips, n_frames, dim = clips.vectors.shape
    val = make_clips(n_clips // 5, n_frames, dim, seed=1)
    fit = FitOptions(epochs=epochs, batch_size=batch, patience=epochs)
    print(f"{n_clips} clips x {n_frames} frames x {dim}, batches of {batch}, {epochs} epochs")
    print(f"{'head':16}{'fit_head s':>12}{'Keras fit s':>13}{'ratio':>8}")
    for head in heads:
        ours = partial(
            fit_head,
            *(clips, val),
            head=head,
            n_classes=N_CLASSES,
            head_options=options,
            fit_options=fit,
        )
        theirs = partial(fit_with_keras, clips, val, head, options, batch, epochs)
        rows = [(measure(ours), measure(theirs)) for _ in range(repeats)]
        own, other = (statistics.median(column) for column in zip(*rows, strict=True))
        ratio = statistics.median(b / a for a, b in rows)
        print(f"{head:16}{own:12.2f}{other:13.2f}{ratio:8.2f}")


def compare_with_no_cache(
    videos: Path, weights: str, alpha: float, options: HeadOptions, batch: int, repeats: int
) -> None:
    """Print what decoding and embedding adds to an epoch."""
    from features import BackboneOptions, extract_features, open_store
    from pipeline.data.sequences import load_sequences
    from pipeline.splits.choose import usable_clips

    extractions = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            path = Path(folder) / f"{number}.h5"
            backbone = BackboneOptions(weights=weights, alpha=alpha)
            extractions.append(measure(partial(extract_features, videos, path, backbone=backbone)))
        store = open_store(path)
        records = usable_clips(store)
        labels = sorted({record.label for record in records})[:N_CLASSES]
        clips = load_sequences(store, [r.clip_id for r in records if r.label in labels], labels)
    moments: list[float] = []
    fit_head(
        clips,
        clips,
        head="lstm",
        n_classes=N_CLASSES,
        head_options=options,
        fit_options=FitOptions(epochs=3 * repeats, batch_size=batch),
        on_epoch=lambda report: moments.append(time.perf_counter()),
    )
    epoch = float(np.median(np.diff(moments)))
    embed = statistics.median(extractions)
    print(f"\n{len(clips.clip_ids)} clips of '{videos.name}', alpha {alpha:g}")
    print(f"decode and embed   {embed:7.2f} s, once with a cache, in every epoch without")
    print(f"epoch from cache   {epoch:7.3f} s, validation included")
    print(f"  times as quick   {(embed + epoch) / epoch:7.0f}")


@click.command()
@click.option("--heads", default="mean-linear,gru,lstm", show_default=True)
@click.option("--clips", default=800, show_default=True)
@click.option("--frames", default=20, show_default=True)
@click.option("--dim", default=1280, show_default=True)
@click.option("--units", type=int, help="By default each head's own.")
@click.option("--batch", default=32, show_default=True)
@click.option("--epochs", default=25, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--videos", type=click.Path(path_type=Path, exists=True))
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--alpha", default=1.0, show_default=True)
def main(
    heads: str,
    clips: int,
    frames: int,
    dim: int,
    units: int | None,
    batch: int,
    epochs: int,
    repeats: int,
    videos: Path | None,
    weights: str,
    alpha: float,
) -> None:
    """Compare training with training the usual way."""
    options = HeadOptions(units=units)
    made = make_clips(clips, frames, dim)
    compare_with_keras(made, heads.split(","), options, batch, epochs, repeats)
    if videos is not None:
        compare_with_no_cache(videos, weights, alpha, options, batch, repeats)


if __name__ == "__main__":
    main()
