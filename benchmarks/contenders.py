"""Those that train: a naive loop, the best loops that we can write by hand, dlspec in each of its modes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch.func import functional_call, grad_and_value
from torch.utils.data import DataLoader
from works import WORKS, Result, Task, forget_peak, job, order, overrides, resident, samples, start

from dlspec.app.running import Job
from dlspec.errors import UserError
from dlspec.training.callbacks import Callback
from dlspec.training.state import State

Contender = Callable[[Task], Result]
BASE: list[int] = []
"""What the process held before it trained first: libraries and data."""


class Meter:
    """Seconds and memory from its making on."""

    def __init__(self) -> None:
        if not BASE:
            BASE.append(resident())
        forget_peak()
        self.started, self.started_cpu = time.perf_counter(), time.process_time()

    def result(self, loss: float, note: str = "") -> Result:
        seconds, cpu = time.perf_counter() - self.started, time.process_time() - self.started_cpu
        return Result(seconds, cpu, loss, resident("VmHWM") - BASE[0], note)


def naive(task: Task) -> Result:
    """What a tutorial shows: a DataLoader, Adam as it is, the loss read at every step."""
    work = WORKS[task.work]
    network, inputs, targets = start(task.work)
    rows = order(task.work).tolist()
    loader = DataLoader(torch.utils.data.TensorDataset(inputs, targets), batch_size=work.batch_size, sampler=rows)
    optimizer = torch.optim.Adam(network.parameters())
    meter, total, count = Meter(), 0.0, 0
    for step, (batch, target) in enumerate(loader):
        if task.is_short and step == 3:
            break
        optimizer.zero_grad()
        loss = work.loss(network(batch), target)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(target)
        count += len(target)
    return meter.result(total / count)


def best(task: Task) -> Result:
    """The fastest eager loop we can write: whole tensors, gathered batches, fused Adam, nothing read in between."""
    work = WORKS[task.work]
    network, inputs, targets = start(task.work)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    total = torch.zeros(())
    meter = Meter()
    batches = order(task.work).split(work.batch_size)[: 3 if task.is_short else None]
    for rows in batches:
        optimizer.zero_grad(set_to_none=True)
        output = network(inputs.index_select(0, rows))
        loss = work.loss(output, targets.index_select(0, rows))
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
    return meter.result(total.item() / sum(map(len, batches)))


COMPILED: dict[str, Callable[..., torch.Tensor]] = {}


def compiled(task: Task) -> Result:
    """The best loop with its whole step, update included, compiled as one graph."""
    work = WORKS[task.work]
    network, inputs, targets = start(task.work)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    weights, buffers = dict(network.named_parameters()), dict(network.named_buffers())

    def loss_of(weights: Mapping[str, torch.Tensor], buffers: Mapping[str, torch.Tensor], batch, target):  # type: ignore[no-untyped-def]
        return work.loss(functional_call(network, {**weights, **buffers}, batch), target), buffers

    def step(batch: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        own = {name: each.detach() for name, each in weights.items()}
        moved = {name: each.clone() for name, each in buffers.items()}
        gradients, (loss, moved) = grad_and_value(loss_of, has_aux=True)(own, moved, batch, target)
        for name, each in buffers.items():
            each.copy_(moved[name])
        for name, each in weights.items():
            each.grad = gradients[name]
        optimizer.step()
        return loss

    fast = torch.compile(step, options={"layout_optimization": False})
    before = {name: each.clone() for name, each in network.state_dict().items()}
    batches = order(task.work).split(work.batch_size)[: 3 if task.is_short else None]
    for rows in batches[:2]:  # compiles, and is undone
        fast(inputs.index_select(0, rows), targets.index_select(0, rows))
    network.load_state_dict(before)
    for state in optimizer.state.values():
        for each in state.values():
            each.zero_()
    total = torch.zeros(())
    meter = Meter()
    for rows in batches:
        run = fast if len(rows) == work.batch_size else step
        total += run(inputs.index_select(0, rows), targets.index_select(0, rows)) * len(rows)
    return meter.result(total.item() / sum(map(len, batches)))


MODES: Mapping[str, tuple[str, ...]] = {
    "dlspec": (),
    "dlspec, compile=step": ("trainer.compile=step",),
    "dlspec, bf16": ("trainer.precision=bf16",),
    "dlspec, tune": ("trainer.tune=true",),
    "dlspec, tune=precision": ("trainer.tune=precision",),
}


def dlspec(task: Task, more: tuple[str, ...]) -> Result:
    """A whole run: bar on a terminal, metrics, log, metrics.jsonl, TensorBoard, checkpoints.

    What compiles or tunes trains a short epoch first, in the same run, which is not counted.
    """
    work = WORKS[task.work]
    warms = any("compile" in each or "tune" in each for each in more)
    words = overrides(work, *more, is_short=task.is_short, epochs=2 if warms else 1)
    clock = _Clock(2 if warms else 1)
    with tempfile.TemporaryDirectory() as folder, _terminal():
        made = job(words)
        if not BASE:
            BASE.append(resident())
        _add_callback(made, clock)
        outcome = made.run(Path(folder))
        _check_files(Path(folder))
    chosen = {
        key: value
        for key, value in made.prepared.resolved["trainer"].items()
        if key in ("allocator", "compile", "channels_last", "num_workers", "precision", "threads")
    }
    note = ", ".join(f"{key}={value}" for key, value in chosen.items() if "tune" in str(more))
    assert clock.result is not None
    loss = made.trainer.state.history[0]["train/loss"] if warms else outcome.results["train/loss"]
    return Result(clock.result.seconds, clock.result.cpu, loss, clock.result.peak, note)


class _Clock(Callback):
    """The last of the callbacks: an epoch ends when all others have drawn, written and saved what they want."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.meter: Meter | None = None
        self.result: Result | None = None

    def on_epoch_start(self, state: State) -> None:
        if state.epoch == self.epoch:
            self.meter = Meter()

    def on_epoch_end(self, state: State) -> None:
        if self.meter and state.epoch == self.epoch:
            self.result = self.meter.result(0.0)


def _add_callback(made: Job, clock: _Clock) -> None:
    use = made.trainer.use
    made.trainer.use = lambda callbacks: use([*callbacks, clock])  # type: ignore[method-assign]


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
    if hasattr(os, "sched_setaffinity"):  # a terminal draws on a core of its own
        os.sched_setaffinity(reader.pid, range(os.cpu_count() or 1))
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


def lightning(task: Task, **settings: bool) -> Result:
    """A LightningModule and a DataLoader, as its documentation shows."""
    import lightning as L

    work = WORKS[task.work]
    network, _, _ = start(task.work)

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch, index):  # type: ignore[no-untyped-def]
            loss = work.loss(self.network(batch[0]), batch[1])
            self.log("loss", loss, prog_bar=True, on_epoch=True)
            return loss

        def configure_optimizers(self):  # type: ignore[no-untyped-def]
            return torch.optim.Adam(self.parameters())

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer, module):  # type: ignore[no-untyped-def]
            self.meter = Meter()

        def on_train_end(self, trainer, module):  # type: ignore[no-untyped-def]
            self.result = self.meter.result(float(trainer.callback_metrics["loss"]))

    watch, loader = Watch(), DataLoader(samples(task.work), batch_size=work.batch_size, shuffle=True)
    with tempfile.TemporaryDirectory() as folder, _terminal():
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            devices=1,
            limit_train_batches=3 if task.is_short else None,
            default_root_dir=folder,
            callbacks=[watch],
            enable_model_summary=False,
            **settings,
        )
        trainer.fit(Module(), loader)
    return watch.result


def skorch(task: Task) -> Result:
    """`NeuralNet.partial_fit`, without a validation split."""
    from skorch import NeuralNet

    work = WORKS[task.work]
    network, inputs, targets = start(task.work)

    class Loss(torch.nn.Module):
        def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return work.loss(output, target)

    count = 3 * work.batch_size if task.is_short else work.samples
    net = NeuralNet(
        network,
        criterion=Loss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=work.batch_size,
        max_epochs=1,
        train_split=None,
        iterator_train__shuffle=True,
    )
    net.initialize()
    with _terminal():
        meter = Meter()
        net.partial_fit(inputs[:count], targets[:count])
        return meter.result(net.history[-1, "train_loss"])


CONTENDERS: Mapping[str, Contender] = {
    "naive": naive,
    "best eager": best,
    "best compiled": compiled,
    **{name: partial(dlspec, more=more) for name, more in MODES.items()},
    "Lightning": lightning,
    "Lightning, bare": partial(lightning, enable_progress_bar=False, logger=False, enable_checkpointing=False),
    "skorch": skorch,
}


def left_out(error: Exception) -> str:
    """Why a contender can't take part; '' where the error is one."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return str(error).split("\n")[0] if isinstance(error, UserError) else ""
