"""The clip table of a store as columns: one list per column, one row per clip."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from features.records import ClipRecord, SourceFile, VideoFacts

TEXT_COLUMNS = ("clip_id", "label", "group", "split", "status", "reason", "source_sha256")
NUMBER_COLUMNS: dict[str, type[np.generic]] = {
    "offset": np.int64,
    "n_frames": np.int64,
    "crc32": np.uint32,
    "source_size_bytes": np.int64,
    "source_mtime_ns": np.int64,
    "n_frames_header": np.int64,
    "n_frames_decoded": np.int64,
    "fps_header": np.float64,
    "width_px": np.int64,
    "height_px": np.int64,
    "is_current": np.uint8,
    "row_crc32": np.uint32,
}


def columns_from_records(clips: Sequence[ClipRecord]) -> dict[str, list[Any]]:
    """Lay clips out as columns; offsets count their frames up in the given order."""
    offsets = np.concatenate([[0], np.cumsum([clip.n_frames for clip in clips])])[: len(clips)]
    columns: dict[str, list[Any]] = {
        "clip_id": [clip.clip_id for clip in clips],
        "label": [clip.label for clip in clips],
        "group": [clip.group for clip in clips],
        "split": [clip.split for clip in clips],
        "status": [clip.status for clip in clips],
        "reason": [clip.reason for clip in clips],
        "source_sha256": [clip.source.sha256 for clip in clips],
        "offset": [int(offset) for offset in offsets],
        "n_frames": [clip.n_frames for clip in clips],
        "crc32": [clip.crc32 for clip in clips],
        "source_size_bytes": [clip.source.size_bytes for clip in clips],
        "source_mtime_ns": [clip.source.mtime_ns for clip in clips],
        "n_frames_header": [clip.facts.n_frames_header for clip in clips],
        "n_frames_decoded": [clip.facts.n_frames_decoded for clip in clips],
        "fps_header": [clip.facts.fps_header for clip in clips],
        "width_px": [clip.facts.width_px for clip in clips],
        "height_px": [clip.facts.height_px for clip in clips],
        "is_current": [int(clip.is_current) for clip in clips],
    }
    columns["row_crc32"] = _checksum_rows(columns)
    return columns


def find_whole_rows(columns: dict[str, list[Any]]) -> list[int]:
    """Return the positions of the rows that match their own checksum."""
    return [
        index
        for index, crc in enumerate(_checksum_rows(columns))
        if crc == columns["row_crc32"][index]
    ]


def records_from_columns(columns: dict[str, list[Any]]) -> tuple[ClipRecord, ...]:
    """Rebuild the clips that `columns_from_records` laid out."""
    names = tuple(columns)
    rows = (dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return tuple(
        ClipRecord(
            clip_id=row["clip_id"],
            label=row["label"],
            group=row["group"],
            split=row["split"],
            status=row["status"],
            reason=row["reason"],
            n_frames=row["n_frames"],
            source=SourceFile(
                row["source_size_bytes"], row["source_mtime_ns"], row["source_sha256"]
            ),
            facts=VideoFacts(
                row["n_frames_header"],
                row["n_frames_decoded"],
                row["fps_header"],
                row["width_px"],
                row["height_px"],
            ),
            crc32=row["crc32"],
            is_current=bool(row["is_current"]),
        )
        for row in rows
    )


def _checksum_rows(columns: dict[str, list[Any]]) -> list[int]:
    names = [name for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if name != "row_crc32"]
    rows = zip(*(columns[name] for name in names), strict=True)
    return [zlib.crc32(json.dumps(row).encode()) for row in rows]


def table_digest(header_text: str, history_text: str, columns: dict[str, list[Any]]) -> str:
    """Return the SHA-256 of everything in a file that is not an array of frames."""
    ordered = [columns[name] for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)]
    text = json.dumps([header_text, history_text, ordered])
    return hashlib.sha256(text.encode()).hexdigest()


def to_bytes(text: str) -> bytes:
    """Encode text for HDF5; bytes of a file name that are not UTF-8 come out as they were."""
    return text.encode("utf-8", "surrogateescape")


def to_text(value: bytes) -> str:
    """Decode what `to_bytes` encoded."""
    return value.decode("utf-8", "surrogateescape")
