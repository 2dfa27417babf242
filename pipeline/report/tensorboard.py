"""TensorBoard logs of a run, written by TensorFlow; the package ``tensorboard`` is not needed.

TensorFlow's ``tf.summary.scalar`` and ``image`` are in that package, but events and the file
they go into, which is a TFRecord file, are TensorFlow's own.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from features.system.files import read_json
from features.system.keras import import_keras, quiet_stderr
from pipeline.runs.run import RUN_FILE

LOG_FOLDER = "tensorboard"
_SCORES = ("balanced_accuracy", "macro_f1", "calibration_error", "majority_accuracy")
_PICTURES = ("curves", "confusion", "reliability", "precisions", "cooccurrences-true")
_RGBA = 4


def write_tensorboard(folder: Path) -> None:
    """Write ``tensorboard/`` of a run, from its other files: epochs, test scores and pictures.

    Training, validation and test are runs of their own, so that TensorBoard draws the curves
    of the same score into one chart. Test scores stand at the epoch whose weights were kept.
    """
    run = read_json(folder / RUN_FILE)
    history = read_json(folder / "history.json")
    scores = read_json(folder / "report.json")
    seconds = datetime.fromisoformat(run["created"]).timestamp()
    for name, prefix in (("train", ""), ("validation", "val_")):
        steps = [
            (epoch["epoch"], [_scalar(key, epoch[prefix + key]) for key in ("loss", "accuracy")])
            for epoch in history["epochs"]
        ]
        _write_events(folder / LOG_FOLDER / name, steps, seconds)
    accuracy = scores["accuracy"]
    values: dict[str, float] = {
        "accuracy": accuracy["mean"],
        "accuracy_low": accuracy["low"],
        "accuracy_high": accuracy["high"],
        **{key: scores[key] for key in _SCORES if key in scores},
        **{
            f"accuracy_{key}": value
            for key, value in scores.get("topk", {}).items()
            if key != "top1"
        },
    }
    if "mean_average_precision" in scores:
        score = scores["mean_average_precision"]
        values = {
            "mean_average_precision": score["mean"],
            "mean_average_precision_low": score["low"],
            "mean_average_precision_high": score["high"],
            "micro_f1": scores["micro_f1"],
            **values,
        }
    best = history["best_epoch"]
    scalars = [_scalar(tag, value) for tag, value in values.items()]
    images = [
        _image(name, (folder / f"{name}.png").read_bytes())
        for name in _PICTURES
        if (folder / f"{name}.png").exists()
    ]
    _write_events(folder / LOG_FOLDER / "test", [(best, scalars), (best, images)], seconds)


def _write_events(
    folder: Path, steps: Sequence[tuple[int, list[dict[str, Any]]]], seconds: float
) -> None:
    import_keras()  # so that TensorFlow starts without its pages of notices
    with quiet_stderr():
        import tensorflow as tf

    v1 = tf.compat.v1
    events = [v1.Event(wall_time=seconds, file_version="brain.Event:2")]
    for step, values in steps:
        summary = v1.Summary(value=[v1.Summary.Value(**value) for value in values])
        events.append(v1.Event(wall_time=seconds, step=step, summary=summary))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"events.out.tfevents.{int(seconds)}.framehead"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for event in events:
            writer.write(event.SerializeToString())


def _scalar(tag: str, value: float) -> dict[str, Any]:
    return {"tag": tag, "simple_value": value}


def _image(tag: str, png: bytes) -> dict[str, Any]:
    width, height = struct.unpack(">II", png[16:24])  # where every PNG says its size
    shape = {"height": height, "width": width, "colorspace": _RGBA}
    return {"tag": tag, "image": {**shape, "encoded_image_string": png}}
