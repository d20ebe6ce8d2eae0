"""The kind `image`: files, bytes or arrays become images of one size, channels first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from typing_extensions import override

from dlspec.data.images.image_decoding import CHANNELS_OF_MODE, MODES, Mode
from dlspec.data.prepare.kinds.array_column import MAX_NUMBERS
from dlspec.data.prepare.kinds.cells import PLAIN, CellFormat
from dlspec.data.prepare.kinds.image_settings import (
    FILE_KEYS,
    FittedFiles,
    SizedKind,
    as_image_cells,
    examine_headers,
    make_unreadable_error,
    read_saved_files,
)
from dlspec.data.prepare.kinds.kind import COLUMN_KINDS, Role, Rows, register_kind, register_saved
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.data.prepare.kinds.scales import LinearScale
from dlspec.errors import Code, DataError, format_value, suggest
from dlspec.layouts import Layout

if TYPE_CHECKING:
    from torch import nn

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of its training images, as torchvision
SCALES = ("unit", "standard", "imagenet", "half")
WrittenScale = str | dict[str, Any]
Numbers = tuple[float, ...]


class ImageSettings(SizedKind):
    """Settings of an image, as an input or as a target."""

    role: ClassVar[Role] = "field"
    reads_files: ClassVar[bool] = True
    scales: ClassVar[tuple[str, ...]] = SCALES

    mode: Literal["auto", "rgb", "grey", "rgba"] = Field("auto", description="auto: rgb where an image has colours")
    scale: WrittenScale = Field(
        "unit", description="unit: [0, 1], half: [-1, 1], standard: by the training images, imagenet, or {mean, std}"
    )

    @field_validator("scale")
    @classmethod
    def _check_scale(cls, scale: WrittenScale) -> WrittenScale:
        check_scale(scale, cls.scales)
        return scale

    @override
    def fit(self, column: NDArray[Any], training: Rows, *, read: CellFormat = PLAIN, name: str = "") -> FittedImage:
        cells = as_image_cells(column)
        if self.mode == "auto" or self.size is None:
            examine_headers(cells)
        found = [cell.facts for cell in cells if cell is not None and cell.facts is not None]
        if not found and self.mode == "auto":
            raise make_unreadable_error(name, list(cells))
        key = "target" if self.role == "target" else "columns"
        size = self.choose_size(list(cells), name, key)
        mode: Mode = self.mode if self.mode != "auto" else "grey" if all(each.is_grey for each in found) else "rgb"
        bits = 16 if any(each.has_16_bits for each in found) else 8
        unscaled = FittedImage(**self.fit_files(size), mode=mode, bits=bits)
        mean, std = self._fit_scale(unscaled, cells[training], f"{key}.{name}.{self.name}.scale")
        return replace(unscaled, mean=mean, std=std)

    def _fit_scale(self, unscaled: FittedImage, training: NDArray[Any], key: str) -> tuple[Numbers, Numbers]:
        """Return mean and deviation of each channel; () for the values in [0, 1]."""
        channels = CHANNELS_OF_MODE[unscaled.mode]
        if isinstance(self.scale, dict):
            return _read_channels(self.scale, channels, key)
        if self.scale == "standard":
            from dlspec.data.prepare.kinds.image_statistics import find_channel_statistics

            return find_channel_statistics(unscaled.make_array(training))
        if self.scale == "imagenet" and channels != 3:
            found = f"scale: imagenet is for images of 3 channels, and these have {channels} ({unscaled.mode})"
            raise DataError(key, f"{found}; add mode: rgb, or write scale: standard", Code.CONFLICT)
        half = ((0.5,) * channels, (0.5,) * channels)
        return IMAGENET if self.scale == "imagenet" else half if self.scale == "half" else ((), ())


def check_scale(scale: WrittenScale, scales: Sequence[str]) -> None:
    """Check a scale as written; ValueError if it is none.

    Args:
        scale: its name, or {mean, std}, each a number or one for each channel
        scales: the names of scales
    """
    if isinstance(scale, str):
        if scale not in scales:
            fix = suggest(scale, scales)
            raise ValueError(f"expected {', '.join(scales)} or {{mean: ..., std: ...}}, got '{scale}'; {fix}")
        return
    numbers = [each for value in scale.values() for each in (value if isinstance(value, list) else [value])]
    if set(scale) != {"mean", "std"} or any(isinstance(each, bool) or not isinstance(each, int | float)
                                            for each in numbers):  # fmt: skip
        raise ValueError(f"expected {{mean: NUMBERS, std: NUMBERS}}, got {format_value(scale)}")


def _read_channels(scale: Mapping[str, Any], channels: int, key: str) -> tuple[Numbers, Numbers]:
    mean, std = (_spread(scale[each], channels) for each in ("mean", "std"))
    if len(mean) != channels or len(std) != channels:
        found = f"the images have {channels} channels, mean has {len(mean)} numbers and std {len(std)}"
        raise DataError(key, f"{found}; write one for each channel, or one for all", Code.WRONG_VALUE)
    if not all(np.isfinite([*mean, *std])) or not all(each > 0 for each in std):
        raise DataError(key, "mean and std must be finite, and std above 0", Code.WRONG_VALUE)
    return mean, std


def _spread(written: float | list[float], channels: int) -> Numbers:
    return tuple(map(float, written)) if isinstance(written, list) else (float(written),) * channels


@register_kind("image", COLUMN_KINDS)
class ImageKind(ImageSettings):
    """An image: a file, its content, or an array."""


@register_saved("image")
@dataclass(frozen=True)
class FittedImage(FittedFiles):
    """Images of one size, channels first (N, C, H, W) float32, read when a batch needs them."""

    mode: Mode
    bits: int
    mean: tuple[float, ...] = ()  # of each channel in [0, 1]; () for values in [0, 1]
    std: tuple[float, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        return (CHANNELS_OF_MODE[self.mode], *self.size)

    @property
    def layout(self) -> Layout:
        return "channels-first"

    @property
    def scale(self) -> LinearScale | None:
        """How channels in [0, 1] are scaled: predicted images are in [0, 1] again; None if they are not scaled."""
        return LinearScale(np.array(self.mean), np.array(self.std)) if self.mean else None

    def make_array(self, cells: NDArray[Any]) -> Any:
        """Make the lazy array of image cells (N,)."""
        from dlspec.data.images.image_array import ImageArray, ImageForm

        form = ImageForm(self.kept_size, self.resize, self.mode, self.bits)
        return ImageArray(cells, form, self.module(), self.shape)

    def read(self, column: NDArray[Any]) -> NDArray[Any]:
        """Read images as compact values (N, C, H, W)."""
        import torch

        array = self.make_array(as_image_cells(column))
        compact: NDArray[Any] = array.gather(torch.arange(len(column))).numpy()
        return compact

    def module(self) -> nn.Module:
        """Make the module that prepares compact images."""
        from dlspec.data.images.image_array import PrepareImages

        return PrepareImages(self.size, self.mean, self.std)

    def invert(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Convert predicted images (N, C, H, W) to [0, 1]."""
        numbers = np.asarray(values, np.float64)
        if not self.mean:
            return numbers
        return np.asarray(numbers * np.reshape(self.std, (-1, 1, 1)) + np.reshape(self.mean, (-1, 1, 1)))

    def name_scale(self) -> str | dict[str, list[float]]:
        """Return the scale as a setting: its name, or its numbers."""
        half = (0.5,) * len(self.mean)
        scales = {"unit": ((), ()), "imagenet": IMAGENET, "half": (half, half)}
        found = next((name for name, each in scales.items() if each == (self.mean, self.std)), None)
        return found or {"mean": list(self.mean), "std": list(self.std)}

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind, **self.files_to_json(), "mode": self.mode, "bits": self.bits, "mean": list(self.mean),
            "std": list(self.std),
        }  # fmt: skip

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedImage:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        values = SavedValues(saved, (*FILE_KEYS, "mode", "bits", "mean", "std"))
        files = read_saved_files(values)
        mode = next(each for each in MODES if each == values.get_choice("mode", MODES))
        mean, std = values.get_numbers("mean", 4), values.get_numbers("std", 4)
        if len(mean) not in (0, CHANNELS_OF_MODE[mode]) or len(std) != len(mean) or not all(each > 0 for each in std):
            raise make_saved_error("mean and std must have a number for each channel, and std is above 0")
        if prod(files["store"] or files["size"]) * CHANNELS_OF_MODE[mode] > MAX_NUMBERS:
            raise make_saved_error(f"an image has more than {MAX_NUMBERS:,} numbers")
        bits = values.get_integer("bits", 8, 16)
        if bits not in (8, 16):
            raise make_saved_error("bits must be 8 or 16")
        return cls(**files, mode=mode, bits=bits, mean=mean, std=std)
