"""`predict file=`: rows in, rows out, with an exported ONNX file, by onnxruntime and without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dlspec.cli.console_output import print_message
from dlspec.cli.run_arguments import parse_run_arguments
from dlspec.errors import UserError, replace_in_lines
from dlspec.inference.onnx_files.file_prediction import predict_files
from dlspec.jobs.error_reporting import EXIT_OK, EXIT_ROWS_LEFT_OUT

WORDS = ("file", "input", "output", "probabilities")
EXAMPLE = "python -m dlspec predict file=model.onnx input=new.csv output=predictions.csv"
MAX_LISTED = 5


def main(argv: Sequence[str]) -> int:
    """Predict the rows of files with an exported file, and return the exit code."""
    arguments = parse_run_arguments("predict file=", argv, WORDS)
    source, output, name = arguments.get_list("input"), arguments.get_text("output"), arguments.get_text("file")
    if not name or not source or not output:
        raise UserError(f"predict file= needs file, input and output; write for example {EXAMPLE}")
    flag = arguments.get_flag("probabilities")
    found = predict_files(name, source, output, probabilities=flag, options=arguments.data)
    for each in found.problems[:MAX_LISTED]:
        print(replace_in_lines(each), file=sys.stderr)
    if output != "-":
        print_message(f"{output}: {found.rows:,} row{'s' if found.rows != 1 else ''}")
    return EXIT_ROWS_LEFT_OUT if found.problems else EXIT_OK
