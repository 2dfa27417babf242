"""``predict``: what a trained head says of videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from features.embed import EmbedOptions
from features.records import DECODER_NAMES
from features.system.text import format_count, format_table, printable
from pipeline.commands.console import (
    PATH,
    ProgressBar,
    common_options,
    exit_for_failures,
    options_from,
    overwrite_option,
    print_result,
)
from pipeline.runs.predict import Prediction, PredictSummary, predict_videos


@click.command("predict")
@click.argument("run", type=PATH)
@click.argument("videos", type=PATH, nargs=-1, required=True, metavar="VIDEO...")
@click.option(
    "--weights",
    type=PATH,
    help="Where the backbone's weights are now.  [default: where they were when the store was "
    "made]",
)
@click.option(
    "--coverage",
    type=float,
    metavar="SHARE",
    help="List the classes of which one is right this often, such as 0.9, in videos of new "
    "groups; 'none of these' where that is none or all.",
)
@click.option(
    "--overlay",
    type=PATH,
    metavar="OUT",
    help="Write a copy of the video with the prediction drawn below: OUT.mp4 (H.264, plays "
    "everywhere), OUT.webm (VP8) or OUT.avi (Motion JPEG); for several videos a folder.",
)
@overwrite_option("Replace existing overlays.")
@click.option(
    "--frame-rate",
    type=float,
    help="Frames per second of folders of pictures; needed if the store was made with --fps.",
)
@options_from(EmbedOptions, "embedding")
@common_options
def command(
    run: Path,
    videos: tuple[Path, ...],
    weights: Path | None,
    coverage: float | None,
    overlay: Path | None,
    overwrite: bool,
    frame_rate: float | None,
    embedding: EmbedOptions,
    as_json: bool,
    quiet: bool,
) -> None:
    """Classify video files, or all videos of a folder or archive, with the trained head in RUN.

    A folder of numbered pictures is one video. FILE#12.0-15.5 is a part of one, from second 12 to
    15.5, and FILE#f300-f388 from frame 300 to before 388; "end" stands for the file's end.
    """
    with ProgressBar(quiet=quiet) as bar:
        summary = predict_videos(
            run,
            videos,
            weights=weights,
            embedding=embedding,
            coverage=coverage,
            overlay=overlay,
            overwrite=overwrite,
            frame_rate=frame_rate,
            on_progress=bar.update,
        )
    decoder = summary.run.header.decoder
    if decoder != "pyav":
        click.echo(
            f"The run learned from frames that {DECODER_NAMES[decoder]} decoded; PyAV decodes now. "
            "Interlaced and damaged videos look different, others by rounding only.",
            err=True,
        )
    print_result(to_json(summary), to_text(summary), as_json=as_json)
    exit_for_failures(summary.failures)


def to_json(summary: PredictSummary) -> dict[str, Any]:
    """Lay out predictions for ``predict --json``."""
    classes = summary.run.classes
    return {
        "run": str(summary.run.path),
        "classes": list(classes),
        **(
            {}
            if summary.run.thresholds is None
            else {"thresholds": dict(zip(classes, summary.run.thresholds, strict=True))}
        ),
        "leaks": summary.run.split.leaks,
        "predictions": [
            {
                "path": item.path,
                "label": item.label,
                **({} if item.labels is None else {"labels": list(item.labels)}),
                "probabilities": dict(zip(classes, item.probabilities, strict=True)),
                "n_frames": item.n_frames,
                **({} if item.likely is None else _describe_set(item)),
                **({} if item.attention is None else {"attention": _list_attention(item)}),
                "note": item.note,
                **({} if item.overlay is None else {"overlay": str(item.overlay)}),
            }
            for item in summary.predictions
        ],
        "failures": [{"id": item.clip_id, "reason": item.reason} for item in summary.failures],
        "seconds": round(summary.seconds, 3),
    }


def to_text(summary: PredictSummary) -> str:
    """Tell the most probable classes of each video, or all that it has."""
    rows = []
    for item in summary.predictions:
        if item.labels is not None:
            rows.append(_label_row(item, summary.run.classes))
            continue
        ranked = sorted(
            zip(item.probabilities, summary.run.classes, strict=True),
            key=lambda pair: (pair[1] != item.label, -pair[0]),
        )
        others = ", ".join(f"{printable(name)} {value:.1%}" for value, name in ranked[1:3])
        named = [printable(item.label), f"{max(item.probabilities):.1%}", others]
        rows.append(
            [printable(item.path), *([] if item.likely is None else [_name_set(item)]), *named]
        )
    lines = ["LEAKY: the run's split leaks"] if summary.run.split.leaks else []
    has_sets = any(item.likely is not None for item in summary.predictions)
    header = ["video", *(["one of"] if has_sets else []), "class", "probability", "then"]
    if summary.run.thresholds is not None:
        header = ["video", "classes", "below their threshold"]
    if rows:
        lines.append(format_table(header, rows))
    drawn = [item.overlay for item in summary.predictions if item.overlay is not None]
    if drawn:
        lines.append(f"{format_count(len(drawn), 'overlay')}, first: {printable(str(drawn[0]))}")
    odd = [f"  {printable(p.path)}: {p.note}" for p in summary.predictions if p.note]
    if odd:
        lines += ["Notes:", *odd]
    if summary.failures:
        lines += ["Failed:"]
        lines += [f"  {printable(item.clip_id)}: {item.reason}" for item in summary.failures]
    return "\n".join(lines)


def _label_row(item: Prediction, classes: Sequence[str]) -> list[str]:
    """Tell which classes a video has, and which are the most probable of the others."""
    shares = dict(zip(classes, item.probabilities, strict=True))
    named = item.labels or ()
    others = sorted(shares.keys() - set(named), key=lambda name: (-shares[name], name))
    said = [
        ", ".join(f"{printable(name)} {shares[name]:.1%}" for name in names)
        for names in (named, others[:2])
    ]
    return [printable(item.path), said[0] or "(none)", said[1]]


def _list_attention(item: Prediction) -> list[dict[str, float]]:
    pairs = zip(item.frame_seconds, item.attention or (), strict=True)
    return [{"seconds": round(seconds, 3), "weight": weight} for seconds, weight in pairs]


def _describe_set(item: Prediction) -> dict[str, Any]:
    return {"likely": list(item.likely or ()), "none_of_these": item.is_undecided}


def _name_set(item: Prediction) -> str:
    if item.is_undecided:
        return "none of these" if not item.likely else "none of these: any may be"
    return ", ".join(printable(label) for label in item.likely or ())
