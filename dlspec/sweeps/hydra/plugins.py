"""What Hydra knows of dlspec: its sweeper, and its launchers `pool` and `dlspec`.

Hydra takes plugins from packages named hydra_plugins alone; ours get such a name when they are registered.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig

from dlspec.compat.hydra import register_module, split_into_jobs
from dlspec.compat.submitit import treat_lost_jobs_as_failed
from dlspec.config.hydra_node import set_hydra_value
from dlspec.config.launchers import PLUGIN_MODULE, register_plugin_names, restore_wrapped_launcher
from dlspec.formatting import format_override
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.executor_choice import choose_executor
from dlspec.sweeps.executors.external_executor import ExternalExecutor
from dlspec.sweeps.executors.inline_executor import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.hydra.other_programs import run_other_program
from dlspec.sweeps.hydra.sweep_task import SweepTask
from dlspec.sweeps.records.planned_job import PlannedJob


class DlspecLauncher(Launcher):
    """Runs the jobs one after the other in this process."""

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.context, self.task, self.sweep_config = hydra_context, task_function, config
        self.max_jobs: int | None = None

    def limit_jobs(self, max_jobs: int | None) -> None:
        """Run at most so many jobs at a time."""
        self.max_jobs = max_jobs

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if not isinstance(self.task, SweepTask):  # another program's
            return run_other_program(self.context, self.task, self.sweep_config, job_overrides, initial_job_idx)
        self.task.create_sweep(self.context, self.sweep_config, self.make_executor)
        return self.task.launch(self.context, self.sweep_config, job_overrides)

    def make_executor(self, worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
        return InlineExecutor(worker)


class PoolLauncher(DlspecLauncher):
    """Runs as many jobs at a time as there are cores or GPUs, each in a process that takes one after the other."""

    def make_executor(self, worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
        return choose_executor(worker, settings.workers or self.max_jobs, jobs, devices)


class OtherLauncher(DlspecLauncher):
    """Has the jobs done by another launcher of Hydra's, which the config names below this one."""

    def __init__(self, launcher: DictConfig) -> None:
        """It is made when there are jobs for it, with the sweep's folder in its settings."""

    def make_executor(self, worker: JobWorker, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Executor:
        return ExternalExecutor(worker, self._launch, self._get_sweep_folder, self.max_jobs)

    def _get_sweep_folder(self) -> Path:
        """As a process that began elsewhere finds it."""
        folder: Path = self.task.absolute_folder()
        return folder

    def _launch(self, jobs: Sequence[PlannedJob]) -> Sequence[JobReturn]:
        config = restore_wrapped_launcher(self.sweep_config)
        set_hydra_value(config, "sweep.dir", str(self._get_sweep_folder()))
        launcher = Plugins.instance().instantiate_launcher(self.context, self.task, config)
        job_overrides = [[*job.overrides, *_make_folder_overrides(job.folder.absolute())] for job in jobs]
        with treat_lost_jobs_as_failed():
            return launcher.launch(job_overrides, initial_job_idx=jobs[0].number)


def _make_folder_overrides(folder: Path) -> list[str]:
    return [format_override("hydra.sweep.dir", str(folder.parent)), format_override("hydra.sweep.subdir", folder.name)]


class DlspecSweeper(Sweeper):
    """Hydra's grid, without composing each job twice, and without ending at the first failure."""

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.context, self.task, self.sweep_config = hydra_context, task_function, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """All jobs at once: they are checked before the first begins. A batch is what may run at a time."""
        assert isinstance(self.launcher, DlspecLauncher)
        self.launcher.limit_jobs(self.max_batch_size)
        return self.launcher.launch(self._split_into_jobs(arguments), 0)

    def _split_into_jobs(self, arguments: list[str]) -> list[list[str]]:
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        fixed_overrides = [f"{key}={value}" for key, value in self.params.items()]
        return split_into_jobs(parser.parse_overrides([*fixed_overrides, *arguments]))


# ---- known to Hydra --------------------------------------------------------------------------------------------------

PLUGINS: tuple[type[Plugin], ...] = (DlspecLauncher, PoolLauncher, OtherLauncher, DlspecSweeper)


def register() -> None:
    """Makes the launchers and the sweeper known to Hydra."""
    plugins = Plugins.instance()  # it looks through the installed plugins first, and would import ours twice
    name_plugins()
    for cls in PLUGINS:
        plugins.register(cls)


def name_plugins() -> None:
    """Gives them the names that Hydra knows plugins by, for a package of hydra_plugins that imports them too."""
    register_module(PLUGIN_MODULE, sys.modules[__name__])
    for cls in PLUGINS:
        cls.__module__ = PLUGIN_MODULE
    register_plugin_names()
