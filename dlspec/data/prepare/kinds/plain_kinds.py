"""What fixed preparations fit, and what version 0.1.0 saved: standardized and divided arrays, alphabets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.alphabet import Alphabet
from dlspec.data.prepare.kinds.cells import list_cells, read_numbers
from dlspec.data.prepare.kinds.kind import SAVED_KINDS, Encoded, FittedColumn, register_saved
from dlspec.data.prepare.kinds.saved_values import SavedValues, make_saved_error
from dlspec.data.prepare.kinds.scales import LinearScale, fit_standard, make_linear, round_to_float32
from dlspec.data.prepare.kinds.splitters import note_texts, pad_ids
from dlspec.errors import DataError
from dlspec.layouts import Layout

if TYPE_CHECKING:
    from torch import nn


def read_array(column: NDArray[Any]) -> tuple[NDArray[np.float64], dict[int, str]]:
    """Read numbers, or texts, of any shape (N, ...); return the rows that can't be read with the reason."""
    found = read_numbers(column.reshape(-1))
    values = found.values.reshape(column.shape)
    wrong = np.isnan(values).reshape(len(column), -1).any(axis=1)
    return values, dict.fromkeys(np.flatnonzero(wrong).tolist(), "a cell is not a number")


@register_saved("standardize")
@dataclass(frozen=True)
class Standardized(FittedColumn):
    """An array of numbers, each column minus its mean, divided by its standard deviation."""

    scale: LinearScale  # of (W,), or of a single number

    @classmethod
    def fit(cls, values: NDArray[Any]) -> Standardized:
        """Compute mean and deviation over the training rows (N, W) or (N,), in double precision."""
        return cls(fit_standard(values))

    @property
    def shape(self) -> tuple[int, ...]:
        return self.scale.shift.shape

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(map(str, range(self.scale.shift.size)))

    @property
    def mean_and_deviation(self) -> tuple[float, float]:
        """What was subtracted and divided by, of a single number."""
        return float(self.scale.shift), float(self.scale.divisor)

    def read(self, column: NDArray[Any]) -> NDArray[np.float64]:
        return read_array(column)[0]

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Standardize numbers (N, W) or (N,)."""
        values, problems = read_array(column)
        scaled, infinite = round_to_float32(self.scale.apply(values))
        return Encoded(scaled, problems={**infinite, **problems})

    def invert(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Convert standardized numbers to their own unit, in double precision."""
        return self.scale.invert(np.asarray(values, np.float64))

    def module(self) -> nn.Module:
        from dlspec.data.prepare.kinds.modules import PlainModule

        return PlainModule(self.scale)

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "mean": self.scale.shift.tolist(), "std": self.scale.divisor.tolist()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Standardized:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        return cls(make_linear(SavedValues(saved, ("mean", "std")), "mean", "std"))


@register_saved("divide")
@dataclass(frozen=True)
class Divided(FittedColumn):
    """An array of numbers, divided by a constant, in single precision."""

    by: float

    @property
    def shape(self) -> tuple[int, ...]:
        return ()  # of any shape

    def read(self, column: NDArray[Any]) -> NDArray[np.float64]:
        return read_array(column)[0]

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Divide numbers (N, ...)."""
        values, problems = read_array(column)
        return Encoded(values.astype(np.float32) / np.float32(self.by), problems=problems)

    def module(self) -> nn.Module:
        from dlspec.data.prepare.kinds.modules import PlainModule

        return PlainModule(LinearScale(np.zeros(()), np.array(self.by)))

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "by": self.by}

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> Divided:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        by = SavedValues(saved, ("by",)).get_number("by")
        if by <= 0:
            raise make_saved_error("by must be above 0")
        return cls(by)


@dataclass(frozen=True)
class FittedAlphabet(FittedColumn):
    """The characters of a running text, or its bytes, without an id for padding or unknown characters."""

    kind: ClassVar[str] = "characters"  # or `bytes`: the alphabet writes which

    alphabet: Alphabet

    @property
    def layout(self) -> Layout:
        return "tokens"

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.alphabet.length,)

    @property
    def vocab_size(self) -> int:
        return len(self.alphabet)

    def apply(self, column: NDArray[Any]) -> Encoded:
        """Encode texts as tokens (N, T) with lengths; longer ones are cut, shorter ones padded with 0."""
        texts: list[list[int] | None] = []
        problems: dict[int, str] = {}
        for row, cell in enumerate(list_cells(column)):
            try:
                texts.append(None if cell is None else self.alphabet.encode(cell).tolist())
            except DataError as error:
                texts.append(None)
                problems[row] = str(error)
            else:
                problems |= {} if texts[row] else {row: "the text is missing"}
        tokens, lengths = pad_ids([text or [0] for text in texts], self.alphabet.length, 0)
        notes = {key: count for key, count in note_texts(texts, self.alphabet.length).items() if key == "cut"}
        return Encoded(tokens, lengths, problems, notes)

    def to_json(self) -> dict[str, Any]:
        return self.alphabet.to_json()

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> FittedAlphabet:
        """Rebuild from the result of `to_json`; DataError if that is damaged."""
        return cls(Alphabet.from_json(saved))


SAVED_KINDS["characters"] = SAVED_KINDS["bytes"] = FittedAlphabet.from_json
