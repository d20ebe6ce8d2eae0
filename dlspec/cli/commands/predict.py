"""`predict`: rows in, rows out, with a finished run."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path

from dlspec.cli.console_output import print_message
from dlspec.cli.prediction_progress import PredictionProgress
from dlspec.cli.run_arguments import RunArguments, parse_run_arguments
from dlspec.config.saved_run import RUN_FIX
from dlspec.errors import UserError
from dlspec.inference.answer_columns import AnswerOptions
from dlspec.inference.input_chunks import iterate_row_chunks
from dlspec.inference.input_settings import make_input_settings
from dlspec.inference.input_sources import find_inputs
from dlspec.inference.prediction_files import STANDARD_OUTPUT, check_output, open_prediction_file
from dlspec.inference.predictor import Predictor, predictor
from dlspec.jobs.error_reporting import EXIT_OK, EXIT_ROWS_LEFT_OUT

WORDS = (
    "run", "input", "output", "checkpoint", "split", "columns", "probabilities", "keep", "threshold", "device",
    "batch_size", "imports",
)  # fmt: skip
EXAMPLE = "python -m dlspec predict run=latest input=new.csv output=predictions.csv"


def main(argv: Sequence[str]) -> int:
    """Predict the rows of files, and return the exit code."""
    arguments = parse_run_arguments("predict", argv, WORDS)
    output = _require(arguments, "output")
    check_output(output)
    options = AnswerOptions(
        arguments.get_flag("probabilities"),
        arguments.get_number("threshold"),
        arguments.get_list("columns"),
        arguments.get_flag("keep"),
    )
    source = arguments.get_list("input")
    if source is None:
        raise UserError(f"no input is given; write for example {EXAMPLE}")
    model = load_predictor(arguments)
    gc.enable()  # the command line disables it for its imports
    progress = _predict_files(model, source, arguments, options, output)
    progress.finish()
    if output != STANDARD_OUTPUT:
        print_message(f"{output}: {progress.rows:,} row{'s' if progress.rows != 1 else ''}")
    return EXIT_ROWS_LEFT_OUT if progress.left_out else EXIT_OK


def _require(arguments: RunArguments, name: str) -> str:
    text = arguments.get_text(name)
    if not text:
        raise UserError(f"no {name} is given; write for example {EXAMPLE}")
    return text


def load_predictor(arguments: RunArguments) -> Predictor:
    """Load the run that the arguments name."""
    run = arguments.get_text("run")
    if not run:
        raise UserError(f"no run given; {RUN_FIX}")
    return predictor(
        run,
        checkpoint=arguments.get_text("checkpoint") or "best",
        device=arguments.get_text("device"),
        batch_size=arguments.get_number("batch_size", int),
        imports=arguments.get_list("imports") or (),
    )


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
    settings = make_input_settings(model.run.spec.data, fitted, arguments.data, keep=options.keep)
    inputs = find_inputs(source, settings)
    check_output(output, [Path(each) for each in inputs.files])
    progress = PredictionProgress()
    chunks = progress.watch(iterate_row_chunks(inputs, settings, model.chunk_rows))
    with open_prediction_file(output) as writer:
        for answers in model.predict_chunks(chunks, options):
            writer.write(answers.columns, answers.problems)
            progress.add(answers)
            if writer.is_closed:
                break
    return progress
