"""Choose what runs a sweep's jobs: this process, or one process for each core or GPU."""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Mapping
from typing import Literal

import torch

from dlspec.data.batches.decoder_threads import count_cores
from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.inline_executor import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.executors.process_executor import ProcessExecutor
from dlspec.sweeps.executors.stacked_executor import StackedExecutor

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def choose_executor(
    worker: JobWorker,
    workers: int | None,
    jobs: int,
    devices: Collection[str],
    *,
    vectorize: bool | Literal["auto"] = False,
) -> Executor:
    """Choose processes if several jobs can run at once or `workers` was given, else this process.

    Args:
        worker: Trains the jobs.
        workers: Number of processes; None for one for each core or GPU.
        jobs: Number of jobs to run.
        devices: Values of `trainer.device` of the jobs, such as "auto", "cpu" or "cuda:1".
        vectorize: Whether jobs that differ only in numbers are stacked; "auto": where that is faster.
    """
    process_variables = list_process_variables(workers, devices)[:jobs]
    if vectorize and jobs > 1:
        return StackedExecutor(process_variables, worker, is_forced=vectorize is True)
    return (
        ProcessExecutor(process_variables, pickle.dumps(worker))
        if len(process_variables) > 1 or workers is not None
        else InlineExecutor(worker)
    )


def list_process_variables(workers: int | None, devices: Collection[str]) -> list[Mapping[str, str]]:
    """List the processes to start, each as the environment variables that are set in it."""
    if any(device.startswith("cuda:") for device in devices):
        return [{}] * (workers or 1)  # each job's spec names its GPU
    gpus = [] if set(devices) <= {"cpu"} else _list_gpus()
    if gpus:
        return [{VISIBLE_DEVICES: gpus[number % len(gpus)]} for number in range(workers or len(gpus))]
    needs_one_process = "mps" in devices or ("auto" in devices and torch.backends.mps.is_available())
    return [{}] * (workers or (1 if needs_one_process else count_cores()))


def _list_gpus() -> list[str]:
    """List the visible GPUs by number or name, without initializing CUDA in this process."""
    visible = os.environ.get(VISIBLE_DEVICES)
    count = torch.cuda.device_count()
    return [str(number) for number in range(count)] if visible is None else visible.split(",")[:count]
