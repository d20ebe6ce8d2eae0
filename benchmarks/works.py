"""What is trained to measure speed: specs, their data and losses, and what is asked of a contender and answered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import TensorDataset

from dlspec.app.compose import compose, start_hydra
from dlspec.app.plugins import register
from dlspec.app.running import Job, make_job, preparation
from dlspec.data.dataset import Split

SEED = 0
NOISE = ("data=random", "data.test=0")
CNN = ("model=cnn", *NOISE, "data.shape=[1,28,28]")
Loss = Callable[[Tensor, Tensor], Tensor]


def yes_or_no(output: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(output.squeeze(1), target.float())


def next_token(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, 1), target.flatten())


@dataclass(frozen=True)
class Work:
    """A spec, how many samples a batch and an epoch have, and its loss in plain PyTorch."""

    title: str
    words: tuple[str, ...]
    batch_size: int
    samples: int
    loss: Loss = functional.cross_entropy
    sized: bool = True
    """Whether the data have as many samples as they are told; else an epoch is cut short."""

    @property
    def batches(self) -> int:
        return -(-self.samples // self.batch_size)


WORKS: Mapping[str, Work] = {
    "cnn_32": Work("article CNN, 32", CNN, 32, 10_000),
    "cnn_128": Work("article CNN, 128", CNN, 128, 10_000),
    "cnn_512": Work("article CNN, 512", CNN, 512, 10_000),
    "text_lstm": Work(
        "text LSTM, 32",
        (
            "model=text_lstm",
            *NOISE,
            "data.shape=null",
            "data.vocab_size=20000",
            "data.length=200",
            "data.num_classes=2",
        ),
        32,
        960,
        yes_or_no,
    ),
    "mlp_32": Work("MLP, 32", ("model=mlp", *NOISE, "data.shape=[64]"), 32, 20_000),
    "resnet18": Work(
        "ResNet-18, 32", ("model=resnet18", "model.params.small=true", *NOISE, "data.shape=[3,32,32]"), 32, 128
    ),
    "gpt_small": Work(
        "small GPT, 12x64", ("model=gpt_small", "data=python_docs", "data.length=64"), 12, 480, next_token, sized=False
    ),
}


@dataclass(frozen=True)
class Task:
    """An epoch of a work; a short one warms up."""

    work: str
    is_short: bool = False


@dataclass(frozen=True)
class Result:
    """Seconds of the epoch, of that on the CPU; the mean loss; bytes at the peak beyond what was held before."""

    seconds: float
    cpu: float
    loss: float
    peak: int
    note: str = ""
    more: Mapping[str, float] = field(default_factory=dict)


def overrides(work: Work, *more: str, is_short: bool = False, epochs: int = 1) -> list[str]:
    """The words of a command line that trains so."""
    size = [f"data.size={work.samples}"] if work.sized else []
    batches = 3 if is_short else work.batches
    trainer = [
        f"epochs={epochs}",
        f"batch_size={work.batch_size}",
        f"limit_batches={batches}",
        "device=cpu",
        "progress=bar",
        "monitor=train/loss",
        "test=none",
    ]
    return [*work.words, *size, "data.validation=0", f"seed={SEED}", *(f"trainer.{each}" for each in trainer), *more]


def job(words: list[str]) -> Job:
    """The way of the command line: Hydra composes conf/ and these overrides."""
    register()
    return make_job(preparation(compose(words, start_hydra(None))))


@cache
def _start(name: str) -> tuple[nn.Module, Split, tuple[str, ...], str]:
    prepared = job(overrides(WORKS[name])).prepared
    return prepared.network.module, prepared.data.train, prepared.network.inputs, prepared.criterion.target_names[0]


def start(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A copy of the network that dlspec starts from, all inputs and all targets."""
    network, split, (field,), target = _start(name)
    return deepcopy(network), split.input(field), split.compared(target)


def samples(name: str) -> TorchDataset[tuple[Tensor, ...]]:
    """As many as an epoch takes, for a DataLoader."""
    _, inputs, targets = start(name)
    return TensorDataset(inputs[: WORKS[name].samples], targets[: WORKS[name].samples])


def order(name: str) -> Tensor:
    """The samples of dlspec's first epoch, in its order."""
    generator = torch.Generator().manual_seed(SEED * 1_000_003 + 1)
    return torch.randperm(len(start(name)[2]), generator=generator)[: WORKS[name].samples]


def resident(key: str = "VmRSS") -> int:
    """This process's bytes in memory, or with `VmHWM` the most that it had."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def forget_peak() -> None:
    """The most that it had is from now on what it has."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
