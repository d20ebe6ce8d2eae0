"""`report run=FOLDER`: write the page of one run, with its network as `summary` shows it and its newest evaluation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from dlspec.cli.console_output import print_message
from dlspec.cli.run_arguments import parse_run_arguments, parse_setting
from dlspec.config.composition import start_hydra
from dlspec.config.saved_run import LATEST, RUN_FIX, find_latest_run
from dlspec.errors import UserError, replace_control_characters, replace_in_lines
from dlspec.formatting import first_line, format_override, quote_for_shell
from dlspec.jobs.error_reporting import EXIT_OK
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.report.evaluations import read_newest_evaluation
from dlspec.report.network_description import NetworkDescription
from dlspec.report.records import RunRecord, read_record
from dlspec.report.run_commands import choose_split, make_command
from dlspec.report.run_page import write_run_page

WORDS = ("run", "evaluate", "device", "imports")
MAX_PROBLEM_LENGTH = 500  # of a line on stderr
_T = TypeVar("_T")


@dataclass(frozen=True)
class RunReportArguments:
    """What the arguments say."""

    folder: Path
    imports: tuple[str, ...]  # modules that the run's spec may import
    data: Mapping[str, Any]  # settings of `data` that have changed, such as `path`
    overrides: tuple[str, ...]  # both as they were written
    evaluates: bool  # whether to evaluate a run that has not been evaluated
    device: str | None = None  # where to evaluate it; None for the run's own setting


def write_report_of_run(argv: Sequence[str]) -> int:
    """Write FOLDER/run.html and print its path. What can't be found out about the run is said there and on stderr."""
    arguments = _parse_run_report_arguments(argv)
    record = read_record(arguments.folder)  # refuses a folder without a run before anything slow
    is_evaluated = read_newest_evaluation(arguments.folder) is not None
    if is_evaluated and arguments.data:
        _print_note(_explain_unused_data(arguments, record))
    if arguments.evaluates and not is_evaluated:
        _, problem = _call_or_explain(lambda: _evaluate(arguments))
        if problem:
            _print_note(f"the run could not be evaluated: {first_line(problem, MAX_PROBLEM_LENGTH)}")
    network = describe_run_network(arguments)
    if network.problem:
        _print_note(f"the page does not show the network: {first_line(network.problem, MAX_PROBLEM_LENGTH)}")
    print_message(format_file_path(write_run_page(arguments.folder, network)))
    return EXIT_OK


def _explain_unused_data(arguments: RunReportArguments, record: RunRecord) -> str:
    settings = [quote_for_shell(each) for each in arguments.overrides if not each.startswith("imports=")]
    command = make_command("evaluate", record, " ".join([f"split={choose_split(record)}", *settings]))
    return f"the run is evaluated already, so the page shows that evaluation; to evaluate it again: {command}"


def _parse_run_report_arguments(argv: Sequence[str]) -> RunReportArguments:
    found = parse_run_arguments("report", argv, WORDS)
    return RunReportArguments(
        _find_folder(found.get_text("run") or ""),
        tuple(found.get_list("imports") or ()),
        {key: parse_setting(each) for key, each in found.data.items()},
        tuple(each for each in argv if each.startswith(("imports=", "data."))),
        "evaluate" not in found.words or found.get_flag("evaluate"),
        found.get_text("device"),
    )


def _find_folder(name: str) -> Path:
    if name == LATEST and not Path(name).exists():
        return find_latest_run()
    if not name or "\0" in name or not Path(name).is_dir():
        raise UserError(f"no run in '{replace_control_characters(name)}'; {RUN_FIX}")
    return Path(name)


# ---- what needs PyTorch ----------------------------------------------------------------------------------------------


def _evaluate(arguments: RunReportArguments) -> None:
    """Evaluate the run on its test split, or else its validation split, and write the results into its folder."""
    from dlspec.inference.evaluation.evaluation_files import write_evaluation
    from dlspec.inference.evaluation.run_evaluation import evaluate_run
    from dlspec.inference.loading.loaded_run import load_run
    from dlspec.inference.loading.own_data import open_own_data

    run = load_run(arguments.folder, imports=arguments.imports, device=arguments.device)
    opened = open_own_data(run, arguments.data)
    has_test = len(opened.dataset.test) > 0
    _print_note(f"evaluating the {'test' if has_test else 'validation'} split ...")
    write_evaluation(evaluate_run(run, opened=opened, split="test" if has_test else "validation"))


def describe_run_network(arguments: RunReportArguments) -> NetworkDescription:
    """Describe the network of a run, or why it can't be built: its spec may come from a stranger.

    Its data are opened only if the run's folder does not describe them.
    """
    found, _ = _call_or_explain(lambda: _describe_loaded_network(arguments))
    if found is not None:
        return found
    found, problem = _call_or_explain(lambda: _describe_composed_network(arguments))
    return found or NetworkDescription(problem=problem)


def _describe_loaded_network(arguments: RunReportArguments) -> NetworkDescription:
    from dlspec.cli.graph.described_network import describe_loaded_network
    from dlspec.inference.loading.loaded_run import load_run

    return describe_loaded_network(load_run(arguments.folder, imports=arguments.imports, device="cpu"))


def _describe_composed_network(arguments: RunReportArguments) -> NetworkDescription:
    from dlspec.cli.graph.described_network import describe_network
    from dlspec.jobs.composed_spec import compose_or_raise, make_preparation

    words = [format_override("run", str(arguments.folder)), *arguments.overrides]
    return describe_network(make_preparation(compose_or_raise(words, start_hydra(None))))


def _call_or_explain(action: Callable[[], _T]) -> tuple[_T | None, str]:
    """Return what a function returns, or None and why it failed.

    The rest of the page does not need it, and a layer of the user's own may fail in any way.
    """
    try:
        return action(), ""
    except UserError as error:
        return None, replace_in_lines(str(error))
    except Exception as error:
        return None, replace_in_lines(f"{type(error).__name__}: {first_line(error, MAX_PROBLEM_LENGTH)}")


def _print_note(text: str) -> None:
    print(replace_control_characters(text), file=sys.stderr)
