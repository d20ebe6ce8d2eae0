"""`python -m dlspec [overrides]`: one run, or with -m a sweep. Hydra's own flags keep working."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from dlspec.app import sweep
from dlspec.app.compose import CONFIG_NAME, set_hydra, start_hydra
from dlspec.app.running import Job, composed_or_refused, make_job, preparation
from dlspec.run_folder import create_run_folder
from dlspec.training.state import Outcome


def main(words: Sequence[str]) -> int:
    """Runs what the words say; the exit code tells how it went."""
    arguments = get_args_parser().parse_args(list(words))
    sweep.register()
    hydra = start_hydra(arguments.config_dir)
    answer = _information(hydra, arguments)
    if answer is not None:
        answer()
        return 0
    if arguments.multirun:
        return sweep.run(hydra, arguments.overrides)
    train_one(hydra, arguments.overrides)
    return 0


def _information(hydra: Hydra, arguments: argparse.Namespace) -> Callable[[], Any] | None:
    """What Hydra's own flags ask for, in place of a run."""
    name, overrides = arguments.config_name or CONFIG_NAME, arguments.overrides
    if arguments.cfg:
        return lambda: hydra.show_cfg(name, overrides, arguments.cfg, arguments.package, arguments.resolve)
    if arguments.info is not None:
        return lambda: hydra.show_info(arguments.info, name, overrides)
    if arguments.shell_completion:
        return lambda: hydra.shell_completion(name, overrides)
    if arguments.hydra_help:
        return lambda: hydra.hydra_help(name, get_args_parser(), arguments)
    return None


def train_one(hydra: Hydra, overrides: Sequence[str]) -> Outcome:
    """Composes, checks, trains and tests; the folder is made once nothing can be refused any more."""
    composed = composed_or_refused(overrides, hydra)
    job = make_job(preparation(composed))
    config = composed.config
    set_hydra(config, "mode", RunMode.RUN)
    callbacks = Callbacks(config)
    callbacks.on_run_start(config=config, config_name=CONFIG_NAME)
    folder = _make_folder(config)
    returned = run_in(folder, job, config, hydra, callbacks)
    callbacks.on_run_end(config=config, config_name=CONFIG_NAME, job_return=returned)
    print(f"{folder}")
    outcome: Outcome = result_of(returned)
    return outcome


def _make_folder(config: DictConfig) -> Path:
    """hydra.run.dir, with a number behind it where two runs begin in one second."""
    HydraConfig.instance().set_config(config)
    wanted = Path(str(OmegaConf.select(config, "hydra.run.dir")))
    folder = create_run_folder(wanted.parent, wanted.name)
    set_hydra(config, "run.dir", str(folder))
    return folder


def run_in(folder: Path, job: Job, config: DictConfig, hydra: Hydra, callbacks: Callbacks) -> JobReturn:
    """The job as Hydra runs one: with `.hydra/` in its folder and Hydra's callbacks around it."""
    return run_job(
        hydra_context=HydraContext(config_loader=hydra.config_loader, callbacks=callbacks),
        task_function=lambda _: job.run(folder),
        config=config,
        job_dir_key="hydra.run.dir",
        job_subdir_key=None,
        configure_logging=False,
    )


def result_of(returned: JobReturn) -> Any:
    """What the task gave; what it raised is raised again. (Hydra's own property prints to stderr first.)"""
    if returned.status == JobStatus.FAILED:
        raise returned._return_value
    return returned._return_value
