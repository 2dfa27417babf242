"""Stores without an extraction, also for processes that tests start: little to import."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from features.errors import OutputUnwritable
from features.records import (
    BackboneSpec,
    ClipEmbedding,
    ClipRecord,
    EmbeddedClip,
    FrameSampling,
    SourceFile,
    StoreHeader,
    VideoFacts,
)
from features.store.commit import commit_clips, lock_store, merge_parts
from features.store.repair import repair_store

__all__ = [
    "DIM",
    "ENTRY",
    "HEADER",
    "OutputUnwritable",
    "Path",
    "commit_clips",
    "lock_store",
    "make_clip",
    "make_failure",
    "merge_parts",
    "repair_store",
    "write_store",
]

DIM = 8
HEADER = StoreHeader(
    BackboneSpec("MobileNetV2", "imagenet", "ab" * 32, 0.35, 96, DIM), FrameSampling("uniform", 20)
)
ENTRY = {"started": "2026-01-01", "engine": "litert", "engine_version": "0"}


def make_clip(clip_id: str, n_frames: int, *, seed: int = 0, label: str = "jump") -> EmbeddedClip:
    generator = np.random.default_rng([seed, n_frames])
    embedding = ClipEmbedding(
        generator.random((n_frames, DIM)).astype(np.float16),
        np.arange(n_frames) / 25,
        np.arange(n_frames, dtype=np.int64) * 2,
    )
    record = ClipRecord(
        clip_id, label, "g1", "", "done", "", n_frames, SourceFile(9, 8, "c0"), VideoFacts(5, 5)
    )
    return EmbeddedClip(record, embedding)


def make_failure(clip_id: str) -> EmbeddedClip:
    record = ClipRecord(
        clip_id, "jump", "", "", "failed", "no frame", 0, SourceFile(1, 2, ""), VideoFacts()
    )
    return EmbeddedClip(record, None)


def write_store(path: Path, *commits: list[EmbeddedClip]) -> Path:
    for clips in commits:
        commit_clips(path, HEADER, clips, ENTRY)
    merge_parts(path)
    return path
