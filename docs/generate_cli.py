"""Write docs/cli.md from the commands' own help; ``--check`` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "cli.md"

INTRODUCTION = """# Command reference

Generated from the commands' own `--help` by `docs/generate_cli.py`. `python cli.py` from a clone
is the same as `framehead`.

Standard output is the result: text for people, or with `--json` exactly one JSON object.
Progress and messages go to standard error; there is no progress bar off a terminal.

| exit code | meaning |
|---|---|
| 0 | all done |
| 1 | failed; one line says what, a second how to fix it |
| 2 | an option or argument is wrong |
| 3 | finished, but some clips failed; they are listed |
| 130 | interrupted with Ctrl-C; what an extraction or comparison has finished is kept |
| 143 | terminated by SIGTERM; the same is kept |
"""


def render_reference() -> str:
    """Return the whole page."""
    sys.path.insert(0, str(ROOT))
    from cli import cli

    parts = [INTRODUCTION]
    context = click.Context(cli, info_name="framehead", max_content_width=90, terminal_width=90)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        if command is None:
            continue
        inner = click.Context(
            command, parent=context, info_name=name, max_content_width=90, terminal_width=90
        )
        parts.append(f"\n## {name}\n\n```text\n{command.get_help(inner)}\n```\n")
    return "".join(parts)


def main() -> None:
    """Write or check the page."""
    page = render_reference()
    if "--check" not in sys.argv:
        PAGE.write_text(page, encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != page:
        sys.exit("docs/cli.md is stale: run python docs/generate_cli.py")


if __name__ == "__main__":
    main()
