"""What went into a result: digests, and where two results differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from features.records import ClipRecord
from features.system.files import digest_json

# Settings whose value is a digest, which tells a reader nothing.
_DIGESTED = {
    "store_fingerprint": "the embeddings are made with other settings",
    "clips": "other clips, labels or groups",
    "split": "another split",
    "splits": "other splits",
    "head_source": "other code of the head",
}


def digest_clips(clips: Sequence[ClipRecord], groups: Mapping[str, str]) -> str:
    """Hash what clips contribute to a result: ids, labels, groups, checksums of embeddings."""
    rows = sorted(
        (c.clip_id, c.label, groups[c.clip_id], c.n_frames, c.crc32)
        if c.labels is None
        else (c.clip_id, c.label, groups[c.clip_id], c.n_frames, c.crc32, c.labels)
        for c in clips
    )
    return digest_json(rows)


def name_differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> str:
    """Name the settings in which two results differ, such as "seed: 0, asked 1"."""
    keys = [key for key in {**have, **want} if have.get(key) != want.get(key)]
    return "; ".join(
        _DIGESTED.get(key, f"{key}: {have.get(key)}, asked {want.get(key)}") for key in keys
    )
