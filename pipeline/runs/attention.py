"""How much each frame weighs in what a head says, for heads that weigh frames."""

from __future__ import annotations

from typing import Any

from features.system.keras import import_keras
from pipeline.data.sequences import Sequences
from pipeline.heads.model import predict_probabilities
from pipeline.heads.registry import ATTENTION, HeadOptions


def read_attention(
    model: Any, sequences: Sequences, options: HeadOptions
) -> list[tuple[float, ...] | None]:
    """Compute the weight of every frame of every clip."""
    if options.window is not None or ATTENTION not in {layer.name for layer in model.layers}:
        return [None] * len(sequences.clip_ids)
    inner = import_keras().Model(model.inputs, model.get_layer(ATTENTION).output)
    weights = predict_probabilities(inner, sequences)
    return [
        tuple(float(weight) for weight in row[mask])
        for row, mask in zip(weights, sequences.mask, strict=True)
    ]
