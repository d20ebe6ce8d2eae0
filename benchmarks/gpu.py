"""Training on a GPU: dlspec, everything switched on, beside a naive loop and the best eager loop that we can write.

python benchmarks/gpu.py [--rounds 5] [--works cnn_32,resnet18_32px]

Each work's three contenders start from the same weights, see the same batches in the same order and end at the same
loss up to rounding; they are taken in turn, an epoch a round, after one that is not counted. The epoch ends when the
device has done everything. Peak memory is what PyTorch allocated on the device. Data are noise of the work's shape.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import machine, spread, table
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from dlspec.app.running import Job, make_job
from dlspec.face import _preparation
from dlspec.training.batches import permutation

IMAGES = ["data=random", "data.validation=0", "data.test=0"]
# What is trained, its batch size and how many samples an epoch has.
WORKS: Mapping[str, tuple[list[str], int, int]] = {
    "cnn_32": (["model=cnn", *IMAGES, "data.shape=[1,28,28]"], 32, 20_000),
    "cnn_512": (["model=cnn", *IMAGES, "data.shape=[1,28,28]"], 512, 60_000),
    "mlp_4096": (["model=mlp", *IMAGES, "data.shape=[784]"], 4096, 200_000),
    "resnet18_32px": (["model=resnet18", "model.params.small=true", *IMAGES, "data.shape=[3,32,32]"], 256, 10_000),
    "text_lstm": (
        ["model=text_lstm", *IMAGES, "data.shape=null", "data.vocab_size=20000", "data.length=200"],
        32,
        6_400,
    ),
}


MODES: Mapping[str, list[str]] = {
    "eager": [],
    "tf32": ["trainer.precision=tf32"],
    "bf16": ["trainer.precision=bf16"],
    "16": ["trainer.precision=16"],
    "compile: model": ["trainer.compile=model"],
    "compile: step": ["trainer.compile=step"],
    "compile: step, bf16": ["trainer.compile=step", "trainer.precision=bf16"],
}


@dataclass
class Measured:
    """An epoch: samples a second, mean loss, peak bytes on the device."""

    speed: float
    loss: float
    peak: int


def main() -> None:
    arguments = _arguments()
    torch.backends.cuda.matmul.allow_tf32 = False
    about = f"{torch.cuda.get_device_name()}; {machine('torch')}; float32"
    print(f"{about}; median of {arguments.rounds} rounds (quartiles)\n")
    rows = [_row(name, arguments.rounds) for name in arguments.works.split(",")]
    head = [
        "work",
        "naive, samples/s",
        "best by hand",
        "dlspec",
        "dlspec / naive",
        "dlspec / best",
        "MiB: best, dlspec",
    ]
    print(table(head, rows))
    print("\ndlspec's modes, samples/s of a run's second epoch (the first compiles)\n")
    print(table(["work", *MODES], [_modes(name) for name in arguments.works.split(",")]))


def _row(name: str, rounds: int) -> list[str]:
    overrides, batch_size, samples = WORKS[name]
    job = _job(overrides, batch_size, samples, epochs=1)
    network, data = deepcopy(job.prepared.network.module), job.prepared.data
    tensors = [data.train.input(each) for each in job.prepared.network.inputs]
    contenders: dict[str, Callable[[], Measured]] = {
        "naive": lambda: _naive(deepcopy(network).cuda(), tensors, data.train.target, batch_size),
        "best": lambda: _best(deepcopy(network).cuda(), tensors, data.train.target, batch_size),
        "dlspec": lambda: _dlspec(overrides, batch_size, samples),
    }
    found: dict[str, list[Measured]] = {each: [] for each in contenders}
    for count in range(rounds + 1):
        for each, run in contenders.items():
            torch.cuda.reset_peak_memory_stats()
            measured = run()
            if count:
                found[each].append(measured)
    losses = [each[-1].loss for each in found.values()]
    assert max(losses) - min(losses) < 1e-2 * abs(losses[0]), (name, losses)
    speeds = {each: [one.speed for one in measured] for each, measured in found.items()}
    cells = [f"{spread(each):,.0f}" for each in speeds.values()]
    for other in ("naive", "best"):
        ratios = [mine / theirs for mine, theirs in zip(speeds["dlspec"], speeds[other], strict=True)]
        cells.append(f"{spread(ratios):.2f}")
    peaks = [f"{found[each][-1].peak / 2**20:.0f}" for each in ("best", "dlspec")]
    row = [name, *cells, ", ".join(peaks)]
    print("  ".join(row), flush=True)
    return row


def _modes(name: str) -> list[str]:
    """A row: each mode's speed, or the error that ended it."""
    overrides, batch_size, samples = WORKS[name]
    cells = [name]
    for more in MODES.values():
        try:
            measured = _dlspec([*overrides, *more], batch_size, samples, epochs=2)
            cells.append(f"{measured.speed:,.0f} ({measured.loss:.4f})")
        except Exception as error:
            cells.append(str(error).split("\n")[0][:60])
    print("  ".join(cells), flush=True)
    return cells


def _job(overrides: list[str], batch_size: int, samples: int, epochs: int) -> Job:
    more = {"epochs": epochs, "batch_size": batch_size, "monitor": "train/loss", "test": "none", "progress": "lines"}
    words = [*overrides, f"data.size={samples}", *(f"trainer.{key}={value}" for key, value in more.items())]
    return make_job(_preparation(words, None))


def _dlspec(overrides: list[str], batch_size: int, samples: int, epochs: int = 1) -> Measured:
    """A whole run with its folder; the time of its last epoch, which ends when the loss was read."""
    job = _job(overrides, batch_size, samples, epochs)
    with tempfile.TemporaryDirectory() as folder:
        outcome = job.run(Path(folder))
    row = job.trainer.state.timing[-1]
    return Measured(row["samples"] / row["train_seconds"], outcome.results["train/loss"], _peak())


def _peak() -> int:
    return torch.cuda.max_memory_allocated()


def _naive(network: nn.Module, inputs: list[Tensor], target: Tensor, batch_size: int) -> Measured:
    """What a tutorial shows: a DataLoader, Adam as it is, the loss read at every step."""
    order = permutation(len(target), 0, 1)
    loader = DataLoader(TensorDataset(*inputs, target), batch_size=batch_size, sampler=order.tolist())
    optimizer = torch.optim.Adam(network.parameters())
    total = 0.0
    torch.cuda.synchronize()
    started = time.perf_counter()
    for *batch, labels in loader:
        optimizer.zero_grad()
        loss = functional.cross_entropy(network(*(each.cuda() for each in batch)), labels.cuda())
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
    return Measured(len(target) / (time.perf_counter() - started), total / len(target), _peak())


def _best(network: nn.Module, inputs: list[Tensor], target: Tensor, batch_size: int) -> Measured:
    """Whole tensors on the device, gathered batches, fused Adam, nothing read in between."""
    on_device, labels = [each.cuda() for each in inputs], target.cuda()
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    total = torch.zeros((), device="cuda")
    torch.cuda.synchronize()
    started = time.perf_counter()
    for rows in permutation(len(target), 0, 1).cuda().split(batch_size):
        optimizer.zero_grad(set_to_none=True)
        output = network(*(each.index_select(0, rows) for each in on_device))
        loss = functional.cross_entropy(output, labels.index_select(0, rows))
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(rows)
    mean = total.item() / len(target)
    return Measured(len(target) / (time.perf_counter() - started), mean, _peak())


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--works", default=",".join(WORKS))
    return parser.parse_args()


if __name__ == "__main__":
    main()
