"""`train`, the default command: one run or, with -m, a sweep. Most of Hydra's own flags work too."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from dlspec.cli.argument_parsing import FlagParser, parse_arguments
from dlspec.cli.commands import sweep
from dlspec.cli.commands.resume import resume_run
from dlspec.cli.console_output import print_message
from dlspec.compat.hydra import HydraApp, make_flags_parser
from dlspec.config.composition import CONFIG_NAME, ComposedConfig, start_hydra
from dlspec.config.hydra_run import SingleRun, unwrap_job_return
from dlspec.config.overrides import command_line_location
from dlspec.errors import Code, Problem, SpecError, UserError, replace_control_characters
from dlspec.formatting import COMMANDS, format_override
from dlspec.jobs.composed_spec import compose_or_raise, make_preparation
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.ranks import find_restarted_run, join_ranks, refuse_sweep_of_ranks
from dlspec.runs.job_result import JobResult
from dlspec.runs.run_folder import check_named_run_folder, lock_new_run_folder
from dlspec.sweeps.hydra.plugins import register
from dlspec.training.distributed import ProcessGroup


def main(argv: Sequence[str]) -> int:
    """Train a run or a sweep, or do what one of Hydra's flags asks for; return the exit code."""
    parser = FlagParser(parents=[make_flags_parser()])
    parser.add_argument("--fail-fast", action="store_true")
    arguments = parse_arguments(parser, argv)
    _refuse_flags(arguments)
    register()
    hydra = start_hydra(arguments.config_dir)
    hydra_action = _choose_hydra_action(hydra, arguments)
    if hydra_action is not None:
        hydra_action()
        return 0
    if arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides:
        refuse_sweep_of_ranks()
        return sweep.run_sweep_command(hydra, _list_sweep_overrides(arguments), arguments.config_dir)
    with join_ranks() as group:
        composed = compose_or_raise(arguments.overrides, hydra)
        if composed.is_sweep:  # `hydra.mode` can also be set in the user's conf/config.yaml
            refuse_sweep_of_ranks()
            return sweep.run_sweep_command(hydra, _list_sweep_overrides(arguments), arguments.config_dir)
        run = SingleRun(hydra, composed)
        restarted = group.broadcast(find_restarted_run(run.configured_folder(), is_named=run.is_folder_named))
        if restarted is not None:
            # These modules were named for this command, so they are trusted.
            imports = make_preparation(composed).tree.get("imports")
            words = [
                format_override("run", str(restarted)),
                *([f"imports=[{','.join(imports)}]"] if imports else []),
            ]
            resume_run(words, arguments.config_dir, group)
        else:
            train_one(run, composed, group)
    return 0


# Hydra's flags that dlspec does not support, and what to use instead.
_REFUSED_FLAGS = {
    "config_name": ("--config-name", "the top config is always 'config'; add a folder with --config-dir FOLDER"),
    "config_path": ("--config-path", "add a folder with --config-dir FOLDER"),
    "experimental_rerun": ("--experimental-rerun", "to run a run again write run=FOLDER"),
}


def _list_sweep_overrides(arguments: argparse.Namespace) -> list[str]:
    return [*arguments.overrides, *(["sweep.fail_fast=true"] if arguments.fail_fast else [])]


def _refuse_flags(arguments: argparse.Namespace) -> None:
    refused = [flag for name, flag in _REFUSED_FLAGS.items() if getattr(arguments, name)]
    if refused:
        raise SpecError(
            [
                Problem(Code.FILE_UNREADABLE, flag, "not supported", fix, command_line_location(flag))
                for flag, fix in refused
            ]
        )


def _choose_hydra_action(hydra: HydraApp, arguments: argparse.Namespace) -> Callable[[], Any] | None:
    """Return what a flag of Hydra (`--cfg`, `--info`, ...) asks for instead of a run, or None without such a flag."""
    name, overrides = CONFIG_NAME, arguments.overrides
    if arguments.cfg:
        return lambda: hydra.show_cfg(name, overrides, arguments.cfg, arguments.package, arguments.resolve)
    if arguments.info is not None:
        return lambda: hydra.show_info(arguments.info, name, overrides)
    if arguments.shell_completion:
        return lambda: _print_shell_completions(hydra, overrides)
    if arguments.hydra_help:
        return lambda: hydra.hydra_help(name, make_flags_parser(), arguments)
    return None


def _print_shell_completions(hydra: HydraApp, overrides: list[str]) -> None:
    """Print Hydra's completions of a command line, after removing dlspec's command, which Hydra does not know."""
    line = os.environ.get("COMP_LINE")
    if line is None and any(each.startswith("query=") for each in overrides):
        raise UserError("nothing to complete: the shell must set COMP_LINE to the command line")
    if line is not None:
        commands = "|".join(COMMANDS)
        os.environ["COMP_LINE"] = re.sub(rf"^.*?\bdlspec\s+((?:{commands})\s)?", "dlspec ", line)
    hydra.shell_completion(CONFIG_NAME, overrides)


def train_one(run: SingleRun, composed: ComposedConfig, group: ProcessGroup) -> JobResult:
    """Check, train and test one spec. The run's folder is created only after all checks have passed.

    Args:
        run: runs it in Hydra's way.
        composed: the config.
        group: the processes that train together; the first one makes the folder.
    """
    if run.is_folder_named and group.is_writer:
        check_named_run_folder(run.configured_folder())  # before anything that takes long
    job = make_job(make_preparation(composed))
    if not group.is_writer:
        return job.take_part()
    run.start_callbacks()
    configured = run.configured_folder()
    job.check_disk_space(configured if os.path.lexists(configured) else configured.parent)
    with lock_new_run_folder(configured, is_named=run.is_folder_named) as folder:
        for note in job.prepared.notes:
            print(replace_control_characters(note), file=sys.stderr)
        absolute = folder.absolute()  # hydra.job.chdir may change the working directory
        returned = run.run(folder, lambda: job.run_in_folder(absolute))
    print_message(str(folder))
    result: JobResult = unwrap_job_return(returned)
    return result
