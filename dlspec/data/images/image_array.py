"""Images and masks as lazy arrays: decoded and resized when a batch needs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlspec.data.images.image_cache import CacheableArray
from dlspec.data.images.image_cells import ImageCell, map_in_threads
from dlspec.data.images.image_decoding import CHANNELS_OF_MODE, Mode, decode_image, decode_mask
from dlspec.data.images.pixel_classes import IGNORED, IGNORED_BYTE, PixelClasses
from dlspec.data.images.resizing import Resize, Size, crop_center, resize_image, resize_mask
from dlspec.data.lazy_array import Digest, InMemoryArray, MapTasks
from dlspec.errors import DataError

READ_FORMAT = 1  # of what files are read to: a new number where equal files give other values
SKIP_FIX = "correct the file, or leave such rows out: data.bad_rows=skip"


@dataclass(frozen=True)
class ImageForm:
    """How images are read: to compact values of one size."""

    size: Size  # at which they are kept
    resize: Resize
    mode: Mode
    bits: int  # 8: uint8, 16: float32 in [0, 1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an image as it is kept."""
        return (CHANNELS_OF_MODE[self.mode], *self.size)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the compact values."""
        return torch.uint8 if self.bits == 8 else torch.float32

    def read(self, cell: ImageCell) -> Tensor:
        """Read an image (C, H, W); DataError with the reason if it can't be read."""
        return resize_image(decode_image(cell.read(), self.mode, self.bits), self.size, self.resize)


@dataclass(frozen=True)
class MaskForm:
    """How masks are read: to one class for each pixel."""

    size: Size
    resize: Resize
    classes: PixelClasses
    count: int  # of classes

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a mask as it is kept."""
        return self.size

    @property
    def dtype(self) -> torch.dtype:
        """Type of the compact values: bytes as long as 255 is free for ignored pixels."""
        return torch.uint8 if self._is_bytes else torch.int64

    @property
    def _is_bytes(self) -> bool:
        return self.count <= IGNORED_BYTE

    def read(self, cell: ImageCell) -> Tensor:
        """Read a mask (H, W); DataError with the reason if it can't be read."""
        classes = self.classes.number(
            decode_mask(cell.read(), is_colour=self.classes.is_colour), as_bytes=self._is_bytes
        )
        return resize_mask(classes, self.size, self.resize, IGNORED_BYTE if self._is_bytes else IGNORED)


class PrepareImages(nn.Module):
    """Prepares compact images (N, C, H, W) for a network: the center of the stored size, scaled.

    Args:
        size: the height and width that the network takes
        mean: of each channel, in [0, 1]; () leaves the values in [0, 1]
        std: of each channel
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(self, size: Size, mean: Sequence[float] = (), std: Sequence[float] = ()) -> None:
        super().__init__()
        self.size = size
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1) if values else None)

    def forward(self, images: Tensor) -> Tensor:
        """Scale images: uint8, or numbers in [0, 1]."""
        images = crop_center(images, self.size)
        values = images.float() / 255 if images.dtype == torch.uint8 else images
        if self.mean is None or self.std is None:
            return values.contiguous()
        return (values - self.mean.to(values.dtype)) / self.std.to(values.dtype)

    def undo_scale(self, images: Tensor) -> Tensor:
        """Return prepared images with values from 0 to 1 again, for pictures."""
        if self.mean is None or self.std is None:
            return images
        return (images * self.std.to(images) + self.mean.to(images)).clamp(0, 1)


class PrepareMasks(nn.Module):
    """Prepares compact masks (N, H, W) for a loss: the center of the stored size, as int64 with -100 for ignored.

    Args:
        size: the height and width of the target
    """

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.size = size

    def forward(self, masks: Tensor) -> Tensor:
        """Convert masks: bytes with 255 for ignored pixels, or int64."""
        masks = crop_center(masks, self.size)
        if masks.dtype != torch.uint8:
            return masks.long().contiguous()
        classes = masks.long()
        return classes.masked_fill(classes == IGNORED_BYTE, IGNORED)


class FileArray(CacheableArray):
    """Images or masks in files.

    Args:
        cells: the images (N,)
        form: how each is read
        module: prepares what is read
        prepared: shape of one prepared image
    """

    def __init__(
        self, cells: NDArray[Any], form: ImageForm | MaskForm, module: nn.Module, prepared: tuple[int, ...]
    ) -> None:
        self.cells, self.form, self._module = cells, form, module
        self.shape = (len(cells), *prepared)

    @property
    def module(self) -> nn.Module:
        """The module that prepares rows."""
        return self._module

    @property
    def recipe(self) -> str:
        """How files are read, as text: files of equal content and recipe give equal values."""
        return f"{READ_FORMAT} {self.form!r}"

    @property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one row as it is kept."""
        return self.form.shape

    @property
    def row_dtype(self) -> torch.dtype:
        """Type of the rows as they are kept."""
        return self.form.dtype

    def gather(self, rows: Tensor, map_tasks: MapTasks = map) -> Tensor:
        """Read some rows: compact values (n, C, H, W) or (n, H, W)."""
        found = torch.empty(len(rows), *self.form.shape, dtype=self.form.dtype)
        for at, values in enumerate(map_tasks(self.read_row, rows.tolist())):
            found[at] = values
        return found

    def read_row(self, row: int) -> Tensor:
        """Read one row as compact values; DataError with the file's name and the reason."""
        try:
            return self.form.read(self._get_cell(row))
        except DataError as error:
            found = f"{self.cells[row]}: {error.finding.found}"
            raise DataError("", f"{found} ({SKIP_FIX})", error.finding.code) from None

    def _get_cell(self, row: int) -> ImageCell:
        cell: ImageCell | None = self.cells[row]
        if cell is None:
            raise DataError("", "the image is missing")
        return cell

    def try_rows(self, rows: Iterable[int]) -> dict[int, str]:
        """Decode some rows in threads, and return why those that can't be read can't."""
        chosen = list(rows)
        problems = zip(chosen, map_in_threads(self._try_row, chosen), strict=True)
        return {row: reason for row, reason in problems if reason}

    def _try_row(self, row: int) -> str:
        try:
            self.form.read(self._get_cell(row))
        except DataError as error:
            return error.finding.found
        return ""

    def load(self) -> tuple[InMemoryArray, dict[int, str]]:
        """Read all rows into memory, in threads; and return why those that can't be read can't, which are zeros."""
        values = torch.zeros(len(self), *self.form.shape, dtype=self.form.dtype)
        problems: dict[int, str] = {}
        for row, found in enumerate(map_in_threads(self._load_row, range(len(self)))):
            if isinstance(found, str):
                problems[row] = found
            else:
                values[row] = found
        return InMemoryArray(values, self.module), problems

    def _load_row(self, row: int) -> Tensor | str:
        try:
            return self.form.read(self._get_cell(row))
        except DataError as error:
            return error.finding.found

    def select(self, rows: slice | Tensor) -> FileArray:
        """Select some rows without reading them."""
        indices = rows if isinstance(rows, slice) else rows.cpu().numpy()
        return type(self)(self.cells[indices], self.form, self.module, self.shape[1:])

    def update_hash(self, digest: Digest) -> None:
        """Add what the files contain, and how they are read."""
        digest.update(self.recipe.encode())
        for cell in self.cells:
            digest.update(b"" if cell is None else cell.get_digest())

    @property
    def content_keys(self) -> Sequence[bytes]:
        """The hash of each row's file."""
        return [b"" if cell is None else cell.get_digest() for cell in self.cells]


class ImageArray(FileArray):
    """Images (N, C, H, W) in files."""

    dtype = torch.float32


class MaskArray(FileArray):
    """Masks (N, H, W) in files: a class for each pixel."""

    dtype = torch.int64
