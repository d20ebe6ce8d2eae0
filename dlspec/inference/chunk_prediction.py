"""Predict rows chunk by chunk with a finished run: from cells to samples, through the network, to output columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlspec.data.dataset import Split, Target
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.errors import UserError
from dlspec.generation.sampling import GREEDY, GenerationOptions
from dlspec.inference.answers.answer_columns import AnswerColumns, AnswerOptions, PredictedRows
from dlspec.inference.answers.batch_prediction import BatchPredictor
from dlspec.inference.answers.column_arrays import Answers
from dlspec.inference.answers.joined_batches import convert_tensors
from dlspec.inference.answers.row_predictions import join_answers
from dlspec.inference.answers.row_predictor import DEFAULT_OPTIONS, AnsweredRows, RowPredictor, count_chunk_rows
from dlspec.inference.answers.text_prediction import (
    add_empty_targets,
    find_lengths,
    keep_ends_of_texts,
    write_greedily,
)
from dlspec.inference.answers.token_targets import find_token_targets
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.inference.rows.input_columns import complete_columns
from dlspec.inference.rows.python_inputs import iterate_data_chunks
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk
from dlspec.inference.rows.row_encoding import EncodedChunk, encode_chunk
from dlspec.inference.text_generator import TextGenerator, choose_target


class ChunkPredictor(RowPredictor):
    """Predicts chunks of rows. It can be called from several threads.

    Args:
        run: the loaded run
        batch_size: rows that pass through the network together; None for the batches of training's evaluation
        seed: for networks that draw random numbers; None for the seed of the run
    """

    def __init__(self, run: LoadedRun, batch_size: int | None = None, seed: int | None = None) -> None:
        super().__init__(run.spec.data, run.preparation, str(run.device))
        self.run = run
        self.batches = BatchPredictor(run, batch_size, seed)
        self._token_targets = find_token_targets(run.data, run.inputs, run.preparation)

    @property
    def targets(self) -> list[Target]:
        """The predicted targets, with the shape of one sample."""
        return self.batches.targets

    @property
    def max_rows(self) -> int:
        """How many rows are encoded at a time: whole batches."""
        zeros = self.run.data.train
        return count_chunk_rows([zeros.input(name).shape[1:] for name in self.run.inputs], self.batches.batch_size)

    def require_preparation(self) -> FittedTable:
        """Return what encodes new rows; UserError if the run's source has no such thing."""
        return self.run.require_preparation()

    def predict(
        self,
        chunks: Iterable[RowChunk],
        options: AnswerOptions = DEFAULT_OPTIONS,
        generation: GenerationOptions | None = None,
    ) -> Iterator[AnswerChunk]:
        """Predict chunks of rows one after another.

        Args:
            chunks: the rows
            options: what is written
            generation: how the tokens of a text are chosen; None for the most probable ones

        Raises:
            UserError: if a column is missing, or an option does not fit the run.
        """
        answers = AnswerColumns(self.batches.targets, self.run.preparation, self._token_targets, options)
        if generation is not None and len(self._token_targets.written) != 1:
            found = "several texts" if self._token_targets.written else "no text"
            fix = "leave temperature, top_k, top_p, beams, seed and max_length out"
            raise UserError(f"the run writes {found}, whose tokens can't be chosen; {fix}")
        answer = partial(self._answer_rows, answers=answers, generation=generation or GREEDY)
        yield from self.answer_chunks(chunks, answer, options)

    def _answer_rows(self, chunk: RowChunk, answers: AnswerColumns, generation: GenerationOptions) -> AnsweredRows:
        encoded = self.encode(chunk)
        found = self._predict_split(encoded, chunk.first_row, answers, generation)
        return AnsweredRows(found, encoded.kept, encoded.problems, encoded.notes)

    def encode(self, chunk: RowChunk) -> EncodedChunk:
        """Encode the rows of a chunk as samples; those that can't be read are left out, each with a reason."""
        if chunk.samples is not None:
            return EncodedChunk(self._add_lengths(chunk.samples), np.arange(len(chunk)), {})
        fitted = self.run.require_preparation()
        encoded = encode_chunk(fitted, chunk)
        split = encoded.split
        if self._token_targets.following:
            cells = {name: column[encoded.kept] for name, column in complete_columns(fitted, chunk.columns).items()}
            split = keep_ends_of_texts(split, fitted, cells, self._token_targets.following)
        if self._token_targets.written:
            targets = [each for each in self.run.data.targets if each.name in self._token_targets.written]
            split = add_empty_targets(split, targets, len(encoded.kept))
        return EncodedChunk(split, encoded.kept, encoded.problems, encoded.notes)

    def _add_lengths(self, samples: Split) -> Split:
        """Add the lengths of texts whose next token is predicted, where all samples are equally long."""
        lengths = {f"{name}_lengths": torch.full((len(samples),), samples.input(name).shape[1])
                   for name in self._token_targets.following}  # fmt: skip
        return replace(samples, tensors={**lengths, **samples.tensors})

    def _predict_split(
        self, encoded: EncodedChunk, first_row: int, answers: AnswerColumns, generation: GenerationOptions = GREEDY
    ) -> Answers:
        """Predict samples, and make their answers."""
        if not len(encoded.kept):
            return {name: np.zeros(0, object) for name in self.make_empty_answers(answers.options)}
        if self._token_targets.written:
            texts = self._write_texts(encoded.split, first_row, generation)
            return join_answers([answers.make_columns(each) for each in texts])
        lengths = find_lengths(encoded.split, self.batches.targets, self._token_targets)
        found = []
        for batch in self.batches.predict_split(encoded.split, first_row):
            own = {name: each[batch.rows.start : batch.rows.stop] for name, each in lengths.items()}
            found.append(answers.make_columns(_make_rows(batch.values, own)))
        return join_answers(found)

    def _write_texts(self, split: Split, first_row: int, options: GenerationOptions) -> Iterator[PredictedRows]:
        """Yield the texts of each batch that the network writes, with its other predictions."""
        written = self._token_targets.written
        for inputs, rows in self.batches.iterate_inputs(split, first_row):
            predict = partial(self.batches.predict_inputs, rows=rows)
            if len(written) > 1:
                positions = {name: self.run.inputs.index(name) for name in written}
                values, tokens = write_greedily(predict, inputs, positions, written)
            else:
                values, tokens = self.text_generator.write_batch(predict, inputs, rows, options)
            yield _make_rows(values, tokens=tokens)

    @cached_property
    def text_generator(self) -> TextGenerator:
        """Writes or continues a text; UserError if the run does not predict one token after another."""
        target = choose_target(self.run, self._token_targets)
        return TextGenerator(self.run, target, self._encode_row, is_written=target.name in self._token_targets.written)

    def _encode_row(self, row: Mapping[str, Any]) -> EncodedChunk:
        (chunk,) = iterate_data_chunks(self.run, [row], 1)
        encoded = self.encode(chunk)
        for reason in encoded.problems.values():
            raise UserError(reason)
        return encoded

    def make_empty_answers(self, options: AnswerOptions) -> Answers:
        """Make the output columns of two rows of zeros, to know their names."""
        answers = AnswerColumns(self.batches.targets, self.run.preparation, self._token_targets, options)
        split = self.run.data.train
        values = next(self.batches.iterate_batches(split)).values
        tokens = {each.name: torch.zeros(2, *each.shape, dtype=torch.int64) for each in self.batches.targets
                  if each.name in self._token_targets.written}  # fmt: skip
        lengths = {each.name: torch.ones(2, dtype=torch.int64) for each in self._token_targets.following.values()}
        return answers.make_columns(_make_rows(values, lengths, tokens))


NO_TENSORS: Mapping[str, Tensor] = {}


def _make_rows(
    values: Mapping[str, Tensor], lengths: Mapping[str, Tensor] = NO_TENSORS, tokens: Mapping[str, Tensor] = NO_TENSORS
) -> PredictedRows:
    """Convert the predictions of some rows to arrays.

    Args:
        values: the predictions by target
        lengths: the real steps of each row, by target
        tokens: the texts that were written, by target
    """
    return PredictedRows(*map(convert_tensors, (values, lengths, tokens)))
