"""A run as Hydra does one: with `.hydra/` in its folder and Hydra's callbacks around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from dlspec.compat.hydra import HydraApp, RunCallbacks, get_return_value, has_failed
from dlspec.config.composition import CONFIG_NAME, VERSION_BASE, ComposedConfig
from dlspec.config.hydra_node import set_hydra_value

T = TypeVar("T")


def prepare_hydra_process() -> None:
    """Prepare a process in which Hydra has composed nothing for running jobs."""
    version.setbase(VERSION_BASE)  # by it Hydra decides whether a job moves into its folder
    setup_globals()


def unwrap_job_return(returned: JobReturn) -> Any:
    """What the task gave; what it raised is raised again. (Hydra's own property prints to stderr first.)"""
    value = get_return_value(returned)
    if has_failed(returned):
        raise value
    return value


class SingleRun:
    """One run, and no sweep: `begin`, then `configured_folder`, then `run` in the folder that was made."""

    def __init__(self, hydra: HydraApp, composed: ComposedConfig) -> None:
        self._config = composed.config
        set_hydra_value(self._config, "mode", RunMode.RUN)
        self._callbacks = RunCallbacks(self._config)
        self._context = HydraContext(config_loader=hydra.config_loader, callbacks=self._callbacks)

    def start_callbacks(self) -> None:
        self._callbacks.on_run_start(config=self._config, config_name=CONFIG_NAME)

    def configured_folder(self) -> Path:
        """What `hydra.run.dir` says."""
        HydraConfig.instance().set_config(self._config)
        return Path(str(OmegaConf.select(self._config, "hydra.run.dir")))

    def run(self, folder: Path, task: Callable[[], Any]) -> JobReturn:
        """Run the task; what it gave or raised is for `result_of`."""
        set_hydra_value(self._config, "run.dir", str(folder))
        returned = run_job(
            hydra_context=self._context,
            task_function=lambda _: task(),
            config=self._config,
            job_dir_key="hydra.run.dir",
            job_subdir_key=None,
            configure_logging=False,
        )
        self._callbacks.on_run_end(config=self._config, config_name=CONFIG_NAME, job_return=returned)
        return returned


@dataclass(frozen=True)
class HydraJob:
    """A sweep's job with the config that Hydra composed for it."""

    config: DictConfig

    def folder_name(self, number: int) -> str:
        """What `hydra.sweep.subdir` says of the job with that number."""
        self._set_number(number)
        HydraConfig.instance().set_config(self.config)
        return str(OmegaConf.select(self.config, "hydra.sweep.subdir"))

    def run(self, context: HydraContext, number: int, folder: Path, task: Callable[[], T]) -> T:
        """Run the task as the job with that number, in its folder."""
        self._set_number(number)
        set_hydra_value(self.config, "sweep.dir", str(folder.parent))
        set_hydra_value(self.config, "sweep.subdir", folder.name)
        returned = run_job(
            hydra_context=context,
            task_function=lambda _: task(),
            config=self.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            configure_logging=False,
        )
        outcome: T = unwrap_job_return(returned)
        return outcome

    def _set_number(self, number: int) -> None:
        set_hydra_value(self.config, "job.id", str(number))
        set_hydra_value(self.config, "job.num", number)


@dataclass(frozen=True)
class HydraJobRunner:
    """Runs a sweep's jobs as Hydra does; it can be sent to other processes."""

    context: HydraContext

    def run(self, job: HydraJob, number: int, folder: Path, task: Callable[[], T]) -> T:
        return job.run(self.context, number, folder, task)
