"""Reading a store of 10,000 clips against numpy.load of the same bytes, and its writing.

    python benchmarks/store.py FOLDER --clips 10000 --repeats 5

FOLDER needs about 3 GB of room; what is written there is removed again.
"""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Callable
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
from features.store.store import find_damage, open_store, read_embeddings
from features.system.text import format_table

N_FRAMES, DIM = 20, 1280


def make_store(path: Path, n_clips: int) -> None:
    """Write a store in commits of 100 clips, as an extraction does, and merge it."""
    header = StoreHeader(
        BackboneSpec("MobileNetV2", "imagenet", "0" * 64, 1.0, 224, DIM),
        FrameSampling("uniform", N_FRAMES),
    )
    generator = np.random.default_rng(0)
    for start in range(0, n_clips, 100):
        clips = []
        for number in range(start, min(start + 100, n_clips)):
            vectors = generator.random((N_FRAMES, DIM), np.float32).astype(np.float16)
            record = ClipRecord(
                f"class{number % 100:03d}/{number:06d}.avi",
                f"class{number % 100:03d}",
                "",
                "",
                "done",
                "",
                N_FRAMES,
                SourceFile(1, 1, "0" * 64),
                VideoFacts(),
            )
            times = np.arange(N_FRAMES) / 25
            clips.append(EmbeddedClip(record, ClipEmbedding(vectors, times, np.arange(N_FRAMES))))
        commit_clips(path, header, clips, {"started": "benchmark"})
    merge_parts(path)


def seconds_of(work: Callable[[], object]) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def warm_cache(path: Path) -> None:
    """Read a file into the cache anew: how it was written would else decide its speed."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while file.read(1 << 24):
            pass


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--clips", default=10_000, show_default=True)
@click.option("--repeats", default=5, show_default=True)
def main(folder: Path, clips: int, repeats: int) -> None:
    """Compare, in turn, with the file cache warm for both."""
    work = folder / "benchmark-store"
    work.mkdir(parents=True)
    try:
        path, plain = work / "s.h5", work / "s.npy"
        writing = seconds_of(lambda: make_store(path, clips))
        store = open_store(path)
        np.save(plain, read_embeddings(store).vectors)
        for file in (path, plain):
            warm_cache(file)
        rows, ratios = [], []
        for repeat in range(1, repeats + 1):
            load = seconds_of(lambda: np.load(plain))
            read = seconds_of(lambda: read_embeddings(store))
            ratios.append(read / load)
            rows.append([str(repeat), f"{load:.3f}", f"{read:.3f}", f"{ratios[-1]:.2f}"])
        click.echo(
            f"{clips} clips x {N_FRAMES} x {DIM}, {plain.stat().st_size / 1e6:.0f} MB; "
            f"made, committed and merged in {writing:.1f} s"
        )
        click.echo(format_table(["repeat", "numpy.load s", "store s", "ratio"], rows))
        opening = seconds_of(lambda: open_store(path))
        checking = seconds_of(lambda: find_damage(store))
        click.echo(
            f"median ratio {statistics.median(ratios):.2f}; besides, opening the store, which "
            f"checks its table, takes {opening:.2f} s, and checking every embedding "
            f"{checking:.1f} s"
        )
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
