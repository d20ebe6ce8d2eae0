"""Which executor runs a sweep's jobs: this process, or others, one a core or one a GPU."""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Mapping

import torch

from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.inline_executor import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.executors.process_executor import ProcessExecutor

VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"


def choose_executor(worker: JobWorker, workers: int | None, jobs: int, devices: Collection[str]) -> Executor:
    """Processes where more than one job fits, or so many are asked for; else this process."""
    process_variables = list_process_variables(workers, devices)[:jobs]
    return (
        ProcessExecutor(process_variables, pickle.dumps(worker))
        if len(process_variables) > 1 or workers is not None
        else InlineExecutor(worker)
    )


def list_process_variables(workers: int | None, devices: Collection[str]) -> list[Mapping[str, str]]:
    """The variables of each process's environment."""
    if any(device.startswith("cuda:") for device in devices):
        return [{}] * (workers or 1)  # the jobs say themselves which one they take
    gpus = [] if set(devices) <= {"cpu"} else _list_gpus()
    if gpus:
        return [{VISIBLE_DEVICES: gpus[number % len(gpus)]} for number in range(workers or len(gpus))]
    needs_one_process = "mps" in devices or ("auto" in devices and torch.backends.mps.is_available())
    return [{}] * (workers or (1 if needs_one_process else count_cores()))


def _list_gpus() -> list[str]:
    """Their numbers or names, found without touching them."""
    visible = os.environ.get(VISIBLE_DEVICES)
    count = torch.cuda.device_count()
    return [str(number) for number in range(count)] if visible is None else visible.split(",")[:count]


def count_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
