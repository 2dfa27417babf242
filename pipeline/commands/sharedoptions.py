"""Options that several commands share, each as one decorator."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

PATH = click.Path(path_type=Path)
# Written out, because the registry imports NumPy; a test compares the two.
HEAD_NAMES = "mean-linear, mlp, lstm, bilstm, gru, bigru, lstm-attention, tcn, transformer"

_Command = TypeVar("_Command", bound=Callable[..., Any])
_DEBUG = "framehead.debug"


def common_options(command: _Command) -> _Command:
    """Add the options that every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option("-q", "--quiet", is_flag=True, help="No progress on standard error."),
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_remember_debug,
            help="Show tracebacks.",
        ),
    ):
        command = option(command)
    return command


def gib_to_bytes(gib: float) -> int:
    """Turn --clip-memory into bytes; what is no amount becomes 0, which is refused later."""
    return int(gib * 2**30) if math.isfinite(gib) else 0


def is_debugging(ctx: click.Context) -> bool:
    """Tell whether --debug was given."""
    return bool(ctx.meta.get(_DEBUG))


def _remember_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    # The meta dictionary is shared by all contexts of one invocation.
    ctx.meta[_DEBUG] = value


def embed_options(command: _Command) -> _Command:
    """Add the options that say how clips are decoded and embedded."""
    for option in reversed(
        (
            click.option(
                "--engine",
                type=click.Choice(["auto", "litert", "keras"]),
                default="auto",
                show_default=True,
                help="What executes the backbone: auto is Keras on a GPU, else LiteRT.",
            ),
            click.option("--workers", type=int, help="Decode processes.  [default: one per core]"),
            click.option(
                "--clip-timeout",
                type=float,
                default=60.0,
                show_default=True,
                help="Seconds without progress after which a clip is given up.",
            ),
            click.option(
                "--clip-memory",
                type=float,
                default=2.0,
                show_default=True,
                help="GiB of memory that one decode process may take.",
            ),
        )
    ):
        command = option(command)
    return command


def split_options(command: _Command) -> _Command:
    """Add the options that say who is trained on and who is tested."""
    for option in reversed(
        (
            click.option(
                "--split",
                type=PATH,
                help="A split file that an earlier run wrote, split.json in its folder.",
            ),
            click.option(
                "--test-lists",
                type=PATH,
                metavar="DIR",
                help="Folder of the official UCF101 or HMDB51 lists.",
            ),
            click.option(
                "--fold", type=int, help="Which official split, with --test-lists.  [default: 1]"
            ),
            click.option(
                "--group-regex",
                metavar="REGEX",
                help="What names the group in a clip's path, its first parenthesis; instead of "
                "the store's groups.",
            ),
            click.option(
                "--allow-leaks",
                is_flag=True,
                help="Accept a split in which a group stands on both sides; every result is "
                "then marked LEAKY.",
            ),
            click.option(
                "--ignore-groups",
                is_flag=True,
                help="Split clip by clip, as much published code does, to see what leaking does; "
                "only with --allow-leaks.",
            ),
            click.option(
                "--join-near-duplicates",
                is_flag=True,
                help="Make one group of clips that seem to be one recording, so that they "
                "stay on one side.",
            ),
            click.option(
                "--val-fraction",
                type=float,
                default=0.2,
                show_default=True,
                help="Share of the training clips that early stopping watches, in whole groups.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Of all chance."),
        )
    ):
        command = option(command)
    return command


def report_options(command: _Command) -> _Command:
    """Add the option that says where a report finds its pictures."""
    option = click.option(
        "--videos",
        type=PATH,
        metavar="DIR",
        help="Where the video folder lies now, for the pictures in report.html.  [default: where "
        "it lay]",
    )
    return option(command)


def fit_options(command: _Command) -> _Command:
    """Add the options that say how a head is trained."""
    for option in reversed(
        (
            click.option(
                "--epochs", type=int, default=100, show_default=True, help="Epochs at most."
            ),
            click.option(
                "--patience",
                type=int,
                default=12,
                show_default=True,
                help="Epochs without a validation loss lower by 0.01 after which training stops.",
            ),
            click.option(
                "--batch-size",
                type=int,
                help="Clips per step.  [default: a twentieth of the training clips, 16 to 64]",
            ),
            click.option(
                "--learning-rate", type=float, help="Of AdamW.  [default: the head's own]"
            ),
            click.option("--units", type=int, help="Width of the head.  [default: the head's own]"),
            click.option(
                "--dropout", type=float, help="Share of dropped values.  [default: the head's own]"
            ),
            click.option(
                "--reduce",
                metavar="pca:N",
                help="Reduce embeddings to N principal components, fitted on the training clips: "
                "quicker, at some cost in accuracy.",
            ),
            click.option(
                "--window",
                type=int,
                metavar="FRAMES",
                help="Let the head see windows of so many frames, not whole clips.",
            ),
            click.option(
                "--aggregate",
                type=click.Choice(["mean", "max", "vote"]),
                default="mean",
                show_default=True,
                help="How the windows of a clip make one answer.",
            ),
            click.option(
                "--class-weights",
                type=click.Choice(["none", "balanced"]),
                default="none",
                show_default=True,
                help="Weigh every class as if it had equally many clips.",
            ),
        )
    ):
        command = option(command)
    return command
