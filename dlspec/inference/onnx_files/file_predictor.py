"""Predict rows with an exported ONNX file, by onnxruntime alone. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Target
from dlspec.data.encoding.fields import make_field
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.inference.answers.answer_columns import AnswerColumns, AnswerOptions, PredictedRows
from dlspec.inference.answers.column_arrays import Answers
from dlspec.inference.answers.row_predictions import join_answers
from dlspec.inference.answers.row_predictor import AnsweredRows, RowPredictor, count_chunk_rows
from dlspec.inference.answers.token_targets import TokenTargets
from dlspec.inference.onnx_files.file_description import describe_file, name_values
from dlspec.inference.onnx_files.model_reading import read_exported_file
from dlspec.inference.onnx_files.row_inputs import EncodedInputs, RowInputs
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk

MAX_BATCH_ROWS = 1_024  # that pass through the file together
MAX_BATCH_NUMBERS = 2**20  # of the inputs of a batch, unless one row has more: the layers of a network take more
NO_TOKENS = TokenTargets({}, {})


class FilePredictor(RowPredictor):
    """Predicts rows with an exported file, as `ChunkPredictor` does with its run.

    Args:
        name: the ONNX file
        batch_size: rows that pass through the file together; None for a number that fits into memory

    Raises:
        UserError: if the file is damaged, or can only be used with its run.
    """

    def __init__(self, name: str, batch_size: int | None = None) -> None:
        self.file = read_exported_file(name)
        self.description = describe_file(self.file)
        super().__init__(self.description.source, self.description.preparation, "cpu")
        self.fitted = self.description.preparation
        self.inputs = RowInputs(self.fitted, self.file.session.get_inputs())
        self._shapes = [make_field(each, self.fitted.inputs, has_lengths=False).shape for each in self.fitted.fields]
        numbers = sum(map(prod, self._shapes))
        self.batch_size = batch_size or max(1, min(MAX_BATCH_ROWS, MAX_BATCH_NUMBERS // max(numbers, 1)))

    @property
    def targets(self) -> Sequence[Target]:
        """The predicted targets, with the shape of one sample."""
        return self.description.targets

    @property
    def max_rows(self) -> int:
        """How many rows are encoded at a time: whole batches."""
        return count_chunk_rows(self._shapes, self.batch_size)

    def require_preparation(self) -> FittedTable:
        """Return what encodes new rows."""
        return self.fitted

    def predict(self, chunks: Iterable[RowChunk], options: AnswerOptions) -> Iterator[AnswerChunk]:
        """Predict chunks of rows one after another.

        Args:
            chunks: the rows
            options: what is written

        Raises:
            UserError: if a column is missing, or an option does not fit the file.
        """
        columns = self._make_columns(options)
        yield from self.answer_chunks(chunks, lambda chunk: self._answer_rows(chunk, columns), options)

    def _make_columns(self, options: AnswerOptions) -> AnswerColumns:
        # Without the preparation, as the file returns numbers in their own unit already.
        return AnswerColumns(self.targets, None, NO_TOKENS, options)

    def _answer_rows(self, chunk: RowChunk, columns: AnswerColumns) -> AnsweredRows:
        encoded = self.inputs.encode(chunk)
        if not len(encoded.kept):
            empty = {name: np.zeros(0, object) for name in self.make_empty_answers(columns.options)}
            return AnsweredRows(empty, encoded.kept, encoded.problems, encoded.notes)
        answers = join_answers([columns.make_columns(each) for _, each in self.predict_batches(encoded)])
        return AnsweredRows(answers, encoded.kept, encoded.problems, encoded.notes)

    def make_empty_answers(self, options: AnswerOptions) -> Answers:
        """Make the output columns of two rows of zeros, to know their names."""
        values = {each.name: np.zeros((2, *_find_shape(each)), np.float32) for each in self.targets}
        bare = {each.name: np.zeros(2) for each in self.description.outputs if each.target is None}
        return self._make_columns(options).make_columns(PredictedRows({**values, **bare}))

    # ---- batches ---------------------------------------------------------------------------------------------------

    def predict_batches(self, encoded: EncodedInputs) -> Iterator[tuple[slice, PredictedRows]]:
        """Yield the predictions of consecutive batches, with the rows of each among those that can be read."""
        for rows in self._plan_batches(encoded):
            given = {
                name: np.stack(each[rows].tolist()) if name in self.inputs.images else each[rows]
                for name, each in encoded.inputs.items()
            }
            values = name_values(self.description.outputs, self._run(given))
            yield rows, PredictedRows(values, self._find_lengths(encoded.lengths, rows))

    def _plan_batches(self, encoded: EncodedInputs) -> Iterator[slice]:
        """Yield the rows of each batch: images of different sizes can't be in one."""
        images, start = [encoded.inputs[name] for name in self.inputs.images], 0
        for row in range(1, len(encoded.kept) + 1):
            is_end = row == len(encoded.kept) or row - start == self.batch_size
            if is_end or any(each[row].shape != each[start].shape for each in images):
                yield slice(start, row)
                start = row

    def _run(self, given: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = [each.name for each in self.description.outputs]
        try:
            return dict(zip(names, self.file.session.run(names, given), strict=True))
        except Exception as error:  # from onnxruntime, of many classes
            raise UserError(f"the exported file can't compute these rows: {first_line(error, 200)}") from None

    def _find_lengths(self, lengths: Mapping[str, NDArray[np.int64]], rows: slice) -> dict[str, NDArray[np.int64]]:
        """Find the real steps of each row, by target with steps: those of the only field with lengths."""
        if len(lengths) != 1:
            return {}
        ((field, found),) = lengths.items()
        steps = next(shape[0] for shape, each in zip(self._shapes, self.fitted.fields, strict=True)
                     if each.name == field)  # fmt: skip
        return {each.name: found[rows] for each in self.targets if _has_steps(each) and each.shape[0] == steps}


def _has_steps(target: Target) -> bool:
    """Whether a target has one class, or several numbers, for each step."""
    return not target.labels and len(target.shape) == (1 if target.classes else 2)


def _find_shape(target: Target) -> tuple[int, ...]:
    """Return the shape of a row's prediction."""
    return (*target.shape, len(target.classes)) if len(target.classes) > 2 else target.shape
