"""What the machine offers, as text for people and as JSON: doctor, weights, versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from features.system.text import format_bytes, printable
from pipeline.doctor.checks import Check
from pipeline.doctor.weights import WeightsSummary

_SCHEMA = 1


def doctor_to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Lay checks out for ``doctor --json``."""
    return {
        "schema": _SCHEMA,
        "checks": [
            {"name": c.name, "status": c.status, "found": c.found, "hint": c.hint} for c in checks
        ],
        "broken": sum(check.status == "broken" for check in checks),
        "warnings": sum(check.status == "warning" for check in checks),
    }


def doctor_to_text(checks: Sequence[Check]) -> str:
    """Write one line per check, and below it what mends a fault."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.status:<7}  {check.name:<{width}}  {printable(check.found)}")
        if check.status != "ok":
            lines.append(f"{'':<{width + 11}}Hint: {printable(check.hint)}")
    report = doctor_to_json(checks)
    lines.append(f"{report['broken']} broken, {report['warnings']} to look at")
    return "\n".join(lines)


def weights_to_json(summary: WeightsSummary) -> dict[str, Any]:
    """Lay the weights on this machine out for ``weights --json``."""
    return {
        "schema": _SCHEMA,
        "keras_folder": str(summary.keras_folder),
        "converted_folder": str(summary.converted_folder),
        "weights": [
            {
                "name": item.name,
                "path": str(item.path),
                "alpha": item.alpha,
                "image_size": item.size_px,
                "bytes": item.size_bytes,
                "sha256": item.sha256,
                "state": item.state,
                "fault": item.fault,
            }
            for item in summary.files
        ],
        "converted": [
            {
                "path": str(item.path),
                "bytes": item.size_bytes,
                "source": None if item.source is None else str(item.source),
            }
            for item in summary.converted
        ],
    }


def weights_to_text(summary: WeightsSummary) -> str:
    """Name each weights file with its hash, and each converted backbone."""
    lines = []
    for item in summary.files:
        lines += [
            f"{item.name} alpha {item.alpha} {item.size_px} px: {item.state}, "
            f"{format_bytes(item.size_bytes)}",
            f"  {printable(str(item.path))}",
            f"  sha256 {item.sha256}",
        ]
        if item.fault:
            lines.append(f"  {printable(item.fault)}")
        if item.state == "broken":
            lines.append("  Hint: delete it; the next run downloads it again")
    if not any(item.name == "imagenet" for item in summary.files):
        lines.append("imagenet: nothing cached")
    lines.append(f"Keras' cache: {printable(str(summary.keras_folder))} (set by KERAS_HOME)")
    lines.append(f"Converted for LiteRT: {printable(str(summary.converted_folder))}")
    for model in summary.converted:
        source = "weights not listed above" if model.source is None else model.source.name
        lines.append(
            f"  {model.path.name}  {format_bytes(model.size_bytes)}  from {printable(source)}"
        )
    return "\n".join(lines)
