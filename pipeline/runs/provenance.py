"""What went into a result: digests, and where two results differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features.records import ClipRecord
from features.system.files import digest_json


def digest_clips(clips: Sequence[ClipRecord], groups: Mapping[str, str]) -> str:
    """Hash what clips contribute to a result: ids, labels, groups, checksums of embeddings."""
    rows = sorted((c.clip_id, c.label, groups[c.clip_id], c.n_frames, c.crc32) for c in clips)
    return digest_json(rows)


def name_differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> str:
    """Name the settings in which two results differ, such as "seed: 0, asked 1"."""
    keys = [key for key in {**have, **want} if have.get(key) != want.get(key)]
    return "; ".join(
        f"{key}: {_short(have.get(key))}, asked {_short(want.get(key))}" for key in keys
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
