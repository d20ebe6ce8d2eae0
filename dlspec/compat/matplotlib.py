"""matplotlib's canvas and text rendering, used without `Figure` and `pyplot`.

An axis of a `Figure` consists of some hundred objects, and drawing the same picture with it takes several times as
long. matplotlib is imported when something is drawn. The classes used here are documented; if a new version changes
their arguments, it raises a TypeError or AttributeError that names them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

# Darkness of each pixel of a rendered text, 0 to 255, shape (rows, columns), top row first.
TextBitmap = NDArray[np.uint8]


def make_renderer(width: int, height: int, dpi: float) -> Any:
    """Make a canvas with the drawing methods of `matplotlib.backend_bases.RendererBase`.

    Args:
        width: in pixels.
        height: in pixels.
        dpi: pixels per inch.
    """
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(width, height, dpi)  # type: ignore[no-untyped-call]


def draw_text_bitmap(text: str, size: float, dpi: int, *, is_bold: bool) -> tuple[TextBitmap, float]:
    """Render a text in matplotlib's own font.

    Args:
        text: the text, one line.
        size: font size in points.
        dpi: pixels per inch.
        is_bold: whether to use the bold font.

    Returns:
        The bitmap, and the number of its rows below the baseline.
    """
    from matplotlib.ft2font import LoadFlags

    font = _load_font(is_bold)
    font.set_size(size, dpi)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)  # hinting would move letters to whole pixels
    font.draw_glyphs_to_bitmap(antialiased=True)
    return np.array(font.get_image()), font.get_descent() / 64


@cache
def _load_font(is_bold: bool) -> FT2Font:
    """Load the font that is part of matplotlib.

    Searching the machine for fonts takes a second, and pictures would differ between machines.
    """
    import matplotlib
    from matplotlib.ft2font import FT2Font

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)))
