"""Decode images to arrays, and describe them by their headers.

Pixels are kept as files have them: uint8, or float32 in [0, 1] for images of 16 bits. Transparent pixels become white
unless the alpha channel is kept. A file of several pictures, such as an animated GIF, is its first one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from dlspec.data.images.pillow_files import check_end, find_format, get_orientation, load_image, open_image
from dlspec.errors import Code, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

Mode = Literal["rgb", "grey", "rgba"]
MODES: tuple[Mode, ...] = ("rgb", "grey", "rgba")
CHANNELS_OF_MODE = {"grey": 1, "rgb": 3, "rgba": 4}
MAX_16_BITS = 65_535
_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")
_NAMES_OF_MODE = {"1": "black and white", "L": "grey", "LA": "grey", "La": "grey", "RGB": "RGB", "RGBA": "RGB",
                  "RGBa": "RGB", "P": "palette", "PA": "palette", "F": "floating-point"}  # fmt: skip


@dataclass(frozen=True)
class ImageFacts:
    """What the header of an image says."""

    height: int  # after turning by EXIF
    width: int
    colours: str  # RGB, grey, palette, CMYK, ...: for notes
    is_grey: bool
    has_16_bits: bool = False
    has_alpha: bool = False
    is_turned: bool = False  # by EXIF
    is_animated: bool = False


def describe_image(content: bytes, *, is_whole: bool = True) -> ImageFacts:
    """Describe an image by its header, without decoding pixels.

    Args:
        content: the content of its file
        is_whole: whether that is the whole file; a truncated file is then found by its end

    Raises:
        DataError: with the reason, if it is not an image, damaged, truncated or too large.
    """
    image = open_image(content)
    if is_whole:
        check_end(content)
    orientation = get_orientation(image)
    is_on_its_side = orientation >= 5 and image.format != "TIFF"  # a TIFF's size is that of the turned image
    width, height = (image.height, image.width) if is_on_its_side else (image.width, image.height)
    return _make_facts(image, height, width, is_turned=orientation > 1)


def describe_loaded_image(image: Image) -> ImageFacts:
    """Describe an image in memory."""
    return _make_facts(image, image.height, image.width, is_turned=False)


def _make_facts(image: Image, height: int, width: int, *, is_turned: bool) -> ImageFacts:
    is_deep = image.mode.startswith("I")
    is_grey = image.mode in _GREY_MODES or (image.mode == "P" and _has_grey_palette(image))
    name = "16-bit grey" if is_deep else _NAMES_OF_MODE.get(image.mode, image.mode)
    return ImageFacts(height, width, name, is_grey, is_deep, _has_alpha(image), is_turned, _is_animated(image))


def _has_alpha(image: Image) -> bool:
    return image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info


def _is_animated(image: Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a later frame is damaged
        return True


def _has_grey_palette(image: Image) -> bool:
    palette = image.palette
    if palette is None:
        return False
    step = len(palette.rawmode or palette.mode)
    colours = np.frombuffer(bytes(palette.palette), np.uint8)
    rows = colours[: len(colours) // step * step].reshape(-1, step)[:, :3]
    return bool((rows == rows[:, :1]).all())


def decode_image(source: bytes | Image, mode: Mode, bits: int) -> NDArray[Any]:
    """Decode an image.

    Args:
        source: the content of a file, or an image in memory
        mode: which channels the array gets
        bits: 8 for uint8, 16 for float32 in [0, 1]

    Returns:
        The pixels, channels first: (C, H, W).

    Raises:
        DataError: with the reason, if it can't be decoded.
    """
    image = load_image(source) if isinstance(source, bytes) else source
    try:
        pixels = _read_deep_pixels(image) if image.mode.startswith("I") else _convert(image, mode)
    except DataError:
        raise
    except Exception as error:  # Pillow raises any type for damaged files
        raise DataError("", f"its colours ({image.mode}) can't be converted: {error}", Code.BAD_DATA) from None
    if pixels.dtype == np.uint16:
        pixels = _spread_channels(pixels, mode)
    return _convert_bits(pixels, bits)


def _read_deep_pixels(image: Image) -> NDArray[Any]:
    """Read grey pixels of 16 bits (H, W)."""
    values = np.asarray(image)
    if values.min(initial=0) < 0 or values.max(initial=0) > MAX_16_BITS:
        raise DataError("", f"it has pixels beyond 16 bits, from {values.min()} to {values.max()}", Code.BAD_DATA)
    return values.astype(np.uint16)


def _spread_channels(grey: NDArray[Any], mode: Mode) -> NDArray[Any]:
    """Repeat a grey image (H, W) in each channel; alpha is opaque."""
    pixels = np.repeat(grey[None], CHANNELS_OF_MODE[mode], axis=0)
    if mode == "rgba":
        pixels[3] = MAX_16_BITS
    return pixels


def _convert(image: Image, mode: Mode) -> NDArray[np.uint8]:
    """Convert to channels of 8 bits (C, H, W)."""
    if image.mode == "F":
        raise DataError("", "it has floating-point pixels; save it with 8 or 16 bits", Code.BAD_DATA)
    if mode == "rgba":
        image = image.convert("RGBA")
    else:
        image = _put_on_white(image) if _has_alpha(image) else image
        image = image.convert("RGB") if image.mode in ("CMYK", "HSV", "LAB", "YCbCr", "RGBX") else image
        image = image.convert("L" if mode == "grey" else "RGB")
    values = np.asarray(image)
    return values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1))


def _put_on_white(image: Image) -> Image:
    from PIL import Image as images

    rgba = image.convert("RGBA")
    return images.alpha_composite(images.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _convert_bits(pixels: NDArray[Any], bits: int) -> NDArray[Any]:
    """Convert uint8 or uint16 to uint8, or to float32 in [0, 1]."""
    if bits == 8:
        return pixels if pixels.dtype == np.uint8 else ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return pixels.astype(np.float32) / np.float32(255 if pixels.dtype == np.uint8 else MAX_16_BITS)


def decode_mask(source: bytes | Image, *, is_colour: bool) -> NDArray[Any]:
    """Decode a mask.

    Args:
        source: the content of a file, or an image in memory
        is_colour: whether colours are classes; else the numbers of the pixels are, such as the indices of a palette

    Returns:
        The number of each pixel (H, W); a colour as 65536 * red + 256 * green + blue.

    Raises:
        DataError: with the reason, if it can't be decoded, or pixels of a JPEG are not exact.
    """
    if isinstance(source, bytes) and find_format(source) == "JPEG":
        found = "a mask can't be a JPEG, which changes pixels a little"
        raise DataError("", f"{found}; save masks as PNG", Code.BAD_DATA)
    image = load_image(source) if isinstance(source, bytes) else source
    return read_colours(image) if is_colour else read_numbers_of_pixels(image)


def read_colours(image: Image) -> NDArray[np.int64]:
    """Return the colour of each pixel (H, W), as one number."""
    rgb = np.asarray(image.convert("RGB")).astype(np.int64)
    return np.asarray(rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2])


def read_numbers_of_pixels(image: Image) -> NDArray[Any]:
    """Return the number of each pixel (H, W): of a palette its index, of a grey image its value."""
    values = np.asarray(image)
    values = values.astype(np.uint8) if values.dtype == np.bool_ else values
    if values.ndim == 2:
        if values.dtype.kind == "f":
            raise DataError("", "the mask has floating-point pixels; save it with 8 or 16 bits", Code.BAD_DATA)
        return values
    channels = values[..., : {2: 1, 3: 3, 4: 3}[values.shape[2]]]
    if image.mode == "CMYK" or not (channels == channels[..., :1]).all():
        found = "the mask has colours; write the class of each"
        raise DataError("", f"{found}, as in classes: {{'#ff0000': road}}", Code.BAD_DATA)
    return np.asarray(channels[..., 0])
