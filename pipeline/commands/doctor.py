"""``doctor`` and ``weights``: what this machine offers, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from features.errors import EXIT_FAILED
from features.system.text import format_bytes, printable
from pipeline.commands.console import common_options, print_result
from pipeline.doctor.doctor import Check, examine_machine
from pipeline.doctor.weights import WeightsSummary, list_weights


@click.command("doctor")
@common_options
@click.pass_context
def doctor(ctx: click.Context, as_json: bool, quiet: bool) -> None:
    """Check this machine for the usual problems, and say how to fix each."""
    checks = examine_machine()
    print_result(doctor_to_json(checks), doctor_to_text(checks), as_json=as_json)
    ctx.exit(EXIT_FAILED if any(check.status == "broken" for check in checks) else 0)


@click.command("weights")
@common_options
def weights(as_json: bool, quiet: bool) -> None:
    """Show which weights are on this machine, and whether they are intact."""
    summary, _ = list_weights()
    print_result(weights_to_json(summary), weights_to_text(summary), as_json=as_json)


def doctor_to_json(checks: Sequence[Check]) -> dict[str, Any]:
    """Lay checks out for ``doctor --json``."""
    return {
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
