"""Pages: one self-contained HTML file each, from a template and plain values."""

from __future__ import annotations

import base64
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.system.text import printable
from features.video.pictures import Picture

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_page(path: Path, template: str, content: dict[str, Any]) -> None:
    """Fill a template, and write the page in one rename.

    Every text is escaped, with characters that cannot be shown, or that turn the direction of
    writing, as escapes: class and clip names are file names of strangers.

    Parameters
    ----------
    path : Path
    template : str
        File in ``pipeline/templates``.
    content : dict of str to Any
        Only what `as_markup` marked goes into the page as it is.
    """
    text = _environment().get_template(template).render(content)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def as_markup(svg: str) -> Any:
    """Mark SVG of our own making, whose text is escaped, as part of the page."""
    from markupsafe import Markup

    return Markup(svg)


def picture_to_uri(picture: Picture | None) -> str:
    """Lay a picture out for an ``img`` element; the empty text where there is none.

    Parameters
    ----------
    picture : Picture or None

    Returns
    -------
    str
    """
    if picture is None or not picture.jpeg:
        return ""
    return f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode('ascii')}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    def show(value: Any) -> Any:
        if isinstance(value, Markup):
            return value
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        return printable(str(value))

    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=show,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
