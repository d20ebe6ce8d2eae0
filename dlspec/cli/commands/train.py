"""`python -m dlspec [overrides]`: one run, or with -m a sweep. Hydra's own flags keep working."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from dlspec.cli.commands import sweep
from dlspec.cli.flags import parse_flags
from dlspec.cli.names import COMMANDS
from dlspec.config.composition import CONFIG_NAME, Composed, start_hydra
from dlspec.config.hydra_node import set_hydra
from dlspec.config.overrides import command_line
from dlspec.errors import Problem, SpecError, UserError
from dlspec.jobs.running import Job, composed_or_refused, make_job, new_folder, preparation, result_of
from dlspec.sweeps.hydra.plugins import register
from dlspec.training.state import Outcome


def main(words: Sequence[str]) -> int:
    """Runs what the words say; the exit code tells how it went."""
    parser = get_args_parser()
    parser.prog = "dlspec"
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
        raise SpecError([Problem(flag, "not there", fix, command_line(flag)) for flag, fix in wrong])


def _information(hydra: Hydra, arguments: argparse.Namespace) -> Callable[[], Any] | None:
    """What Hydra's own flags ask for, in place of a run."""
    name, overrides = CONFIG_NAME, arguments.overrides
    if arguments.cfg:
        return lambda: hydra.show_cfg(name, overrides, arguments.cfg, arguments.package, arguments.resolve)
    if arguments.info is not None:
        return lambda: hydra.show_info(arguments.info, name, overrides)
    if arguments.shell_completion:
        return lambda: _complete(hydra, overrides)
    if arguments.hydra_help:
        return lambda: hydra.hydra_help(name, get_args_parser(), arguments)
    return None


def _complete(hydra: Hydra, overrides: list[str]) -> None:
    """Hydra's completion of a shell's line, without the command in it, which Hydra does not know."""
    line = os.environ.get("COMP_LINE")
    if line is None and any(each.startswith("query=") for each in overrides):
        raise UserError("nothing to complete: a shell puts its line into COMP_LINE")
    if line is not None:
        commands = "|".join(COMMANDS)
        os.environ["COMP_LINE"] = re.sub(rf"^.*?\bdlspec\s+((?:{commands})\s)?", "dlspec ", line)
    hydra.shell_completion(CONFIG_NAME, overrides)


def train_one(hydra: Hydra, composed: Composed) -> Outcome:
    """Checks, trains and tests; the folder is made once nothing can be refused any more."""
    job = make_job(preparation(composed))
    config = composed.config
    set_hydra(config, "mode", RunMode.RUN)
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name=CONFIG_NAME)
    folder = _make_folder(job, config)
    for note in job.prepared.notes:
        print(note, file=sys.stderr)
    returned = run_in(folder, job, config, hydra, callbacks)
    callbacks.on_run_end(config=config, config_name=CONFIG_NAME, job_return=returned)
    print(f"{folder}")
    outcome: Outcome = result_of(returned)
    return outcome


def _make_folder(job: Job, config: DictConfig) -> Path:
    """hydra.run.dir, with a number behind it where two runs begin in one second."""
    HydraConfig.instance().set_config(config)
    wanted = Path(str(OmegaConf.select(config, "hydra.run.dir")))
    job.check_space(wanted.parent)
    folder = new_folder(wanted.parent, wanted.name)
    set_hydra(config, "run.dir", str(folder))
    return folder


def run_in(folder: Path, job: Job, config: DictConfig, hydra: Hydra, callbacks: Callbacks) -> JobReturn:
    """The job as Hydra runs one: with `.hydra/` in its folder and Hydra's callbacks around it."""
    absolute = folder.absolute()  # hydra.job.chdir may move
    return run_job(
        hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
        task_function=lambda _: job.run(absolute),
        config=config,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        configure_logging=False,
    )
