"""What an exported file takes: its tensors, and what an ONNX file converts to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from dlspec.data.images.resizing import Resize, Size

STEPS, LENGTHS, SIZES = "steps", "_lengths", ("height", "width")
TextForm = Literal["words", "characters"]


@dataclass(frozen=True)
class CategoryTable:
    """Which number each string becomes."""

    numbers: Mapping[str, float]
    default: float
    is_float: bool = False


@dataclass(frozen=True)
class TextTable:
    """How a string is split, and which token each piece becomes."""

    form: TextForm
    lowercase: bool
    tokens: Mapping[str, int]
    length: int  # the most tokens of a text


@dataclass(frozen=True)
class ImageResize:
    """To which size images are resized, and how."""

    size: Size
    resize: Resize
    is_bytes: bool  # uint8; else numbers in [0, 1]


@dataclass(frozen=True)
class RawInput:
    """One tensor that the traced network with its preparation takes."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | str, ...]  # of one row; a string is a size that may differ between batches
    meaning: str = ""  # what it is, for people
    # ONNX files convert this column to the tensor: strings (N,), or images of any size. A text also makes the next
    # input, its lengths.
    column: str = ""
    conversion: CategoryTable | TextTable | ImageResize | None = None
    fewest_steps: int = 1  # that the network needs
