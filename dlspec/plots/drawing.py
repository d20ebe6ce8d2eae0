"""What a run's pictures are painted on: a page with lines, dots, areas, images and texts, and their colours.

It is matplotlib's canvas without its figures. Letters are kept from page to page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlspec.compat.matplotlib import Letters, draw_letters, make_renderer

if TYPE_CHECKING:
    from matplotlib.backend_bases import GraphicsContextBase

INK, FAINT, GRID, EDGE, WHITE = "#3b4252", "#8a94a6", "#e6e9ef", "#c5cad5", "#ffffff"
BLUE, ORANGE, GRAY = "#1f6fd6", "#e07b00", "#8a94a6"
DPI = 130
DASHED = (4.0, 3.0)
CAPITAL = 0.73
"""A capital letter's height, in letter sizes."""


Point = tuple[float, float]


@dataclass(frozen=True)
class Lettering:
    """How a line of text looks, and which part of it is at its place; `is_upright`: it goes from below to above."""

    size: float = 9
    color: str = INK
    is_bold: bool = False
    across: Literal["left", "center", "right"] = "left"
    up: Literal["baseline", "center", "top"] = "baseline"
    is_upright: bool = False


PLAIN = Lettering()


class Page:
    """A white page of so many inches.

    Places are inches from its lower left corner, points (N, 2); the sizes of letters, lines and dots are points of
    1/72 inch. matplotlib is imported when a page is made.
    """

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.transforms import Affine2D

        self.width, self.height = width, height
        self.texts: list[str] = []
        self._renderer: Any = make_renderer(round(width * DPI), round(height * DPI), DPI)
        self._to_pixels = Affine2D().scale(DPI)
        self.area(corners(0, 0, width, height), WHITE)

    def line(
        self, points: ArrayLike, color: str, width: float = 1.0, dashes: Sequence[float] = (), alpha: float = 1.0
    ) -> None:
        """From point to point, with a gap where a coordinate is nan."""
        from matplotlib.path import Path

        pen = self._pen(color, width, alpha)
        pen.set_capstyle("butt" if dashes else "projecting")
        if dashes:
            pen.set_dashes(0, [each * width for each in dashes])
        self._renderer.draw_path(pen, Path(points), self._to_pixels)

    def dots(self, points: ArrayLike, color: str, size: float, alpha: float = 1.0) -> None:
        """Filled circles `size` across."""
        from matplotlib.path import Path
        from matplotlib.transforms import Affine2D

        circle, scaled = Path.unit_circle(), Affine2D().scale(size * DPI / 144)
        pen = self._pen(color, 0, alpha)
        self._renderer.draw_markers(pen, circle, scaled, Path(points), self._to_pixels, _rgb(color))

    def area(self, points: ArrayLike, color: str, alpha: float = 1.0) -> None:
        """All that lies within the points."""
        from matplotlib.path import Path

        self._renderer.draw_path(self._pen(color, 0, alpha), Path(points), self._to_pixels, _rgb(color))

    def image(self, pixels: NDArray[np.float32], left: float, bottom: float, width: float, height: float) -> None:
        """Colours (H, W, 3) in [0, 1], the upper row first, over so many inches; no pixel runs into the next."""
        across = round((left + width) * DPI) - round(left * DPI)
        up = round((bottom + height) * DPI) - round(bottom * DPI)
        rows, columns = (np.arange(many) * of // many for many, of in zip((up, across), pixels.shape[:2], strict=True))
        shown = np.full((up, across, 4), 255, np.uint8)
        shown[..., :3] = (pixels * 255).round().astype(np.uint8)[rows[:, None], columns]
        self._put(shown, left * DPI, bottom * DPI)

    def text(self, place: Point, words: str, style: Lettering = PLAIN) -> None:
        """One line at a place, in inches from the left and from below."""
        if not words.strip():
            return
        self.texts.append(words)
        letters, descent = _letters(words, style.size, style.is_bold)
        along = letters.shape[1] * {"left": 0.0, "center": 0.5, "right": 1.0}[style.across]
        rise = style.size * DPI / 72 * CAPITAL * {"baseline": 0.0, "center": 0.5, "top": 1.0}[style.up] + descent
        shown = np.empty((*letters.shape, 4), np.uint8)
        shown[..., :3], shown[..., 3] = (np.array(_rgb(style.color)) * 255).round(), letters
        (x, y) = place
        if style.is_upright:
            self._put(np.rot90(shown), x * DPI + rise - len(letters), y * DPI - along)
        else:
            self._put(shown, x * DPI - along, y * DPI - rise)

    def title(self, words: str, below: str = "", left: float = 0.15) -> None:
        """A heading at the page's upper left, and a fainter line below it."""
        self.text((left, self.height - 0.14), words, Lettering(12, is_bold=True, up="top"))
        self.text((left, self.height - 0.39), below, Lettering(9, FAINT, up="top"))

    def png(self) -> bytes:
        """The page as a PNG's bytes."""
        from io import BytesIO

        from PIL import Image

        image = BytesIO()
        colors = np.asarray(self._renderer.buffer_rgba())[..., :3]
        Image.fromarray(np.ascontiguousarray(colors)).save(image, "png", compress_level=1, dpi=(DPI, DPI))
        return image.getvalue()

    def _pen(self, color: str, width: float, alpha: float) -> GraphicsContextBase:
        pen: GraphicsContextBase = self._renderer.new_gc()
        pen.set_foreground(_rgb(color))
        pen.set_alpha(alpha)
        pen.set_linewidth(width)
        return pen

    def _put(self, image: NDArray[np.uint8], left: float, bottom: float) -> None:
        upside_down = np.ascontiguousarray(image[::-1])
        self._renderer.draw_image(self._renderer.new_gc(), round(left), round(bottom), upside_down)


def corners(left: float, bottom: float, width: float, height: float) -> list[tuple[float, float]]:
    """A rectangle's, in turn."""
    return [(left, bottom), (left + width, bottom), (left + width, bottom + height), (left, bottom + height)]


def width_of(words: str, size: float = 9) -> float:
    """The inches that a text takes."""
    return _letters(words, size, False)[0].shape[1] / DPI if words.strip() else 0.0


@lru_cache(maxsize=1024)
def _letters(words: str, size: float, is_bold: bool) -> tuple[Letters, float]:
    """How dark each pixel of a text is, the upper row first, and how many rows lie below its baseline."""
    return draw_letters(words, size, DPI, is_bold=is_bold)


@cache
def _rgb(color: str) -> tuple[float, float, float]:
    """Of `#rrggbb`, each in [0, 1]."""
    red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue
