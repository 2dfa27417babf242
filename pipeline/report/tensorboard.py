"""TensorBoard logs of a run, written without TensorFlow or TensorBoard.

The file format is TensorFlow's: records of a length, its checksum, the content and its
checksum (``tensorflow/core/lib/io/record_writer.h``), where the content is an ``Event`` in
the wire format of protocol buffers (``tensorflow/core/util/event.proto``).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path

from features.system.files import read_json
from pipeline.runs.run import RUN_FILE

LOG_FOLDER = "tensorboard"
_SCORES = ("balanced_accuracy", "macro_f1", "calibration_error", "majority_accuracy")
_PICTURES = ("curves", "confusion", "reliability")
_RGBA = 4
# How a field is laid out, in the lowest bits of its key.
_COUNT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5


def write_tensorboard(folder: Path) -> None:
    """Write ``tensorboard/`` of a run: epochs of training and validation, and test scores.

    Training, validation and test are runs of their own, so that TensorBoard draws the curves
    of the same score into one chart. Test scores stand at the epoch whose weights were kept.

    Parameters
    ----------
    folder : Path
        The run's folder, with all other files.
    """
    run = read_json(folder / RUN_FILE)
    history = read_json(folder / "history.json")
    scores = read_json(folder / "report.json")
    seconds = datetime.fromisoformat(run["created"]).timestamp()
    for name, prefix in (("train", ""), ("validation", "val_")):
        events = [
            _scalars({key: epoch[prefix + key] for key in ("loss", "accuracy")}, epoch["epoch"])
            for epoch in history["epochs"]
        ]
        _write_events(folder / LOG_FOLDER / name, events, seconds)
    accuracy = scores["accuracy"]
    values = {
        "accuracy": accuracy["mean"],
        "accuracy_low": accuracy["low"],
        "accuracy_high": accuracy["high"],
        **{key: scores[key] for key in _SCORES},
        **{f"accuracy_{key}": value for key, value in scores["topk"].items() if key != "top1"},
    }
    pictures = {name: (folder / f"{name}.png").read_bytes() for name in _PICTURES}
    best = history["best_epoch"]
    events = [_scalars(values, best), _images(pictures, best)]
    _write_events(folder / LOG_FOLDER / "test", events, seconds)


def _write_events(folder: Path, events: Iterable[bytes], seconds: float) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stamp = _varint(1 << 3 | _FIXED_64) + struct.pack("<d", seconds)
    first = _field(3, b"brain.Event:2")
    with (folder / f"events.out.tfevents.{int(seconds)}.framehead").open("wb") as file:
        for event in (first, *events):
            content = stamp + event
            length = struct.pack("<Q", len(content))
            file.write(length + _checksum(length) + content + _checksum(content))


def _scalars(values: Mapping[str, float], step: int) -> bytes:
    key = _varint(2 << 3 | _FIXED_32)
    coded = [_field(1, tag.encode()) + key + struct.pack("<f", v) for tag, v in values.items()]
    return _event(coded, step)


def _images(pictures: Mapping[str, bytes], step: int) -> bytes:
    values = []
    for tag, png in pictures.items():
        width, height = struct.unpack(">II", png[16:24])  # where every PNG says its size
        image = _field(1, height) + _field(2, width) + _field(3, _RGBA) + _field(4, png)
        values.append(_field(1, tag.encode()) + _field(4, image))
    return _event(values, step)


def _event(values: Iterable[bytes], step: int) -> bytes:
    return _field(2, step) + _field(5, b"".join(_field(1, value) for value in values))


def _field(number: int, value: int | bytes) -> bytes:
    """Encode one field: a count, or a text, picture or message."""
    if isinstance(value, int):
        return _varint(number << 3 | _COUNT) + _varint(value)
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    coded = bytearray()
    while value > 0x7F:
        coded.append(value & 0x7F | 0x80)
        value >>= 7
    coded.append(value)
    return bytes(coded)


def _checksum(content: bytes) -> bytes:
    """Return the CRC-32C (Castagnoli) of some bytes, masked as the format wants it."""
    table = _crc_table()
    crc = 0xFFFFFFFF
    for byte in content:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)


@cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)
