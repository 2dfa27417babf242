"""Results of stage 2 as text for people and as JSON for programs. No arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from features.system.text import format_count, format_table, printable
from pipeline.commands.render import SCHEMA
from pipeline.compare.comparison import Comparison
from pipeline.export.export import ExportSummary
from pipeline.report.pages import GROUPS_UNKNOWN
from pipeline.runs.predict import Prediction, PredictSummary
from pipeline.runs.run import RunSummary, summary_to_json
from pipeline.splits.leaks import describe_near_duplicates


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
    if summary.backwards is not None:
        lines.append(
            f"with the frames backwards {summary.backwards:.1%}, shuffled {summary.shuffled:.1%}"
        )
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
    orders = [f"{h.name} {h.backwards:.1%} / {h.shuffled:.1%}" for h in comparison.heads]
    lines.append(f"With the frames backwards / shuffled: {', '.join(orders)}")
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
                **({} if item.attention is None else {"attention": _list_attention(item)}),
                "note": item.note,
                **({} if item.overlay is None else {"overlay": str(item.overlay)}),
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
    drawn = [item.overlay for item in summary.predictions if item.overlay is not None]
    if drawn:
        lines.append(f"{format_count(len(drawn), 'overlay')}, first: {printable(str(drawn[0]))}")
    odd = [f"  {printable(p.path)}: {p.note}" for p in summary.predictions if p.note]
    if odd:
        lines += ["With fewer frames:", *odd]
    if summary.failures:
        lines += ["Failed:"]
        lines += [f"  {printable(item.clip_id)}: {item.reason}" for item in summary.failures]
    return "\n".join(lines)


def _list_attention(item: Prediction) -> list[dict[str, float]]:
    pairs = zip(item.frame_seconds, item.attention or (), strict=True)
    return [{"seconds": round(seconds, 3), "weight": weight} for seconds, weight in pairs]


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
