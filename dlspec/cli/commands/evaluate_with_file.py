"""`evaluate file=`: the metrics of an exported ONNX file on rows with their targets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlspec.cli.console_output import print_message
from dlspec.cli.evaluation_arguments import check_path, print_notes, read_resamples
from dlspec.cli.run_arguments import parse_run_arguments, refuse_words_of_runs
from dlspec.errors import UserError
from dlspec.inference.evaluation.evaluation_table import format_metrics
from dlspec.inference.onnx_files.file_evaluation import evaluate_file
from dlspec.jobs.error_reporting import EXIT_OK, EXIT_ROWS_LEFT_OUT
from dlspec.language.yaml.yaml_files import format_file_path

WORDS = ("file", "resamples")
WORDS_OF_RUNS = ("run", "split", "checkpoint", "by", "pictures", "device", "imports")
EXAMPLE = "python -m dlspec evaluate file=model.onnx data.path=new.csv"


def main(argv: Sequence[str]) -> int:
    """Print the metrics of an exported file, and return the exit code."""
    refuse_words_of_runs("evaluate", argv, WORDS_OF_RUNS)
    arguments = parse_run_arguments("evaluate", argv, WORDS)
    name, path = arguments.get_text("file"), arguments.data.get("path")
    if not name or not path:
        raise UserError(f"evaluate file= needs file and data.path; write for example {EXAMPLE}")
    options = {key: value for key, value in arguments.data.items() if key != "path"}
    found = evaluate_file(name, check_path(path), options, read_resamples(arguments))
    print_notes(found.notes, found.left_out, found.reasons)
    left_out = f", {found.left_out:,} left out" if found.left_out else ""
    print_message(f"{format_file_path(Path(name))}: {found.rows:,} rows{left_out}\n\n{format_metrics(found.metrics)}")
    return EXIT_ROWS_LEFT_OUT if found.left_out else EXIT_OK
