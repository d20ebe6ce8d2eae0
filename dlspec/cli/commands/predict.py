"""`predict run=`: rows in, rows out, with a finished run."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from dlspec.cli.generation_arguments import GENERATION_WORDS, read_generation_options
from dlspec.cli.row_prediction import ANSWER_WORDS, PredictionCommand, read_prediction_command
from dlspec.cli.run_arguments import RunArguments, parse_run_arguments
from dlspec.data.split_indices import SplitName
from dlspec.errors import UserError
from dlspec.inference.loading.own_data import open_own_data
from dlspec.inference.predictor import Predictor, predictor
from dlspec.inference.rows.split_chunks import iterate_split_chunks

WRITING_WORDS = [word for word in GENERATION_WORDS if word != "stop"]  # a text of a target has its own end
WORDS = (
    "run", "input", "output", "checkpoint", "split", *ANSWER_WORDS, "device", "batch_size", "imports", *WRITING_WORDS,
)  # fmt: skip
EXAMPLE = "python -m dlspec predict run=latest input=new.csv output=predictions.csv"


def main(argv: Sequence[str]) -> int:
    """Predict the rows of files, and return the exit code."""
    arguments = parse_run_arguments("predict", argv, WORDS)
    command = read_prediction_command(arguments, EXAMPLE)
    source, split = arguments.get_list("input"), arguments.get_split()
    _check_source(source, split, arguments)
    model = _load_predictor(arguments)
    gc.enable()  # the command line disables it for its imports
    if split is not None:
        return _predict_split(model, split, command)
    predict = partial(model.chunks.predict, generation=read_generation_options(arguments))
    return command.predict_files(model.chunks, predict, source or ())


def _check_source(source: Sequence[str] | None, split: SplitName | None, arguments: RunArguments) -> None:
    if (source is None) == (split is None):
        found = "input and split together; leave one of them out" if source is not None else "no input is given"
        raise UserError(f"{found}; write for example {EXAMPLE}")
    chosen = [word for word in WRITING_WORDS if word in arguments.words]
    if split is not None and chosen:
        raise UserError(f"{chosen[0]} has no effect on split={split}; leave it out")
    if split is not None and arguments.data:
        raise UserError(f"data.{next(iter(arguments.data))} has no effect on split={split}; leave it out")


def _load_predictor(arguments: RunArguments) -> Predictor:
    return predictor(
        arguments.require_run(),
        checkpoint=arguments.get_text("checkpoint") or "best",
        device=arguments.get_text("device"),
        batch_size=arguments.get_number("batch_size", int),
        imports=arguments.get_list("imports") or (),
    )


def _predict_split(model: Predictor, split: SplitName, command: PredictionCommand) -> int:
    """Predict a split of the run's own data, which are opened as for training."""
    rows = open_own_data(model.run).select(split, model.run.data)
    if command.writes_folder:
        command = replace(command, options=replace(command.options, keep=rows.table is not None))
    if command.options.keep and rows.table is None:
        raise UserError("keep has no effect on this split, as the run's data are not a table; leave it out")
    return command.write(model.chunks, model.chunks.predict, iterate_split_chunks(rows, model.chunks.max_rows))
