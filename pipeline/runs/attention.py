"""How much each frame weighs in what a head says, for heads that weigh frames."""

from __future__ import annotations

from typing import Any

from features.system.keras import import_keras
from pipeline.data.sequences import Sequences
from pipeline.heads.model import look_inside, predict_probabilities
from pipeline.heads.registry import ATTENTION, HeadOptions


def read_attention(
    model: Any, sequences: Sequences, options: HeadOptions
) -> list[tuple[float, ...] | None]:
    """Compute the weight of every frame of every clip."""
    if options.window is not None or not _weighs_frames(model):
        return [None] * len(sequences.clip_ids)
    # Of several members the mean, whose weights sum to 1 as well.
    average = import_keras().layers.Average()
    inner = look_inside(model, lambda member: member.get_layer(ATTENTION).output, average)
    weights = predict_probabilities(inner, sequences)
    return [
        tuple(float(weight) for weight in row[mask])
        for row, mask in zip(weights, sequences.mask, strict=True)
    ]


def _weighs_frames(model: Any) -> bool:
    inside = [model, *(layer for layer in model.layers if hasattr(layer, "layers"))]
    return any(layer.name == ATTENTION for part in inside for layer in part.layers)
