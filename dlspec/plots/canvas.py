"""A page to draw on: lines, dots, areas, images and text, and their colors.

It uses matplotlib's renderer without its `Figure` class. Rendered text is cached between pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dlspec.compat.matplotlib import TextBitmap, draw_text_bitmap, make_renderer

if TYPE_CHECKING:
    from matplotlib.backend_bases import GraphicsContextBase

TEXT_COLOR, FAINT_TEXT_COLOR, GRID_COLOR, EDGE_COLOR, WHITE = "#3b4252", "#8a94a6", "#e6e9ef", "#c5cad5", "#ffffff"
BLUE, ORANGE, GRAY = "#1f6fd6", "#e07b00", "#8a94a6"
DPI = 130
DASH_PATTERN = (4.0, 3.0)
CAPITAL_HEIGHT = 0.73  # of a capital letter, as a fraction of the font size

Point = tuple[float, float]


@dataclass(frozen=True)
class TextStyle:
    """Font, color and alignment of a line of text."""

    size: float = 9  # in points
    color: str = TEXT_COLOR
    is_bold: bool = False
    # Which point of the text is put at its position.
    horizontal: Literal["left", "center", "right"] = "left"
    vertical: Literal["baseline", "center", "top"] = "baseline"
    is_rotated: bool = False  # the text runs from bottom to top


PLAIN_TEXT = TextStyle()


class Page:
    """A white page, `width` by `height` inches.

    Positions are in inches from the lower left corner, arrays of points have the shape (N, 2). Sizes of fonts, lines
    and dots are in points of 1/72 inch. Creating a page imports matplotlib.
    """

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.transforms import Affine2D

        self.width, self.height = width, height
        self.texts: list[str] = []
        self._renderer: Any = make_renderer(round(width * DPI), round(height * DPI), DPI)
        self._to_pixels = Affine2D().scale(DPI)
        self.draw_area(rectangle_corners(0, 0, width, height), WHITE)

    def draw_line(
        self, points: ArrayLike, color: str, width: float = 1.0, dashes: Sequence[float] = (), alpha: float = 1.0
    ) -> None:
        """Draw a line from point to point, with a gap where a coordinate is nan.

        Args:
            points: (N, 2), in inches.
            color: `#rrggbb`.
            width: line width in points.
            dashes: lengths of dashes and gaps in line widths; empty for a solid line.
            alpha: opacity from 0 to 1.
        """
        from matplotlib.path import Path

        pen = self._make_pen(color, width, alpha)
        pen.set_capstyle("butt" if dashes else "projecting")
        if dashes:
            pen.set_dashes(0, [each * width for each in dashes])
        self._renderer.draw_path(pen, Path(points), self._to_pixels)

    def draw_dots(self, points: ArrayLike, color: str, size: float, alpha: float = 1.0) -> None:
        """Draw filled circles.

        Args:
            points: centers, (N, 2), in inches.
            color: `#rrggbb`.
            size: diameter in points.
            alpha: opacity from 0 to 1.
        """
        from matplotlib.path import Path
        from matplotlib.transforms import Affine2D

        circle, scaled = Path.unit_circle(), Affine2D().scale(size * DPI / 144)
        pen = self._make_pen(color, 0, alpha)
        self._renderer.draw_markers(pen, circle, scaled, Path(points), self._to_pixels, _parse_color(color))

    def draw_area(self, points: ArrayLike, color: str, alpha: float = 1.0) -> None:
        """Fill a polygon.

        Args:
            points: corners, (N, 2), in inches.
            color: `#rrggbb`.
            alpha: opacity from 0 to 1.
        """
        from matplotlib.path import Path

        self._renderer.draw_path(self._make_pen(color, 0, alpha), Path(points), self._to_pixels, _parse_color(color))

    def draw_image(self, pixels: NDArray[np.float32], left: float, bottom: float, width: float, height: float) -> None:
        """Draw an image with sharp pixel borders, without interpolation.

        Args:
            pixels: colors (H, W, 3) from 0 to 1, top row first.
            left: distance from the page's left side in inches.
            bottom: distance from the page's bottom in inches.
            width: width on the page in inches.
            height: height on the page in inches.
        """
        width_pixels = round((left + width) * DPI) - round(left * DPI)
        height_pixels = round((bottom + height) * DPI) - round(bottom * DPI)
        rows, columns = (
            np.arange(num_dots) * num_pixels // num_dots
            for num_dots, num_pixels in zip((height_pixels, width_pixels), pixels.shape[:2], strict=True)
        )
        scaled = np.full((height_pixels, width_pixels, 4), 255, np.uint8)
        scaled[..., :3] = (pixels * 255).round().astype(np.uint8)[rows[:, None], columns]
        self._draw_pixels(scaled, left * DPI, bottom * DPI)

    def draw_text(self, position: Point, string: str, style: TextStyle = PLAIN_TEXT) -> None:
        """Draw one line of text.

        Args:
            position: (x, y) in inches.
            string: the text; nothing is drawn if it is blank.
            style: font, color, and how the text is aligned at `position`.
        """
        if not string.strip():
            return
        self.texts.append(string)
        letters, descent = _render_text(string, style.size, style.is_bold)
        width_offset = letters.shape[1] * {"left": 0.0, "center": 0.5, "right": 1.0}[style.horizontal]
        height_offset = (
            style.size * DPI / 72 * CAPITAL_HEIGHT * {"baseline": 0.0, "center": 0.5, "top": 1.0}[style.vertical]
            + descent
        )
        pixels = np.empty((*letters.shape, 4), np.uint8)
        pixels[..., :3], pixels[..., 3] = (np.array(_parse_color(style.color)) * 255).round(), letters
        (x, y) = position
        if style.is_rotated:
            self._draw_pixels(np.rot90(pixels), x * DPI + height_offset - len(letters), y * DPI - width_offset)
        else:
            self._draw_pixels(pixels, x * DPI - width_offset, y * DPI - height_offset)

    def draw_title(self, heading: str, subtitle: str = "", left: float = 0.15) -> None:
        """Draw a heading at the page's upper left.

        Args:
            heading: the text, in bold.
            subtitle: a fainter line below it.
            left: distance from the page's left side in inches.
        """
        self.draw_text((left, self.height - 0.14), heading, TextStyle(12, is_bold=True, vertical="top"))
        self.draw_text((left, self.height - 0.39), subtitle, TextStyle(9, FAINT_TEXT_COLOR, vertical="top"))

    def to_png(self) -> bytes:
        """Encode the page as PNG."""
        from io import BytesIO

        from PIL import Image

        image = BytesIO()
        colors = np.asarray(self._renderer.buffer_rgba())[..., :3]
        Image.fromarray(np.ascontiguousarray(colors)).save(image, "png", compress_level=1, dpi=(DPI, DPI))
        return image.getvalue()

    def _make_pen(self, color: str, width: float, alpha: float) -> GraphicsContextBase:
        pen: GraphicsContextBase = self._renderer.new_gc()
        pen.set_foreground(_parse_color(color))
        pen.set_alpha(alpha)
        pen.set_linewidth(width)
        return pen

    def _draw_pixels(self, image: NDArray[np.uint8], left: float, bottom: float) -> None:
        upside_down = np.ascontiguousarray(image[::-1])
        self._renderer.draw_image(self._renderer.new_gc(), round(left), round(bottom), upside_down)


def rectangle_corners(left: float, bottom: float, width: float, height: float) -> list[tuple[float, float]]:
    """List the corners of a rectangle, counterclockwise from the lower left one.

    Args:
        left: x of the left side.
        bottom: y of the bottom.
        width: width in the unit of `left`.
        height: height in the unit of `bottom`.
    """
    return [(left, bottom), (left + width, bottom), (left + width, bottom + height), (left, bottom + height)]


def measure_text_width(string: str, size: float = 9) -> float:
    """Measure the width of a line of text in inches. `size` is the font size in points."""
    return _render_text(string, size, False)[0].shape[1] / DPI if string.strip() else 0.0


@lru_cache(maxsize=1024)
def _render_text(string: str, size: float, is_bold: bool) -> tuple[TextBitmap, float]:
    """Render text. Return the opacity of each pixel, top row first, and the number of rows below the baseline."""
    return draw_text_bitmap(string, size, DPI, is_bold=is_bold)


@cache
def _parse_color(color: str) -> tuple[float, float, float]:
    """Convert `#rrggbb` to red, green and blue from 0 to 1."""
    red, green, blue = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue
