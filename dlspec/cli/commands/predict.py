"""`predict`: rows in, rows out, with a finished run."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from dlspec.cli.console_output import print_message
from dlspec.cli.generation_arguments import GENERATION_WORDS, read_generation_options
from dlspec.cli.prediction_output import check_output_words, describe_output, open_output
from dlspec.cli.prediction_progress import PredictionProgress
from dlspec.cli.run_arguments import RunArguments, parse_run_arguments
from dlspec.data.split_indices import SplitName
from dlspec.errors import UserError
from dlspec.inference.answers.answer_columns import AnswerOptions
from dlspec.inference.generation.sampling import GenerationOptions
from dlspec.inference.loading.own_data import open_own_data
from dlspec.inference.output.image_folders import is_folder_output
from dlspec.inference.output.prediction_files import STANDARD_OUTPUT, check_output
from dlspec.inference.predictor import Predictor, predictor
from dlspec.inference.rows.input_chunks import iterate_row_chunks
from dlspec.inference.rows.input_settings import make_input_settings
from dlspec.inference.rows.input_sources import find_inputs
from dlspec.inference.rows.row_chunk import RowChunk
from dlspec.inference.rows.split_chunks import iterate_split_chunks
from dlspec.jobs.error_reporting import EXIT_OK, EXIT_ROWS_LEFT_OUT

WRITING_WORDS = [word for word in GENERATION_WORDS if word != "stop"]  # a text of a target has its own end
WORDS = (
    "run", "input", "output", "checkpoint", "split", "columns", "probabilities", "keep", "threshold", "device",
    "batch_size", "imports", *WRITING_WORDS,
)  # fmt: skip
EXAMPLE = "python -m dlspec predict run=latest input=new.csv output=predictions.csv"


def main(argv: Sequence[str]) -> int:
    """Predict the rows of files, and return the exit code."""
    arguments = parse_run_arguments("predict", argv, WORDS)
    output = _require(arguments, "output")
    check_output_words(output, arguments)
    options = AnswerOptions(
        arguments.get_flag("probabilities"),
        arguments.get_number("threshold"),
        arguments.get_list("columns"),
        arguments.get_flag("keep"),
    )
    source, split = arguments.get_list("input"), arguments.get_split()
    _check_source(source, split, arguments)
    model = load_predictor(arguments)
    gc.enable()  # the command line disables it for its imports
    if split is not None:
        progress = _predict_split(model, split, options, output)
    else:
        progress = _predict_files(model, source or (), arguments, options, output)
    progress.finish()
    if output != STANDARD_OUTPUT:
        print_message(describe_output(output, model, progress.rows, progress.left_out))
    return EXIT_ROWS_LEFT_OUT if progress.left_out else EXIT_OK


def _check_source(source: Sequence[str] | None, split: SplitName | None, arguments: RunArguments) -> None:
    if (source is None) == (split is None):
        found = "input and split together; leave one of them out" if source is not None else "no input is given"
        raise UserError(f"{found}; write for example {EXAMPLE}")
    chosen = [word for word in WRITING_WORDS if word in arguments.words]
    if split is not None and chosen:
        raise UserError(f"{chosen[0]} has no effect on split={split}; leave it out")
    if split is not None and arguments.data:
        raise UserError(f"data.{next(iter(arguments.data))} has no effect on split={split}; leave it out")


def _require(arguments: RunArguments, name: str) -> str:
    text = arguments.get_text(name)
    if not text:
        raise UserError(f"no {name} is given; write for example {EXAMPLE}")
    return text


def load_predictor(arguments: RunArguments) -> Predictor:
    """Load the run that the arguments name."""
    return predictor(
        arguments.require_run(),
        checkpoint=arguments.get_text("checkpoint") or "best",
        device=arguments.get_text("device"),
        batch_size=arguments.get_number("batch_size", int),
        imports=arguments.get_list("imports") or (),
    )


def _predict_split(model: Predictor, split: SplitName, options: AnswerOptions, output: str) -> PredictionProgress:
    """Predict a split of the run's own data, which are opened as for training."""
    rows = open_own_data(model.run).select(split, model.run.data)
    if is_folder_output(output):
        options = replace(options, keep=rows.table is not None)  # the columns name the images
    if options.keep and rows.table is None:
        raise UserError("keep has no effect on this split, as the run's data are not a table; leave it out")
    return _write_answers(model, iterate_split_chunks(rows, model.chunks.max_rows), options, output)


def _predict_files(
    model: Predictor, source: Sequence[str], arguments: RunArguments, options: AnswerOptions, output: str
) -> PredictionProgress:
    """Predict files chunk by chunk, so that memory does not grow with the rows.

    Args:
        model: the run
        source: the files
        arguments: the command's, for the options of reading
        options: what is written
        output: the file to write
    """
    fitted = model.run.require_preparation()
    if is_folder_output(output):
        options = replace(options, keep=True)  # the columns name the images
    settings = make_input_settings(
        model.run.spec.data, fitted, arguments.data, keep=model.chunks.needs_all_columns(options)
    )
    inputs = find_inputs(source, settings)
    if not is_folder_output(output):
        check_output(output, [Path(each) for each in inputs.files])
    chunks = iterate_row_chunks(inputs, settings, model.chunks.max_rows)
    files = inputs.names if inputs.kind == "images" else ()
    return _write_answers(model, chunks, options, output, files, read_generation_options(arguments))


def _write_answers(
    model: Predictor,
    chunks: Iterable[RowChunk],
    options: AnswerOptions,
    output: str,
    files: Sequence[str] = (),
    generation: GenerationOptions | None = None,
) -> PredictionProgress:
    """Predict chunks of rows and write them.

    Args:
        model: the run
        chunks: the rows
        options: what is written
        output: the file to write, or the folder of images
        files: the input files, after which images are named
        generation: how a text is written; None for the most probable tokens
    """
    progress = PredictionProgress(str(model.run.device))
    with open_output(output, model, files) as writer:
        for answers in model.chunks.predict(progress.watch(chunks), options, generation):
            writer.write(answers.columns, answers.problems)
            progress.add(answers)
            if writer.is_closed:
                break
    return progress
