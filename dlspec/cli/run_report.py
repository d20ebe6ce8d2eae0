"""`report run=FOLDER`: write the page of one run, with its network as `summary` shows it and its newest evaluation."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from dlspec.cli.argument_parsing import FlagParser, parse_arguments
from dlspec.cli.console_output import print_message
from dlspec.config.composition import start_hydra
from dlspec.config.overrides import parse_overrides
from dlspec.config.saved_run import LATEST, RUN_FIX, find_latest_run
from dlspec.errors import UserError, replace_control_characters, replace_in_lines
from dlspec.formatting import first_line, format_override
from dlspec.jobs.error_reporting import EXIT_OK
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.report.network_description import NetworkDescription
from dlspec.report.records import read_record
from dlspec.report.run_page import write_run_page

KEPT_OVERRIDES = ("imports", "data")  # the code of layers of the user's own, and where the data are now
FIX = "write python -m dlspec report run=FOLDER, and only data.KEY=VALUE or imports=[MODULE] beside it"


def write_report_of_run(argv: Sequence[str]) -> int:
    """Write FOLDER/run.html and print its path. What can't be found out about the run is said there and on stderr."""
    parser = FlagParser("report")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--config-dir", "-cd")
    arguments = parse_arguments(parser, argv, FIX)
    folder, overrides = _parse_overrides(arguments.overrides)
    read_record(folder)  # refuses a folder without a run before anything slow
    network = describe_run_network(folder, overrides, arguments.config_dir)
    if network.problem:
        _print_note(f"the page does not show the network: {first_line(network.problem, 500)}")
    print_message(format_file_path(write_run_page(folder, network)))
    return EXIT_OK


def _parse_overrides(words: Sequence[str]) -> tuple[Path, list[str]]:
    """Return the run's folder, and the overrides for building its network."""
    folder, others = None, []
    for override in parse_overrides(words):
        key = override.key_or_group.lstrip("+~")
        if key == "run" and not override.is_sweep_override():
            folder = _find_folder(str(override.value() or ""))
        elif key.partition(".")[0] in KEPT_OVERRIDES:
            others.append(str(override.input_line))
        else:
            raise UserError(f"unknown setting '{replace_control_characters(key)}'; {FIX}")
    if folder is None:
        raise UserError(f"no run given; {RUN_FIX}")
    return folder, others


def _find_folder(name: str) -> Path:
    folder = Path(name)
    if name == LATEST and not folder.exists():
        return find_latest_run()
    if not name or "\0" in name or not folder.is_dir():
        raise UserError(f"no run in '{replace_control_characters(name)}'; {RUN_FIX}")
    return folder


def describe_run_network(folder: Path, overrides: Sequence[str], config_dir: str | None = None) -> NetworkDescription:
    """Describe the network of a run, or why it can't be built.

    Args:
        folder: the run's folder; its spec may come from a stranger
        overrides: settings that are changed: `imports` that the user trusts, and the place of the data
        config_dir: a folder of configs beside conf/

    Returns:
        The description. It has a `problem` if the spec is wrong, its data are missing, or PyTorch is not installed.
    """
    try:
        from dlspec.cli.graph.described_network import describe_network
        from dlspec.jobs.composed_spec import compose_or_raise, make_preparation

        composed = compose_or_raise([format_override("run", str(folder)), *overrides], start_hydra(config_dir))
        return describe_network(make_preparation(composed))
    except UserError as error:
        return NetworkDescription(problem=replace_in_lines(str(error)))
    except (
        Exception
    ) as error:  # a layer of the user's own may fail in any way, and the rest of the page does not need it
        return NetworkDescription(problem=replace_in_lines(f"{type(error).__name__}: {first_line(error, 500)}"))


def _print_note(text: str) -> None:
    print(replace_control_characters(text), file=sys.stderr)
