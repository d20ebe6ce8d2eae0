"""Jobs run in Hydra's way: with `.hydra/` in the run's folder and Hydra's callbacks called around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from hydra import version
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from dlspec.compat.hydra import (
    HydraApp,
    RunCallbacks,
    format_yaml,
    get_plain_value,
    get_return_value,
    has_callbacks,
    has_failed,
    make_completed_return,
    make_failed_return,
    set_config_writer,
)
from dlspec.config.composition import CONFIG_NAME, VERSION_BASE, ComposedConfig
from dlspec.config.conf_files import find_packaged_conf
from dlspec.config.hydra_node import set_hydra_value
from dlspec.config.job_config import JobConfig, pickle_config
from dlspec.errors import Code, Problem, SpecError, UserError, format_value
from dlspec.language.yaml.yaml_files import load_yaml_file
from dlspec.runs.file_access import refuse_links
from dlspec.runs.io import write_text_unsynced

T = TypeVar("T")


def _write_hydra_file(path: Path, text: str) -> None:
    """Write a file of `.hydra/` of the run that is active."""
    _write_confined(Path(HydraConfig.get().runtime.output_dir), path, text)


def _write_confined(folder: Path, path: Path, text: str) -> None:
    """Write a file of `.hydra/`, by the rule for all files below a run's folder."""
    if "\0" in str(path):
        found = f"hydra.output_subdir {format_value(path.parent.name)} can't be a folder's name"
        raise UserError(f"{found}; write hydra.output_subdir=.hydra, or leave it out")
    refuse_links(folder, [path.parent])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_unsynced(path, text)


def confine_hydra_files() -> None:
    """Make Hydra write `.hydra/` by the rule for all files below a run's folder, in this process."""
    set_config_writer(_write_hydra_file)


class ActiveHydraConfig:
    """The config that Hydra keeps in this process for the job that is running."""

    def exchange(self, kept: Any) -> Any:
        """Activate the config of another job, and return that of the one before."""
        instance = HydraConfig.instance()
        before, instance.cfg = instance.cfg, kept
        return before


def is_folder_named(config: DictConfig, key: str) -> bool:
    """Whether the user named a folder, on the command line or in a config file.

    Args:
        config: a composed config.
        key: the folder's key below `hydra`, such as `run.dir`.

    Raises:
        SpecError: if the section of the key is not a mapping.
    """
    section, _, last = key.partition(".")
    if not isinstance(config.hydra[section], DictConfig):  # an interpolation that gives something else
        found = f"expected a mapping that names a folder ('{last}'), got {format_value(config.hydra[section])}"
        raise SpecError([Problem(Code.WRONG_TYPE, f"hydra.{section}", found, f"write hydra.{key}=FOLDER")])
    return bool(get_plain_value(config.hydra[section], last) != _read_default_folders()[section][last])


def _read_folder_name(config: DictConfig, key: str) -> str:
    name = OmegaConf.select(config, key)
    if name is None:  # `???`
        raise UserError(f"{key} has no value; set it to the name of a folder: {key}=FOLDER")
    return str(name)


@cache
def _read_default_folders() -> Mapping[str, Mapping[str, str]]:
    """Read the names that dlspec's own config gives to the folders of runs and sweeps."""
    tree: Mapping[str, Any] = load_yaml_file(find_packaged_conf() / "dlspec.yaml").tree
    return {section: tree["hydra"][section] for section in ("run", "sweep")}


@contextmanager
def _name_folder_in_errors(folder: Path) -> Iterator[None]:
    """Add a run's folder to an error of the system without a file's name: Hydra writes `.hydra/` to a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(folder)
        raise


def prepare_hydra_process() -> None:
    """Prepare a process for running jobs in which Hydra has not composed a config."""
    confine_hydra_files()
    version.setbase(VERSION_BASE)  # decides whether Hydra changes into the folder of a job
    setup_globals()


def unwrap_job_return(returned: JobReturn) -> Any:
    """Return the task's result, or raise the error that it raised.

    Hydra's own property prints to stderr before it raises.
    """
    value = get_return_value(returned)
    if has_failed(returned):
        raise value
    return value


def _catch_error(task: Callable[[], Any]) -> JobReturn:
    """Return how a task ended, as Hydra's `run_job` does."""
    try:
        return make_completed_return(task())
    except Exception as error:
        return make_failed_return(error)


class SingleRun:
    """A single run, outside of a sweep.

    Call `start_callbacks`, then `configured_folder`, make a folder, and call `run` with it.
    """

    def __init__(self, hydra: HydraApp, composed: ComposedConfig) -> None:
        confine_hydra_files()
        self._config = composed.config
        set_hydra_value(self._config, "mode", RunMode.RUN)
        self._callbacks = RunCallbacks(self._config)
        self._context = HydraContext(config_loader=hydra.config_loader, callbacks=self._callbacks)
        self._configured_folder: Path | None = None

    def start_callbacks(self) -> None:
        """Call `on_run_start` of Hydra's callbacks, which may change the config."""
        if has_callbacks(self._callbacks):
            self._callbacks.on_run_start(config=self._config, config_name=CONFIG_NAME)
            self._configured_folder = None

    @property
    def is_folder_named(self) -> bool:
        """Whether the user named the folder; dlspec adds a number to its own default name if the folder exists."""
        return is_folder_named(self._config, "run.dir")

    def configured_folder(self) -> Path:
        """Return the folder that `hydra.run.dir` names."""
        if self._configured_folder is None:
            if has_callbacks(self._callbacks):
                HydraConfig.instance().set_config(self._config)
            else:
                ActiveHydraConfig().exchange(self._config)  # `set_config` would keep a copy
            self._configured_folder = Path(_read_folder_name(self._config, "hydra.run.dir"))
        return self._configured_folder

    def run(self, folder: Path, task: Callable[[], Any]) -> JobReturn:
        """Run the task in a folder; `unwrap_job_return` gives its result or raises its error."""
        set_hydra_value(self._config, "run.dir", str(folder))
        job = HydraJob(JobConfig(pickle_config(self._config), ()))
        if not has_callbacks(self._callbacks) and job.is_plain:
            return _run_plain(job.config, folder.absolute(), lambda: _catch_error(task))
        with _name_folder_in_errors(folder):
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
    """The config of a sweep's job; it can run the job."""

    config: JobConfig

    def folder_name(self, number: int) -> str:
        """Return the name that `hydra.sweep.subdir` gives to the folder of the job with this number."""
        config = self.config.with_hydra_values(_name_number(number)).make()
        HydraConfig.instance().set_config(config)
        return _read_folder_name(config, "hydra.sweep.subdir")

    def run(self, context: HydraContext, number: int, folder: Path, task: Callable[[], T]) -> T:
        """Run a task as a job of a sweep and return its result.

        Args:
            context: Hydra's loader and callbacks.
            number: the job's number in the sweep.
            folder: the job's folder, directly in the sweep's folder.
            task: the function to run.
        """
        values = {**_name_number(number), "sweep.dir": str(folder.parent), "sweep.subdir": folder.name}
        config = self.config.with_hydra_values(values)
        if not has_callbacks(context.callbacks) and self.is_plain:
            return _run_plain(config, folder.absolute(), task)
        with _name_folder_in_errors(folder):
            returned = run_job(
                hydra_context=context,
                task_function=lambda _: task(),
                config=config.make(),
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
                configure_logging=False,
            )
        outcome: T = unwrap_job_return(returned)
        return outcome

    @property
    def is_plain(self) -> bool:
        """Whether the job runs in the present directory, with the present environment variables."""
        hydra = self.config.hydra_tree
        is_name_known = "${" not in str(hydra["output_subdir"])
        return is_name_known and not hydra["job"]["chdir"] and not hydra["job"]["env_set"]


def _name_number(number: int) -> dict[str, Any]:
    """Return the settings of Hydra that name a job's number."""
    return {"job.id": str(number), "job.num": number}


def _run_plain(config: JobConfig, folder: Path, task: Callable[[], T]) -> T:
    """Do what `run_job` does, but make the config only if somebody asks Hydra for it."""
    config = config.with_hydra_values({"runtime.output_dir": str(folder)})
    active = ActiveHydraConfig()
    before = active.exchange(_LateConfig(config))
    try:
        with _name_folder_in_errors(folder):
            _write_hydra_files(config, folder)
        return task()
    finally:
        active.exchange(before)


class _LateConfig:
    """Stands for a job's config in Hydra's global state; the config is made when its `hydra` node is read."""

    def __init__(self, config: JobConfig) -> None:
        self._config = config

    @cached_property
    def hydra(self) -> Any:
        """The `hydra` node, which `HydraConfig.get` returns."""
        return self._config.make().hydra


def _write_hydra_files(config: JobConfig, folder: Path) -> None:
    hydra_tree = config.hydra_tree
    name = hydra_tree["output_subdir"]
    if name is None:
        return
    contents = {
        "config.yaml": config.tree,
        "hydra.yaml": {"hydra": hydra_tree},
        "overrides.yaml": hydra_tree["overrides"]["task"],
    }
    for file_name, content in contents.items():
        _write_confined(folder, folder / name / file_name, format_yaml(content))


@dataclass(frozen=True)
class HydraJobRunner:
    """Runs a sweep's jobs in Hydra's way; it can be pickled for other processes."""

    context: HydraContext

    def run(self, job: HydraJob, number: int, folder: Path, task: Callable[[], T]) -> T:
        """Run a task as a job of a sweep and return its result.

        Args:
            job: the job's config.
            number: the job's number in the sweep.
            folder: the job's folder, directly in the sweep's folder.
            task: the function to run.
        """
        return job.run(self.context, number, folder, task)
