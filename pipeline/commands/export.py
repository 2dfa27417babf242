"""``export-embeddings``: embeddings for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from features.system.text import format_count, printable
from pipeline.commands.console import (
    PATH,
    NamingOption,
    common_options,
    overwrite_option,
    print_result,
)
from pipeline.export.export import ExportLevel, ExportSummary, export_embeddings
from pipeline.export.formats import FORMATS


@click.command("export-embeddings")
@click.argument("store", type=PATH)
@click.option("--out", type=PATH, required=True, help="File to write; for the projector, a folder.")
@click.option(
    "--format",
    cls=NamingOption,
    names=FORMATS,
    metavar="[{names}]",  # no fixed choice: plug-ins add to it
    help="Format of the output.  [default: the one that the suffix of --out names]",
)
@click.option(
    "--level",
    type=click.Choice(["frame", "clip"]),
    help="One row per frame, or per clip: the mean over its frames.  [default: frame; with "
    "--head clip]",
)
@click.option(
    "--head",
    "run",
    type=PATH,
    metavar="RUN",
    help="Run of a trained head: export the vector that its last layer classifies, one per clip.",
)
@overwrite_option("Replace an existing export as soon as the new one is complete.")
@common_options
def command(
    store: Path,
    out: Path,
    format: str | None,
    level: ExportLevel | None,
    run: Path | None,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Export the embeddings in STORE in a format that other programs read."""
    summary = export_embeddings(
        store, out, format=format, level=level, run=run, overwrite=overwrite
    )
    print_result(asdict(summary), to_text(summary), as_json=as_json)


def to_text(summary: ExportSummary) -> str:
    """Tell what was exported."""
    left_out = f", {summary.n_failed} without embeddings left out" if summary.n_failed else ""
    return (
        f"{format_count(summary.n_rows, 'row')} of {summary.dim} numbers, one per "
        f"{summary.level}, from {format_count(summary.n_clips, 'clip')}{left_out}\n"
        f"{summary.format}: {printable(summary.path)}"
    )
