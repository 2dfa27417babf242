"""Frames per core-second of the LiteRT engine, by threads and batch.

    python benchmarks/engines.py --weights imagenet --alpha 1.0

Shows why a worker embeds frame by frame on one thread.
"""

from __future__ import annotations

import statistics
import time

import click
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from features.backbone.engines import litert_model_path
from features.backbone.weights import BackboneOptions, find_backbone
from features.system.text import format_table


def measure(model_path: str, size_px: int, n_threads: int, batch: int) -> tuple[float, float]:
    """Return frames per second of wall-clock time and per core-second, over 1.5 s."""
    interpreter = Interpreter(model_path, num_threads=n_threads)
    place = interpreter.get_input_details()[0]["index"]
    frames = np.random.default_rng(0).integers(0, 256, (batch, size_px, size_px, 3), np.uint8)
    interpreter.resize_tensor_input(place, frames.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place, frames)
    interpreter.invoke()
    wall, core, n_frames = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < 1.5:
        interpreter.set_tensor(place, frames)
        interpreter.invoke()
        n_frames += batch
    return n_frames / (time.perf_counter() - wall), n_frames / (time.process_time() - core)


@click.command()
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--alpha", default=1.0, show_default=True)
@click.option("--image-size", default=224, show_default=True)
@click.option("--repeats", default=3, show_default=True)
def main(weights: str, alpha: float, image_size: int, repeats: int) -> None:
    """Measure every combination in turn, several times; print medians."""
    backbone = find_backbone(BackboneOptions(weights, alpha, image_size))
    path = str(litert_model_path(backbone))
    settings = [(threads, batch) for threads in (1, 2) for batch in (1, 4, 20)]
    found = [[measure(path, image_size, *setting) for setting in settings] for _ in range(repeats)]
    rows = [
        [
            str(threads),
            str(batch),
            f"{statistics.median(repeat[index][0] for repeat in found):.0f}",
            f"{statistics.median(repeat[index][1] for repeat in found):.0f}",
        ]
        for index, (threads, batch) in enumerate(settings)
    ]
    click.echo(format_table(["threads", "batch", "frames/s", "frames per core-second"], rows))


if __name__ == "__main__":
    main()
