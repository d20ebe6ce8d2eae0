"""Networks that exist twice: built by dlspec from conf/model/, and written by hand in networks.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networks
import torch
from torch import Tensor, nn

import dlspec


@dataclass(frozen=True)
class Pair:
    """The overrides and data facts for dlspec, and the function that builds the same network by hand."""

    overrides: Sequence[str]
    data: Mapping[str, Any]
    by_hand: Callable[[], nn.Module]

    def build(self) -> nn.Module:
        """Build with dlspec, starting from the file: compose, check, expand, build and trace."""
        return dlspec.build([*self.overrides, "trainer.device=cpu"], self.data)

    def both(self) -> tuple[nn.Module, nn.Module]:
        """Build dlspec's network and the hand-written one, with the same weights."""
        ours, by_hand = self.build(), self.by_hand()
        copy_weights(ours, by_hand)
        return ours, by_hand

    def batch(self, size: int) -> Tensor:
        """A batch of noise that the network accepts."""
        if "vocab_size" in self.data:
            return torch.randint(self.data["vocab_size"], (size, self.data["length"]))
        return torch.randn(size, *self.data["shape"])


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers in order, because their names differ."""
    with torch.no_grad():
        for theirs, mine in zip(source.parameters(), target.parameters(), strict=True):
            mine.copy_(theirs)
        for theirs, mine in zip(source.buffers(), target.buffers(), strict=True):
            mine.copy_(theirs)


def _images(size: int, classes: int) -> dict[str, Any]:
    return {"shape": [3, size, size], "num_classes": classes, **_FEW}


def _tokens(vocab_size: int, length: int) -> dict[str, Any]:
    return {"vocab_size": vocab_size, "length": length, "num_classes": None, **_FEW}


# Nothing is trained, so as few samples as possible.
_FEW = {"size": 2, "validation": 0, "test": 0}
# PyTorch's initialization, as in the hand-written networks: each weight is drawn once.
PLAIN = "model.init=null"
_SMALL_GPT = ["width=128", "depth=4", "heads=4", "length=128"]

PAIRS: Mapping[str, Pair] = {
    "ResNet-18": Pair(["model=resnet18", PLAIN], _images(64, 1000), networks.resnet18),
    "ResNet-50": Pair(["model=resnet50", PLAIN], _images(224, 1000), networks.resnet50),
    "GPT-2": Pair(["model=gpt2", PLAIN], _tokens(50257, 1024), networks.gpt2),
    "small GPT": Pair(
        ["model=gpt2", PLAIN, *(f"model.params.{each}" for each in _SMALL_GPT)], _tokens(65, 128), networks.small_gpt
    ),
    "text model": Pair(["model=text_lstm"], _tokens(20_000, 100), networks.TextLSTM),
}
