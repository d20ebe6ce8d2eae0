"""What Hydra knows of dlspec: its sweeper, and its launchers `pool` and `dlspec`.

Hydra takes plugins from packages named hydra_plugins alone; ours get such a name when they are registered.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.plugin import Plugin
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from dlspec.config.composition import Composed, Loader
from dlspec.config.hydra_node import set_hydra
from dlspec.config.launchers import HOME, launcher_as_written
from dlspec.config.overrides import quoted
from dlspec.errors import UserError
from dlspec.jobs.running import new_folder, preparation
from dlspec.registry.sections import read_section
from dlspec.runs.layout import MULTIRUN
from dlspec.spec.mistakes import Mistakes, refuse
from dlspec.spec.sweep import SweepSpec
from dlspec.sweeps.executors.external import Elsewhere, lost_alone, train_elsewhere
from dlspec.sweeps.executors.pool import Doers, Here, pool
from dlspec.sweeps.hydra.foreign_tasks import run_tasks
from dlspec.sweeps.job_worker import Workshop, numbered
from dlspec.sweeps.plan import Entry
from dlspec.sweeps.record import SweepRecord, read_sweep
from dlspec.sweeps.run import SweepRun
from dlspec.sweeps.sweep_job import Draft, JobEnd, Made, SweepJob
from dlspec.sweeps.table import Row
from dlspec.training.state import TrainingFailed

BY_NUMBER = "${hydra:job.num}"


class Task:
    """What Hydra is to run: one sweep. Other launchers call it with a job's config, in whatever process.

    `folder` is the sweep's, known as soon as there is one.
    """

    def __init__(self, loader: Loader, command: list[str] | None = None, config_dir: str | None = None) -> None:
        self.loader, self.command, self.config_dir = loader, command, config_dir
        self.sweep: SweepRun | None = None
        self.folder: Path | None = None

    def __enter__(self) -> Task:
        return self

    def __exit__(self, *_: object) -> None:
        if self.sweep is not None:
            self.sweep.__exit__()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which has a job and not the sweep."""
        return {**vars(self), "sweep": None}

    @property
    def rows(self) -> list[Row]:
        return [] if self.sweep is None else self.sweep.rows

    def __call__(self, config: DictConfig) -> JobEnd:
        """Trains a job whose folder Hydra has made, where another launcher has taken it."""
        whole = HydraConfig.get()
        merged = OmegaConf.merge(OmegaConf.create({"hydra": whole}), config)
        assert isinstance(merged, DictConfig) and self.folder is not None
        composed = Composed(merged, self.loader)
        parcel, folder = pickle.dumps((preparation(composed), None)), Path(whole.runtime.output_dir)
        job = SweepJob(tuple(whole.overrides.task), "", "", "", parcel, int(whole.job.num), folder, is_known=True)
        return train_elsewhere(job, _settings(composed).threads, self.folder)


class DlspecLauncher(Launcher):
    """Runs the jobs one after the other in this process."""

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.context, self.task, self.master = hydra_context, task_function, config
        self.most: int | None = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if not isinstance(self.task, Task):  # another program's
            return run_tasks(self.context, self.task, self.master, job_overrides, initial_job_idx)
        begin(self.task, self.context, self.master, self.doers)
        return launched(self.task, self.context, self.master, job_overrides)

    def doers(self, workshop: Workshop, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Doers:
        return Here(workshop)


class PoolLauncher(DlspecLauncher):
    """Runs as many jobs at a time as there are cores or GPUs, each in a process that takes one after the other."""

    def doers(self, workshop: Workshop, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Doers:
        return pool(workshop, settings.workers or self.most, jobs, devices)


class OtherLauncher(DlspecLauncher):
    """Has the jobs done by another launcher of Hydra's, which the config names below this one."""

    def __init__(self, launcher: DictConfig) -> None:
        """It is made when there are jobs for it, with the sweep's folder in its settings."""

    def doers(self, workshop: Workshop, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Doers:
        return Elsewhere(workshop, self._launch, self._folder, self.most)

    def _folder(self) -> Path:
        """As a process that began elsewhere finds it."""
        folder: Path | None = self.task.folder
        assert folder is not None  # its jobs have folders
        self.task.folder = folder = folder.absolute()
        return folder

    def _launch(self, jobs: Sequence[SweepJob]) -> Sequence[JobReturn]:
        config = launcher_as_written(self.master)
        set_hydra(config, "sweep.dir", str(self._folder()))
        launcher = Plugins.instance().instantiate_launcher(self.context, self.task, config)
        words = [[*job.overrides, *_where(job.folder.absolute())] for job in jobs]
        with lost_alone():
            return launcher.launch(words, initial_job_idx=jobs[0].number)


def _where(folder: Path) -> list[str]:
    return [quoted("hydra.sweep.dir", str(folder.parent)), quoted("hydra.sweep.subdir", folder.name)]


class DlspecSweeper(Sweeper):
    """Hydra's grid, without composing each job twice, and without ending at the first failure."""

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.context, self.task, self.master = hydra_context, task_function, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """All jobs at once: they are checked before the first begins. A batch is what may run at a time."""
        assert isinstance(self.launcher, DlspecLauncher)
        self.launcher.most = self.max_batch_size
        return self.launcher.launch(self._jobs(arguments), 0)

    def _jobs(self, arguments: list[str]) -> list[list[str]]:
        # Imported here: Hydra's scan for plugins runs that module anew, and a class taken before it would be a twin.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        parser = OverridesParser.create(config_loader=self.context.config_loader)
        always = [f"{key}={value}" for key, value in self.params.items()]
        batches = BasicSweeper.split_arguments(parser.parse_overrides([*always, *arguments]), None)
        return [list(job) for batch in batches for job in batch]


# ---- a sweep's beginning ---------------------------------------------------------------------------------------------

Doing = Callable[[Workshop, SweepSpec, int, Collection[str]], Doers]


def begin(task: Task, context: HydraContext, config: DictConfig, doers: Doing) -> None:
    """The task's sweep, where it has none yet: a new one, or the one that its folder holds."""
    if task.sweep is not None:
        return
    settings = _settings(Composed(config, task.loader))
    HydraConfig.instance().set_config(config)
    wanted = Path(str(config.hydra.sweep.dir))
    is_new = "${now" in str(_raw(config, "dir"))  # another sweep of the same second is not this one
    record = None if is_new else read_sweep(wanted)
    if record is not None:
        task.folder, record.command, record.config_dir = record.folder, task.command, task.config_dir
    task.sweep = SweepRun(
        settings,
        record,
        partial(_create, task, config, wanted),
        partial(doers, Workshop(context, threads=settings.threads), settings),
        name=partial(_name, config),
    )


def _settings(composed: Composed) -> SweepSpec:
    tree = composed.tree.get("sweep", {})
    mistakes = Mistakes()
    settings = read_section(SweepSpec, tree, ("sweep",), mistakes)
    refuse(mistakes, composed.places)
    assert settings is not None  # or there was a mistake
    return settings


def _create(task: Task, config: DictConfig, wanted: Path) -> SweepRecord:
    """The sweep's folder, where what a sweeper writes itself shall stand too."""
    task.folder = new_folder(wanted.parent, wanted.name)
    set_hydra(config, "sweep.dir", str(task.folder))
    OmegaConf.save(config, task.folder / MULTIRUN)
    return SweepRecord(task.folder, command=task.command, config_dir=task.config_dir)


def _name(master: DictConfig, job: SweepJob, number: int) -> str:
    """What hydra.sweep.subdir says of a job."""
    if _raw(master, "subdir") == BY_NUMBER:
        return str(number)
    config = job.made()[1]
    assert config is not None  # Hydra asked for it
    HydraConfig.instance().set_config(numbered(config, number))
    return str(OmegaConf.select(config, "hydra.sweep.subdir"))


def _raw(master: DictConfig, key: str) -> Any:
    tree = OmegaConf.to_container(master.hydra.sweep, resolve=False)
    return tree.get(key) if isinstance(tree, dict) else None


def launched(
    task: Task, context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]]
) -> list[JobReturn]:
    """Runs the jobs in the task's sweep."""
    assert task.sweep is not None
    words = [tuple(str(each) for each in overrides) for overrides in job_overrides]
    drafts = [Draft(each, partial(_made, task.loader, context, config, each)) for each in words]
    return [_returned(entry) for entry in task.sweep.launch(drafts)]


def _made(loader: Loader, context: HydraContext, master: DictConfig, overrides: Sequence[str]) -> Made:
    config = context.config_loader.load_sweep_config(master, list(overrides))
    for key in ("launcher", "sweeper"):  # plugins' own classes, of which Hydra's scan makes twins
        set_hydra(config, key, OmegaConf.to_container(config.hydra[key], resolve=False))
    return preparation(Composed(config, loader)), config


def _returned(entry: Entry) -> JobReturn:
    """What a sweeper is told of a job: the monitored result, or an error."""
    row = entry.row
    assert row is not None
    returned = JobReturn(overrides=list(row.overrides), status=JobStatus.COMPLETED)
    if row.reached is not None:
        returned._return_value = row.reached.monitored
    else:
        error = UserError if row.status == "refused" else TrainingFailed
        returned.status, returned._return_value = JobStatus.FAILED, error(row.error)
    return returned


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
    _name_module(HOME)
    for cls in PLUGINS:
        cls.__module__ = HOME
    store = ConfigStore.instance()
    for name, cls in {"dlspec": DlspecLauncher, "pool": PoolLauncher}.items():
        store.store(group="hydra/launcher", name=name, node={"_target_": f"{HOME}.{cls.__name__}"})
    sweeper = {"_target_": f"{HOME}.DlspecSweeper", "max_batch_size": None, "params": None}
    store.store(group="hydra/sweeper", name="dlspec", node=sweeper)


def _name_module(name: str) -> None:
    """Lets this module be imported under a second name, in a package that exists only where a plugin is installed."""
    package, _, last = name.partition(".")
    try:
        parent = import_module(package)
    except ModuleNotFoundError:
        parent = sys.modules[package] = ModuleType(package)
        parent.__path__ = []  # Hydra looks through it
    sys.modules[name] = sys.modules[__name__]
    setattr(parent, last, sys.modules[__name__])
