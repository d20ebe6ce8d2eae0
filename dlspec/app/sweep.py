"""`-m`: Hydra's sweeps, made honest.

Each job is checked before its folder is made; one that is refused or fails stops no other, is told at once, and the
exit code tells at the end. A table of all jobs closes the sweep.
"""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from dlspec.app.compose import CONFIG_NAME, Composed, Loader, set_hydra
from dlspec.app.names import DONE, FAILED, WRONG
from dlspec.app.running import Job, make_job, new_folder, preparation
from dlspec.app.table import text_table
from dlspec.app.words import one_line, told
from dlspec.spec.yaml_files import display_name
from dlspec.training.out_of_memory import forget, free
from dlspec.training.state import Outcome

PLUGINS = "hydra_plugins.dlspec"


@dataclass(frozen=True)
class Row:
    """One job of a sweep: its overrides, and what came of it."""

    number: int
    overrides: tuple[str, ...]
    folder: Path | None = None
    outcome: Outcome | None = None
    error: BaseException | None = None

    @property
    def is_refused(self) -> bool:
        return self.error is not None and (told(self.error) or ("", FAILED))[1] == WRONG

    @property
    def word(self) -> str:
        return "refused" if self.is_refused else "failed" if isinstance(self.error, Exception) else "interrupted"


@dataclass
class Task:
    """Runs one job of a sweep. Hydra's other launchers call it with a composed config, in whatever process."""

    loader: Loader
    rows: list[Row] = field(default_factory=list)

    def __call__(self, config: DictConfig) -> float:
        """The monitored result of a job whose folder Hydra has made already."""
        whole = HydraConfig.get()
        folder, number = Path(whole.runtime.output_dir), int(whole.job.num)
        overrides: Any = OmegaConf.to_container(whole.overrides.task, resolve=False)
        merged = OmegaConf.merge(OmegaConf.create({"hydra": whole}), config)
        assert isinstance(merged, DictConfig)
        try:
            outcome = make_job(preparation(Composed(merged, self.loader))).run(folder)
        except BaseException as error:
            self.fail(Row(number, tuple(overrides), folder, error=error))
            raise
        self.rows.append(Row(number, tuple(overrides), folder, outcome))
        return outcome.monitored

    def fail(self, row: Row) -> None:
        """A failure is shown when it happens; one that is a defect of dlspec's own with its traceback."""
        error = row.error
        assert error is not None
        known = told(error)
        why = f": {known[0] if known else one_line(error)}" if row.word != "interrupted" else ""
        print(f"[{row.number}] {row.word}{why}", flush=True)
        if known is None and isinstance(error, Exception):
            traceback.print_exception(error)
        if isinstance(error, Exception):
            forget(error)  # or the table would keep the job's network
        self.rows.append(row)


class DlspecLauncher(Launcher):
    """Runs the jobs one after the other in this process, each checked before anything of it is written."""

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config
        self.folder: Path | None = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        numbered = enumerate(job_overrides, start=initial_job_idx)
        return [self._job(number, [str(each) for each in overrides]) for number, overrides in numbered]

    def _job(self, number: int, overrides: list[str]) -> JobReturn:
        print(f"[{number}] {' '.join(overrides)}", flush=True)
        free()  # what the job before left
        row = Row(number, tuple(overrides))
        try:
            config = self._compose(number, overrides)
            job = make_job(preparation(Composed(config, self.task.loader)))
            self._make_folder(job, config)
            returned = self._run(job, config)
        except BaseException as error:
            self.task.fail(replace(row, error=error))
            if not isinstance(error, Exception):
                raise  # Ctrl-C ends the sweep
            return _failed(overrides, error)
        result, folder = returned._return_value, Path(config.hydra.runtime.output_dir)
        if returned.status == JobStatus.FAILED:
            self.task.fail(replace(row, folder=folder, error=result))
            return returned
        self.task.rows.append(replace(row, folder=folder, outcome=result))
        returned._return_value = result.monitored
        return returned

    def _compose(self, number: int, overrides: list[str]) -> DictConfig:
        config = self.context.config_loader.load_sweep_config(self.config, overrides)
        set_hydra(config, "job.id", str(number))
        set_hydra(config, "job.num", number)
        return config

    def _run(self, job: Job, config: DictConfig) -> JobReturn:
        return run_job(
            hydra_context=self.context,
            task_function=lambda _: job.run(Path(HydraConfig.get().runtime.output_dir)),
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            configure_logging=False,
        )

    def _make_folder(self, job: Job, config: DictConfig) -> None:
        """The job's own, with a number behind it where another job has that name."""
        whole = self._sweep_folder()
        set_hydra(config, "sweep.dir", str(whole))
        HydraConfig.instance().set_config(config)
        wanted = whole / str(OmegaConf.select(config, "hydra.sweep.subdir"))
        job.check_space(wanted.parent)
        made = new_folder(wanted.parent, wanted.name)
        set_hydra(config, "sweep.subdir", os.path.relpath(made, whole))

    def _sweep_folder(self) -> Path:
        """Made for the first job that runs: a sweep of which every job is refused leaves nothing."""
        if self.folder is None:
            HydraConfig.instance().set_config(self.config)
            wanted = Path(str(self.config.hydra.sweep.dir))
            if self.config.hydra.runtime.choices["hydra/sweeper"] == "basic":
                return wanted  # that sweeper has made it
            self.folder = new_folder(wanted.parent, wanted.name)
            OmegaConf.save(self.config, self.folder / "multirun.yaml")
        return self.folder


def _failed(overrides: Sequence[str], error: Exception) -> JobReturn:
    returned = JobReturn(overrides=list(overrides), status=JobStatus.FAILED)
    returned._return_value = error
    return returned


class DlspecSweeper(Sweeper):
    """Hydra's grid, without composing each job twice, and without ending at the first failure."""

    def __init__(self, max_batch_size: int | None, params: Mapping[str, str] | None = None) -> None:
        self.max_batch_size, self.params = max_batch_size, params or {}

    def setup(self, *, hydra_context: HydraContext, task_function: Any, config: DictConfig) -> None:
        self.context = hydra_context
        self.launcher: Launcher = Plugins.instance().instantiate_launcher(hydra_context, task_function, config)

    def sweep(self, arguments: list[str]) -> Any:
        # Imported here: Hydra's scan for plugins runs that module anew, and a class taken before it would be a twin.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        parser = OverridesParser.create(config_loader=self.context.config_loader)
        always = [f"{key}={value}" for key, value in self.params.items()]
        overrides = parser.parse_overrides([*always, *arguments])
        batches = BasicSweeper.split_arguments(overrides, self.max_batch_size)
        returned: list[JobReturn] = []
        for batch in batches:
            returned += self.launcher.launch(batch, initial_job_idx=len(returned))
        return returned


def register() -> None:
    """Makes the launcher and the sweeper known to Hydra, which takes plugins from packages of that name alone."""
    plugins = Plugins.instance()  # it looks through the installed plugins first, and would import ours twice
    _name_module(PLUGINS)
    for cls in (DlspecLauncher, DlspecSweeper):
        cls.__module__ = PLUGINS
        plugins.register(cls)
    store = ConfigStore.instance()
    store.store(group="hydra/launcher", name="dlspec", node={"_target_": f"{PLUGINS}.DlspecLauncher"})
    sweeper = {"_target_": f"{PLUGINS}.DlspecSweeper", "max_batch_size": None, "params": None}
    store.store(group="hydra/sweeper", name="dlspec", node=sweeper)


def _name_module(name: str) -> None:
    """Lets this module be imported under a second name, in a package that exists only where a plugin is installed."""
    package, _, last = name.partition(".")
    try:
        parent = import_module(package)
    except ModuleNotFoundError:
        parent = sys.modules[package] = ModuleType(package)
    sys.modules[name] = sys.modules[__name__]
    setattr(parent, last, sys.modules[__name__])


def run(hydra: Hydra, overrides: Sequence[str]) -> int:
    """The sweep, its table, and its exit code: 1 if a job failed, 2 if one was refused."""
    loader = hydra.config_loader
    assert isinstance(loader, Loader)
    task = Task(loader)
    try:
        returned = hydra.multirun(CONFIG_NAME, task, [*overrides, "hydra.mode=MULTIRUN"], with_log_configuration=False)
    except KeyboardInterrupt:
        print_table(task.rows)
        raise
    if not task.rows:  # the jobs ran in other processes
        task.rows = [_row(number, each) for number, each in enumerate(returned or [])]
    print_table(task.rows)
    if any(row.error is not None and not row.is_refused for row in task.rows):
        return FAILED
    return WRONG if any(row.is_refused for row in task.rows) else DONE


def _row(number: int, returned: JobReturn) -> Row:
    error = returned._return_value if returned.status == JobStatus.FAILED else None
    return Row(number, tuple(returned.overrides or ()), error=error)


def print_table(rows: Sequence[Row]) -> None:
    """What differs, the result, the folder: a line a job, the best first."""
    if not rows:
        return
    keys, results = _differing(rows), _result_names(rows)
    lines = [
        [str(row.number), *_values(row, keys), *_results(row, results), _folder_or_error(row)]
        for row in sorted(rows, key=_rank)
    ]
    print(f"\n{text_table(['job', *keys, *results, 'folder'], lines)}")
    counts = Counter("done" if row.error is None else row.word for row in rows)
    parts = [f"{counts[word]} {word}" for word in ("done", "refused", "failed", "interrupted") if counts[word]]
    print(f"{len(rows)} job{'s' if len(rows) != 1 else ''}: {', '.join(parts)}", flush=True)


def _differing(rows: Sequence[Row]) -> list[str]:
    """The overrides' keys whose values are not the same for all jobs; all of them where there is one job."""
    settings = [_settings(row) for row in rows]
    keys = list(dict.fromkeys(key for each in settings for key in each))
    return [key for key in keys if len(rows) == 1 or len({each.get(key) for each in settings}) > 1]


def _settings(row: Row) -> dict[str, str]:
    return {key.lstrip("+~"): value for key, _, value in (each.partition("=") for each in row.overrides)}


def _values(row: Row, keys: Sequence[str]) -> list[str]:
    return [_settings(row).get(key, "") for key in keys]


def _result_names(rows: Sequence[Row]) -> list[str]:
    """The monitored result and the test's, as the jobs have them."""
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    return list(dict.fromkeys(name for each in outcomes for name in (each.monitor, *each.test)))


def _results(row: Row, names: Sequence[str]) -> list[str]:
    if row.outcome is None:
        return ["" for _ in names]
    results = {row.outcome.monitor: row.outcome.monitored, **row.outcome.test}
    return [f"{results[name]:.4g}" if name in results else "" for name in names]


def _rank(row: Row) -> tuple[bool, float]:
    """Jobs with a result first, the better before the worse."""
    if row.outcome is None:
        return True, row.number
    value = row.outcome.monitored
    return False, math.inf if math.isnan(value) else value if row.outcome.mode == "min" else -value


def _folder_or_error(row: Row) -> str:
    if row.error is not None:
        return row.word if row.word == "interrupted" else f"{row.word}: {one_line(row.error)}"
    return display_name(row.folder) if row.folder else ""
