"""Predict rows chunk by chunk: what a run and an exported file have in common. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Target
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.sources.file_rows import FileSource
from dlspec.data.sources.source import DataSource
from dlspec.errors import UserError, format_value
from dlspec.inference.answers.answer_columns import AnswerOptions
from dlspec.inference.answers.column_arrays import Answers
from dlspec.inference.answers.row_predictions import ROW, add_own_columns, choose_columns, spread_answers
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk
from dlspec.inference.rows.value_ranges import NumberCheck

CHUNK_ROWS = 8_192  # fewer rows at a time cost more calls than they save memory
MAX_CHUNK_NUMBERS = 2**22  # of the inputs, unless one batch has more; 32 MB in double precision
DEFAULT_OPTIONS = AnswerOptions()


@dataclass(frozen=True)
class AnsweredRows:
    """The answers to the rows of a chunk that could be read."""

    answers: Answers
    kept: NDArray[np.int64]  # (M,) their positions in the chunk
    problems: Mapping[int, str]  # why the other rows can't be read, by position
    notes: Counter[tuple[str, str]] = field(default_factory=Counter)  # how often: (`unknown`, column), ...


AnswerRows = Callable[[RowChunk], AnsweredRows]


class RowPredictor(ABC):
    """Predicts rows of files or in Python, chunk by chunk.

    Args:
        source: where the rows of the training came from: new ones are read in the same way; None for rows in Python
        preparation: what encodes rows; None if the samples of the training data are all there is
        device: where it computes, as messages name it
    """

    def __init__(self, source: DataSource | None, preparation: FittedTable | None, device: str) -> None:
        self.source, self.preparation, self.device = source, preparation, device
        self._number_check = NumberCheck()

    @property
    @abstractmethod
    def targets(self) -> Sequence[Target]:
        """The predicted targets, with the shape of one sample."""

    @property
    @abstractmethod
    def max_rows(self) -> int:
        """How many rows are predicted at a time."""

    @abstractmethod
    def make_empty_answers(self, options: AnswerOptions) -> Answers:
        """Make the output columns of some rows, to know their names."""

    @abstractmethod
    def require_preparation(self) -> FittedTable:
        """Return what encodes new rows; UserError if nothing does."""

    def needs_all_columns(self, options: AnswerOptions) -> bool:
        """Whether columns of the input are written that are not needed for the predictions."""
        if options.keep or not options.columns:
            return options.keep
        known = {*self.make_empty_answers(options), self.require_preparation().id, ROW, "file"}
        return not known.issuperset(options.columns)

    def answer_chunks(
        self, chunks: Iterable[RowChunk], answer: AnswerRows, options: AnswerOptions
    ) -> Iterator[AnswerChunk]:
        """Answer chunks of rows one after another: each row has its place, also one that can't be read.

        Args:
            chunks: the rows
            answer: answers the rows of a chunk that can be read
            options: what is written
        """
        for chunk in chunks:
            found = answer(chunk)
            if chunk.first_row == 0 and chunk.samples is None:
                self._number_check.warn_once(self.require_preparation(), chunk.columns)
            yield self._complete(chunk, found, options)

    def _complete(self, chunk: RowChunk, found: AnsweredRows, options: AnswerOptions) -> AnswerChunk:
        spread = spread_answers(found.answers, found.kept, len(chunk))
        is_file_a_row = chunk.is_file_a_row or isinstance(self.source, FileSource)
        columns = add_own_columns(self.preparation, chunk, options, spread, is_file_a_row)
        return AnswerChunk(choose_columns(columns, options.columns, chunk.columns), found.problems, found.notes)


def check_batch_size(batch_size: object) -> None:
    """Raise UserError unless a batch size is None or a whole number of at least 1."""
    if batch_size is not None and (
        isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1
    ):
        raise UserError(f"batch_size must be a whole number of at least 1, got {format_value(batch_size)}")


def count_chunk_rows(shapes: Iterable[Sequence[int]], batch_size: int) -> int:
    """Count the rows that are predicted at a time: whole batches.

    Args:
        shapes: of each input, without the batch
        batch_size: rows that pass through the network together
    """
    numbers = batch_size * sum(map(prod, shapes))
    return batch_size * max(1, min(-(-CHUNK_ROWS // batch_size), MAX_CHUNK_NUMBERS // max(numbers, 1)))
