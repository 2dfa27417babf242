"""Results as text for people and as JSON for programs. No arithmetic beyond rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from features.extract import ExtractSummary
from features.store.inspect import StoreSummary
from features.store.repair import RepairSummary
from features.system.text import format_bytes, format_count, format_table, printable

SCHEMA = 1
_MOST_LISTED = 20


def extract_to_json(summary: ExtractSummary) -> dict[str, Any]:
    """Lay out an extraction for ``extract-features --json``."""
    n_done = summary.count("done")
    return {
        "schema": SCHEMA,
        "store": str(summary.store),
        "fingerprint": summary.fingerprint,
        "engine": summary.engine.name,
        "engine_reason": summary.engine.reason,
        "clips_done": n_done,
        "clips_already": summary.count("already"),
        "clips_failed": summary.count("failed"),
        "failures": [{"id": item.clip_id, "reason": item.reason} for item in summary.failures],
        "notes": [{"id": clip_id, "note": note} for clip_id, note in summary.notes],
        "changed": list(summary.changed),
        "moved": [{"from": old, "to": new} for old, new in summary.moved],
        "vanished": list(summary.vanished),
        "unlisted": list(summary.unlisted),
        "ignored": [{"path": item.path, "reason": item.reason} for item in summary.ignored],
        "frames": summary.frames,
        "seconds": round(summary.seconds, 3),
        "frames_per_second": round(summary.frames / summary.seconds, 2),
        "clips_per_second": round(n_done / summary.seconds, 2),
    }


def extract_to_text(summary: ExtractSummary) -> str:
    """Tell what an extraction did."""
    n_done = summary.count("done")
    lines = [
        f"{format_count(n_done, 'clip')} embedded ({format_count(summary.frames, 'frame')}) in "
        f"{summary.seconds:.1f} s, {n_done / summary.seconds:.1f} clips/s, "
        f"engine {summary.engine.name} ({summary.engine.reason})",
        f"{summary.count('already')} were there already, unchanged",
        f"{summary.count('failed')} failed",
    ]
    for name, ids in (
        ("changed since the last time and embedded anew", summary.changed),
        ("moved, embeddings kept", [f"{old} -> {new}" for old, new in summary.moved]),
        ("gone from the folder, kept but not trained on", summary.vanished),
        ("not in the CSV, kept but not trained on", summary.unlisted),
    ):
        if ids:
            lines += [f"{len(ids)} {name}:", *_listed(ids)]
    if summary.ignored:
        lines.append(f"{format_count(len(summary.ignored), 'file')} passed over:")
        lines += _listed([f"{item.path}: {item.reason}" for item in summary.ignored])
    if summary.notes:
        lines.append(f"{format_count(len(summary.notes), 'clip')} with fewer frames:")
        lines += _listed([f"{clip_id}: {note}" for clip_id, note in summary.notes])
    if summary.failures:
        lines.append("Failed (those of earlier runs are tried again with --retry-failed):")
        # Every failure is listed: exit code 3 promises that.
        lines += [f"  {printable(item.clip_id)}: {item.reason}" for item in summary.failures]
    lines.append(f"Store: {printable(str(summary.store))}")
    return "\n".join(lines)


def inspect_to_json(summary: StoreSummary) -> dict[str, Any]:
    """Lay out a store for ``inspect --json``."""
    return {
        "schema": SCHEMA,
        "store": str(summary.path),
        "fingerprint": summary.header.fingerprint,
        "is_finished": summary.n_parts == 0,
        "clips_done": summary.clips_done,
        "clips_failed": summary.clips_failed,
        "clips_left_out": summary.clips_left_out,
        "frames": summary.frames,
        "size_bytes": summary.size_bytes,
        "backbone": asdict(summary.header.backbone),
        "sampling": asdict(summary.header.sampling),
        "dtype": summary.header.dtype,
        "history": list(summary.history),
        "labels": dict(summary.labels),
        "groups": dict(summary.groups),
        "splits": dict(summary.splits),
        "failures": [{"id": clip.clip_id, "reason": clip.reason} for clip in summary.failures],
        "notes": [{"id": clip.clip_id, "note": clip.reason} for clip in summary.notes],
        "damaged": None if summary.damaged is None else list(summary.damaged),
    }


def inspect_to_text(summary: StoreSummary) -> str:
    """Tell what is in a store."""
    backbone = summary.header.backbone
    n_groups = len([name for name in summary.groups if name])
    rows = [
        ["clips", f"{summary.clips_done} done, {summary.clips_failed} failed"],
        ["frames", f"{summary.frames} ({summary.header.sampling})"],
        ["embedding", f"{backbone.embedding_dim} x {summary.header.dtype}"],
        ["size on disk", format_bytes(summary.size_bytes)],
        ["backbone", f"{backbone.name} alpha {backbone.alpha:g}, {backbone.size_px} px"],
        ["weights", f"{backbone.weights} (sha256 {backbone.weights_sha256[:12]})"],
        [
            "input",
            f"{backbone.colour_order} in {backbone.scaling}, resize {backbone.resize}",
        ],
        ["fingerprint", summary.header.fingerprint[:12]],
        ["groups", str(n_groups) if n_groups else "unknown"],
    ]
    rows += [["made", f"{run['started']} by {run['engine_version']}"] for run in summary.history]
    if summary.clips_left_out:
        n_left_out = format_count(summary.clips_left_out, "clip")
        rows.append(["left out", f"{n_left_out}, no longer in the folder or CSV"])
    if summary.n_parts:
        n_parts = format_count(summary.n_parts, "commit")
        rows.append(["UNFINISHED", f"{n_parts} to merge: run the same extract-features again"])
    lines = [f"{name:<13} {printable(value)}" for name, value in rows]
    lines += ["", _class_table(summary.labels)]
    if any(summary.splits):
        counts = ", ".join(f"{name or 'none'} {n}" for name, n in summary.splits.items())
        lines += ["", f"Split: {counts}"]
    if summary.notes:
        lines += ["", "With fewer frames:"]
        lines += _listed([f"{clip.clip_id}: {clip.reason}" for clip in summary.notes])
    if summary.failures:
        lines += ["", "Failed:"]
        lines += [f"  {printable(clip.clip_id)}: {clip.reason}" for clip in summary.failures]
    if summary.damaged is not None:
        lines += ["", f"Verified: {len(summary.damaged)} damaged clips"]
        lines += [f"  {printable(clip_id)}" for clip_id in summary.damaged]
    return "\n".join(lines)


def repair_to_text(summary: RepairSummary) -> str:
    """Tell what a repair saved."""
    if not summary.set_aside:
        return "Nothing to repair: every clip is whole."
    kept_as = ", ".join(printable(path.name) for path in summary.set_aside)
    return (
        f"Repaired: {format_count(summary.n_kept, 'clip')} saved, {summary.n_lost} lost; the "
        f"damaged file is kept as {kept_as}. Run extract-features again to embed the lost clips."
    )


def _class_table(labels: Mapping[str, int]) -> str:
    rows = [[printable(label) or "(no label)", str(n)] for label, n in labels.items()]
    return format_table(["class", "clips"], rows)


def _listed(texts: Sequence[str]) -> list[str]:
    lines = [f"  {printable(text)}" for text in texts[:_MOST_LISTED]]
    if len(texts) > _MOST_LISTED:
        lines.append(f"  and {len(texts) - _MOST_LISTED} more, all listed with --json")
    return lines
