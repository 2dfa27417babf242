"""Results as text for people and as JSON for programs. No arithmetic beyond rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from features.extract import ExtractSummary
from features.inspect import StoreSummary
from features.repair import RepairSummary
from features.text import format_bytes, format_count, format_table, printable
from pipeline.comparison import Comparison
from pipeline.export import ExportSummary
from pipeline.leaks import describe_near_duplicates
from pipeline.predict import PredictSummary
from pipeline.report import GROUPS_UNKNOWN
from pipeline.runs import RunSummary, summary_to_json

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


def train_to_json(summary: RunSummary) -> dict[str, Any]:
    """Lay out a run for ``train-head --json``."""
    return {"schema": SCHEMA, **summary_to_json(summary)}


def train_to_text(summary: RunSummary) -> str:
    """Tell how a head does on the test part."""
    mark = "LEAKY " if summary.leaks else ""
    lines = [
        f"{summary.head}: {mark}accuracy {summary.accuracy:.1%} "
        f"(95 % interval {summary.low:.1%} to {summary.high:.1%}) on {summary.n_test} test clips",
        f"balanced accuracy {summary.balanced_accuracy:.1%}, macro-F1 {summary.macro_f1:.3f}",
        *_majority_lines(summary),
        f"trained on {summary.n_train} clips, stopped by {summary.n_val} validation clips after "
        f"{summary.epochs_run} epochs (best {summary.best_epoch}), {summary.seconds:.1f} s",
    ]
    if summary.n_excluded:
        lines.append(f"{format_count(summary.n_excluded, 'clip')} of the store in no part")
    if summary.n_failed:
        lines.append(f"{format_count(summary.n_failed, 'clip')} of the store without embeddings")
    if not summary.groups_known:
        lines.append(GROUPS_UNKNOWN)
    lines += _near_duplicate_lines(summary, summary.n_test)
    if summary.leaks:
        lines.append("LEAKY: groups stand on both sides of the split; do not report this accuracy")
    if not summary.is_new:
        lines.append("Trained before with the same settings; nothing was done")
    lines.append(f"Run: {printable(summary.path)}")
    return "\n".join(lines)


def compare_to_json(comparison: Comparison) -> dict[str, Any]:
    """Lay out a comparison for ``compare-heads --json``."""
    return {"schema": SCHEMA, **asdict(comparison)}


def compare_to_text(comparison: Comparison) -> str:
    """Tell how heads compare, best first."""
    rows = [
        [
            head.name,
            f"{head.accuracy.mean:.1%}",
            f"{head.accuracy.low:.1%} to {head.accuracy.high:.1%}",
            f"{head.balanced_accuracy:.1%}",
            f"{head.macro_f1:.3f}",
            f"{head.calibration_error:.3f}",
            str(head.n_parameters),
            f"{head.train_seconds:.1f}",
            f"{head.latency_ms:.2f}",
        ]
        for head in comparison.heads
    ]
    header = [
        "head",
        "accuracy",
        "95 % interval",
        "balanced",
        "macro-F1",
        "ECE",
        "parameters",
        "train s",
        "ms/clip",
    ]
    lines = [
        *(["LEAKY: groups stand on both sides of the split"] if comparison.leaks else []),
        format_table(header, rows),
        "",
        f"{comparison.n_clips} clips of {format_count(comparison.n_groups, 'group')}, "
        f"{format_count(comparison.n_splits, 'split')} x "
        f"{format_count(comparison.n_seeds, 'seed')}, "
        f"{format_count(comparison.n_trials, 'trial')} ({comparison.n_reused} from before) in "
        f"{comparison.seconds:.0f} s",
        f"Always naming {_listed_labels(comparison.majority_classes)} would get "
        f"{comparison.majority_accuracy:.1%}",
        *(printable(verdict) for verdict in comparison.verdicts),
    ]
    if comparison.n_excluded:
        lines.append(f"{format_count(comparison.n_excluded, 'clip')} of the store in no part")
    if comparison.n_failed:
        lines.append(f"{format_count(comparison.n_failed, 'clip')} of the store without embeddings")
    if not comparison.groups_known:
        lines.append(GROUPS_UNKNOWN)
    lines += _near_duplicate_lines(comparison, comparison.n_clips)
    lines.append(f"Comparison: {printable(comparison.path)}")
    return "\n".join(lines)


def export_to_json(summary: ExportSummary) -> dict[str, Any]:
    """Lay out an export for ``export-embeddings --json``."""
    return {"schema": SCHEMA, **asdict(summary)}


def export_to_text(summary: ExportSummary) -> str:
    """Tell what was exported."""
    left_out = f", {summary.n_failed} without embeddings left out" if summary.n_failed else ""
    return (
        f"{format_count(summary.n_rows, 'row')} of {summary.dim} numbers, one per "
        f"{summary.level}, from {format_count(summary.n_clips, 'clip')}{left_out}\n"
        f"{summary.format}: {printable(summary.path)}"
    )


def predict_to_json(summary: PredictSummary) -> dict[str, Any]:
    """Lay out predictions for ``predict --json``."""
    classes = summary.run.classes
    return {
        "schema": SCHEMA,
        "run": str(summary.run.path),
        "classes": list(classes),
        "leaks": summary.run.split.leaks,
        "predictions": [
            {
                "path": item.path,
                "label": item.label,
                "probabilities": dict(zip(classes, item.probabilities, strict=True)),
                "n_frames": item.n_frames,
                "note": item.note,
            }
            for item in summary.predictions
        ],
        "failures": [{"id": item.clip_id, "reason": item.reason} for item in summary.failures],
        "seconds": round(summary.seconds, 3),
    }


def predict_to_text(summary: PredictSummary) -> str:
    """Tell the most probable classes of each video."""
    rows = []
    for item in summary.predictions:
        ranked = sorted(zip(item.probabilities, summary.run.classes, strict=True), reverse=True)
        others = ", ".join(f"{printable(name)} {value:.1%}" for value, name in ranked[1:3])
        rows.append(
            [printable(item.path), printable(item.label), f"{max(item.probabilities):.1%}", others]
        )
    lines = ["LEAKY: the run's split leaks"] if summary.run.split.leaks else []
    if rows:
        lines.append(format_table(["video", "class", "probability", "then"], rows))
    odd = [f"  {printable(p.path)}: {p.note}" for p in summary.predictions if p.note]
    if odd:
        lines += ["With fewer frames:", *odd]
    if summary.failures:
        lines += ["Failed:"]
        lines += [f"  {printable(item.clip_id)}: {item.reason}" for item in summary.failures]
    return "\n".join(lines)


def _near_duplicate_lines(result: RunSummary | Comparison, n_test: int) -> list[str]:
    text = describe_near_duplicates(result.near_duplicates, result.n_near_duplicates, n_test)
    return [text] if text else []


def _majority_lines(summary: RunSummary) -> list[str]:
    if summary.majority_accuracy is None:
        return []  # a run of an earlier framehead
    guess = _listed_labels([summary.majority_class])
    lines = [f"always naming {guess} would get {summary.majority_accuracy:.1%}"]
    if summary.low <= summary.majority_accuracy:
        lines.append(f"{summary.head} is not better than always naming {guess}")
    return lines


def _listed_labels(labels: Sequence[str]) -> str:
    return " or ".join(f"'{printable(label)}'" for label in labels)


def _class_table(labels: Mapping[str, int]) -> str:
    rows = [[printable(label) or "(no label)", str(n)] for label, n in labels.items()]
    return format_table(["class", "clips"], rows)


def _listed(texts: Sequence[str]) -> list[str]:
    lines = [f"  {printable(text)}" for text in texts[:_MOST_LISTED]]
    if len(texts) > _MOST_LISTED:
        lines.append(f"  and {len(texts) - _MOST_LISTED} more, all listed with --json")
    return lines
