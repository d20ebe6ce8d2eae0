"""Which executor runs a sweep's jobs: this process, or others, one a core or one a GPU."""

from __future__ import annotations

import os
import pickle
from collections.abc import Collection, Mapping

import torch

from dlspec.sweeps.executors.executor import Executor
from dlspec.sweeps.executors.inline import InlineExecutor
from dlspec.sweeps.executors.job_worker import JobWorker
from dlspec.sweeps.executors.processes import ProcessExecutor

VISIBLE = "CUDA_VISIBLE_DEVICES"


def choose_executor(worker: JobWorker, workers: int | None, jobs: int, devices: Collection[str]) -> Executor:
    """Processes where more than one job fits, or so many are asked for; else this process."""
    where = places(workers, devices)[:jobs]
    return (
        ProcessExecutor(where, pickle.dumps(worker))
        if len(where) > 1 or workers is not None
        else InlineExecutor(worker)
    )


def places(workers: int | None, devices: Collection[str]) -> list[Mapping[str, str]]:
    """The variables of each process's environment."""
    if any(device.startswith("cuda:") for device in devices):
        return [{}] * (workers or 1)  # the jobs say themselves which one they take
    gpus = [] if set(devices) <= {"cpu"} else _gpus()
    if gpus:
        return [{VISIBLE: gpus[number % len(gpus)]} for number in range(workers or len(gpus))]
    is_one = "mps" in devices or ("auto" in devices and torch.backends.mps.is_available())
    return [{}] * (workers or (1 if is_one else cores()))


def _gpus() -> list[str]:
    """Their numbers or names, found without touching them."""
    named = os.environ.get(VISIBLE)
    count = torch.cuda.device_count()
    return [str(number) for number in range(count)] if named is None else named.split(",")[:count]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
