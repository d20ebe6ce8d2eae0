"""`evaluate`: loss and metrics of a finished run on a split of its data, or on a new file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dlspec.cli.console_output import print_message
from dlspec.cli.run_arguments import RunArguments, parse_run_arguments
from dlspec.errors import UserError, format_value, replace_control_characters
from dlspec.inference.bootstrap import DEFAULT_RESAMPLES
from dlspec.inference.evaluation import Evaluation, evaluate_run
from dlspec.inference.evaluation_data import SPLITS, EvaluationData, SplitName, open_own_data
from dlspec.inference.evaluation_files import write_evaluation
from dlspec.inference.loaded_run import LoadedRun, load_run
from dlspec.inference.new_data import read_new_files
from dlspec.jobs.error_reporting import EXIT_OK, EXIT_ROWS_LEFT_OUT
from dlspec.language.yaml.yaml_files import format_file_path, load_yaml_file
from dlspec.runs.file_names import SPEC_FILE

WORDS = ("split", "checkpoint", "by", "resamples", "pictures", "device")
MAX_RESAMPLES = 100_000  # more take hours and change no digit


def main(argv: Sequence[str]) -> int:
    """Evaluate the run that the arguments name, and write the results into its folder."""
    arguments = parse_run_arguments("evaluate", argv, WORDS)
    words = arguments.words
    split, resamples = _read_split(words), _read_resamples(words)
    pictures = _read_flag(words, "pictures")
    run = load_run(
        arguments.folder,
        str(words.get("checkpoint", "best")),
        imports=arguments.imports,
        device=str(words.get("device") or _find_device(arguments)),
    )
    with _show_progress() as report_batch:
        evaluation = _evaluate(run, arguments, split, resamples, report_batch)
    _print_notes(evaluation)
    print_message(str(evaluation))
    written = write_evaluation(evaluation, pictures=pictures)
    print_message("\n" + "\n".join(f"written: {format_file_path(each)}" for each in written))
    return EXIT_ROWS_LEFT_OUT if evaluation.data.left_out else EXIT_OK


def _evaluate(
    run: LoadedRun,
    arguments: RunArguments,
    split: SplitName | None,
    resamples: int,
    report_batch: Callable[[int, int], None],
) -> Evaluation:
    by = arguments.words.get("by")
    data = _read_new_data(run, arguments.data) if split is None and "path" in arguments.data else None
    opened = open_own_data(run, arguments.data) if data is None else None
    return evaluate_run(
        run,
        data,
        opened=opened,
        split=split or "test",
        by=None if by is None else str(by),
        resamples=resamples,
        report_batch=report_batch,
    )


def _read_new_data(run: LoadedRun, settings: Mapping[str, Any]) -> EvaluationData:
    path = settings["path"]
    paths = [str(each) for each in path] if isinstance(path, list) else str(path)
    return read_new_files(run, paths, {key: value for key, value in settings.items() if key != "path"})


def _find_device(arguments: RunArguments) -> str:
    """Return the device that the run was trained on, so that results are equal to the last bit."""
    trainer = load_yaml_file(arguments.folder / SPEC_FILE).tree.get("trainer")
    return str(trainer.get("device", "auto")) if isinstance(trainer, dict) else "auto"


def _read_split(words: Mapping[str, Any]) -> SplitName | None:
    if "split" not in words:
        return None
    found = next((each for each in SPLITS if each == words["split"]), None)
    if found is None:
        raise UserError(f"split must be {', '.join(SPLITS)}, got {format_value(words['split'])}")
    return found


def _read_resamples(words: Mapping[str, Any]) -> int:
    value = words.get("resamples", DEFAULT_RESAMPLES)
    if type(value) is not int or not 0 <= value <= MAX_RESAMPLES:
        found = f"resamples must be a whole number from 0 to {MAX_RESAMPLES:,}, got {format_value(value)}"
        raise UserError(f"{found}; 0 computes no intervals")
    return value


def _read_flag(words: Mapping[str, Any], name: str) -> bool:
    value = words.get(name, True)
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, got {format_value(value)}")
    return value


@contextmanager
def _show_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield a function that shows on a terminal how many batches are evaluated."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    print("\rreading the data ...", end="", file=sys.stderr, flush=True)
    try:
        yield lambda done, total: print(
            f"\r\033[Kevaluating: {done:,} of {total:,} batches", end="", file=sys.stderr, flush=True
        )
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _print_notes(evaluation: Evaluation) -> None:
    data = evaluation.data
    for note in evaluation.notes:
        print(replace_control_characters(note), file=sys.stderr)
    if data.left_out:
        first = replace_control_characters(data.reasons[0]) if data.reasons else ""
        print(f"{data.left_out:,} rows are left out, the first is {first}", file=sys.stderr)
