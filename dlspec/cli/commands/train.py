"""`python -m dlspec [overrides]`: one run, or with -m a sweep. Hydra's own flags keep working."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from dlspec.cli.commands import sweep
from dlspec.cli.flags import FlagParser, parse_flags
from dlspec.compat.hydra import HydraApp, flags
from dlspec.config.composition import CONFIG_NAME, Composed, start_hydra
from dlspec.config.hydra_run import SingleRun, result_of
from dlspec.config.overrides import command_line
from dlspec.errors import Code, Problem, SpecError, UserError
from dlspec.jobs.composed_spec import composed_or_refused, preparation
from dlspec.jobs.job import Job
from dlspec.jobs.setup import make_job
from dlspec.runs.io import new_folder
from dlspec.runs.job_result import JobResult
from dlspec.sweeps.hydra.plugins import register
from dlspec.text import COMMANDS


def main(words: Sequence[str]) -> int:
    """Runs what the words say; the exit code tells how it went."""
    parser = FlagParser(parents=[flags()])
    parser.add_argument("--fail-fast", action="store_true")
    arguments = parse_flags(parser, words)
    _refuse_flags(arguments)
    register()
    hydra = start_hydra(arguments.config_dir)
    answer = _information(hydra, arguments)
    if answer is not None:
        answer()
        return 0
    if arguments.multirun or "hydra.mode=MULTIRUN" in arguments.overrides:
        return sweep.run(hydra, _sweep_words(arguments), arguments.config_dir)
    composed = composed_or_refused(arguments.overrides, hydra)
    if composed.is_sweep:  # a user's conf/config.yaml can ask for it
        return sweep.run(hydra, _sweep_words(arguments), arguments.config_dir)
    train_one(hydra, composed)
    return 0


# Hydra's flags that would mean nothing here, and what does the same.
_REFUSED = {
    "config_name": ("--config-name", "the config is always 'config'; take another folder: --config-dir FOLDER"),
    "config_path": ("--config-path", "take one more folder: --config-dir FOLDER"),
    "experimental_rerun": ("--experimental-rerun", "run a run again: run=FOLDER"),
}


def _sweep_words(arguments: argparse.Namespace) -> list[str]:
    return [*arguments.overrides, *(["sweep.fail_fast=true"] if arguments.fail_fast else [])]


def _refuse_flags(arguments: argparse.Namespace) -> None:
    wrong = [flag for name, flag in _REFUSED.items() if getattr(arguments, name)]
    if wrong:
        raise SpecError(
            [Problem(Code.FILE_UNREADABLE, flag, "not there", fix, command_line(flag)) for flag, fix in wrong]
        )


def _information(hydra: HydraApp, arguments: argparse.Namespace) -> Callable[[], Any] | None:
    """What Hydra's own flags ask for, in place of a run."""
    name, overrides = CONFIG_NAME, arguments.overrides
    if arguments.cfg:
        return lambda: hydra.show_cfg(name, overrides, arguments.cfg, arguments.package, arguments.resolve)
    if arguments.info is not None:
        return lambda: hydra.show_info(arguments.info, name, overrides)
    if arguments.shell_completion:
        return lambda: _complete(hydra, overrides)
    if arguments.hydra_help:
        return lambda: hydra.hydra_help(name, flags(), arguments)
    return None


def _complete(hydra: HydraApp, overrides: list[str]) -> None:
    """Hydra's completion of a shell's line, without the command in it, which Hydra does not know."""
    line = os.environ.get("COMP_LINE")
    if line is None and any(each.startswith("query=") for each in overrides):
        raise UserError("nothing to complete: a shell puts its line into COMP_LINE")
    if line is not None:
        commands = "|".join(COMMANDS)
        os.environ["COMP_LINE"] = re.sub(rf"^.*?\bdlspec\s+((?:{commands})\s)?", "dlspec ", line)
    hydra.shell_completion(CONFIG_NAME, overrides)


def train_one(hydra: HydraApp, composed: Composed) -> JobResult:
    """Checks, trains and tests; the folder is made once nothing can be refused any more."""
    job, run = make_job(preparation(composed)), SingleRun(hydra, composed)
    run.begin()
    folder = _make_folder(job, run.wanted_folder())
    for note in job.prepared.notes:
        print(note, file=sys.stderr)
    absolute = folder.absolute()  # hydra.job.chdir may move
    returned = run.run(folder, lambda: job.run(absolute))
    print(f"{folder}")
    result: JobResult = result_of(returned)
    return result


def _make_folder(job: Job, wanted: Path) -> Path:
    """The wanted folder, with a number behind it where two runs begin in one second."""
    job.check_space(wanted.parent)
    return new_folder(wanted.parent, wanted.name)
