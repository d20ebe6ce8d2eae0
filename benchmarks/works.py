"""The workloads of throughput.py: specs and their data, and the same networks and losses in plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import networks
from pairs import copy_weights
from torch import Tensor, nn
from torch.nn import functional

from dlspec.config.composition import compose, start_hydra
from dlspec.jobs.composed_spec import make_preparation
from dlspec.jobs.job import Job
from dlspec.jobs.job_setup import make_job
from dlspec.sweeps.hydra.plugins import register

SEED = 0
Loss = Callable[[Tensor, Tensor], Tensor]


def yes_or_no(output: Tensor, target: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(output.squeeze(1), target.float())


def next_token(output: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(output.flatten(0, 1), target.flatten())


@dataclass(frozen=True)
class Work:
    """A spec, its hand-written network and loss, and the numbers of samples per batch and epoch and epochs per turn."""

    title: str
    model: tuple[str, ...]
    data: tuple[str, ...]
    by_hand: Callable[[int | None], nn.Module]
    """Called with the vocabulary size, or None if the input is not tokens."""
    batch_size: int
    samples: int
    epochs: int = 1
    loss: Loss = functional.cross_entropy


def _cnn(_: int | None) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 26 * 26, 10))


def _mlp(_: int | None) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def _resnet18(_: int | None) -> nn.Module:
    return networks.resnet18(10, small=True)


NOISE = "data=random"
IMAGES = (NOISE, "data.shape=[1,28,28]")
WORDS = (NOISE, "data.shape=null", "data.vocab_size=20000", "data.length=200", "data.num_classes=2")
CHARACTERS = ("data=python_docs", "data.length=64")
MLP = ("model=linear", "model.layers=[Flatten,{Linear:128},ReLU,{Linear:10}]")
RESNET = ("model=resnet18", "model.params.small=true")
GPT = partial(networks.GPT, length=64, width=128, depth=4, heads=4, dropout=0.0, plain=True)
RGB = (NOISE, "data.shape=[3,32,32]")

WORKS: Mapping[str, Work] = {
    "cnn_32": Work("CNN, 32", ("model=cnn",), IMAGES, _cnn, 32, 10_240),
    "cnn_128": Work("CNN, 128", ("model=cnn",), IMAGES, _cnn, 128, 10_240),
    "cnn_512": Work("CNN, 512", ("model=cnn",), IMAGES, _cnn, 512, 10_240),
    "text_lstm": Work("text LSTM, 32", ("model=text_lstm",), WORDS, networks.TextLSTM, 32, 1_280, loss=yes_or_no),
    "mlp_32": Work("MLP, 32", MLP, ("data=digits",), _mlp, 32, 1_797, 40),
    "mlp_128": Work("MLP, 128", MLP, ("data=digits",), _mlp, 128, 1_797, 80),
    "resnet18": Work("ResNet-18, 32", RESNET, RGB, _resnet18, 32, 96),
    "gpt_small": Work("small GPT, 12", ("model=gpt_small",), CHARACTERS, GPT, 12, 480, loss=next_token),
}

# Larger workloads for a GPU.
GPU_WORKS: Mapping[str, Work] = {
    "cnn_32": Work("CNN, 32", ("model=cnn",), IMAGES, _cnn, 32, 20_480),
    "cnn_512": Work("CNN, 512", ("model=cnn",), IMAGES, _cnn, 512, 61_440),
    "text_lstm": Work("text LSTM, 32", ("model=text_lstm",), WORDS, networks.TextLSTM, 32, 6_400, loss=yes_or_no),
    "mlp_128": Work("MLP, 128", MLP, ("data=digits",), _mlp, 128, 1_797, 40),
    "resnet18": Work("ResNet-18, 256", RESNET, RGB, _resnet18, 256, 10_240),
    "gpt_small": Work("small GPT, 64", ("model=gpt_small",), CHARACTERS, GPT, 64, 6_400, loss=next_token),
}


@dataclass(frozen=True)
class Task:
    """A workload as it is run: samples per epoch, the device, and a folder with MNIST to replace the noise.

    `most_epochs` is larger than the number that will run, so that no contender reaches the end of its training.
    """

    name: str
    samples: int
    most_epochs: int
    mnist: str | None = None
    device: str = "cpu"

    @property
    def work(self) -> Work:
        return works_on(self.device)[self.name]

    def overrides(self, *more: str) -> list[str]:
        """The overrides of the command line for this task."""
        trainer = [
            f"epochs={self.most_epochs}",
            f"batch_size={self.work.batch_size}",
            f"device={self.device}",
            "progress=bar",
            "monitor=train/loss",
            "test=none",
        ]
        return [*self.work.model, *self._data(), f"seed={SEED}", *(f"trainer.{each}" for each in trainer), *more]

    def _data(self) -> list[str]:
        words = list(self.work.data)
        if self.mnist and self.work.data == IMAGES:
            words = ["data=mnist", f"data.path='{self.mnist}'"]
        if NOISE in words:
            words.append(f"data.size={self.samples}")
        split = ["data.validation=0", *([] if "data=mnist" in words else ["data.test=0"])]
        return [*words, *split, f"data.limit={self.samples}"]

    def start(self) -> tuple[nn.Module, Tensor, Tensor]:
        """Return the hand-written network with dlspec's initial weights, all inputs and all targets, on the CPU."""
        prepared = job(replace(self, device="cpu").overrides()).prepared
        [field], split = prepared.data.fields, prepared.data.train
        by_hand = self.work.by_hand(field.vocab_size)
        copy_weights(prepared.network.module, by_hand)
        return by_hand, split.input(field.name), split.get_loss_target(prepared.criterion.target_names[0])


def works_on(device: str) -> Mapping[str, Work]:
    return WORKS if device == "cpu" else GPU_WORKS


def job(overrides: list[str]) -> Job:
    """Make a job as the command line does: Hydra composes conf/ and these overrides."""
    register()
    return make_job(make_preparation(compose(overrides, start_hydra(None))))
