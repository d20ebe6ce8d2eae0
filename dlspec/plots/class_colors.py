"""A colour for each class of pixels. No torch."""

from __future__ import annotations

from colorsys import hsv_to_rgb

Color = tuple[float, float, float]  # red, green and blue, from 0 to 1


def list_class_colors(count: int) -> list[Color]:
    """Choose a color for each of `count` classes. The first, often the background, is light."""
    from matplotlib import colormaps

    first: list[Color] = [(0.91, 0.92, 0.94)]
    named = [tuple(each) for name in ("tab10", "Set2", "Dark2") for each in colormaps[name].colors]  # type: ignore[attr-defined]
    more = [hsv_to_rgb((index * 0.618) % 1, 0.4 + (index * 0.37) % 0.6, 0.9) for index in range(count)]
    return [*first, *named, *more][:count]
