"""Train the built-in backbone from scratch on pictures that the project draws itself.

``python tools/train_backbone.py --folder WORK --minutes 70 --out weights.h5``

One MobileNetV2 (alpha 0.35) learns several tasks at once, each through one linear layer on the
pooled vector, so that what it learns lies open to linear heads: joints and moments of figures,
categories of fractals, classical descriptors of the picture (colours, textures, edges), and
which two views show the same picture (SimCLR, Chen et al. 2020). The learning rate follows the
clock, so the training ends well whenever it has to end.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pretext_descriptors import DescriptorLoss, describe
from pretext_losses import TAPS, Tasks
from pretext_pool import Pictures, fill_pool, read_shard
from pretext_views import make_views

from features.records import FrameArray
from features.system.keras import import_keras

ALPHA = 0.35
SIZE_PX = 96
# Most of the time goes to small pictures, which cost less than half as much.
SMALL_PX = 64
SMALL_SHARE = 0.62
PICTURES = 64  # a step, two views each
PEAK_RATE = 2.5e-3
_CHECKPOINT = "checkpoint.weights.h5"
_FRESH_BATCHES = 50
_KINDS = {"figures": 36, "fractals": 8, "textures": 20}


class Pool:
    """The shards that are on disk so far, read once each."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._generator = np.random.default_rng(seed)
        self._shards: dict[str, list[Pictures]] = {kind: [] for kind in _KINDS}
        self._known: set[Path] = set()

    def refresh(self) -> int:
        """Read new shards; return how many pictures there are."""
        for path in sorted(set(self._folder.glob("*.npz")) - self._known):
            self._shards[path.name.split("-")[0]].append(read_shard(path))
            self._known.add(path)
        return sum(len(shard.frames) for shards in self._shards.values() for shard in shards)

    def draw_batch(self, size_px: int) -> Pictures:
        """Return two views of each of `PICTURES` random pictures: first ones, then second ones."""
        halves: list[list[Pictures]] = [[], []]
        for kind, n_pictures in _KINDS.items():
            shards = self._shards[kind]
            for shard_index, n in _spread(self._generator, len(shards), n_pictures):
                shard = shards[shard_index]
                rows = self._generator.integers(0, len(shard.frames), n)
                for half in halves:
                    half.append(make_views(shard, iter(rows), size_px, self._generator))
        parts = halves[0] + halves[1]
        return Pictures(
            **{
                f.name: np.concatenate([getattr(p, f.name) for p in parts])
                for f in fields(Pictures)
            }
        )


def _spread(
    generator: np.random.Generator, n_shards: int, n_pictures: int
) -> list[tuple[int, int]]:
    chosen, counts = np.unique(generator.integers(0, n_shards, n_pictures), return_counts=True)
    return list(zip(chosen.tolist(), counts.tolist(), strict=True))


def train(folder: Path, *, seconds: float, seed: int, begin_with: Path | None) -> None:
    """Train for a time, leaving checkpoints and a log in `folder`.

    Parameters
    ----------
    folder : Path
        Holds pool/; gets a checkpoint every five minutes, and log.jsonl. A checkpoint that is
        there already is gone on from.
    seconds : float
    seed : int
    begin_with : Path, optional
        Weights to begin with; at random by default.
    """
    keras = import_keras()
    keras.utils.set_random_seed(seed)
    import tensorflow as tf

    network = keras.applications.MobileNetV2(
        input_shape=(None, None, 3), alpha=ALPHA, include_top=False, weights=None
    )
    first = folder / _CHECKPOINT if (folder / _CHECKPOINT).exists() else begin_with
    if first is not None:
        network.load_weights(first)
    set_momentum(network, 0.98)
    outputs = [network.output, *(network.get_layer(name).output for name in TAPS)]
    tapped = keras.Model(network.input, outputs)
    pool = Pool(folder / "pool", seed)
    pool.refresh()
    samples = [
        describe(pool.draw_batch(SIZE_PX).frames / np.float32(127.5) - np.float32(1))
        for _ in range(_FRESH_BATCHES)
    ]
    tasks = Tasks(keras, DescriptorLoss(samples))
    variables = network.trainable_variables + tasks.variables
    optimizer = keras.optimizers.AdamW(PEAK_RATE, weight_decay=0.02, global_clipnorm=2.0)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    optimizer.build(variables)

    @tf.function  # type: ignore[untyped-decorator]
    def step(frames: Any, joints: Any, heading: Any, moments: Any, categories: Any) -> Any:
        scaled = tf.cast(frames, tf.float32) / 127.5 - 1.0
        with tf.GradientTape() as tape:
            last, *taps = tapped(scaled, training=True)
            vectors = tf.reduce_mean(last, axis=(1, 2))
            losses = tasks.losses(scaled, taps, vectors, joints, heading, moments, categories)
            total = tf.add_n(losses)
        optimizer.apply(tape.gradient(total, variables), variables)
        return tf.stack(losses)

    start, n_steps, sums = time.monotonic(), 0, np.zeros(len(tasks.names))
    batches: queue.Queue[Pictures] = queue.Queue(maxsize=6)
    ended = threading.Event()

    def elapsed() -> float:
        return (time.monotonic() - start) / seconds

    def supply() -> None:
        refreshed = time.monotonic()
        while not ended.is_set():
            if time.monotonic() - refreshed > 60:
                pool.refresh()
                refreshed = time.monotonic()
            batch = pool.draw_batch(SMALL_PX if elapsed() < SMALL_SHARE else SIZE_PX)
            while not ended.is_set():
                try:
                    batches.put(batch, timeout=1)
                    break
                except queue.Full:
                    continue

    supplier = threading.Thread(target=supply, daemon=True)
    supplier.start()
    saved = time.monotonic()
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        while (share := elapsed()) < 1.0:
            optimizer.learning_rate.assign(_rate(share, n_steps))
            batch = batches.get()
            sums += step(*(getattr(batch, field.name) for field in fields(Pictures))).numpy()
            n_steps += 1
            if n_steps % 100 == 0:
                means = dict(zip(tasks.names, (sums / 100).round(4).tolist(), strict=True))
                line = {"step": n_steps, "share": round(share, 4), "px": batch.frames.shape[1]}
                log.write(json.dumps(line | {"queued": batches.qsize()} | means) + "\n")
                log.flush()
                sums[:] = 0
            if time.monotonic() - saved > 300:
                _save(network, folder / _CHECKPOINT)
                saved = time.monotonic()
    ended.set()
    supplier.join()
    _save(network, folder / _CHECKPOINT)


def _rate(share: float, n_steps: int) -> float:
    """Warm up over 300 steps, then fall along a cosine that reaches 0 when the time is up."""
    return PEAK_RATE * min(1.0, (n_steps + 1) / 300) * (0.5 + 0.5 * float(np.cos(np.pi * share)))


def set_momentum(network: Any, momentum: float) -> None:
    """Set how slowly batch normalisation follows the batches; it is no part of the weights."""
    for layer in network.layers:
        if hasattr(layer, "moving_variance"):
            layer.momentum = momentum


def finish(folder: Path, out: Path, *, seed: int) -> None:
    """Estimate the statistics of batch normalisation anew and write the weights in half precision.

    Keras' MobileNetV2 has a momentum of 0.999: after a short training its own averages are
    still those of the beginning.
    """
    keras = import_keras()
    network = keras.applications.MobileNetV2(
        input_shape=(SIZE_PX, SIZE_PX, 3), alpha=ALPHA, include_top=False, weights=None
    )
    network.load_weights(folder / _CHECKPOINT)
    pool = Pool(folder / "pool", seed + 1)
    pool.refresh()
    estimate_statistics(network, (pool.draw_batch(SIZE_PX).frames for _ in range(_FRESH_BATCHES)))
    whole = folder / "finished.weights.h5"
    network.save_weights(whole)
    write_halves(whole, out)


def estimate_statistics(network: Any, batches: Iterable[FrameArray]) -> None:
    """Set the means and variances of batch normalisation to their averages over batches.

    Parameters
    ----------
    network : keras.Model
        Changed in place.
    batches : iterable of ndarray of uint8, shape (n, SIZE_PX, SIZE_PX, 3)
    """
    import tensorflow as tf

    set_momentum(network, 0.0)  # each batch then leaves its own statistics
    observe = tf.function(lambda frames: network(frames, training=True))
    kept = network.non_trainable_variables
    sums, n_batches = [np.zeros(variable.shape) for variable in kept], 0
    for frames in batches:
        observe(frames / np.float32(127.5) - np.float32(1))
        sums = [total + np.asarray(variable) for total, variable in zip(sums, kept, strict=True)]
        n_batches += 1
    for variable, total in zip(kept, sums, strict=True):
        variable.assign(total / n_batches)


def write_halves(path: Path, out: Path) -> None:
    """Copy an HDF5 weights file with all floats in half precision."""
    # The newest format wastes least on small datasets; compressing them would cost more.
    with h5py.File(path) as source, h5py.File(out, "w", libver="latest") as target:
        target.attrs.update(source.attrs)

        def copy(name: str, node: h5py.Group | h5py.Dataset) -> None:
            if isinstance(node, h5py.Dataset):
                target.create_dataset(name, data=node[()].astype(np.float16))
            else:
                target.require_group(name).attrs.update(node.attrs)

        source.visititems(copy)


def _save(network: Any, path: Path) -> None:
    partial = path.with_name("partial.weights.h5")
    network.save_weights(partial)
    partial.replace(path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, required=True, help="pool, checkpoints, log")
    parser.add_argument("--minutes", type=float, default=70.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--begin-with", type=Path, help="weights of an earlier training")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--figure-shards", type=int, default=28)
    parser.add_argument("--finish-only", action="store_true", help="from the last checkpoint")
    options = parser.parse_args()
    shards = []
    for number in range(options.figure_shards):
        shards += [("figures", number), ("textures", number)]
        if number % 3 == 0:
            shards.append(("fractals", number // 3))
    if not options.finish_only:
        n_processes = os.cpu_count() or 1
        fill_pool(
            options.folder / "pool", shards=shards, seed=options.seed, n_processes=n_processes
        )
        train(
            options.folder,
            seconds=60 * options.minutes,
            seed=options.seed,
            begin_with=options.begin_with,
        )
    finish(options.folder, options.out, seed=options.seed)


if __name__ == "__main__":
    main()
