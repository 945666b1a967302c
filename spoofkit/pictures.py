"""Pictures: one palette and style for every figure, and what becomes of a matplotlib Figure: SVG in a page, PNG, PDF.

`inline_svg` makes an element of an HTML page whose colours follow the page (light, dark, print). Only matplotlib's
object-oriented interface is used, so nothing global changes.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

# Blue and vermilion of Okabe and Ito's palette: told apart with every kind of colour blindness, and in grey.
PAGE, INK, FAINT = "#fffffe", "#1f2328", "#d0d7de"
BONAFIDE, SPOOF, HEAT = "#0072b2", "#d55e00", "#d55f00"
GREEN, PURPLE = "#009e73", "#a8558a"  # theirs too; the purple darker, as thin lines on white ask for
# In a page each colour is a CSS variable with the colour above as fallback.
CSS_NAMES = {PAGE: "--page", INK: "--ink", FAINT: "--faint", BONAFIDE: "--bonafide", SPOOF: "--spoof", HEAT: "--heat",
             GREEN: "--green", PURPLE: "--purple"}  # fmt: skip
LAYOUT_TABLES = ("GDEF", "GPOS", "GSUB", "kern")
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # an attack named "a$b$" is a name, not a formula
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, as journals ask for
    "svg.fonttype": "none",  # text stays text: it can be selected, found and read aloud
    "svg.hashsalt": "spoofkit",  # the same figure gives the same bytes
}


def settle(figure: Figure) -> Figure:
    """Fix the layout of a figure, so that page, PDF and PNG show the same and it is computed once."""
    with matplotlib.rc_context(STYLE):
        figure.get_layout_engine().execute(figure)  # type: ignore[union-attr]
        figure.set_layout_engine(None)  # not "none": a figure with that engine is drawn twice for each file
    return figure


def inline_svg(
    figure: Figure,
    name: str,
    description: str,
    narrowest: float = 0,
    titles: Sequence[tuple[float, float, str]] = (),
) -> str:
    """Convert a figure to an `<svg>` element for an HTML page.

    Args:
        figure: Drawn with the colours above, which become CSS variables.
        name: Prefix of every id inside, so that one page can hold several figures.
        description: Text for screen readers.
        narrowest: Share of its drawn width to which it may shrink in a narrow page before it scrolls.
        titles: What is said of unit squares of the first axes while the mouse is over them: left, upper edge, text.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    body = buffer.getvalue()
    head = re.search(r'<svg[^>]*\bviewBox="([^"]+)"[^>]*>', body)
    assert head is not None
    body = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", body[head.end() :])
    for color, css_name in CSS_NAMES.items():
        # Only inside attributes: an attack may be named like a colour.
        body = re.sub(rf'(?<=[:" ]){color}(?=[;"])', f"var({css_name}, {color})", body)
    label = escape(description)
    height = float(head[1].split()[3])
    over = "".join(_titled_square(figure, height, *title) for title in titles)
    inches = float(head[1].split()[2]) / 72
    style = f"width:100%;max-width:{inches:.2f}in;min-width:{inches * narrowest:.2f}in;height:auto"
    return (
        f'<svg role="img" aria-label="{label}" viewBox="{head[1]}" style="{style}">'
        + body.strip().removesuffix("</svg>")
        + over
        + "</svg>"
    )


def _titled_square(figure: Figure, height: float, x: float, y: float, text: str) -> str:
    """Return an invisible square with a tooltip, in the points of an SVG of some height."""
    corners = figure.axes[0].transData.transform([(x, y), (x + 1, y + 1)]) * 72 / figure.dpi
    (left, bottom), (right, top) = corners.min(axis=0), corners.max(axis=0)
    place = f'x="{left:.2f}" y="{height - top:.2f}" width="{right - left:.2f}" height="{top - bottom:.2f}"'
    return f'<rect {place} fill="none" pointer-events="all"><title>{escape(text)}</title></rect>'


def png(figure: Figure, dots_per_inch: int = 150) -> bytes:
    """Render a figure as a PNG image on white."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor="white")
    return buffer.getvalue()


def pdf(figure: Figure) -> bytes:
    """Render a figure as a PDF page; the same figure gives the same bytes."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), _without_layout_tables():
        figure.savefig(buffer, format="pdf", metadata={"CreationDate": None})
    return buffer.getvalue()


@contextmanager
def _without_layout_tables() -> Iterator[None]:
    """Leave tables for laying out text out of embedded fonts: a PDF places each glyph, and to subset them is slow."""
    from fontTools import subset  # type: ignore[import-untyped]

    load_font = subset.load_font  # matplotlib calls it by this name

    def load_lighter(*arguments: Any, **options: Any) -> Any:
        font = load_font(*arguments, **options)
        for tag in LAYOUT_TABLES:
            if tag in font:
                del font[tag]
        return font

    subset.load_font = load_lighter
    try:
        yield
    finally:
        subset.load_font = load_font
