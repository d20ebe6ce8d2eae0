"""Open the content of image files with Pillow: only formats that it decodes by itself, and nothing too large.

The first bytes decide the format, and only the class of that format sees the content: no plugin is searched for, so no
file is handed to another program, as EPS would be.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlspec.compat.pillow import import_image_class
from dlspec.errors import Code, DataError
from dlspec.formatting import first_line
from dlspec.limits import explain_raising_limit, get_limit

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm")
ORIENTATION = 0x0112  # EXIF's tag for how a camera was held
_SIGNATURES: Mapping[bytes, str] = {
    b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF87a": "GIF", b"GIF89a": "GIF", b"BM": "BMP",
    b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"RIFF": "WEBP",
    b"P1": "PPM", b"P2": "PPM", b"P3": "PPM", b"P4": "PPM", b"P5": "PPM", b"P6": "PPM",
}  # fmt: skip
_END_MARKS: Mapping[str, bytes] = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL_BYTES = 64  # where the mark is, with a few bytes that some programs add
_CLASSES: Mapping[str, tuple[str, str]] = {
    "PNG": ("PngImagePlugin", "PngImageFile"), "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"), "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"), "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "PPM": ("PpmImagePlugin", "PpmImageFile"),
}  # fmt: skip


def has_image_ending(name: str) -> bool:
    """Whether a file's name ends as those of images do."""
    return name.lower().endswith(IMAGE_ENDINGS)


def read_image_file(path: str, max_bytes: int | None = None) -> bytes:
    """Read the content of an image file, or its first bytes.

    Args:
        path: the file
        max_bytes: how much to read; None for the whole file

    Raises:
        DataError: with the reason, without the file's name, if it can't be read.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise DataError("", _explain_missing(path, error), Code.FILE_UNREADABLE) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise DataError("", f"'{path}' is a folder, pipe or device", Code.FILE_UNREADABLE)
    with os.fdopen(descriptor, "rb") as file:
        if found.st_size > get_limit("image_bytes"):
            reason = f"the file has {found.st_size:,} bytes, more than {get_limit('image_bytes'):,}"
            raise DataError("", f"{reason}: {explain_raising_limit('image_bytes')}", Code.TOO_LARGE)
        try:
            # No more than its size: some of the kernel's own files never end.
            return file.read(found.st_size if max_bytes is None else min(max_bytes, found.st_size)) or b""
        except OSError as error:
            raise DataError("", f"it can't be read: {error.strerror}", Code.FILE_UNREADABLE) from None


def _explain_missing(path: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no file '{path}'"
    if isinstance(error, IsADirectoryError):
        return f"'{path}' is a folder, pipe or device"
    return f"'{path}' can't be read: {getattr(error, 'strerror', None) or error}"


def find_format(content: bytes) -> str:
    """Tell the format of an image by its first bytes; DataError for anything else than the formats that are read."""
    if not content:
        raise DataError("", "the file is empty", Code.BAD_DATA)
    found = next((name for start, name in _SIGNATURES.items() if content.startswith(start)), "")
    if not found or (found == "WEBP" and content[8:12] != b"WEBP"):
        formats = ", ".join(_CLASSES)
        raise DataError("", f"it is not an image: expected {formats}", Code.BAD_DATA)
    return found


def open_image(content: bytes) -> Image:
    """Open an image by its header; its pixels are decoded by `load_image`.

    Raises:
        DataError: with the reason, if the content is not an image, damaged, or has too many pixels.
    """
    name = find_format(content)
    try:
        image = import_image_class(*_CLASSES[name])(io.BytesIO(content))
    except Exception as error:  # Pillow raises any type for damaged files
        raise DataError("", f"its {name} header is damaged: {_describe(error)}", Code.BAD_DATA) from None
    pixels, limit = image.width * image.height, get_limit("image_pixels")
    if pixels > limit:
        found = f"it has {image.width:,} x {image.height:,} pixels, more than {limit:,}"
        raise DataError("", f"{found}: {explain_raising_limit('image_pixels')}", Code.TOO_LARGE)
    return image


def load_image(content: bytes) -> Image:
    """Decode an image and turn it as its EXIF orientation says.

    Raises:
        DataError: with the reason, if it is damaged or has too many pixels.
    """
    image = open_image(content)
    orientation = get_orientation(image)  # before the pixels, as a PNG can have another after them
    try:
        image.load()
        is_turned_already = image.format == "TIFF"
        return image if is_turned_already else turn_image(image, orientation)
    except Exception as error:  # Pillow raises any type for damaged files
        raise DataError("", f"it is damaged: {_describe(error)}", Code.BAD_DATA) from None


def get_orientation(image: Image) -> int:
    """Return the EXIF orientation, 1 if there is none: 2 to 8 are turned or mirrored."""
    from PIL.Image import Image

    try:
        found = Image.getexif(image).get(ORIENTATION)  # that of PngImageFile decodes the pixels first
    except Exception:  # damaged metadata of a good picture
        return 1
    return found if type(found) is int and 2 <= found <= 8 else 1


def turn_image(image: Image, orientation: int) -> Image:
    """Turn an image as its EXIF orientation says."""
    from PIL.Image import Transpose

    methods = {
        2: Transpose.FLIP_LEFT_RIGHT, 3: Transpose.ROTATE_180, 4: Transpose.FLIP_TOP_BOTTOM, 5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270, 7: Transpose.TRANSVERSE, 8: Transpose.ROTATE_90,
    }  # fmt: skip
    return image.transpose(methods[orientation]) if orientation in methods else image


def check_end(content: bytes) -> None:
    """Check that a file is whole: by the mark at its end, or where that is unusual, by decoding it.

    Raises:
        DataError: with the reason, if it is truncated.
    """
    mark = _END_MARKS.get(find_format(content))
    if mark is None or mark not in content[-_TAIL_BYTES:]:
        load_image(content)


def _describe(error: Exception) -> str:
    return first_line(error) or type(error).__name__
