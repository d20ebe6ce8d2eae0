"""The three that train the article's CNN: a naive loop, the best loop that we can write by hand, and dlspec."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from epoch import Result, Task
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from dlspec.app.compose import compose, start_hydra
from dlspec.app.plugins import register
from dlspec.app.running import Job, make_job, preparation
from dlspec.data.dataset import Dataset
from dlspec.preparing import Preparation
from dlspec.training.callbacks import Callback
from dlspec.training.state import State

SEED, EPOCH = 0, 1

Contender = Callable[[Task], Result]


def naive(task: Task) -> Result:
    """What a tutorial shows: a DataLoader, Adam as it is, loss and accuracy read at every step."""
    network, data = _start(task)
    samples = TensorDataset(*data.train.tensors.values(), data.train.target)
    order = RandomSampler(samples, generator=torch.Generator().manual_seed(_order_seed()))
    loader = DataLoader(samples, batch_size=task.batch_size, sampler=order)
    optimizer = torch.optim.Adam(network.parameters())
    total, correct, count = 0.0, 0, 0
    started, cpu = time.perf_counter(), time.process_time()
    for step, (images, labels) in enumerate(loader):
        if step == task.limit_batches:
            break
        optimizer.zero_grad()
        output = network(images)
        loss = functional.cross_entropy(output, labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        correct += (output.argmax(1) == labels).sum().item()
        count += len(labels)
    seconds = time.perf_counter() - started
    return Result(seconds, seconds, time.process_time() - cpu, total / count)


def best(task: Task) -> Result:
    """The fastest eager loop we can write: whole tensors, gathered batches, fused Adam, nothing read in between."""
    network, data = _start(task)
    (images,), labels = data.train.tensors.values(), data.train.target
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    total = torch.zeros(())
    started, cpu = time.perf_counter(), time.process_time()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_order_seed()))
    batches = order.split(task.batch_size)[: task.limit_batches]
    for rows in batches:
        optimizer.zero_grad(set_to_none=True)
        output = network(images.index_select(0, rows))
        loss = functional.cross_entropy(output, labels.index_select(0, rows))
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
    mean = total.item() / sum(len(rows) for rows in batches)
    seconds = time.perf_counter() - started
    return Result(seconds, seconds, time.process_time() - cpu, mean)


def dlspec(task: Task) -> Result:
    """A whole run of dlspec: bar on a terminal, metrics, log, metrics.jsonl, TensorBoard, checkpoints."""
    clock = _Clock()
    with tempfile.TemporaryDirectory() as folder, _terminal():
        job = _job(task)
        _add_callback(job, clock)
        outcome = job.run(Path(folder))
        _check_files(Path(folder))
    [row] = job.trainer.state.timing
    return Result(row["train_seconds"], clock.seconds, clock.cpu, outcome.results["train/loss"])


CONTENDERS: dict[str, Contender] = {"naive": naive, "best": best, "dlspec": dlspec}
STARTS: dict[Task, tuple[nn.Module, Dataset]] = {}


def _start(task: Task) -> tuple[nn.Module, Dataset]:
    """A copy of the network that dlspec would start from, and its data."""
    if task not in STARTS:
        prepared = _job(task).prepared
        STARTS[task] = prepared.network.module, prepared.data
    network, data = STARTS[task]
    return deepcopy(network), data


def _job(task: Task) -> Job:
    return make_job(_preparation(task))


def _preparation(task: Task) -> Preparation:
    """The way of the command line: Hydra composes conf/ and these overrides."""
    register()
    return preparation(compose(_overrides(task), start_hydra(None)))


def _overrides(task: Task) -> list[str]:
    noise = ["data=random", f"data.size={task.samples}", "data.test=0"]
    data = ["data=mnist", f"data.path='{task.data}'", f"data.limit={task.samples}"] if task.data else noise
    trainer = [
        "epochs=1",
        f"batch_size={task.batch_size}",
        "device=cpu",
        "progress=bar",
        "monitor=train/loss",
        "test=none",
    ]
    if task.limit_batches:
        trainer.append(f"limit_batches={task.limit_batches}")
    return ["model=cnn", *data, "data.validation=0", f"seed={SEED}", *(f"trainer.{each}" for each in trainer)]


def _order_seed() -> int:
    """The seed from which dlspec draws the order of the first epoch."""
    return SEED * 1_000_003 + EPOCH


class _Clock(Callback):
    """The last of the callbacks: an epoch ends when all others have drawn, written and saved what they want."""

    def __init__(self) -> None:
        self.started = self.started_cpu = self.seconds = self.cpu = 0.0

    def on_train_start(self, state: State) -> None:
        self.started, self.started_cpu = time.perf_counter(), time.process_time()

    def on_epoch_end(self, state: State) -> None:
        self.seconds, self.cpu = time.perf_counter() - self.started, time.process_time() - self.started_cpu


def _add_callback(job: Job, clock: _Clock) -> None:
    use = job.trainer.use
    job.trainer.use = lambda callbacks: use([*callbacks, clock])  # type: ignore[method-assign]


def _check_files(folder: Path) -> None:
    """What was to be switched on left its files."""
    wanted = ["metrics.jsonl", "timing.jsonl", "log.txt", "result.json", "spec.yaml", "events.*"]
    wanted += ["checkpoints/best.safetensors", "checkpoints/last.safetensors"]
    if missing := [name for name in wanted if not any(folder.glob(name))]:
        raise SystemExit(f"the run left no {', '.join(missing)}")


@contextmanager
def _terminal() -> Iterator[None]:
    """Standard output is a terminal of 100 columns, whose other end a process reads and forgets."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    reader = subprocess.Popen(["cat"], stdin=ours, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _free(reader.pid)
    before, sys.stdout = sys.stdout, os.fdopen(theirs, "w", encoding="utf-8")
    os.environ["TERM"] = "xterm-256color"
    try:
        yield
    finally:
        sys.stdout.close()
        sys.stdout = before
        os.close(ours)
        reader.terminate()
        reader.wait()


def _free(process: int) -> None:
    """A terminal draws on a core of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(process, range(os.cpu_count() or 1))
