"""The demo as text for people and as JSON for programs, and its progress on standard error."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from features.backbone.weights import BUILTIN
from features.extract import Progress
from features.system.text import format_count, printable
from pipeline.commands.console import EpochLine, ProgressBar, TrialBar
from pipeline.commands.render import SCHEMA
from pipeline.demo.demosummary import DemoEvent, DemoStep, DemoSummary
from pipeline.training.options import EpochReport


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
            bars = {Progress: ProgressBar, EpochReport: EpochLine}
            self._bar = bars.get(type(event), TrialBar)(quiet=self._quiet)
        self._bar.update(event)


def demo_to_json(summary: DemoSummary) -> dict[str, Any]:
    """Lay out a demo for ``demo --json``."""
    return {"schema": SCHEMA, **asdict(summary), "commands": list_commands(summary)}


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
        "mean; mean-linear sees only that mean",
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
    """List the commands that do the same with a folder of one's own.

    Parameters
    ----------
    summary : DemoSummary

    Returns
    -------
    list of str
    """
    # The demo's substitute is named, for no other command ever chooses it by itself.
    weights = " --weights builtin" if summary.weights == BUILTIN else ""
    return [
        f"framehead extract-features VIDEOS --out embeddings.h5{weights}",
        "framehead train-head embeddings.h5 --out runs/lstm --head lstm",
        "framehead compare-heads embeddings.h5 --out comparison --heads "
        "mean-linear,lstm,lstm:centred",
        "framehead predict runs/lstm VIDEO --overlay VIDEO.webm",
    ]
