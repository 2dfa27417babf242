"""``demo`` and ``make-sample``: everything on clips that are drawn for it."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from features.backbone.weights import BUILTIN
from features.system.text import format_bytes, format_count, printable
from pipeline.commands.console import (
    PATH,
    EpochLine,
    ProgressBar,
    common_options,
    options_from,
    print_result,
)
from pipeline.compare.compare import TrialProgress
from pipeline.demo.demo import DemoEvent, DemoOptions, DemoStep, DemoSummary, run_demo
from pipeline.demo.drawing.sample import SampleSpec, SampleSummary, make_sample
from pipeline.training.options import EpochReport


@click.command("demo")
@click.option(
    "--out",
    type=PATH,
    default="framehead-demo",
    show_default=True,
    help="Folder to write everything to.",
)
@options_from(DemoOptions, "options")
@common_options
def demo(out: Path, options: DemoOptions, as_json: bool, quiet: bool) -> None:
    """Try everything on clips drawn for the purpose: no data, no account, two minutes.

    Draws actors, embeds their clips, trains and compares the heads logreg-thirds and
    lstm:centred, with groups kept apart, and predicts actors that no head has seen, with
    reports and overlay videos. If it is interrupted, run it again to continue.
    """
    with DemoProgress(quiet=quiet) as progress:
        summary = run_demo(out, options, on_event=progress.update)
    print_result(demo_to_json(summary), demo_to_text(summary), as_json=as_json)


@click.command("make-sample")
@click.argument("folder", type=PATH, metavar="DIR")
@options_from(SampleSpec, "spec")
@common_options
def make_sample_command(folder: Path, spec: SampleSpec, as_json: bool, quiet: bool) -> None:
    """Draw a folder of action clips, to try framehead without data of your own.

    The figures are drawn, not filmed: what a head learns from them says nothing about real
    video. Three pairs of actions differ only in the order of their frames: sit-down and
    stand-up, pick-up and put-down, drill and drill-back.
    """
    with ProgressBar(quiet=quiet) as bar:
        summary = make_sample(folder, spec, on_progress=lambda p: bar.show(p.n_done, p.n_clips))
    print_result(sample_to_json(summary), sample_to_text(summary), as_json=as_json)


class DemoProgress:
    """Steps on standard error, each with its bar if that is a terminal."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Any = None

    def __enter__(self) -> DemoProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exception)

    def update(self, event: DemoEvent) -> None:
        """Show a `DemoEvent`."""
        if isinstance(event, DemoStep):
            self.__exit__()
            self._bar = None
            if not self._quiet:
                click.echo(f"[{event.number}/{event.n_steps}] {event.text}", err=True)
                sys.stderr.flush()
            return
        if self._bar is None:
            is_epoch = isinstance(event, EpochReport)
            unit = "trial" if isinstance(event, TrialProgress) else "clip"
            self._bar = (
                EpochLine(quiet=self._quiet)
                if is_epoch
                else ProgressBar(quiet=self._quiet, unit=unit)
            )
        if isinstance(event, TrialProgress):
            self._bar.update_trial(event)
        else:
            self._bar.update(event)


def demo_to_json(summary: DemoSummary) -> dict[str, Any]:
    """Lay out a demo for ``demo --json``."""
    return {**asdict(summary), "commands": list_commands(summary)}


def demo_to_text(summary: DemoSummary) -> str:
    """Tell what the demo found, where it lies, and what to do next."""
    folder = Path(summary.folder)
    places = {
        "report of the lstm": folder / "runs" / "lstm" / "report.html",
        "report of the comparison": folder / "comparison" / "report.html",
        "overlay video": folder / summary.overlay,
        "drawn clips": folder / "videos",
    }
    width = max(map(len, places)) + 2
    heads = ", ".join(
        f"{name} {value:.1%}" for name, value in summary.comparison_accuracies.items()
    )
    again = "" if summary.is_new else "\nFinished before with the same settings; nothing was done"
    lines = [
        *([summary.weights_note] if summary.weights_note else []),
        f"Drawn: {summary.n_clips} clips of {format_count(summary.n_actors, 'actor')}, 8 actions",
        f"Weights: {printable(summary.weights)}, MobileNetV2 at its narrowest (alpha 0.35), for "
        "speed",
        "Heads: lstm:centred is an LSTM that sees each frame and how it differs from its clip's "
        "mean; logreg-thirds is a logistic regression on the means of three thirds of a clip",
        f"Compared, every actor tested once: {heads}",
        summary.order.sentence,
        f"Actors never seen: lstm:centred names {summary.n_unseen_right} of {summary.n_unseen} "
        f"clips of {format_count(summary.n_unseen_actors, 'actor')} right "
        f"({summary.n_unseen_right / max(summary.n_unseen, 1):.1%})",
        f"{summary.seconds:.0f} s{again}",
        "",
        *(f"{name + ':':<{width}}{printable(str(path))}" for name, path in places.items()),
        "",
        "On your own videos, one folder per class in VIDEOS:",
        *(f"  {command}" for command in list_commands(summary)),
    ]
    return "\n".join(lines)


def list_commands(summary: DemoSummary) -> list[str]:
    """List the commands that do the same with a folder of one's own."""
    # The demo's substitute is named, for no other command ever chooses it by itself.
    weights = " --weights builtin" if summary.weights == BUILTIN else ""
    return [
        f"framehead extract-features VIDEOS --out embeddings.h5{weights}",
        "framehead train-head embeddings.h5 --out runs/lstm --head lstm",
        "framehead compare-heads embeddings.h5 --out comparison --heads "
        "logreg,logreg-thirds,lstm,lstm:centred",
        "framehead predict runs/lstm VIDEO --overlay VIDEO.mp4",
    ]


def sample_to_json(summary: SampleSummary) -> dict[str, Any]:
    """Lay out a sample for ``make-sample --json``."""
    spec = summary.spec
    return {
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
