"""`dlspec.predictor`: predict new rows with a finished run, from Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlspec.data.dataset import Split
from dlspec.data.lazy_array import read_rows
from dlspec.data.split_indices import SplitName
from dlspec.errors import UserError, format_value
from dlspec.inference.answers.answer_columns import AnswerColumns, AnswerOptions, PredictedRows
from dlspec.inference.answers.batch_prediction import BatchPredictor
from dlspec.inference.answers.column_arrays import Answers
from dlspec.inference.answers.row_predictions import (
    ROW,
    Predictions,
    add_own_columns,
    choose_columns,
    join_answers,
    join_chunks,
    spread_answers,
)
from dlspec.inference.answers.text_prediction import (
    add_empty_targets,
    find_lengths,
    find_token_targets,
    keep_ends_of_texts,
    write_greedily,
)
from dlspec.inference.evaluation.bootstrap import DEFAULT_RESAMPLES
from dlspec.inference.evaluation.new_data import read_new_files, read_python_rows
from dlspec.inference.evaluation.run_evaluation import Evaluation, evaluate_run
from dlspec.inference.generation.sampling import DEFAULT_TEMPERATURE, GREEDY, GenerationOptions
from dlspec.inference.generation.text_generator import TextGenerator, choose_target
from dlspec.inference.loading.loaded_run import LoadedRun, load_run
from dlspec.inference.rows.python_inputs import iterate_data_chunks, list_file_names
from dlspec.inference.rows.row_chunk import AnswerChunk, RowChunk
from dlspec.inference.rows.row_encoding import EncodedChunk, complete_columns, encode_chunk, list_input_columns
from dlspec.inference.rows.value_ranges import NumberCheck

CHUNK_ROWS = 8_192  # fewer rows at a time cost more calls than they save memory
MAX_CHUNK_NUMBERS = 2**22  # of the inputs, unless one batch has more; 32 MB in double precision
DEFAULT_OPTIONS = AnswerOptions()


class Predictor:
    """Predicts rows with a finished run. It can be called from several threads.

    Args:
        run: the loaded run
        batch_size: rows that pass through the network together; None for the batches of training's evaluation, with
            which predictions are equal to the last bit
        seed: for networks that draw random numbers, such as `vae`; None for the seed of the run
    """

    def __init__(self, run: LoadedRun, batch_size: int | None = None, seed: int | None = None) -> None:
        if batch_size is not None and (
            isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1
        ):
            raise UserError(f"batch_size must be a whole number of at least 1, got {format_value(batch_size)}")
        self.run = run
        self.batches = BatchPredictor(run, batch_size, seed)
        self._token_targets = find_token_targets(run.data, run.inputs, run.preparation)
        self._number_check = NumberCheck()

    def __repr__(self) -> str:
        """Name the run, what it takes and what it predicts."""
        predicted = ", ".join(each.name for each in self.batches.targets) or "outputs"
        return f"Predictor({self.run.folder}: {', '.join(self.input_columns)} -> {predicted})"

    @property
    def input_columns(self) -> list[str]:
        """The columns that a row needs."""
        return list_input_columns(self.run.require_preparation())

    @property
    def names(self) -> list[str]:
        """The output columns of `predict`, without the row's number."""
        return list(self._make_empty_answers(DEFAULT_OPTIONS))

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The classes or labels of each predicted target, in their order; () for numbers."""
        return {each.name: each.labels or each.classes for each in self.batches.targets}

    @property
    def chunk_rows(self) -> int:
        """How many rows are encoded at a time: whole batches."""
        size, zeros = self.batches.batch_size, self.run.data.train
        numbers = size * sum(zeros.input(name)[0].numel() for name in self.run.inputs)
        return size * max(1, min(-(-CHUNK_ROWS // size), MAX_CHUNK_NUMBERS // max(numbers, 1)))

    # ---- rows in Python --------------------------------------------------------------------------------------------

    def predict(
        self,
        data: Any,
        *,
        probabilities: bool = False,
        threshold: float | None = None,
        columns: Sequence[str] | None = None,
        keep: bool = False,
    ) -> Predictions:
        """Predict rows.

        Args:
            data: a list of mappings, a frame of pandas, polars or pyarrow, a mapping of columns or arrays, one array
                for a run with one input, images (Pillow's, bytes or arrays), or files: a path, a list of paths, a
                glob, or a folder. Columns that the run does not need are ignored
            probabilities: whether to return the probability of each class
            threshold: of two classes, the probability from which on the positive one is predicted; None for 0.5
            columns: the output columns, in their order, also columns of the input; None for all output columns
            keep: whether the columns of the input come first

        Returns:
            The predictions, in the order of the rows: `["NAME"]` is the array of an output column, `[0]` the first
            row as a mapping. A row that can't be read has None, and a reason in `problems`.

        Raises:
            UserError: if the data lack a column, or an argument does not fit the run.
        """
        options = AnswerOptions(probabilities, threshold, columns, keep)
        rows = iterate_data_chunks(self.run, data, self.chunk_rows, keep=self.needs_all_columns(options))
        return join_chunks(list(self.predict_chunks(rows, options)))

    def prepare(self, data: Any) -> dict[str, Tensor]:
        """Encode rows as the tensors that the network takes, by name.

        Args:
            data: the rows, as for `predict`

        Returns:
            The tensors by the names of the network's inputs.

        Raises:
            UserError: if the data lack a column, or a row can't be read.
        """
        tensors: list[dict[str, Tensor]] = []
        for chunk in iterate_data_chunks(self.run, data, self.chunk_rows):
            encoded = self.encode_chunk(chunk)
            for position, reason in encoded.problems.items():
                raise UserError(f"{chunk.locate(position)}: {reason}")
            tensors.append({name: read_rows(encoded.split.input(name)) for name in self.run.inputs})
        return {name: torch.cat([each[name] for each in tensors]) for name in self.run.inputs}

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        temperature: float = DEFAULT_TEMPERATURE,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        max_length: int | None = None,
        stop: Sequence[str] = (),
        beams: int = 1,
    ) -> str | list[str]:
        """Generate text: what follows a prompt, or what the network writes for it.

        Args:
            prompt: a text, or several
            temperature: the logits are divided by it; 0 for the most probable token each time
            top_k: how many of the most probable tokens may be chosen; None for all
            top_p: only the most probable tokens that together have this probability may be chosen; None for all
            seed: of the random numbers
            max_length: the most tokens to generate; None for 200, or what the target of the run may have
            stop: texts that end the generation; they are not part of the result
            beams: with more than one, beam search: the most probable text of this many candidates

        Returns:
            The generated text without the prompt; a list of texts for a list of prompts.

        Raises:
            UserError: if the run does not predict tokens of text, or an argument does not fit.
        """
        options = GenerationOptions(temperature, top_k, top_p, seed, max_length, stop, beams)
        if isinstance(prompt, str):
            return "".join(self.text_generator.generate(prompt, options))
        return ["".join(self.text_generator.generate(each, options)) for each in prompt]

    @cached_property
    def text_generator(self) -> TextGenerator:
        """Generates text; UserError if the run does not predict one token after another."""
        target = choose_target(self.run, self._token_targets)
        return TextGenerator(self.run, target, self._encode_row, is_written=target.name in self._token_targets.written)

    def _encode_row(self, row: Mapping[str, Any]) -> EncodedChunk:
        (chunk,) = iterate_data_chunks(self.run, [row], 1)
        encoded = self.encode_chunk(chunk)
        for reason in encoded.problems.values():
            raise UserError(reason)
        return encoded

    def evaluate(
        self,
        data: Any = None,
        split: SplitName | None = None,
        by: str | None = None,
        resamples: int = DEFAULT_RESAMPLES,
    ) -> Evaluation:
        """Evaluate the run on a split of its own data, or on new rows with their targets.

        Args:
            data: rows as for `predict`, or a file or list of files; None for the run's own data
            split: which split of the run's own data: train, validation or test; None for test
            by: a column whose values the results are divided by
            resamples: how many resamples each interval is computed from; 0 for no intervals

        Returns:
            The evaluation: `print` shows a table, `.metrics` has the values with their intervals.

        Raises:
            UserError: if the data can't be opened, or the split or column is unknown.
        """
        if data is None:
            return evaluate_run(self.run, split=split or "test", by=by, resamples=resamples)
        if split is not None:
            raise UserError(
                f"split={format_value(split)} has no effect on new rows, which are all evaluated; leave it out"
            )
        names = list_file_names(data)
        rows = read_new_files(self.run, names, {}) if names else read_python_rows(self.run, data)
        return evaluate_run(self.run, rows, by=by, resamples=resamples)

    def needs_all_columns(self, options: AnswerOptions) -> bool:
        """Whether columns of the input are written that the run does not need for its predictions."""
        if options.keep or not options.columns:
            return options.keep
        known = {*self._make_empty_answers(options), self.run.require_preparation().id, ROW, "file"}
        return not known.issuperset(options.columns)

    # ---- chunks of rows --------------------------------------------------------------------------------------------

    def predict_chunks(
        self,
        chunks: Iterator[RowChunk],
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
        for chunk in chunks:
            answered = self._predict_chunk(chunk, answers, generation or GREEDY)
            if chunk.first_row == 0 and chunk.samples is None:
                self._number_check.warn_once(self.run.require_preparation(), chunk.columns)
            yield answered

    def _predict_chunk(self, chunk: RowChunk, answers: AnswerColumns, generation: GenerationOptions) -> AnswerChunk:
        encoded = self.encode_chunk(chunk)
        found = self._predict_split(encoded, chunk.first_row, answers, generation)
        spread = spread_answers(found, encoded.kept, len(chunk))
        is_file_a_row = chunk.is_file_a_row or self.run.spec.data.source_name == "files"
        columns = add_own_columns(self.run.preparation, chunk, answers.options, spread, is_file_a_row)
        chosen = choose_columns(columns, answers.options.columns, chunk.columns)
        return AnswerChunk(chosen, encoded.problems, encoded.notes)

    def encode_chunk(self, chunk: RowChunk) -> EncodedChunk:
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
            return {name: np.zeros(0, object) for name in self._make_empty_answers(answers.options)}
        if self._token_targets.written:
            texts = self._write_texts(encoded.split, first_row, generation)
            return join_answers([answers.make_columns(each) for each in texts])
        lengths = find_lengths(encoded.split, self.batches.targets, self._token_targets)
        found = []
        for batch in self.batches.predict_split(encoded.split, first_row):
            own = {name: each[batch.rows.start : batch.rows.stop] for name, each in lengths.items()}
            found.append(answers.make_columns(PredictedRows(batch.values, own)))
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
                values, tokens = self._text_writer.write_batch(predict, inputs, rows, options)
            yield PredictedRows(values, tokens=tokens)

    @cached_property
    def _text_writer(self) -> TextGenerator:
        (target,) = (each for each in self.run.data.targets if each.name in self._token_targets.written)
        return TextGenerator(self.run, target, self._encode_row, is_written=True)

    def _make_empty_answers(self, options: AnswerOptions) -> Answers:
        """Make the output columns from two rows of zeros, to know their names."""
        answers = AnswerColumns(self.batches.targets, self.run.preparation, self._token_targets, options)
        split = self.run.data.train
        values = next(self.batches.iterate_batches(split)).values
        tokens = {each.name: torch.zeros(2, *each.shape, dtype=torch.int64) for each in self.batches.targets
                  if each.name in self._token_targets.written}  # fmt: skip
        lengths = {each.name: torch.ones(2, dtype=torch.int64) for each in self._token_targets.following.values()}
        return answers.make_columns(PredictedRows(values, lengths, tokens))


def predictor(
    folder: str | Path,
    *,
    checkpoint: str = "best",
    device: str | None = None,
    batch_size: int | None = None,
    imports: Sequence[str] = (),
) -> Predictor:
    """Load a run to predict new rows with it.

    Args:
        folder: the run's folder, or `latest`
        checkpoint: which weights: `best` or `last`
        device: where to compute, as in `trainer.device`; None for what the run's own `trainer.device` means on this
            machine: of `auto`, a GPU if there is one
        batch_size: rows that pass through the network together; None for the batches of training's evaluation
        imports: modules that the run's spec may import

    Returns:
        The predictor: `predictor(FOLDER).predict([{"age": 30}])`.

    Raises:
        UserError: if the folder does not contain a run, its weights are missing, or a file is damaged.
        SpecError: if its spec imports modules that `imports` does not name.
    """
    return Predictor(load_run(folder, checkpoint, imports=imports, device=device), batch_size)
