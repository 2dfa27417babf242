"""Frames per second of everything that could execute the backbone, side by side.

    python benchmarks/engines.py --weights imagenet --alpha 1.0

Each engine runs in a process of its own, on one core and on all (Linux only), on frames that are
there already. Of several batches the quickest counts. What is not installed is left out, with a
line saying so; ONNX needs tf2onnx as well.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np

from features.backbone.converted import convert_backbone
from features.backbone.model import build_backbone
from features.backbone.weights import BackboneFiles, BackboneOptions, find_backbone
from features.records import FrameArray
from features.system.machine import usable_cores
from features.system.text import format_table

Embed = Callable[[FrameArray], Any]

# Engine, precision, the packages it needs, and Keras' backend where it matters.
ENGINES = (
    ("LiteRT", "float32", ("ai_edge_litert",), ""),
    ("LiteRT", "int8", ("ai_edge_litert",), ""),
    ("ONNX Runtime", "float32", ("onnxruntime", "tf2onnx"), ""),
    ("OpenVINO", "float32", ("openvino",), ""),
    ("OpenVINO", "bfloat16", ("openvino",), ""),
    ("OpenVINO", "int8", ("openvino",), ""),
    ("Keras on TensorFlow", "float32", ("tensorflow",), "tensorflow"),
    ("Keras on TensorFlow", "bfloat16", ("tensorflow",), "tensorflow"),
    ("Keras on JAX", "float32", ("jax",), "jax"),
    ("Keras on JAX", "bfloat16", ("jax",), "jax"),
)
BATCHES = (1, 8, 32)
SECONDS = 2.0


def load(engine: str, precision: str, backbone: BackboneFiles, batch: int) -> Embed:
    """Load an engine for batches of one size."""
    spec = backbone.spec
    shape = [batch, spec.size_px, spec.size_px, 3]
    if engine == "LiteRT":
        return load_litert(str(converted(backbone, precision)), shape)
    if engine == "OpenVINO":
        import openvino

        # It reads the files that framehead makes for LiteRT, the quantised one included.
        model = openvino.Core().read_model(
            converted(backbone, "int8" if precision == "int8" else "float32")
        )
        model.reshape(shape)
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.compile_model(model, "CPU", hints)
        return lambda frames: compiled(frames)[0]
    model = build_backbone(
        backbone.weights_path,
        alpha=spec.alpha,
        size_px=spec.size_px,
        compute_dtype="float32" if precision == "float32" else "bfloat16",
    )
    if engine == "ONNX Runtime":
        return load_onnx(model)
    return lambda frames: np.asarray(model.predict_on_batch(frames), np.float32)


def converted(backbone: BackboneFiles, precision: Any) -> Path:
    """Return the LiteRT file of a precision."""
    return convert_backbone(replace(backbone.spec, precision=precision), backbone.weights_path)


def load_litert(path: str, shape: list[int]) -> Embed:
    """Load LiteRT with as many threads as there are cores."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=usable_cores())
    given = interpreter.get_input_details()[0]["index"]
    answer = interpreter.get_output_details()[0]["index"]
    interpreter.resize_tensor_input(given, shape)
    interpreter.allocate_tensors()

    def embed(frames: FrameArray) -> Any:
        interpreter.set_tensor(given, frames)
        interpreter.invoke()
        return interpreter.get_tensor(answer)

    return embed


def load_onnx(model: Any) -> Embed:
    """Export a Keras model to ONNX, and load that."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        model.predict_on_batch(np.zeros((1, *model.input_shape[1:]), np.uint8))
        model.export(f"{folder}/backbone.onnx", format="onnx", verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        session = onnxruntime.InferenceSession(f"{folder}/backbone.onnx", options)
    name = session.get_inputs()[0].name
    return lambda frames: session.run(None, {name: frames})[0]


def measure(engine: str, precision: str, backbone: BackboneFiles) -> dict[str, Any]:
    """Return frames per second by the clock and per core-second, of the quickest batch."""
    size_px = backbone.spec.size_px
    frames = np.random.default_rng(0).integers(0, 256, (32, size_px, size_px, 3), np.uint8)
    found = []
    for batch in BATCHES:
        embed = load(engine, precision, backbone, batch)
        embed(frames[:batch])
        embed(frames[:batch])
        wall, core, n_frames = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - wall < SECONDS:
            embed(frames[:batch])
            n_frames += batch
        wall, core = time.perf_counter() - wall, time.process_time() - core
        found.append({"batch": batch, "wall": n_frames / wall, "core": n_frames / core})
    return max(found, key=lambda item: item["core"])


def measure_apart(engine: str, precision: str, backend: str, cores: int, words: list[str]) -> Any:
    """Measure in a process of its own on so many cores; what fails there is said."""
    finished = subprocess.run(
        [sys.executable, __file__, *words, "--only", engine, precision, str(cores)],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": backend or "tensorflow"},
    )
    if finished.returncode:
        reason = (finished.stderr.strip().splitlines() or ["no reason"])[-1]
        click.echo(f"{engine} {precision} left out: {reason}", err=True)
        return None
    return json.loads(finished.stdout.splitlines()[-1])


@click.command()
@click.option("--weights", default="imagenet", show_default=True)
@click.option("--alpha", default=1.0, show_default=True)
@click.option("--image-size", default=224, show_default=True)
@click.option("--repeats", default=3, show_default=True)
@click.option("--only", type=(str, str, int), hidden=True)
def main(
    weights: str, alpha: float, image_size: int, repeats: int, only: tuple[str, str, int] | None
) -> None:
    """Measure every engine in turn, several times; print medians."""
    backbone = find_backbone(BackboneOptions(weights, alpha, image_size))
    if only:
        engine, precision, cores = only
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        click.echo(json.dumps(measure(engine, precision, backbone)))
        return
    words = ["--weights", weights, "--alpha", str(alpha), "--image-size", str(image_size)]
    found: dict[tuple[str, str, int], list[dict[str, float]]] = {}
    for _ in range(repeats):
        for engine, precision, packages, backend in ENGINES:
            missing = [name for name in packages if importlib.util.find_spec(name) is None]
            if missing:
                click.echo(f"{engine} {precision} left out: no {', '.join(missing)}", err=True)
                continue
            for cores in sorted({1, usable_cores()}):
                if one := measure_apart(engine, precision, backend, cores, words):
                    found.setdefault((engine, precision, cores), []).append(one)
    rows = [
        [
            engine,
            precision,
            str(cores),
            f"{statistics.median(one['batch'] for one in several):.0f}",
            f"{statistics.median(one['wall'] for one in several):.0f}",
            f"{statistics.median(one['core'] for one in several):.0f}",
        ]
        for (engine, precision, cores), several in found.items()
    ]
    header = ["engine", "precision", "cores", "batch", "frames/s", "frames per core-second"]
    click.echo(format_table(header, rows))


if __name__ == "__main__":
    main()
