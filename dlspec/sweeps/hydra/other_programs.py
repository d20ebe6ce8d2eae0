"""`hydra/launcher=pool` for Hydra programs other than dlspec: run any task function in several processes."""

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

from dlspec.compat.hydra import make_failed_return
from dlspec.data.batches.decoder_threads import count_cores
from dlspec.sweeps.executors.executor import TaskEnded
from dlspec.sweeps.executors.process_executor import ProcessPool

SECONDS_BETWEEN_POLLS = 1.0
JobOverrides = Sequence[Sequence[str]]


class OtherProgramWorker:
    """Runs jobs as Hydra's basic launcher does.

    Its tasks and results are bytes that were pickled separately. They must be unpickled after Hydra has searched for
    plugins: the search imports modules again, so objects that were unpickled before would have outdated classes.
    """

    def __init__(self, pickled: bytes) -> None:
        self.pickled = pickled
        self._loaded: tuple[HydraContext, TaskFunction] | None = None

    def __call__(self, config: bytes) -> bytes:
        import cloudpickle

        context, task = self._loaded = self._loaded or self._load_task()
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

    def _load_task(self) -> tuple[HydraContext, TaskFunction]:
        Plugins.instance()
        setup_globals()
        context, task, state = pickle.loads(self.pickled)
        Singleton.set_state(state)  # Hydra's global state: resolvers, plugins, names
        return context, task

    def stop(self) -> None:
        """Do nothing: the task function of another program can't be asked to stop."""


def run_other_program(
    context: HydraContext, task: TaskFunction, sweep_config: DictConfig, jobs: JobOverrides, first_number: int
) -> list[JobReturn]:
    """Run jobs of another program in one process for each core.

    Args:
        context: Hydra's context of the sweep.
        task: The program's task function.
        sweep_config: The sweep's config.
        jobs: The overrides of each job.
        first_number: Number of the first job.

    Returns:
        Hydra's `JobReturn` of each job, in order; a job whose process died has failed.
    """
    import cloudpickle  # pickles nested functions and those of a script, unlike pickle; installed with joblib

    Path(str(sweep_config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    configs = (
        _compose_job_config(context, sweep_config, overrides, number)
        for number, overrides in enumerate(jobs, start=first_number)
    )
    returned: dict[int, JobReturn] = {}
    worker = OtherProgramWorker(cloudpickle.dumps((context, task, Singleton.get_state())))
    with ProcessPool([{}] * min(count_cores(), len(jobs)), pickle.dumps(worker)) as processes:
        for event in processes.run([cloudpickle.dumps(config) for config in configs], SECONDS_BETWEEN_POLLS):
            if isinstance(event, TaskEnded):
                failure = (
                    _make_dead_process_return(jobs[event.task], event.death_reason) if event.death_reason else None
                )
                returned[event.task] = failure or pickle.loads(event.result)
    return [returned[number] for number in range(len(jobs))]


def _compose_job_config(
    context: HydraContext, sweep_config: DictConfig, overrides: Sequence[str], number: int
) -> DictConfig:
    config = context.config_loader.load_sweep_config(sweep_config, list(overrides))
    with open_dict(config):
        config.hydra.job.id, config.hydra.job.num = str(number), number
    return config


def _make_dead_process_return(overrides: Sequence[str], reason: str) -> JobReturn:
    return make_failed_return(RuntimeError(reason), list(overrides))
