"""Hydra plugins of dlspec: its sweeper, and its launchers `pool` and `dlspec`.

Hydra accepts plugins only from packages named `hydra_plugins`, so registering them gives them such a module name.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Literal

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from dlspec.compat.hydra import register_module, split_into_jobs
from dlspec.compat.submitit import treat_lost_jobs_as_failed
from dlspec.config.hydra_node import set_hydra_value
from dlspec.config.launchers import PLUGIN_MODULE, register_plugin_names, restore_wrapped_launcher
from dlspec.errors import Code, Problem, SpecError, format_value
from dlspec.formatting import format_override
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.runs.file_access import refuse_links
from dlspec.runs.file_names import SUBMITIT_FOLDER
from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.executor_choice import choose_executor
from dlspec.sweeps.executors.external_executor import ExternalExecutor
from dlspec.sweeps.executors.inline_executor import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.hydra.job_count import check_job_count
from dlspec.sweeps.hydra.other_programs import run_other_program
from dlspec.sweeps.hydra.sweep_task import SweepTask
from dlspec.sweeps.records.planned_job import PlannedJob

DEFAULT_SUBMITIT_FOLDER = f"${{hydra.sweep.dir}}/{SUBMITIT_FOLDER}/%j"  # the default of Hydra's launchers
MAX_BATCH_SIZE = 10_000  # processes, more than any machine runs


class DlspecLauncher(Launcher):
    """Launcher that runs the jobs one after the other in this process."""

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        """Keep what Hydra passes before it launches jobs.

        Args:
            hydra_context: Hydra's config loader and callbacks.
            task_function: dlspec's `SweepTask`, or the task function of another program.
            config: The sweep's config.
        """
        self.context, self.task, self.sweep_config = hydra_context, task_function, config
        self.max_jobs: int | None = None

    def limit_jobs(self, max_jobs: int | None) -> None:
        """Run at most `max_jobs` jobs at a time; None sets no limit."""
        self.max_jobs = max_jobs

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run jobs as part of the sweep, which is created for the first ones."""
        if not isinstance(self.task, SweepTask):  # the task function of another program
            return run_other_program(self.context, self.task, self.sweep_config, job_overrides, initial_job_idx)
        self.task.create_sweep(self.context, self.sweep_config, self.make_executor)
        return self.task.launch(self.sweep_config, job_overrides)

    def make_executor(self, worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
        """Make the executor that runs the jobs.

        Args:
            worker: Trains the jobs.
            settings: The `sweep` section.
            jobs: Number of jobs to run.
            devices: Values of `trainer.device` of the jobs.
        """
        return InlineExecutor(worker)


class PoolLauncher(DlspecLauncher):
    """Launcher that runs jobs in several processes at once, by default one for each core or GPU."""

    vectorize: bool | Literal["auto"] = False  # where `sweep.vectorize` is not set

    def make_executor(self, worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
        """Make an executor with one process for each core or GPU, or `sweep.workers` processes.

        Args:
            worker: Trains the jobs.
            settings: The `sweep` section.
            jobs: Number of jobs to run.
            devices: Values of `trainer.device` of the jobs.
        """
        vectorize = self.vectorize if settings.vectorize is None else settings.vectorize
        return choose_executor(worker, settings.workers or self.max_jobs, jobs, devices, vectorize=vectorize)


class VectorizedLauncher(PoolLauncher):
    """Launcher like the pool that trains jobs which differ only in numbers as stacks, where that is faster."""

    vectorize = "auto"


class OtherLauncher(DlspecLauncher):
    """Launcher that passes the jobs to another Hydra launcher, named by `hydra.launcher.launcher` in the config."""

    def __init__(self, launcher: DictConfig) -> None:
        """Ignore `launcher`: it is instantiated when jobs are launched, with the sweep's folder in its settings."""

    def make_executor(self, worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
        """Make an executor that passes jobs to the other launcher.

        Args:
            worker: Builds jobs in this process to check their shapes.
            settings: Not used.
            jobs: Not used.
            devices: Not used.
        """
        return ExternalExecutor(worker, self._launch, self._get_sweep_folder, self.max_jobs)

    def _get_sweep_folder(self) -> Path:
        """Return the sweep's folder as an absolute path, which other processes can find."""
        folder: Path = self.task.absolute_folder()
        return folder

    def _launch(self, jobs: Sequence[PlannedJob]) -> Sequence[JobReturn]:
        config = restore_wrapped_launcher(self.sweep_config)
        set_hydra_value(config, "sweep.dir", str(self._get_sweep_folder()))
        _use_new_submitit_folder(config, self._get_sweep_folder())
        launcher = Plugins.instance().instantiate_launcher(self.context, self.task, config)
        job_overrides = [[*job.overrides, *_make_folder_overrides(job.folder.absolute())] for job in jobs]
        with treat_lost_jobs_as_failed():
            return launcher.launch(job_overrides, initial_job_idx=jobs[0].number)


def _use_new_submitit_folder(config: DictConfig, sweep_folder: Path) -> None:
    """Give submitit a folder that nobody else has written to: it unpickles the results that it finds there."""
    named = OmegaConf.to_container(config.hydra.launcher, resolve=False)
    if isinstance(named, dict) and named.get("submitit_folder") == DEFAULT_SUBMITIT_FOLDER:
        parent = sweep_folder / SUBMITIT_FOLDER
        refuse_links(sweep_folder, [parent])
        parent.mkdir(exist_ok=True)
        set_hydra_value(config, "launcher.submitit_folder", f"{mkdtemp(dir=parent, prefix='batch_')}/%j")


def _make_folder_overrides(folder: Path) -> list[str]:
    return [format_override("hydra.sweep.dir", str(folder.parent)), format_override("hydra.sweep.subdir", folder.name)]


class DlspecSweeper(Sweeper):
    """Grid sweeper like Hydra's basic one, but it composes each job once and does not stop at the first failure."""

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size = max_batch_size
        self.params: Any = params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        """Instantiate the launcher that the config names.

        Args:
            hydra_context: Hydra's config loader and callbacks.
            task_function: dlspec's `SweepTask`, or the task function of another program.
            config: The sweep's config.
        """
        self.context, self.task, self.sweep_config = hydra_context, task_function, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """Launch all jobs together, so that all are checked before the first starts.

        `max_batch_size` only limits how many of them run at once.
        """
        assert isinstance(self.launcher, DlspecLauncher)
        self._check_settings()
        self.launcher.limit_jobs(self.max_batch_size)
        return self.launcher.launch(self._split_into_jobs(arguments), 0)

    def _check_settings(self) -> None:
        count, params = self.max_batch_size, self.params
        if count is not None and (type(count) is not int or not 1 <= count <= MAX_BATCH_SIZE):
            found = f"expected a whole number from 1 to {MAX_BATCH_SIZE} or null, got {format_value(count)}"
            raise SpecError([Problem(Code.WRONG_VALUE, "hydra.sweeper.max_batch_size", found)])
        if not isinstance(params, Mapping | DictConfig):
            found = f"expected a mapping from keys to values, got {format_value(params)}"
            raise SpecError([Problem(Code.WRONG_TYPE, "hydra.sweeper.params", found)])

    def _split_into_jobs(self, arguments: list[str]) -> list[list[str]]:
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        fixed_overrides = [f"{key}={value}" for key, value in self.params.items()]
        overrides = parser.parse_overrides([*fixed_overrides, *arguments])
        check_job_count(overrides, self._is_group)
        return split_into_jobs(overrides)

    def _is_group(self, key: str) -> bool:
        return bool(self.context.config_loader.get_group_options(key))


# ---- registration with Hydra -----------------------------------------------------------------------------------------

PLUGINS: tuple[type[Plugin], ...] = (DlspecLauncher, PoolLauncher, VectorizedLauncher, OtherLauncher, DlspecSweeper)


def register() -> None:
    """Register the launchers and the sweeper with Hydra."""
    plugins = Plugins.instance()  # before the renaming: it searches installed plugins, and would import these twice
    name_plugins()
    for cls in PLUGINS:
        plugins.register(cls)


def name_plugins() -> None:
    """Give the plugins a module name below `hydra_plugins`, where Hydra and other plugin packages look for them."""
    register_module(PLUGIN_MODULE, sys.modules[__name__])
    for cls in PLUGINS:
        cls.__module__ = PLUGIN_MODULE
    register_plugin_names()
