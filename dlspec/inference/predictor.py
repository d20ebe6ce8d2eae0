"""`dlspec.predictor`: predict new rows with a finished run, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlspec.data.lazy_array import read_rows
from dlspec.data.split_indices import SplitName
from dlspec.errors import UserError, format_value
from dlspec.generation.sampling import DEFAULT_TEMPERATURE, GenerationOptions
from dlspec.inference.answers.answer_columns import AnswerOptions
from dlspec.inference.answers.row_predictions import (
    Predictions,
    join_chunks,
)
from dlspec.inference.answers.row_predictor import DEFAULT_OPTIONS, check_batch_size
from dlspec.inference.chunk_prediction import ChunkPredictor
from dlspec.inference.evaluation.bootstrap import DEFAULT_RESAMPLES
from dlspec.inference.evaluation.new_data import read_new_files, read_python_rows
from dlspec.inference.evaluation.run_evaluation import Evaluation, evaluate_run
from dlspec.inference.export.run_export import ExportResult, export_run
from dlspec.inference.loading.loaded_run import LoadedRun, load_run
from dlspec.inference.rows.input_columns import list_input_columns
from dlspec.inference.rows.python_inputs import iterate_data_chunks, list_file_names
from dlspec.inference.text_generator import TextGenerator


class Predictor:
    """Predicts rows with a finished run. It can be called from several threads.

    Args:
        run: the loaded run
        batch_size: rows that pass through the network together; None for the batches of training's evaluation, with
            which predictions are equal to the last bit
        seed: for networks that draw random numbers, such as `vae`; None for the seed of the run
    """

    def __init__(self, run: LoadedRun, batch_size: int | None = None, seed: int | None = None) -> None:
        check_batch_size(batch_size)
        self.run = run
        self.chunks = ChunkPredictor(run, batch_size, seed)

    def __repr__(self) -> str:
        """Name the run, what it takes and what it predicts."""
        predicted = ", ".join(each.name for each in self.chunks.targets) or "outputs"
        return f"Predictor({self.run.folder}: {', '.join(self.input_columns)} -> {predicted})"

    @property
    def input_columns(self) -> list[str]:
        """The columns that a row needs."""
        return list_input_columns(self.run.require_preparation())

    @property
    def names(self) -> list[str]:
        """The output columns of `predict`, without the row's number."""
        return list(self.chunks.make_empty_answers(DEFAULT_OPTIONS))

    @property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """The classes or labels of each predicted target, in their order; () for numbers."""
        return {each.name: each.labels or each.classes for each in self.chunks.targets}

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
        rows = iterate_data_chunks(self.run, data, self.chunks.max_rows, keep=self.chunks.needs_all_columns(options))
        return join_chunks(list(self.chunks.predict(rows, options)))

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
        for chunk in iterate_data_chunks(self.run, data, self.chunks.max_rows):
            encoded = self.chunks.encode(chunk)
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

    @property
    def text_generator(self) -> TextGenerator:
        """Generates text; UserError if the run does not predict one token after another."""
        return self.chunks.text_generator

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

    def export(self, path: str | Path, format: str | None = None, *, prepare: bool = True) -> ExportResult:
        """Export the run to a file, which is checked against the run before it is kept.

        Args:
            path: the file to write
            format: onnx, pt2, aoti or safetensors; None for the one that the file's name says
            prepare: whether the preparation of rows goes into the file

        Returns:
            What the file takes and returns, and how far it differs from the run.

        Raises:
            UserError: if the run has no form in this format; then nothing is written.
        """
        if self.run.device.type != "cpu":
            raise UserError("a run is exported from the CPU; load it so: dlspec.predictor(FOLDER, device='cpu')")
        return export_run(self.run, str(path), format, prepare=prepare)


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
