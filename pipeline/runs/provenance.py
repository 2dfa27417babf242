"""What made a result: versions, platform, and digests of what went in."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from features.records import ClipRecord

_BACKEND_PACKAGES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}


def describe_environment() -> dict[str, Any]:
    """Say what runs here: date, platform and versions.

    Returns
    -------
    dict
        ``created`` (ISO 8601, UTC), ``platform``, ``versions``. Nothing is imported.
    """
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    packages = ["framehead", "keras", "numpy", "h5py", "scikit-learn"]
    versions = {"python": platform.python_version(), "backend": backend}
    for name in [*packages, _BACKEND_PACKAGES.get(backend, backend)]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "platform": platform.platform(),
        "versions": versions,
    }


def digest_clips(clips: Sequence[ClipRecord], groups: Mapping[str, str]) -> str:
    """Hash what clips contribute to a result.

    Parameters
    ----------
    clips : sequence of ClipRecord
    groups : mapping of str to str
        Clip id to group.

    Returns
    -------
    str
        Hexadecimal SHA-256 over ids, labels, groups and checksums of the embeddings.
    """
    rows = sorted((c.clip_id, c.label, groups[c.clip_id], c.n_frames, c.crc32) for c in clips)
    return digest_json(rows)


def digest_json(content: Any) -> str:
    """Return the hexadecimal SHA-256 of JSON-ready values."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def name_differences(have: Mapping[str, Any], want: Mapping[str, Any]) -> str:
    """Name the settings in which two results differ, for messages.

    Parameters
    ----------
    have, want : mapping of str to Any

    Returns
    -------
    str
        Such as "seed: 0, asked 1; head: lstm, asked gru".
    """
    keys = [key for key in {**have, **want} if have.get(key) != want.get(key)]
    return "; ".join(
        f"{key}: {_short(have.get(key))}, asked {_short(want.get(key))}" for key in keys
    )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}..."
