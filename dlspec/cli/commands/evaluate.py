"""`evaluate`: loss and metrics of a finished run on a split of its data, or on a new file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dlspec.cli.console_output import print_message
from dlspec.cli.evaluation_arguments import check_path, print_notes, read_resamples
from dlspec.cli.run_arguments import RunArguments, parse_run_arguments, parse_setting
from dlspec.data.split_indices import SplitName
from dlspec.inference.evaluation.evaluation_files import write_evaluation
from dlspec.inference.evaluation.new_data import read_new_files
from dlspec.inference.evaluation.run_evaluation import Evaluation, evaluate_run
from dlspec.inference.loading.loaded_run import LoadedRun, load_run
from dlspec.inference.loading.own_data import open_own_data
from dlspec.jobs.error_reporting import EXIT_OK, EXIT_ROWS_LEFT_OUT
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.progress_lines import open_status_line

WORDS = ("run", "split", "checkpoint", "by", "resamples", "pictures", "device", "imports")


def main(argv: Sequence[str]) -> int:
    """Evaluate the run that the arguments name, and write the results into its folder."""
    arguments = parse_run_arguments("evaluate", argv, WORDS)
    split, resamples = arguments.get_split(), read_resamples(arguments)
    pictures = "pictures" not in arguments.words or arguments.get_flag("pictures")
    run = _load_run(arguments)
    with open_status_line() as show:
        show("reading the data ...")
        evaluation = _evaluate(
            run,
            arguments,
            split,
            resamples,
            lambda done, total: show(f"evaluating on {run.device}: {done:,} of {total:,} batches"),
        )
    print_notes(evaluation.notes, evaluation.data.left_out, evaluation.data.reasons)
    print_message(str(evaluation))
    written = write_evaluation(evaluation, pictures=pictures)
    print_message("\n" + "\n".join(f"written: {format_file_path(each)}" for each in written))
    return EXIT_ROWS_LEFT_OUT if evaluation.data.left_out else EXIT_OK


def _load_run(arguments: RunArguments) -> LoadedRun:
    return load_run(
        arguments.require_run(),
        arguments.get_text("checkpoint") or "best",
        imports=arguments.get_list("imports") or (),
        device=arguments.get_text("device"),
    )


def _evaluate(
    run: LoadedRun,
    arguments: RunArguments,
    split: SplitName | None,
    resamples: int,
    report_batch: Callable[[int, int], None],
) -> Evaluation:
    settings = arguments.data
    is_new = split is None and "path" in settings
    options = {key: value for key, value in settings.items() if key != "path"}
    data = read_new_files(run, check_path(settings["path"]), options) if is_new else None
    opened = None if is_new else open_own_data(run, {key: parse_setting(each) for key, each in settings.items()})
    return evaluate_run(
        run,
        data,
        opened=opened,
        split=split or "test",
        by=arguments.get_text("by"),
        resamples=resamples,
        report_batch=report_batch,
    )
