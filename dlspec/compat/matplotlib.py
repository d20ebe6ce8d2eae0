"""matplotlib's canvas and its letters, taken without its figures.

An axis of a figure is some hundred objects, and a picture of a page that shows the same takes several times as long.
matplotlib is imported when something is drawn. The classes are documented; their constructors and flags change now
and then, and raise a TypeError or AttributeError that names them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.ft2font import FT2Font

TextBitmap = NDArray[np.uint8]
"""How dark each pixel of a text is, the upper row first."""


def make_renderer(width: int, height: int, dpi: float) -> Any:
    """A canvas of so many pixels, with the drawing methods of `matplotlib.backend_bases.RendererBase`."""
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(width, height, dpi)  # type: ignore[no-untyped-call]


def draw_text_bitmap(text: str, size: float, dpi: int, *, is_bold: bool) -> tuple[TextBitmap, float]:
    """The letters of a text in matplotlib's own font, `size` in points, and how many rows lie below its baseline."""
    from matplotlib.ft2font import LoadFlags

    font = _load_font(is_bold)
    font.set_size(size, dpi)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)  # which would set letters on whole pixels
    font.draw_glyphs_to_bitmap(antialiased=True)
    return np.array(font.get_image()), font.get_descent() / 64


@cache
def _load_font(is_bold: bool) -> FT2Font:
    """matplotlib's own: to find out which others a machine has takes a second, and pictures would differ."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return FT2Font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)))
