"""The command line: a table of commands, each in a file of its own, and the exit codes.

Standard output is the result, for people or with ``--json`` exactly one JSON object.
Standard error is everything else. A command's file is imported when that command is asked for.
"""

from __future__ import annotations

import importlib
import logging
import sys

import click

from pipeline.commands.console import ErrorGroup

# Command -> its module in pipeline.commands, the function there, and what it does in a line.
COMMANDS = {
    "compare-heads": (
        "compare",
        "command",
        "Train several heads on the same splits of STORE, and rank them.",
    ),
    "demo": (
        "demo",
        "demo",
        "Try everything on clips drawn for the purpose: no data, no account, two minutes.",
    ),
    "doctor": (
        "doctor",
        "doctor",
        "Check this machine for the usual problems, and say how to fix each.",
    ),
    "export-embeddings": (
        "export",
        "command",
        "Export the embeddings in STORE in a format that other programs read.",
    ),
    "extract-features": ("extract", "command", "Embed every clip of the folder VIDEOS, once."),
    "inspect": (
        "inspect",
        "command",
        "Show what is in STORE, how it was made, and which clips failed and why.",
    ),
    "make-sample": (
        "demo",
        "make_sample_command",
        "Draw a folder of action clips, to try framehead without data of your own.",
    ),
    "predict": (
        "predict",
        "command",
        "Classify video files, or all videos of a folder or archive, with the trained head in RUN.",
    ),
    "train-head": (
        "train",
        "command",
        "Train a head on the embeddings in STORE, and test it once.",
    ),
    "weights": (
        "doctor",
        "weights",
        "Show which weights are on this machine, and whether they are intact.",
    ),
}


class CommandTable(ErrorGroup):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; None if there is none of this name."""
        if cmd_name not in COMMANDS:
            return None
        module, function, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(
            importlib.import_module(f"pipeline.commands.{module}"), function
        )
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


def _print_versions(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from pipeline.doctor.versions import describe_versions

        click.echo(describe_versions())
        ctx.exit()


@click.group(
    cls=CommandTable,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 all done, 1 failed, 2 usage, 3 finished but some clips failed (they "
    "are listed), 130 interrupted, 143 terminated.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_versions,
    help="Show versions and the engine that would be chosen, and exit.",
)
def cli() -> None:
    """Recognise actions from precomputed features.

    Embed a folder of videos once, train and compare lightweight heads in seconds.
    """
    logging.basicConfig(stream=sys.stderr, format="%(message)s")
    logging.getLogger("framehead").setLevel(logging.INFO)


def main() -> None:
    """Run the command line."""
    cli(prog_name="framehead")


if __name__ == "__main__":
    main()
