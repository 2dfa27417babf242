"""``extract-features``: embed a folder of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from features.backbone.weights import BackboneOptions
from features.embed import EmbedOptions
from features.extract import ExtractSummary, extract_features
from features.records import FrameSampling, VectorDtype
from features.system.text import format_count, printable
from features.video.sampling import choose_sampling
from pipeline.commands.console import (
    PATH,
    ProgressBar,
    common_options,
    exit_for_failures,
    list_some,
    options_from,
    overwrite_option,
    print_result,
)


@click.command("extract-features")
@click.argument("videos", type=PATH)
@click.option("--out", type=PATH, required=True, help="Store to write, an HDF5 file.")
@click.option(
    "--labels",
    default="folder",
    show_default=True,
    metavar="folder|FILE.csv",
    help="Take labels from class folders, or from a CSV with the columns path, label, group, "
    "split.",
)
@click.option(
    "--group-regex",
    metavar="REGEX",
    help="Regular expression whose first parenthesis names the group in a clip's path.  "
    "[default: the CSV's column, else read off file names as in UCF101, KTH, HMDB51, NTU and "
    "Kinetics]",
)
@options_from(choose_sampling, "sampling")
@options_from(BackboneOptions, "backbone")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Number type of the stored embeddings.",
)
@options_from(EmbedOptions, "embedding")
@click.option("--retry-failed", is_flag=True, help="Try again the clips that failed before.")
@overwrite_option("Delete an existing store first, and embed everything anew.")
@common_options
def command(
    videos: Path,
    out: Path,
    labels: str,
    group_regex: str | None,
    sampling: FrameSampling,
    backbone: BackboneOptions,
    dtype: VectorDtype,
    embedding: EmbedOptions,
    retry_failed: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Embed every clip of the folder VIDEOS, once.

    Running it again decodes only what is new or changed. A clip that cannot be read does
    not stop it: such clips are listed at the end, and the exit code is 3.
    """
    with ProgressBar(quiet=quiet) as bar:
        summary = extract_features(
            videos,
            out,
            labels=None if labels == "folder" else labels,
            group_regex=group_regex,
            sampling=sampling,
            backbone=backbone,
            dtype=dtype,
            embedding=embedding,
            retry_failed=retry_failed,
            overwrite=overwrite,
            on_progress=bar.update,
        )
    print_result(to_json(summary), to_text(summary), as_json=as_json)
    exit_for_failures(summary.failures)


def to_json(summary: ExtractSummary) -> dict[str, Any]:
    """Lay out an extraction for ``extract-features --json``."""
    n_done = summary.count("done")
    return {
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


def to_text(summary: ExtractSummary) -> str:
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
            lines += [f"{len(ids)} {name}:", *list_some(ids)]
    if summary.ignored:
        lines.append(f"{format_count(len(summary.ignored), 'file')} passed over:")
        lines += list_some([f"{item.path}: {item.reason}" for item in summary.ignored])
    if summary.notes:
        lines.append(f"{format_count(len(summary.notes), 'clip')} with a note:")
        lines += list_some([f"{clip_id}: {note}" for clip_id, note in summary.notes])
    if summary.failures:
        lines.append("Failed (those of earlier runs are tried again with --retry-failed):")
        # Every failure is listed: exit code 3 promises that.
        lines += [f"  {printable(item.clip_id)}: {item.reason}" for item in summary.failures]
    lines.append(f"Store: {printable(str(summary.store))}")
    return "\n".join(lines)
