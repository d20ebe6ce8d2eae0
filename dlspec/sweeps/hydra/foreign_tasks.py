"""`hydra/launcher=pool` for a program that is not dlspec's: any task function of Hydra's, in processes."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from dlspec.compat.hydra import failed_return
from dlspec.sweeps.executors.executor import Ended
from dlspec.sweeps.executors.pool import cores
from dlspec.sweeps.executors.processes import Processes

SECONDS_BETWEEN_LOOKS = 1.0
Jobs = Sequence[Sequence[str]]


class TaskWorker:
    """Runs jobs as Hydra's own launcher does. All that goes to it and comes from it is pickled once more.

    For Hydra's scan for plugins imports modules anew, and what was unpickled before it has twins of their classes.
    """

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled
        self._known: tuple[HydraContext, TaskFunction] | None = None

    def __call__(self, config: bytes) -> bytes:
        import cloudpickle

        context, task = self._known = self._known or self._begin()
        loaded: DictConfig = pickle.loads(config)
        HydraConfig.instance().set_config(loaded)
        returned = run_job(
            hydra_context=context,
            task_function=task,
            config=loaded,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        pickled: bytes = cloudpickle.dumps(returned)
        return pickled

    def _begin(self) -> tuple[HydraContext, TaskFunction]:
        Plugins.instance()
        setup_globals()
        context, task, state = pickle.loads(self.pickled)
        Singleton.set_state(state)  # what Hydra keeps in its process: resolvers, plugins, names
        return context, task

    def stop(self) -> None:
        """A task that is not dlspec's knows no such wish."""


def run_tasks(context: HydraContext, task: TaskFunction, master: DictConfig, jobs: Jobs, first: int) -> list[JobReturn]:
    """What each job gave, in their order; a process that died is a job that failed."""
    import cloudpickle  # for functions within functions, and of a script; joblib brings it

    Path(str(master.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    configs = (_config(context, master, overrides, number) for number, overrides in enumerate(jobs, start=first))
    returned: dict[int, JobReturn] = {}
    worker = TaskWorker(cloudpickle.dumps((context, task, Singleton.get_state())))
    with Processes([{}] * min(cores(), len(jobs)), pickle.dumps(worker)) as processes:
        for event in processes.run([cloudpickle.dumps(config) for config in configs], SECONDS_BETWEEN_LOOKS):
            if isinstance(event, Ended):
                died = _died(jobs[event.task], event.died) if event.died else None
                returned[event.task] = died or pickle.loads(event.result)
    return [returned[number] for number in range(len(jobs))]


def _config(context: HydraContext, master: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
    config = context.config_loader.load_sweep_config(master, list(overrides))
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    return config


def _died(overrides: Sequence[str], why: str) -> JobReturn:
    return failed_return(RuntimeError(why), list(overrides))
