"""Small image files of every kind, written by Pillow."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[Any]


def make_pixels(height: int = 12, width: int = 16, channels: int = 3, seed: int = 0) -> Pixels:
    """Smooth pixels with some noise, which every format can compress; (H, W) for one channel."""
    generator = np.random.Generator(np.random.PCG64(seed))
    ramp = np.add.outer(np.arange(height) * 9, np.arange(width) * 7)[..., None] + 40 * np.arange(channels)
    pixels = ((ramp + generator.integers(0, 20, ramp.shape)) % 256).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels


def encode(image: Image.Image | Pixels, name: str = "PNG", **settings: Any) -> bytes:
    """The content of an image file."""
    file = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, name, **settings)
    return file.getvalue()


def write_image(file: Path, image: Image.Image | Pixels, **settings: Any) -> Path:
    """Write an image file, with its folders; its ending is the format."""
    file.parent.mkdir(parents=True, exist_ok=True)
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(file, **settings)
    return file


def make_exif(orientation: int) -> Image.Exif:
    """EXIF metadata that say how the camera was held."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
