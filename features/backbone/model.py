"""MobileNetV2 as one frozen function: uint8 RGB frames in, float vectors out.

Scaling to [-1, 1] and pooling are layers of the model, so that no caller can forget
or repeat them. This file builds the Keras model and converts it for LiteRT.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from features.backbone.int8 import quantise_backbone
from features.errors import WeightsUnreadable
from features.system.files import private_folder, sole_writer, whole_file
from features.system.keras import import_keras
from features.system.processes import claim_output, describe_problem

# Unlike 1, no crash of the interpreter ends with this.
EXIT_WEIGHTS_UNREADABLE = 64


def build_backbone(
    weights_path: Path, *, alpha: float, size_px: int, compute_dtype: str = "float32"
) -> Any:
    """Build the frozen backbone in Keras, its convolutions in float32, bfloat16 or float16.

    uint8 (n, size_px, size_px, 3) RGB goes in, float32 (n, embedding_dim) comes out, pooled in
    float32. WeightsUnreadable if the file is damaged or belongs to another backbone.
    """
    keras = import_keras()
    policy_before = keras.config.dtype_policy()
    policy = compute_dtype if compute_dtype == "float32" else f"mixed_{compute_dtype}"
    keras.config.set_dtype_policy(policy)
    try:
        network = keras.applications.MobileNetV2(
            input_shape=(size_px, size_px, 3),
            alpha=alpha,
            include_top=False,
            weights=None,
        )
        _load_weights(network, weights_path, alpha)
        pixels = keras.Input((size_px, size_px, 3), dtype="uint8", name="frames_rgb")
        scaled = keras.layers.Rescaling(1 / 127.5, offset=-1.0, dtype=policy)(pixels)
        pooled = keras.layers.GlobalAveragePooling2D(dtype="float32")(network(scaled))
        model = keras.Model(pixels, pooled, name="backbone")
    finally:
        keras.config.set_dtype_policy(policy_before)
    model.trainable = False
    return model


def _load_weights(network: Any, weights_path: Path, alpha: float) -> None:
    try:
        network.load_weights(weights_path)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        reason = str(problem).strip().splitlines() or [type(problem).__name__]
        raise WeightsUnreadable(
            f"A weights file must be a whole Keras HDF5 file of MobileNetV2 alpha={alpha} without "
            f"its top. Loading '{weights_path}' ({weights_path.stat().st_size} bytes) failed: "
            f"{reason[0]}.",
            hint="give the --alpha it was trained with; if it was truncated by a broken "
            "download, delete it and run the same command again",
        ) from problem


def convert_to_litert(
    weights_path: Path, out: Path, *, alpha: float, size_px: int, precision: str
) -> None:
    """Write the backbone as a LiteRT file, unless another process has done so meanwhile.

    Only TensorFlow converts. Call it in a process of its own: it moves that process's
    temporary folder.
    """
    with sole_writer(out), private_folder(out) as folder:
        if out.is_file():
            return
        # TensorFlow's temporary files are large, and nobody would clear them after a kill.
        tempfile.tempdir = str(folder)
        model = build_backbone(weights_path, alpha=alpha, size_px=size_px)
        with whole_file(out, sync=True) as partial:
            if precision == "int8":
                partial.write_bytes(quantise_backbone(model, size_px=size_px))
                return
            import tensorflow as tf

            # Keras before 3.13 cannot export to LiteRT; TensorFlow's converter always could.
            partial.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())


def main() -> None:
    """Convert as the command line says, WEIGHTS OUT ALPHA SIZE PRECISION; answer a known fault."""
    weights_path, out, alpha, size_px, precision = sys.argv[1:]
    answers = claim_output()
    try:
        convert_to_litert(
            Path(weights_path),
            Path(out),
            alpha=float(alpha),
            size_px=int(size_px),
            precision=precision,
        )
    except WeightsUnreadable as problem:
        answers.write(json.dumps(describe_problem(problem)).encode())
        answers.close()
        sys.exit(EXIT_WEIGHTS_UNREADABLE)
