"""What Hydra knows of dlspec: its sweeper, and its launchers `pool` and `dlspec`.

Hydra takes plugins from packages named hydra_plugins alone; ours get such a name when they are registered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
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

from dlspec.app.compose import Composed, Loader, set_hydra
from dlspec.app.names import FAILED, WRONG
from dlspec.app.overrides import quoted
from dlspec.app.pool_tasks import run_tasks
from dlspec.app.processes import Began, Ended
from dlspec.app.running import new_folder, preparation
from dlspec.app.sweep_job import Check, Draft, JobEnd, Made, SweepJob
from dlspec.app.sweep_places import Doers, Here, Shown, pool
from dlspec.app.sweep_plan import Entry
from dlspec.app.sweep_record import Status, SweepRecord, read_sweep
from dlspec.app.sweep_run import SweepRun
from dlspec.app.sweep_table import Row
from dlspec.app.sweep_work import Workshop, numbered
from dlspec.app.words import one_line, told
from dlspec.errors import UserError
from dlspec.registry.sections import read_section
from dlspec.spec.mistakes import Mistakes, refuse
from dlspec.spec.sweep import SweepSpec
from dlspec.training.state import TrainingFailed

HOME = "hydra_plugins.dlspec"
BY_NUMBER = "${hydra:job.num}"


class Task:
    """What Hydra is to run: one sweep. Other launchers call it with a job's config, in whatever process."""

    def __init__(self, loader: Loader, command: list[str] | None = None, config_dir: str | None = None) -> None:
        self.loader, self.command, self.config_dir = loader, command, config_dir
        self.sweep: SweepRun | None = None

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

    @property
    def folder(self) -> Path | None:
        return None if self.sweep is None or self.sweep.record is None else self.sweep.record.folder

    def __call__(self, config: DictConfig) -> float:
        """The monitored result of a job whose folder Hydra has made; told where it runs, as nobody else hears of it."""
        whole = HydraConfig.get()
        folder, overrides = Path(whole.runtime.output_dir), tuple(whole.overrides.task)
        merged = OmegaConf.merge(OmegaConf.create({"hydra": whole}), config)
        assert isinstance(merged, DictConfig)
        made = preparation(Composed(merged, self.loader)), None
        end = Workshop(None, is_apart=False)(_OwnJob(overrides, "", "", "", b"", int(whole.job.num), folder, own=made))
        why = f": {end.error}" if end.error else ""
        print(f"[{whole.job.num}] {' '.join(overrides)}  {end.status}{why}", flush=True)
        if end.status == "interrupted":
            raise KeyboardInterrupt(end.error)
        if end.status != "finished" or end.monitored is None:
            raise _error(end.status, end.text)
        return end.monitored


@dataclass(frozen=True)
class _OwnJob(SweepJob):
    """One that goes nowhere else."""

    own: Made | None = None

    def made(self) -> Made:
        assert self.own is not None
        return self.own


def _error(status: str, text: str) -> Exception:
    return UserError(text) if status == "refused" else TrainingFailed(text)


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


class DlspecSweeper(Sweeper):
    """Hydra's grid, without composing each job twice, and without ending at the first failure."""

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.context, self.task, self.master = hydra_context, task_function, config
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        """All jobs at once: they are checked before the first begins. A batch is what may run at a time."""
        jobs = self._jobs(arguments)
        if isinstance(self.launcher, DlspecLauncher):
            self.launcher.most = self.max_batch_size
            return self.launcher.launch(jobs, 0)
        begin(self.task, self.context, self.master, self._doers)
        return launched(self.task, self.context, self.master, jobs)

    def _jobs(self, arguments: list[str]) -> list[list[str]]:
        # Imported here: Hydra's scan for plugins runs that module anew, and a class taken before it would be a twin.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        parser = OverridesParser.create(config_loader=self.context.config_loader)
        always = [f"{key}={value}" for key, value in self.params.items()]
        batches = BasicSweeper.split_arguments(parser.parse_overrides([*always, *arguments]), None)
        return [list(job) for batch in batches for job in batch]

    def _doers(self, workshop: Workshop, settings: SweepSpec, jobs: int, devices: Collection[str]) -> Doers:
        return ByLauncher(self.launcher, workshop, self.max_batch_size or jobs)


class ByLauncher(Here):
    """Has the jobs done by another launcher of Hydra's, so many at once. Each tells of itself, where it runs."""

    shown: Shown = "nothing"

    def __init__(self, launcher: Launcher, workshop: Workshop, most: int) -> None:
        super().__init__(workshop)
        self._launcher, self._most = launcher, most

    def run(self, tasks: Iterable[Any], seconds: float) -> Iterator[Began | Ended | None]:
        numbered_tasks = list(enumerate(tasks))
        if any(isinstance(task, Check) for _, task in numbered_tasks):
            yield from super().run((task for _, task in numbered_tasks), seconds)
            return
        while numbered_tasks and not self.is_stopping:
            batch, numbered_tasks = numbered_tasks[: self._most], numbered_tasks[self._most :]
            yield from (Began(number) for number, _ in batch)
            overrides = [[*job.overrides, *_where(job.folder)] for _, job in batch]
            returned = self._launcher.launch(overrides, initial_job_idx=batch[0][1].number)
            yield from (Ended(number, _end(each)) for (number, _), each in zip(batch, returned, strict=True))


def _where(folder: Path) -> list[str]:
    return [quoted("hydra.sweep.dir", str(folder.parent)), quoted("hydra.sweep.subdir", folder.name)]


def _end(returned: JobReturn) -> JobEnd:
    result = returned._return_value
    if returned.status != JobStatus.FAILED:
        return JobEnd("finished", monitored=result if isinstance(result, float) else None)
    status: Status = "refused" if (told(result) or ("", FAILED))[1] == WRONG else "failed"
    return JobEnd(status, one_line(result), str(result))


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
        record.command, record.config_dir = task.command, task.config_dir
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
    """The sweep's folder. Hydra's own sweeper has made it already."""
    folder = wanted
    if config.hydra.runtime.choices["hydra/sweeper"] != "basic":
        folder = new_folder(wanted.parent, wanted.name)
        OmegaConf.save(config, folder / "multirun.yaml")
    return SweepRecord(folder, command=task.command, config_dir=task.config_dir)


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
        returned.status, returned._return_value = JobStatus.FAILED, _error(row.status, row.error)
    return returned


# ---- known to Hydra --------------------------------------------------------------------------------------------------

PLUGINS: tuple[type[Plugin], ...] = (DlspecLauncher, PoolLauncher, DlspecSweeper)


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
