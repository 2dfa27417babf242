"""The look of all figures, and saving them: as a PNG file, and as SVG in the colours of a page."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.system.files import whole_file
from features.system.text import printable

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1d2433", "#667085", "#d9dee7"
ACCENT, SECOND, ALARM = "#2f5fd0", "#c2660c", "#c00000"
# The names of these colours in the pages' style sheet, which has others for dark screens.
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "line",
    ACCENT: "accent",
    SECOND: "second",
    ALARM: "alarm",
}


def new_figure(width_inches: float, height_inches: float) -> Figure:
    """Start a figure outside of pyplot: no windows, no state shared between callers."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), layout="constrained")


def style_axes(axes: Axes) -> None:
    """Give axes thin lines in the page's colours, without a box around them."""
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GRID)
    axes.tick_params(which="both", color=GRID, labelcolor=MUTED, labelsize=9)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(10)
    axes.title.set_color(INK)


def short_label(text: str, most: int = 28) -> str:
    """Make a name printable and cut it to `most` columns; Chinese letters, say, take two each."""
    shown, n_columns = "", 0
    for char in printable(text):
        n_columns += 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if n_columns > most:
            return f"{shown[:-1]}…"
        shown += char
    return shown


def save_figure(figure: Figure, path: Path, *, title: str, leaks: bool) -> Markup:
    """Save a figure with its title as PNG, and return it without its title as SVG.

    The ``svg`` element is for a page that defines the colours as CSS variables; its text is
    escaped, and it refers to nothing outside.
    """
    import matplotlib as mpl
    from markupsafe import Markup

    warning = "LEAKY: groups are on both sides of the split\n" if leaks else ""
    heading = figure.suptitle(warning + title, fontsize=11, color=ALARM if leaks else INK)
    heading.set_parse_math(False)
    metadata: dict[str, Any] = {"Software": "framehead"}
    with _quiet_about_glyphs():
        with whole_file(path) as partial:
            figure.savefig(partial, dpi=120, metadata=metadata)
        heading.set_visible(False)
        heading.set_in_layout(False)
        text = io.StringIO()
        # The salt keeps the ids of several figures of one page apart.
        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
            figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return Markup(_to_page_svg(text.getvalue()))


def _to_page_svg(text: str) -> str:
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"font-family: [^;\"]*;?|font: ([\d.]+px) [^;\"]*", _keep_size, svg)
    svg = re.sub(r'<svg [^>]*?width="([\d.]+)pt"[^>]*?(viewBox="[^"]*")[^>]*>', _fit, svg, count=1)
    svg = svg.replace("xlink:href", "href")
    for colour, name in _VARIABLES.items():
        svg = svg.replace(colour, f"var(--{name})")
    # Text without a colour of its own would be black on a dark page.
    return svg.replace('<text style="', '<text style="fill: var(--ink); ')


def _fit(match: re.Match[str]) -> str:
    # On a narrow screen it shrinks as far as its text can be read, and then scrolls.
    width = float(match[1])
    return f'<svg style="width: {width:.0f}pt; min-width: {0.62 * width:.0f}pt" {match[2]}>'


def _keep_size(match: re.Match[str]) -> str:
    return f"font-size: {match[1]}" if match[1] else ""


@contextmanager
def _quiet_about_glyphs() -> Iterator[None]:
    with warnings.catch_warnings():
        # The font that comes with Matplotlib lacks some scripts; it draws boxes instead.
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
        yield
