"""Text for people: names made safe to print, tables, sizes and times."""

from __future__ import annotations

from collections.abc import Sequence


def printable(text: str) -> str:
    r"""Show control characters and bytes that are not UTF-8 as escapes, in one line.

    Examples
    --------
    >>> print(printable("a\tb"))
    a\tb
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out in aligned columns: text to the left, numbers to the right."""
    columns = list(zip(*([header, *rows]), strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_number = [all(_looks_numeric(cell) for cell in column[1:]) for column in columns]
    lines = []
    for row in [header, *rows]:
        cells = [
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def format_bytes(n_bytes: int) -> str:
    """Write a size in the unit that suits it.

    Examples
    --------
    >>> format_bytes(4171456)
    '4.2 MB'
    """
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def format_seconds(seconds: float) -> str:
    """Write a time in the unit that suits it.

    Examples
    --------
    >>> format_seconds(150)
    '2.5 minutes'
    """
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def format_count(n: int, noun: str, *, plural: str = "") -> str:
    """Write a count with its noun.

    Examples
    --------
    >>> format_count(1, "clip"), format_count(2, "class", plural="classes")
    ('1 clip', '2 classes')
    """
    return f"{n} {noun}" if n == 1 else f"{n} {plural or noun + 's'}"


def _looks_numeric(cell: str) -> bool:
    return bool(cell) and not set(cell) - set("0123456789.,-+%eE []()ms±–")
