"""What an exported file takes for each column of a row, and how the cells of dlspec become that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlspec.data.encoding.encoded_rows import apply_column
from dlspec.data.prepare.kinds.array_column import FittedArray
from dlspec.data.prepare.kinds.category import FittedCategory
from dlspec.data.prepare.kinds.date import FittedDate
from dlspec.data.prepare.kinds.grouped_number import FittedGroupedNumber
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.prepare.kinds.kind import Encoded, FittedColumn
from dlspec.data.prepare.kinds.number import FittedNumber
from dlspec.data.prepare.kinds.numbers import FittedNumbers
from dlspec.data.prepare.kinds.plain_kinds import Divided, Standardized
from dlspec.data.prepare.kinds.scales import LinearScale, LogScale, QuantileScale, Scale
from dlspec.data.prepare.kinds.text import FittedText
from dlspec.data.prepare.vocabulary import PADDING, RESERVED, UNKNOWN
from dlspec.inference.export.file_inputs import LENGTHS, STEPS, CategoryTable, ImageResize, RawInput, TextTable

Cells = Mapping[str, NDArray[Any]]
Arrays = tuple[NDArray[Any], ...]
MAX_FLOAT32_ERROR = 1e-6  # of a scaled number: columns that float32 reads less exactly are float64


@dataclass(frozen=True)
class RawColumn:
    """How one column of a table enters an exported file."""

    inputs: tuple[RawInput, ...]
    encode: nn.Module  # what the inputs become: features, or the only column of a field
    read: Callable[[Cells], Arrays]  # the inputs of some rows, from cells
    makes_lengths: bool = False  # whether `encode` returns the lengths too
    note: str = ""  # what the user should know

    def require_steps(self, fewest: int) -> RawColumn:
        """Note how many steps the network needs at least."""
        return replace(self, inputs=tuple(replace(each, fewest_steps=fewest) for each in self.inputs))

    def without_lengths(self) -> RawColumn:
        """Leave out lengths, for a network that does not take them."""
        if not self.inputs[-1].name.endswith(LENGTHS):
            return self
        return replace(self, inputs=self.inputs[:1], makes_lengths=False)


class TakeEncoded(nn.Module):
    """Takes a column as it was encoded before."""

    def forward(self, *values: Tensor) -> Any:
        return values[0] if len(values) == 1 else values


class ScaleArray(nn.Module):
    """Divides numbers in single precision."""

    def __init__(self, divisor: float, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.divisor, self.shape = divisor, shape

    def forward(self, values: Tensor, *lengths: Tensor) -> Any:
        scaled = values if self.divisor == 1 else values / self.divisor
        return (scaled, *lengths) if lengths else scaled


class TakeImages(nn.Module):
    """Prepares images (N, H, W, C) as they are kept, channels last."""

    def __init__(self, prepare: nn.Module) -> None:
        super().__init__()
        self.prepare = prepare

    def forward(self, images: Tensor) -> Any:
        return self.prepare(images.permute(0, 3, 1, 2))


class JoinGroup(nn.Module):
    """Puts numbers and the index of their group side by side."""

    def __init__(self, scale: nn.Module) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, values: Tensor, groups: Tensor) -> Any:
        return self.scale(torch.stack([values.double(), groups.double()], dim=1))


class CountSteps(nn.Module):
    """Scales lists of numbers (N, T, C) and counts their steps: up to the last one that has a number."""

    def __init__(self, scale: nn.Module) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        is_step = ~torch.isnan(values).all(dim=2)  # (N, T)
        numbers = torch.arange(1, values.shape[1] + 1, device=values.device)
        return self.scale(values), (is_step * numbers).amax(dim=1).clamp(min=1)


def describe_column(name: str, fitted: FittedColumn, shape: tuple[int, ...], as_tokens: bool = False) -> RawColumn:
    """Describe how a column enters an exported file.

    Args:
        name: the column
        fitted: what encodes it
        shape: of an encoded row, as the network's field has it
        as_tokens: whether a category is a token of a field, not features
    """
    for kind, describe in _DESCRIBERS.items():
        if isinstance(fitted, kind):
            return describe(name, fitted, shape, as_tokens)
    return _describe_encoded(name, fitted, shape)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _describe_number(name: str, fitted: FittedNumber, shape: Any, as_tokens: bool) -> RawColumn:
    dtype = torch.float64 if _needs_double(fitted.scale) else torch.float32
    module, read = fitted.module(), lambda cells: (_convert(fitted.read(cells[name]), dtype),)
    if fitted.cells.values:
        numbers = {value: float(number) for number, value in enumerate(fitted.cells.values)}
        table = CategoryTable(numbers, float("nan"), is_float=True)
        meaning = f"the number of {', '.join(fitted.cells.values[:5])}, from 0; NaN where missing"
        return RawColumn((RawInput(name, torch.float32, (), meaning, name, table),), module, read)
    return RawColumn((RawInput(name, dtype, (), "a number; NaN where missing"),), module, read)


def _describe_grouped(name: str, fitted: FittedGroupedNumber, shape: Any, as_tokens: bool) -> RawColumn:
    dtype = torch.float64 if any(_needs_double(each.scale) for each in fitted.groups.values()) else torch.float32
    table = CategoryTable({group: float(number) for number, group in enumerate(fitted.groups, start=1)}, 0.0)
    groups = RawInput(f"{name}.group", torch.int64, (), f"the number of the group in '{fitted.per}', 0 for others",
                      fitted.per, table)  # fmt: skip

    def read(cells: Cells) -> Arrays:
        pairs = fitted.read(cells[name], cells[fitted.per])
        return _convert(pairs[:, 0], dtype), pairs[:, 1].astype(np.int64)

    numbers = RawInput(name, dtype, (), "a number; NaN where missing")
    return RawColumn((numbers, groups), JoinGroup(fitted.module()), read)


def _needs_double(scale: Scale) -> bool:
    """Whether float32 is too coarse for the numbers of a column."""
    if isinstance(scale, LogScale):
        return False
    if isinstance(scale, QuantileScale):
        low, high = float(scale.quantiles[0]), float(scale.quantiles[-1])
        return max(abs(low), abs(high)) * 2.0**-24 > MAX_FLOAT32_ERROR * max(high - low, 1e-300)
    assert isinstance(scale, LinearScale)
    return bool((np.abs(scale.shift / scale.divisor) * 2.0**-24 > MAX_FLOAT32_ERROR).any())


def _describe_date(name: str, fitted: FittedDate, shape: Any, as_tokens: bool) -> RawColumn:
    meaning = f"{', '.join(fitted.parts)} of the date; NaN where missing"
    each = RawInput(name, torch.float32, (len(fitted.parts),), meaning)
    note = f"'{name}' is a date: the file takes its parts as numbers, {', '.join(fitted.parts)}"
    return RawColumn(
        (each,), fitted.module(), lambda cells: (_convert(fitted.read(cells[name]), torch.float32),), note=note
    )


def _describe_standardized(name: str, fitted: Standardized, shape: tuple[int, ...], as_tokens: bool) -> RawColumn:
    dtype = torch.float64 if _needs_double(fitted.scale) else torch.float32
    read = lambda cells: (_convert(fitted.read(cells[name]), dtype).reshape(-1, *shape),)  # noqa: E731
    return RawColumn((RawInput(name, dtype, shape, "numbers"),), fitted.module(), read)


def _describe_divided(name: str, fitted: Divided, shape: tuple[int, ...], as_tokens: bool) -> RawColumn:
    read = lambda cells: (_convert(fitted.read(cells[name]), torch.float32).reshape(-1, *shape),)  # noqa: E731
    module = ScaleArray(fitted.by, shape)
    return RawColumn((RawInput(name, torch.float32, shape, "numbers"),), module, read)


def _describe_numbers(name: str, fitted: FittedNumbers, shape: Any, as_tokens: bool) -> RawColumn:
    sizes: tuple[int | str, ...] = (STEPS, *fitted.shape[1:]) if fitted.has_lengths else fitted.shape
    meaning = "numbers; NaN where missing and after the last step" if fitted.has_lengths else "numbers; NaN: missing"
    read = lambda cells: (_convert(fitted.read(cells[name]), torch.float32),)  # noqa: E731
    module = CountSteps(fitted.module()) if fitted.has_lengths else fitted.module()
    each = RawInput(name, torch.float32, sizes, meaning)
    return RawColumn((each,), module, read, makes_lengths=fitted.has_lengths)


def _describe_array(name: str, fitted: FittedArray, shape: Any, as_tokens: bool) -> RawColumn:
    is_token = fitted.tokens is not None
    sizes: tuple[int | str, ...] = (STEPS, *fitted.shape[1:]) if fitted.has_lengths else fitted.shape
    if is_token and fitted.layout == "tokens" and len(sizes) == 1:
        sizes = (STEPS,)
    meaning = f"tokens from 0 to {(fitted.tokens or 0) - 1:,}" if is_token else "numbers"
    inputs = [RawInput(name, torch.int64 if is_token else torch.float32, sizes, meaning)]
    if fitted.has_lengths:
        inputs.append(_describe_lengths(name))

    def read(cells: Cells) -> Arrays:
        found = fitted.apply(cells[name])
        values = found.values if is_token else (found.values * np.float32(fitted.divisor)).astype(np.float32)
        return (values,) if found.lengths is None else (values, found.lengths)

    return RawColumn(tuple(inputs), ScaleArray(fitted.divisor, fitted.shape), read, makes_lengths=fitted.has_lengths)


# ---- categories and texts --------------------------------------------------------------------------------------------


class _TokenColumn(nn.Module):
    """Takes the ids of a category as tokens (N, 1)."""

    def forward(self, ids: Tensor) -> Tensor:
        return ids[:, None]


def _describe_category(name: str, fitted: FittedCategory, shape: Any, as_tokens: bool) -> RawColumn:
    ids = {category: float(number) for number, category in enumerate(fitted.categories, RESERVED)}
    table = None if fitted.buckets else CategoryTable({**ids, "": float(PADDING)}, float(UNKNOWN))
    note = ""
    if fitted.buckets:
        note = f"'{name}' has hashed categories, which no file can express: it takes their ids (prepare.json)"
    each = RawInput(name, torch.int64, (), "the id of a category: 0 missing, 1 unknown", name, table)
    module = _TokenColumn() if as_tokens else fitted.module()
    return RawColumn((each,), module, lambda cells: (fitted.read(cells[name]),), note=note)


def _describe_text(name: str, fitted: FittedText, shape: Any, as_tokens: bool) -> RawColumn:
    words, form = fitted.vocabulary, next((each for each in ("words", "characters") if each == fitted.splitter), None)
    ids = {word: number for number, word in enumerate(words.words, RESERVED)}
    table = None if form is None else TextTable(form, words.lowercase, ids, words.length)
    tokens = RawInput(name, torch.int64, (STEPS,), "tokens: 0 padding, 1 unknown", name if table else "", table)
    return RawColumn((tokens, _describe_lengths(name)), TakeEncoded(), lambda cells: _encode(fitted, name, cells),
                     makes_lengths=True)  # fmt: skip


def _describe_lengths(name: str) -> RawInput:
    return RawInput(f"{name}{LENGTHS}", torch.int64, (), f"steps of '{name}' that are not padding, at least 1")


def _describe_image(name: str, fitted: FittedImage, shape: Any, as_tokens: bool) -> RawColumn:
    height, width = fitted.store or fitted.size
    dtype = torch.uint8 if fitted.bits == 8 else torch.float32
    values = "0 to 255" if fitted.bits == 8 else "0 to 1"
    table = ImageResize((height, width), fitted.resize, fitted.bits == 8)
    each = RawInput(name, dtype, (height, width, fitted.shape[0]), f"pixels, {values}", name, table)
    read = lambda cells: (fitted.read(cells[name]).transpose(0, 2, 3, 1),)  # noqa: E731
    return RawColumn((each,), TakeImages(fitted.module()), read)


def _describe_encoded(name: str, fitted: FittedColumn, shape: tuple[int, ...]) -> RawColumn:
    """Describe a column of any other kind: the file takes it encoded, as the network does."""
    has_tokens = fitted.vocab_size is not None
    sizes: tuple[int | str, ...] = (STEPS, *shape[1:]) if has_tokens and shape else shape
    meaning = "tokens" if has_tokens else f"encoded as the kind {fitted.kind} does"
    inputs = [RawInput(name, torch.int64 if has_tokens else torch.float32, sizes, meaning)]
    if has_tokens and fitted.layout == "tokens":
        inputs.append(_describe_lengths(name))
    note = f"'{name}' ({fitted.kind}) is encoded outside of the file, as its preparation says (prepare.json)"
    return RawColumn(tuple(inputs), TakeEncoded(), lambda cells: _encode(fitted, name, cells), len(inputs) > 1, note)


def _encode(fitted: FittedColumn, name: str, cells: Cells) -> Arrays:
    found: Encoded = apply_column(fitted, name, cells, range(len(cells[name])))
    values = np.asarray(found.values)
    return (values,) if found.lengths is None else (values, found.lengths)


def _convert(values: NDArray[Any], dtype: torch.dtype) -> NDArray[Any]:
    return values.astype(np.float64 if dtype == torch.float64 else np.float32)


_DESCRIBERS: Mapping[type[FittedColumn], Callable[..., RawColumn]] = {
    FittedNumber: _describe_number,
    FittedGroupedNumber: _describe_grouped,
    FittedDate: _describe_date,
    Standardized: _describe_standardized,
    Divided: _describe_divided,
    FittedNumbers: _describe_numbers,
    FittedArray: _describe_array,
    FittedCategory: _describe_category,
    FittedText: _describe_text,
    FittedImage: _describe_image,
}
