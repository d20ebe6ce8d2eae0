"""`predict file=`: rows in, rows out, with an exported ONNX file, by onnxruntime and without torch."""

from __future__ import annotations

import gc
from collections.abc import Sequence

from dlspec.cli.row_prediction import ANSWER_WORDS, read_prediction_command
from dlspec.cli.run_arguments import parse_run_arguments, refuse_words_of_runs
from dlspec.errors import UserError
from dlspec.inference.answers.row_predictor import check_batch_size
from dlspec.inference.onnx_files.file_predictor import FilePredictor

WORDS = ("file", "input", "output", *ANSWER_WORDS, "batch_size")
# Words of `predict run=` that say something of a run, and what to write instead.
WORDS_OF_RUNS = ("run", "checkpoint", "split", "device", "imports", "temperature", "top_k", "top_p", "seed",
                 "max_length", "beams")  # fmt: skip
EXAMPLE = "python -m dlspec predict file=model.onnx input=new.csv output=predictions.csv"


def main(argv: Sequence[str]) -> int:
    """Predict the rows of files with an exported file, and return the exit code."""
    refuse_words_of_runs("predict", argv, WORDS_OF_RUNS)
    arguments = parse_run_arguments("predict", argv, WORDS)
    command = read_prediction_command(arguments, EXAMPLE)
    source, name = arguments.get_list("input"), arguments.get_text("file")
    if not name or not source:
        raise UserError(f"no {'file' if not name else 'input'} is given; write for example {EXAMPLE}")
    batch_size = arguments.get_number("batch_size", int)
    check_batch_size(batch_size)
    model = FilePredictor(name, batch_size)
    gc.enable()  # the command line disables it for its imports
    return command.predict_files(model, model.predict, source)
