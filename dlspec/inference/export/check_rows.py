"""The rows that an exported file is checked with: validation rows, or random ones where the data are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlspec.data.dataset import shift_right
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.image_columns import make_folder_finder
from dlspec.data.lazy_array import read_rows
from dlspec.data.prepare.kinds.array_column import FittedArray
from dlspec.data.prepare.kinds.category import FittedCategory
from dlspec.data.prepare.kinds.date import FittedDate
from dlspec.data.prepare.kinds.grouped_number import FittedGroupedNumber
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.prepare.kinds.kind import FittedColumn
from dlspec.data.prepare.kinds.number import FittedNumber
from dlspec.data.prepare.kinds.plain_kinds import Divided, FittedAlphabet, Standardized
from dlspec.data.prepare.kinds.scales import LinearScale, LogScale, QuantileScale, Scale
from dlspec.data.prepare.kinds.subwords import FittedSubwords
from dlspec.data.prepare.kinds.text import FittedBytes, FittedText
from dlspec.errors import SpecError, UserError
from dlspec.inference.export.exported_model import ExportedModel
from dlspec.inference.export.noise_inputs import draw_noise
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.inference.loading.own_data import SplitRows, open_own_data
from dlspec.inference.rows.input_columns import complete_columns
from dlspec.inference.rows.row_chunk import RowChunk
from dlspec.inference.rows.row_encoding import EncodedChunk, encode_chunk

CHECK_ROWS = 64
CHECK_BATCHES = (1, 2, 33)
VALIDATION, RANDOM = "validation rows", "random rows, as the run's data can't be read again"
RANDOM_CELLS = "random rows, as the rows of the run's data can't be converted back to what they were read from"
Columns = dict[str, NDArray[Any]]
MISSING_EVERY = 9  # of random numbers


@dataclass(frozen=True)
class CheckRows:
    """Rows as the exported file takes them, and as the network does."""

    inputs: tuple[Tensor, ...]
    network_inputs: tuple[Tensor, ...]
    kind: str  # where they come from, for people
    columns: Mapping[str, NDArray[Any]]  # their cells; empty for the bare network
    noise: tuple[Tensor, ...] = ()  # the last of `inputs`: what the network draws for them
    different: int = 0  # rows; those after them repeat them

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.network_inputs[0])

    def repeat(self, count: int) -> CheckRows:
        """Repeat the rows until there are at least `count`."""
        chosen = np.arange(max(len(self), count)) % len(self)
        inputs, network_inputs = (tuple(each[chosen] for each in some) for some in (self.inputs, self.network_inputs))
        columns = {name: each[chosen] for name, each in self.columns.items()}
        return CheckRows(inputs, network_inputs, self.kind, columns, different=len(self))


def make_check_rows(run: LoadedRun, model: ExportedModel) -> CheckRows:
    """Choose up to 64 rows to check an exported file with; fewer than 33 are repeated.

    Args:
        run: the run
        model: what is exported
    """
    rows = _choose_rows(run, model).repeat(max(CHECK_BATCHES))
    noise = draw_noise(run, model.draws, len(rows))
    return replace(rows, inputs=(*rows.inputs, *noise), noise=noise)


def _choose_rows(run: LoadedRun, model: ExportedModel) -> CheckRows:
    split = _open_validation(run)
    if not model.plans:
        return _take_samples(run, model, split)
    assert run.preparation is not None  # `plans` are made of it
    chunk, kind = _choose_cells(run.preparation, split)
    encoded = encode_chunk(run.preparation, chunk)
    if not len(encoded.kept):
        reason = next(iter(encoded.problems.values()), "no row could be read")
        raise UserError(f"no row to check the exported file with: {reason}")
    cells = {name: each[encoded.kept] for name, each in _complete(run.preparation, chunk).items()}
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(each)) for each in model.read_cells(cells))
    return CheckRows(inputs, _list_network_inputs(run, model, encoded), kind, cells)


def _list_network_inputs(run: LoadedRun, model: ExportedModel, encoded: EncodedChunk) -> tuple[Tensor, ...]:
    found = []
    for name in run.inputs:
        values = read_rows(encoded.split.input(name))
        found.append(shift_right(values) if name in model.shifted else values)
    return tuple(map(model.convert_input, found))


def _open_validation(run: LoadedRun) -> SplitRows | None:
    """Open the validation split; None where the data can't be read again."""
    try:
        opened = open_own_data(run)
        name = next(each for each in ("validation", "train") if len(getattr(opened.dataset, each)))
        return opened.select(name, run.data)  # type: ignore[arg-type]  # a name of a split
    except (UserError, SpecError, OSError, StopIteration):
        return None


def _take_samples(run: LoadedRun, model: ExportedModel, split: SplitRows | None) -> CheckRows:
    """Take samples as the network takes them."""
    if split is None:
        zeros = {name: read_rows(run.data.train.input(name)) for name in run.inputs}
        values = [_draw_like(each, name) for name, each in zeros.items()]
    else:
        rows = torch.arange(min(CHECK_ROWS, len(split.split)))
        values = [read_rows(split.split.input(name), rows) for name in run.inputs]
    inputs = tuple(map(model.convert_input, values))
    return CheckRows(inputs, inputs, RANDOM if split is None else VALIDATION, {})


def _draw_like(zeros: Tensor, name: str) -> Tensor:
    shape = (CHECK_ROWS, *zeros.shape[1:])
    generator = torch.Generator().manual_seed(0)
    if zeros.is_floating_point():
        return torch.randn(shape, generator=generator).to(zeros.dtype)
    return torch.ones(shape, dtype=zeros.dtype) if name.endswith("_lengths") else torch.zeros(shape, dtype=zeros.dtype)


# ---- cells -----------------------------------------------------------------------------------------------------------


def _complete(fitted: FittedTable, chunk: RowChunk) -> Mapping[str, NDArray[Any]]:
    return complete_columns(fitted, chunk.columns, make_folder_finder(chunk.files, chunk.file_of_row))


def _choose_cells(fitted: FittedTable, split: SplitRows | None) -> tuple[RowChunk, str]:
    if split is not None and split.table is not None:
        table = split.table.take(np.arange(min(CHECK_ROWS, len(split.split))))
        return RowChunk(table.columns, 0, {}, table.files, table.file_of_row, table.line_of_row), VALIDATION
    numbers = np.random.default_rng(0)
    made: Columns = {}
    are_own = split is not None
    for plan in fitted.fields:
        encoded = None if split is None else _gather_array(split, plan.name)
        for name in plan.columns:
            undone = None if encoded is None else _undo(fitted.inputs[name], encoded)
            are_own = are_own and undone is not None
            column = fitted.inputs[name]
            made[name] = _draw_cells(column, numbers) if undone is None else undone
            if isinstance(column, FittedGroupedNumber):
                made[column.per] = _draw_groups(column, numbers)
    count = min(map(len, made.values()))
    kind = RANDOM if split is None else VALIDATION if are_own else RANDOM_CELLS
    return RowChunk({name: each[:count] for name, each in made.items()}), kind


def _gather_array(split: SplitRows, name: str) -> NDArray[Any] | None:
    values = split.split.tensors.get(name)
    if values is None:
        return None
    return read_rows(values, torch.arange(min(CHECK_ROWS, len(split.split)))).numpy()


def _undo(column: FittedColumn, encoded: NDArray[Any]) -> NDArray[Any] | None:
    """Convert encoded rows back to cells; None where that is not known."""
    if isinstance(column, FittedArray) and not column.has_lengths:
        return encoded if column.tokens is not None else np.asarray(column.invert(encoded))
    if isinstance(column, Standardized):
        return column.invert(encoded)
    if isinstance(column, Divided):
        return encoded.astype(np.float64) * column.by
    if isinstance(column, FittedAlphabet):
        return np.array([column.alphabet.decode(row.tolist()) for row in encoded], object)
    if isinstance(column, (FittedText, FittedBytes, FittedSubwords)):
        return np.array([column.decode(np.trim_zeros(row, "b").tolist()) for row in encoded], object)
    return None


def _draw_cells(column: FittedColumn, numbers: np.random.Generator) -> NDArray[Any]:
    """Draw random cells within what the training rows had."""
    for kind, draw in _DRAWS.items():
        if isinstance(column, kind):
            return draw(column, numbers)
    raise UserError(
        f"the run's data can't be read again, and no rows can be made up for a column of the kind {column.kind}; "
        "put the data back where they were, or export the bare network: prepare=false"
    )


def _draw_number(column: FittedNumber, numbers: np.random.Generator) -> NDArray[Any]:
    if column.cells.values:
        return np.array(column.cells.values, object)[numbers.integers(0, len(column.cells.values), CHECK_ROWS)]
    values = _draw_scale(column.scale, numbers)
    if column.missing not in ("refuse", "drop"):
        values[::MISSING_EVERY] = np.nan
    return values


def _draw_scale(scale: Scale, numbers: np.random.Generator) -> NDArray[np.float64]:
    if isinstance(scale, QuantileScale):
        return numbers.choice(scale.quantiles, CHECK_ROWS)
    drawn = numbers.standard_normal(CHECK_ROWS)
    if isinstance(scale, LogScale):
        drawn = scale.inner.invert(drawn)
        return np.asarray(np.sign(drawn) * np.expm1(np.abs(drawn).clip(max=20)))
    assert isinstance(scale, LinearScale)
    return np.asarray(scale.invert(drawn))


def _draw_groups(column: FittedGroupedNumber, numbers: np.random.Generator) -> NDArray[Any]:
    return np.array([*column.groups, "?"], object)[numbers.integers(0, len(column.groups) + 1, CHECK_ROWS)]


def _draw_category(column: FittedCategory, numbers: np.random.Generator) -> NDArray[Any]:
    choices: list[str | None] = [*column.categories, "?", None]
    return np.array(choices, object)[numbers.integers(0, len(choices), CHECK_ROWS)]


def _draw_dates(column: FittedDate, numbers: np.random.Generator) -> NDArray[Any]:
    first = np.datetime64(f"{round(column.mean_year)}-01-01T00:00:00", "us")
    return first + numbers.integers(-(10**15) // 4, 10**15 // 4, CHECK_ROWS).astype("timedelta64[us]")


def _draw_texts(column: FittedText, numbers: np.random.Generator) -> NDArray[Any]:
    words, length = [*column.vocabulary.words, "?"], column.vocabulary.length
    between = "" if column.splitter == "characters" else " "
    counts = numbers.integers(0, length + 2, CHECK_ROWS)
    return np.array([between.join(numbers.choice(words, count)) for count in counts], object)


def _draw_plain_texts(column: Any, numbers: np.random.Generator) -> NDArray[Any]:
    letters = [*"abcdefghijklmnopqrstuvwxyz "]
    return np.array(["".join(numbers.choice(letters, count)) for count in numbers.integers(1, 40, CHECK_ROWS)], object)


def _draw_alphabet(column: FittedAlphabet, numbers: np.random.Generator) -> NDArray[Any]:
    tokens = numbers.integers(0, column.vocab_size, (CHECK_ROWS, column.shape[0]))
    return np.array([column.alphabet.decode(row.tolist()) for row in tokens], object)


def _draw_array(column: FittedArray, numbers: np.random.Generator) -> NDArray[Any]:
    shape = (CHECK_ROWS, *column.shape)
    if column.tokens is not None:
        return numbers.integers(0, column.tokens, shape)
    low, high = column.range or (0.0, 1.0)
    return numbers.uniform(low, high, shape)


def _draw_images(column: FittedImage, numbers: np.random.Generator) -> NDArray[Any]:
    height, width = column.store or column.size
    return numbers.integers(0, 256, (CHECK_ROWS, height, width, column.shape[0]), np.uint8)


def _draw_vectors(column: Any, numbers: np.random.Generator) -> NDArray[Any]:
    return np.asarray(column.scale.invert(numbers.standard_normal((CHECK_ROWS, *column.shape))))


_DRAWS: Mapping[type[FittedColumn], Callable[[Any, np.random.Generator], NDArray[Any]]] = {
    FittedNumber: _draw_number,
    FittedGroupedNumber: lambda column, numbers: _draw_number(column.whole, numbers),
    FittedCategory: _draw_category,
    FittedDate: _draw_dates,
    FittedText: _draw_texts,
    FittedSubwords: _draw_plain_texts,
    FittedBytes: _draw_plain_texts,
    FittedAlphabet: _draw_alphabet,
    FittedArray: _draw_array,
    FittedImage: _draw_images,
    Standardized: _draw_vectors,
}
