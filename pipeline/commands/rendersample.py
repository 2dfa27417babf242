"""A sample of drawn clips as text for people and as JSON for programs."""

from __future__ import annotations

from typing import Any

from features.system.text import format_bytes, format_count, printable
from pipeline.demo.drawing.sample import SampleSummary

_SCHEMA = 1


def sample_to_json(summary: SampleSummary) -> dict[str, Any]:
    """Lay out a sample for ``make-sample --json``."""
    spec = summary.spec
    return {
        "schema": _SCHEMA,
        "folder": str(summary.folder),
        "labels": str(summary.csv_path),
        "clips": summary.n_clips,
        "clips_drawn": summary.n_drawn,
        "actors": spec.n_actors,
        "takes": spec.n_takes,
        "actions": list(spec.actions),
        "size": spec.size_px,
        "seed": spec.seed,
        "bytes": summary.n_bytes,
        "seconds": round(summary.seconds, 3),
    }


def sample_to_text(summary: SampleSummary) -> str:
    """Tell what a sample consists of and what to do with it."""
    spec = summary.spec
    there = summary.n_clips - summary.n_drawn
    folder = printable(str(summary.folder))
    return (
        f"{format_count(summary.n_drawn, 'clip')} drawn in {summary.seconds:.1f} s, "
        f"{there} were there already\n"
        f"{format_count(len(spec.actions), 'action')}, {format_count(spec.n_actors, 'actor')} "
        f"(each a group), {format_bytes(summary.n_bytes)} in {folder}\n"
        f"Next: framehead extract-features {folder} --labels "
        f"{printable(str(summary.csv_path))} --out features.h5"
    )
