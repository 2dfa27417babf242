"""Small synthetic stores for the tests of stage 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

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
from features.store.commit import commit_clips, merge_parts

DIM = 12


def make_header(dim: int = DIM, *, weights_sha256: str = "0" * 64) -> StoreHeader:
    backbone = BackboneSpec("MobileNetV2", "imagenet", weights_sha256, 0.35, 96, dim)
    return StoreHeader(backbone, FrameSampling("uniform", 6.0), "float32")


def make_clip(
    clip_id: str, label: str, group: str = "", split: str = "", n_frames: int = 5
) -> ClipRecord:
    source = SourceFile(1, 1, "00")
    return ClipRecord(clip_id, label, group, split, "done", "", n_frames, source, VideoFacts())


def make_clips(
    *, classes: Sequence[str] = ("dive", "jump", "walk"), n_groups: int = 6, per_group: int = 2
) -> list[ClipRecord]:
    """Clips named as in UCF101, every group of one class."""
    return [
        make_clip(f"{label}/v_{label}_g{g:02d}_c{c:02d}.avi", label, f"{label}_g{g:02d}")
        for label in classes
        for g in range(1, n_groups + 1)
        for c in range(1, per_group + 1)
    ]


def write_store(
    path: Path,
    clips: Sequence[ClipRecord],
    *,
    failed: Sequence[ClipRecord] = (),
    header: StoreHeader | None = None,
    signal: float = 2.0,
    seed: int = 0,
    n_frames: tuple[int, int] = (2, 7),
) -> Path:
    """Write a store in which every class has a direction of its own, with noise.

    Clips have a random number of frames, from the first of `n_frames` to below the second.
    """
    header = header or make_header()
    dim = header.backbone.embedding_dim
    rng = np.random.default_rng(seed)
    directions = {label: rng.normal(size=dim) for label in sorted({c.label for c in clips})}
    pending = []
    for clip in clips:
        n = int(rng.integers(*n_frames))
        vectors = rng.normal(size=(n, dim)) + signal * directions[clip.label]
        piece = ClipEmbedding(vectors.astype(header.dtype), np.arange(n) / 25, np.arange(n))
        pending.append(EmbeddedClip(replace(clip, n_frames=n), piece))
    for clip in failed:
        record = replace(clip, status="failed", reason="unreadable", n_frames=0)
        pending.append(EmbeddedClip(record, None))
    commit_clips(path, header, pending, {"by": "test"})
    merge_parts(path)
    return path


def write_multilabel_store(
    path: Path,
    *,
    classes: Sequence[str] = ("dive", "jump", "walk", "wave"),
    n_groups: int = 20,
    per_group: int = 4,
    signal: float = 2.0,
    seed: int = 0,
    is_random: bool = False,
) -> Path:
    """Write a store whose clips have several classes: the sum of their directions, with noise.

    Clips of a group have nearly the same classes. With `is_random`, what is said of them has
    nothing to do with what they show.
    """
    header = make_header()
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(len(classes), DIM))
    pending = []
    for group in range(n_groups):
        usual = rng.random(len(classes)) < 0.35
        for number in range(per_group):
            shown = usual ^ (rng.random(len(classes)) < 0.15)
            said = rng.random(len(classes)) < 0.35 if is_random else shown
            names = tuple(name for name, has in zip(classes, said, strict=True) if has)
            n = int(rng.integers(2, 7))
            vectors = rng.normal(size=(n, DIM)) + signal * shown @ directions
            piece = ClipEmbedding(vectors.astype(header.dtype), np.arange(n) / 25, np.arange(n))
            clip = make_clip(f"g{group:02d}_{number}.avi", ";".join(names), f"g{group:02d}")
            record = replace(clip, labels=names, n_frames=n)
            pending.append(EmbeddedClip(record, piece))
    commit_clips(path, header, pending, {"by": "test"})
    merge_parts(path)
    return path
