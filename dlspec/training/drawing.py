"""What a run's pictures have in common: their colours and margins, and how a figure becomes a file's bytes.

matplotlib is imported when something is drawn. Margins are fixed, in inches: matplotlib's own layouts draw everything
several times, 0.4 s for each run of a sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, GRID = "#3b4252", "#8a94a6", "#e6e9ef"
BLUE, ORANGE, GRAY = "#1f6fd6", "#e07b00", "#8a94a6"
DPI = 130


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI)


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place of the figure, in inches from its lower left corner."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def title(figure: Figure, text: str, below: str = "", left: float = 0.15) -> None:
    """A heading at the figure's upper left, and a fainter line below it."""
    across, up = figure.get_size_inches()
    figure.text(left / across, 1 - 0.12 / up, text, va="top", fontsize=12, fontweight="bold", color=INK)
    figure.text(left / across, 1 - 0.37 / up, below, va="top", fontsize=9, color=FAINT)


def furnish(axes: Axes, heading: str = "", x: str = "", y: str = "", grid: str = "y") -> None:
    """The look of a plot: a heading, names of the axes, a faint grid, no box around it."""
    axes.set_title(heading, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(x, fontsize=9, color=INK)
    axes.set_ylabel(y, fontsize=9, color=INK)
    axes.grid(axis=grid, color=GRID, lw=0.8)  # type: ignore[arg-type]  # one of x, y, both
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c5cad5")


def png(figure: Figure) -> bytes:
    """The figure as a PNG's bytes, drawn without a display; a $ in a name of the data begins no formula."""
    from io import BytesIO

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    image = BytesIO()
    figure.savefig(image, format="png", facecolor="white")
    return image.getvalue()
