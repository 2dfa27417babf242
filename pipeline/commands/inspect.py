"""``inspect``: what is in a store, and saving what is whole of a damaged one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from features.errors import EXIT_FAILED
from features.records import DECODER_NAMES
from features.store.inspect import StoreSummary, inspect_store
from features.store.repair import RepairSummary, repair_store
from features.system.text import format_bytes, format_count, format_table, printable
from pipeline.commands.console import PATH, common_options, list_some, print_result


@click.command("inspect")
@click.argument("store", type=PATH)
@click.option("--verify", is_flag=True, help="Compare every embedding with its checksum.")
@click.option(
    "--repair",
    is_flag=True,
    help="Rewrite a damaged store with the clips that are intact; the damaged file is kept "
    "beside it.",
)
@common_options
@click.pass_context
def command(
    ctx: click.Context, store: Path, verify: bool, repair: bool, as_json: bool, quiet: bool
) -> None:
    """Show what is in STORE, how it was made, and which clips failed and why."""
    if repair:
        click.echo(repair_to_text(repair_store(store)), err=True)
    summary = inspect_store(store, verify=verify)
    print_result(to_json(summary), to_text(summary), as_json=as_json)
    if summary.damaged:
        ctx.exit(EXIT_FAILED)


def to_json(summary: StoreSummary) -> dict[str, Any]:
    """Lay out a store for ``inspect --json``."""
    return {
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
        "decoder": summary.header.decoder,
        "history": list(summary.history),
        "labels": dict(summary.labels),
        "is_multilabel": summary.several is not None,
        **(
            {}
            if summary.several is None
            else {"clips_of_several": summary.several, "clips_of_nothing": summary.nothing}
        ),
        "groups": dict(summary.groups),
        "splits": dict(summary.splits),
        "failures": [{"id": clip.clip_id, "reason": clip.reason} for clip in summary.failures],
        "notes": [{"id": clip.clip_id, "note": clip.reason} for clip in summary.notes],
        "damaged": None if summary.damaged is None else list(summary.damaged),
    }


def to_text(summary: StoreSummary) -> str:
    """Tell what is in a store."""
    backbone = summary.header.backbone
    n_groups = len([name for name in summary.groups if name])
    rows = [
        ["clips", f"{summary.clips_done} done, {summary.clips_failed} failed"],
        ["frames", f"{summary.frames} ({summary.header.sampling})"],
        ["embedding", f"{backbone.embedding_dim} x {summary.header.dtype}"],
        ["size on disk", format_bytes(summary.size_bytes)],
        [
            "backbone",
            f"{backbone.name} alpha {backbone.alpha:g}, {backbone.size_px} px, "
            f"{backbone.precision}",
        ],
        ["weights", f"{backbone.weights} (sha256 {backbone.weights_sha256[:12]})"],
        [
            "input",
            f"{backbone.colour_order} in {backbone.scaling}, resize {backbone.resize}",
        ],
        ["decoder", DECODER_NAMES[summary.header.decoder]],
        ["fingerprint", summary.header.fingerprint[:12]],
        ["groups", str(n_groups) if n_groups else "unknown"],
    ]
    if summary.several is not None:
        several = format_count(summary.several, "clip")
        rows.append(
            [
                "labels",
                f"several per clip: {several} with more than one, "
                f"{summary.nothing} with none of the classes",
            ]
        )
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
        lines += ["", "Notes:"]
        lines += list_some([f"{clip.clip_id}: {clip.reason}" for clip in summary.notes])
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
