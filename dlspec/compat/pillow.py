"""Pillow's classes of file formats, used without `Image.open`."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@cache
def import_image_class(module: str, name: str) -> Callable[[io.BytesIO], Image]:
    """Import the class for files of one format; `Image.open` would try the classes of all installed plugins.

    Pillow's warnings about metadata of single files, such as a damaged EXIF tag, are not shown: pictures without them
    are read all the same, and a file that can't be read raises an error.

    Args:
        module: the module in PIL, such as `PngImagePlugin`
        name: the class
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    found: Callable[[io.BytesIO], Image] = getattr(import_module(f"PIL.{module}"), name)
    return found
