"""``extract-features``: embed a folder of videos."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from features.backbone.weights import BackboneOptions
from features.clips.discover import FolderOptions
from features.clips.summary import FolderSummary
from features.embed import EmbedOptions
from features.extract import (
    ExtractPreview,
    ExtractSummary,
    extract_features,
    preview_features,
)
from features.records import FrameSampling, VectorDtype
from features.system.text import (
    format_bytes,
    format_count,
    format_seconds,
    format_table,
    printable,
)
from features.video.sampling import choose_sampling
from pipeline.commands.console import (
    MOST_LISTED,
    PATH,
    ProgressBar,
    common_options,
    exit_for_failures,
    list_some,
    options_from,
    overwrite_option,
    print_result,
)

_PARTS = ("train", "val", "test")


@click.command("extract-features")
@click.argument("videos", type=PATH)
@click.option("--out", type=PATH, required=True, help="Store to write, an HDF5 file.")
@options_from(FolderOptions, "folder")
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
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be embedded, and about how long it takes; write nothing.",
)
@overwrite_option("Delete an existing store first, and embed everything anew.")
@common_options
def command(
    videos: Path,
    out: Path,
    folder: FolderOptions,
    sampling: FrameSampling,
    backbone: BackboneOptions,
    dtype: VectorDtype,
    embedding: EmbedOptions,
    retry_failed: bool,
    dry_run: bool,
    overwrite: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Embed every clip of the folder VIDEOS, once.

    Running it again decodes only what is new or changed. A clip that cannot be read does
    not stop it: such clips are listed at the end, and the exit code is 3.
    """
    if dry_run:
        preview = preview_features(
            videos,
            out,
            folder=folder,
            sampling=sampling,
            backbone=backbone,
            dtype=dtype,
            embedding=embedding,
            retry_failed=retry_failed,
            overwrite=overwrite,
        )
        print_result(preview_to_json(preview), preview_to_text(preview), as_json=as_json)
        return

    def show_found(found: FolderSummary) -> None:
        if not (quiet or as_json):
            click.echo(found_to_text(found), err=True)

    with ProgressBar(quiet=quiet) as bar:
        summary = extract_features(
            videos,
            out,
            folder=folder,
            sampling=sampling,
            backbone=backbone,
            dtype=dtype,
            embedding=embedding,
            retry_failed=retry_failed,
            overwrite=overwrite,
            on_found=show_found,
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
        **found_to_json(summary.found),
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


def found_to_json(found: FolderSummary) -> dict[str, Any]:
    """Lay out what was found in the folder."""
    parts = {part: sum(getattr(item, part) for item in found.classes) for part in _PARTS}
    return {
        "clips_found": found.clips,
        "clips_unlabelled": found.unlabelled,
        "is_multilabel": found.several is not None,
        **(
            {}
            if found.several is None
            else {"clips_of_several": found.several, "clips_of_nothing": found.nothing}
        ),
        "classes": [asdict(item) for item in found.classes if item.label],
        "groups": found.groups,
        "splits": parts,
        "labels_from": found.labels_from,
        "groups_from": found.groups_from,
        "remarks": list(found.notes),
    }


def found_to_text(found: FolderSummary) -> str:
    """Tell what was found in the folder, before anything is decoded."""
    parts = _PARTS if found.has_splits else ()
    shown = found.classes[:MOST_LISTED]
    rows = [
        [
            printable(item.label) or "(no label)",
            *map(str, (item.clips, item.groups, *(getattr(item, part) for part in parts))),
        ]
        for item in shown
    ]
    n_classes = len(found.classes) - bool(found.unlabelled)
    counted = f"{n_classes} class" if n_classes == 1 else f"{n_classes} classes"
    lines = [
        f"Found {format_count(found.clips, 'clip')} of {counted}",
        format_table(["class", "clips", "groups", *parts], rows),
    ]
    if len(found.classes) > len(shown):
        n_more = len(found.classes) - len(shown)
        lines.append(f"and {n_more} more classes, all listed with --json")
    if found.several is not None:
        nothing = format_count(found.nothing or 0, "clip")
        lines.append(
            f"Clips may have several classes: {format_count(found.several, 'clip')} with more "
            f"than one, {nothing} with none of them"
        )
    lines += [f"Labels: {printable(found.labels_from)}", f"Groups: {printable(found.groups_from)}"]
    return "\n".join([*lines, *(f"Note: {printable(note)}" for note in found.notes)])


def preview_to_json(preview: ExtractPreview) -> dict[str, Any]:
    """Lay out a preview for ``extract-features --dry-run --json``."""
    return {
        "dry_run": True,
        "engine": preview.engine.name,
        "engine_reason": preview.engine.reason,
        **found_to_json(preview.found),
        "clips_to_decode": preview.n_to_decode,
        "clips_already": preview.n_already,
        "clips_measured": preview.n_measured,
        "ignored": [{"path": item.path, "reason": item.reason} for item in preview.ignored],
        "estimated_frames": preview.frames,
        "estimated_seconds": round(preview.seconds, 1),
        "estimated_bytes": preview.store_bytes,
    }


def preview_to_text(preview: ExtractPreview) -> str:
    """Tell what an extraction would do."""
    lines = [found_to_text(preview.found)]
    if preview.ignored:
        lines.append(f"{format_count(len(preview.ignored), 'file')} passed over:")
        lines += list_some([f"{item.path}: {item.reason}" for item in preview.ignored])
    lines += [
        f"{preview.n_already} were there already, unchanged",
        f"{format_count(preview.n_to_decode, 'clip')} to embed: about "
        f"{format_seconds(preview.seconds)} and {format_bytes(preview.store_bytes)}, estimated "
        f"from {format_count(preview.n_measured, 'clip')} (engine {preview.engine.name}, "
        f"{preview.engine.reason})",
        "Nothing was written",
    ]
    return "\n".join(lines)


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
        ("not in the annotation file, kept but not trained on", summary.unlisted),
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
