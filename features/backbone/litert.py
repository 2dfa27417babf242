"""The backbone on LiteRT; imports little, because every decode worker starts with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.records import FrameArray


class Engine(Protocol):
    """A backbone that is ready to run."""

    batch_frames: int

    def embed(self, frames: FrameArray) -> npt.NDArray[np.float32]:
        """Embed at most `batch_frames` RGB frames, (n, size_px, size_px, 3), each as one row."""
        ...


class LiteRTEngine:
    """The backbone on LiteRT (XNNPACK), one thread, from the file of `convert_backbone`."""

    # Of one call. Inside, it goes frame by frame: what one frame needs stays in the cache of a
    # core, which does about a twentieth more frames per core-second than batches of four.
    batch_frames = 32

    def __init__(self, model_path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(str(model_path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        output = self._interpreter.get_output_details()[0]
        self._output = output["index"]
        self._embedding_dim = int(output["shape"][-1])

    def embed(self, frames: FrameArray) -> npt.NDArray[np.float32]:
        """Embed frames; see `Engine.embed`."""
        vectors = np.empty((len(frames), self._embedding_dim), np.float32)
        for index in range(len(frames)):
            self._interpreter.set_tensor(self._input, frames[index : index + 1])
            self._interpreter.invoke()
            vectors[index] = self._interpreter.get_tensor(self._output)[0]
        return vectors
