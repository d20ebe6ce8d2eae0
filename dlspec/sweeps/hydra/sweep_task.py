"""The task that Hydra runs: a sweep, started by any sweeper, its jobs run by any launcher."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from dlspec.compat.hydra import make_completed_return, make_failed_return
from dlspec.config.composition import ComposedConfig, DlspecConfigLoader
from dlspec.config.hydra_node import set_hydra_value
from dlspec.config.hydra_run import HydraJob, HydraJobRunner, confine_hydra_files, is_folder_named
from dlspec.errors import TrainingFailed, UserError
from dlspec.jobs.composed_spec import make_job_preparation, make_preparation
from dlspec.language.problems import Problems, raise_problems
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.spec_versions import SPEC_VERSION
from dlspec.parts.section_reader import read_section
from dlspec.runs.file_access import replace_special_file
from dlspec.runs.file_names import MULTIRUN_FILE, OPTUNA_FILE
from dlspec.runs.io import write_text
from dlspec.runs.job_result import JobResult
from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.external_executor import train_external_job
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.records.planned_job import JobPlan, JobSteps, PlannedJob, SweepEntry
from dlspec.sweeps.records.sweep_folder import open_sweep_folder
from dlspec.sweeps.records.sweep_record import SweepRecord
from dlspec.sweeps.sweep_run import SweepRun

NUMBER_AS_SUBDIR = "${hydra:job.num}"


MakeExecutor = Callable[[JobWorker, SweepSpec, int, Collection[str]], Executor]


class SweepTask:
    """Hydra's task function for one sweep. Other launchers call it with a job's config, in any process.

    Args:
        loader: Composes configs.
        command: The command line that started the sweep, as a list of arguments.
        config_dir: The user's folder of config files.
    """

    def __init__(
        self, loader: DlspecConfigLoader, command: list[str] | None = None, config_dir: str | None = None
    ) -> None:
        self.loader, self.command, self.config_dir = loader, command, config_dir
        self.sweep: SweepRun | None = None
        self.folder: Path | None = None
        self.spec_version = SPEC_VERSION

    def __enter__(self) -> SweepTask:
        return self

    def __exit__(self, *_: object) -> None:
        if self.sweep is not None:
            self.sweep.__exit__()

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without the sweep: another process only trains a job."""
        return {**vars(self), "sweep": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Prepare the process of another launcher, in which Hydra will write the files of the job."""
        vars(self).update(state)
        confine_hydra_files()

    @property
    def entries(self) -> list[SweepEntry]:
        """The sweep's jobs with their results so far."""
        return [] if self.sweep is None else self.sweep.entries

    def absolute_folder(self) -> Path:
        """Make the sweep's folder an absolute path, and return it."""
        assert self.folder is not None  # it was set before the jobs got their folders
        self.folder = self.folder.absolute()
        return self.folder

    def create_sweep(self, context: HydraContext, config: DictConfig, make_executor: MakeExecutor) -> None:
        """Create the sweep, or load the one that is recorded in the folder; do nothing after the first call.

        Args:
            context: Hydra's context.
            config: The sweep's config.
            make_executor: Makes the executor from a worker, the `sweep` section, the number of jobs and their devices.
        """
        if self.sweep is not None:
            return
        settings = _read_sweep_settings(ComposedConfig(config, self.loader))
        HydraConfig.instance().set_config(config)
        # dlspec's own name is always that of a new sweep, even if another one started in the same second.
        is_new = not is_folder_named(config, "sweep.dir")
        self.sweep = SweepRun(
            settings,
            open_sweep_folder(Path(str(config.hydra.sweep.dir)), command=self.command, is_new=is_new),
            partial(make_executor, JobWorker(HydraJobRunner(context), threads=settings.threads), settings),
            name=partial(_name_job_folder, config),
        )
        self.spec_version = self.sweep.spec_version
        replace_special_file(self.sweep.record.folder / OPTUNA_FILE)  # Optuna's sweeper would write through a link
        self._complete_record(self.sweep.record, config)

    def _complete_record(self, record: SweepRecord, config: DictConfig) -> None:
        """Write what only a sweep of Hydra has, and set `hydra.sweep.dir` for files that a sweeper writes."""
        self.folder, record.command, record.config_dir = record.folder, self.command, self.config_dir
        set_hydra_value(config, "sweep.dir", str(self.folder))
        if not (self.folder / MULTIRUN_FILE).exists():
            write_text(self.folder / MULTIRUN_FILE, OmegaConf.to_yaml(config))

    def launch(self, config: DictConfig, job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
        """Run jobs as part of the sweep.

        Args:
            config: The sweep's config.
            job_overrides: The overrides of each job.

        Returns:
            Hydra's `JobReturn` of each job, in order.
        """
        assert self.sweep is not None
        override_tuples = [tuple(str(each) for each in overrides) for overrides in job_overrides]
        plans = [JobPlan(each, partial(self._prepare_job, config, each)) for each in override_tuples]
        return [_return_from_entry(entry) for entry in self.sweep.launch(plans)]

    def _prepare_job(self, sweep_config: DictConfig, overrides: Sequence[str]) -> JobSteps:
        config = self.loader.compose_job(sweep_config, overrides)
        preparation = make_job_preparation(config, self.loader)
        return preparation.with_spec_version(self.spec_version), HydraJob(config)

    def __call__(self, config: DictConfig) -> JobResult:
        """Train one job for another launcher; Hydra has made its folder."""
        hydra_config = HydraConfig.get()
        merged = OmegaConf.merge(OmegaConf.create({"hydra": hydra_config}), config)
        assert isinstance(merged, DictConfig) and self.folder is not None
        composed = ComposedConfig(merged, self.loader)
        job = PlannedJob(
            tuple(hydra_config.overrides.task),
            hash="",
            pickled=pickle.dumps((make_preparation(composed).with_spec_version(self.spec_version), None)),
            number=int(hydra_config.job.num),
            folder=Path(hydra_config.runtime.output_dir),
            is_recorded=True,
        )
        return train_external_job(job, _read_sweep_settings(composed).threads, self.folder)


def _read_sweep_settings(composed: ComposedConfig) -> SweepSpec:
    tree = composed.tree.get("sweep", {})
    problems = Problems()
    settings = read_section(SweepSpec, tree, ("sweep",), problems)
    raise_problems(problems, composed.find_locations)
    assert settings is not None  # otherwise a problem was raised
    return settings


def _name_job_folder(sweep_config: DictConfig, job: PlannedJob, number: int) -> str:
    """Name a job's folder as `hydra.sweep.subdir` says."""
    if _get_raw_sweep_setting(sweep_config, "subdir") == NUMBER_AS_SUBDIR:
        return str(number)
    hydra_job = job.load_steps()[1]
    assert hydra_job is not None  # Hydra plans all jobs of this sweep
    return hydra_job.folder_name(number)


def _get_raw_sweep_setting(sweep_config: DictConfig, key: str) -> Any:
    tree = OmegaConf.to_container(sweep_config.hydra.sweep, resolve=False)
    return tree.get(key) if isinstance(tree, dict) else None


def _return_from_entry(entry: SweepEntry) -> JobReturn:
    """Make the `JobReturn` that a sweeper gets for a job: with the monitored result, or with an error."""
    result, overrides = entry.result, list(entry.job.overrides)
    if result.has_monitored_result:
        return make_completed_return(result.monitored, overrides)
    error = UserError if entry.is_refused else TrainingFailed
    return make_failed_return(error(result.error), overrides)
