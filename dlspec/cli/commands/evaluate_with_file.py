"""`evaluate file=`: metrics of an exported ONNX file on rows with their targets, without torch."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dlspec.cli.console_output import print_message
from dlspec.cli.run_arguments import parse_run_arguments
from dlspec.errors import UserError, replace_in_lines
from dlspec.formatting import format_table
from dlspec.inference.onnx_files.file_evaluation import evaluate_file
from dlspec.jobs.error_reporting import EXIT_OK, EXIT_ROWS_LEFT_OUT

EXAMPLE = "python -m dlspec evaluate file=model.onnx data.path=new.csv"
MAX_LISTED = 5


def main(argv: Sequence[str]) -> int:
    """Print the metrics of an exported file, and return the exit code."""
    arguments = parse_run_arguments("evaluate file=", argv, ("file",))
    name, path = arguments.get_text("file"), arguments.data.get("path")
    if not name or not path:
        raise UserError(f"evaluate file= needs file and data.path; write for example {EXAMPLE}")
    options = {key: value for key, value in arguments.data.items() if key != "path"}
    found = evaluate_file(name, [path] if isinstance(path, str) else path, options)
    for each in found.left_out[:MAX_LISTED]:
        print(replace_in_lines(each), file=sys.stderr)
    lines = [(target, metric, f"{value:.4g}") for target, each in found.metrics.items()
             for metric, value in each.items()]  # fmt: skip
    print_message(format_table(("target", "metric", "value"), lines, {"value"}))
    print_message(f"{found.rows - len(found.left_out):,} rows")
    return EXIT_ROWS_LEFT_OUT if found.left_out else EXIT_OK
