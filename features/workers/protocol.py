"""How a decode worker and its parent talk: JSON messages, each with an optional array.

Over plain pipes and without pickle: a worker that went wrong cannot make its parent
run code, and a frame is copied once, from the pipe into the array it ends in.
"""

from __future__ import annotations

import json
import struct
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_LENGTH = struct.Struct("<I")


def send_message(
    stream: IO[bytes], message: dict[str, Any], array: npt.NDArray[Any] | None = None
) -> None:
    """Write one message, with an array behind it as it lies in memory; OSError if nobody reads."""
    if array is not None:
        message = {**message, "array": [array.dtype.str, array.shape]}
    text = json.dumps(message).encode()
    stream.write(_LENGTH.pack(len(text)))
    stream.write(text)
    if array is not None:
        stream.write(np.ascontiguousarray(array).data.cast("B"))
    stream.flush()


def receive_message(stream: IO[bytes]) -> tuple[dict[str, Any], npt.NDArray[Any] | None] | None:
    """Read one message and its array; None if the other side ended, even in mid-message."""
    prefix = stream.read(_LENGTH.size)
    if len(prefix) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(prefix)
    text = stream.read(length)
    if len(text) < length:
        return None
    message: dict[str, Any] = json.loads(text)
    if "array" not in message:
        return message, None
    dtype, shape = message.pop("array")
    array = np.empty(shape, np.dtype(dtype))
    view = array.data.cast("B") if array.size else memoryview(b"")
    received = 0
    while received < len(view):
        # readinto: straight from the pipe into the array.
        count = stream.readinto(view[received:])  # type: ignore[attr-defined]
        if not count:
            return None
        received += count
    return message, array
