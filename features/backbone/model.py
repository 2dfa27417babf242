"""MobileNetV2 as one frozen function: uint8 RGB frames in, float vectors out.

Scaling to [-1, 1] and pooling are layers of the model, so that no caller can forget
or repeat them. This file builds the Keras model and converts it for LiteRT.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from features.errors import WeightsUnreadable
from features.system.keras import import_keras

# Unlike 1, no crash of the interpreter ends with this.
EXIT_WEIGHTS_UNREADABLE = 64


def build_backbone(
    weights_path: Path, *, alpha: float, size_px: int, compute_dtype: str = "float32"
) -> Any:
    """Build the frozen backbone in Keras.

    Parameters
    ----------
    weights_path : Path
        Keras HDF5 weights, without the classification layer.
    alpha : float
        Width multiplier the weights were trained with.
    size_px : int
        Side of the input, pixels.
    compute_dtype : {"float32", "bfloat16", "float16"}, default "float32"
        Type of the convolutions; pooling is always done in float32.

    Returns
    -------
    keras.Model
        uint8 (n, size_px, size_px, 3) RGB in, float32 (n, embedding_dim) out.

    Raises
    ------
    WeightsUnreadable
        If the file is damaged or belongs to another backbone.
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


def convert_to_litert(weights_path: Path, out: Path, *, alpha: float, size_px: int) -> None:
    """Write the backbone as a LiteRT model. Needs TensorFlow, which does the conversion.

    Parameters
    ----------
    weights_path, alpha, size_px
        As in `build_backbone`.
    out : Path
        The ``.tflite`` file; it appears whole or not at all.

    Raises
    ------
    WeightsUnreadable
        As in `build_backbone`.
    """
    model = build_backbone(weights_path, alpha=alpha, size_px=size_px)
    import tensorflow as tf

    partial = out.with_name(f"{out.stem}.{os.getpid()}.partial.tflite")
    try:
        # Keras before 3.13 cannot export to LiteRT; TensorFlow's converter always could.
        partial.write_bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def main() -> None:
    """Convert in a process of its own: ``python -m features.backbone.model IN OUT ALPHA SIZE``."""
    weights_path, out, alpha, size_px = sys.argv[1:]
    try:
        convert_to_litert(Path(weights_path), Path(out), alpha=float(alpha), size_px=int(size_px))
    except WeightsUnreadable as problem:
        # The parent process rebuilds the error from these two lines.
        print(problem.message, problem.hint, sep="\n")
        sys.exit(EXIT_WEIGHTS_UNREADABLE)


if __name__ == "__main__":
    main()
