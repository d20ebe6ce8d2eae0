"""`trainer.activation_checkpointing`: less is kept, and everything is computed as before."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

import dlspec
from dlspec.training.step.activation_checkpointing import checkpoint_activations, find_checkpointed_layers
from helpers.command_line import QUIET

GPT = "model=gpt_small data=random data.vocab_size=50 data.length=16 model.params.width=32 model.params.depth=2".split()
RESNET = "model=resnet18 data=random data.shape=[3,32,32] data.num_classes=10 data.size=20".split()


def kept_bytes(train: Callable[[], Any]) -> tuple[int, Any]:
    """What autograd keeps for the way back."""
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = train()
    return total, output


def spectral() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        spectral_norm(nn.Linear(8, 16)), nn.ReLU(), nn.BatchNorm1d(16, momentum=None), nn.Linear(16, 8)
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str], Callable[[], Tensor], float]] = {
    "gpt with dropout": (
        lambda: dlspec.build([*GPT, "model.params.dropout=0.2"]),
        ["blocks.*"],
        lambda: torch.randint(0, 50, (4, 16)),
        0.2,
    ),
    "resnet's batch norms": (
        lambda: dlspec.build(RESNET),
        ["stages.*.blocks.*"],
        lambda: torch.rand(4, 3, 32, 32),
        0.2,
    ),
    "a plain stack": (lambda: dlspec.build(["model=cnn"]), ["[012]"], lambda: torch.rand(4, 1, 8, 8), 1.3),
    "spectral norm": (spectral, ["*"], lambda: torch.rand(4, 8), 1.3),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_equals_the_network(name: str) -> None:
    build, patterns, sample, share = NETWORKS[name]
    torch.manual_seed(1)
    plain, inputs = build().train(), sample()
    other = deepcopy(plain)
    recomputed = checkpoint_activations(other, patterns)
    for _ in range(2):
        (much, one), (less, two) = (_passed(each, inputs) for each in (plain, recomputed))
        assert torch.equal(one, two)
    assert less <= share * much
    for (key, mine), theirs in zip(other.named_parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and torch.equal(mine.grad, theirs.grad), key  # type: ignore[arg-type]
    assert list(other.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(other.buffers(), plain.buffers(), strict=True))


def _passed(network: nn.Module, inputs: Tensor) -> tuple[int, Tensor]:
    torch.manual_seed(0)  # of dropout
    size, output = kept_bytes(lambda: network(inputs))
    output.square().mean().backward()
    return size, output


def test_of_nested_matches_the_outer_one_counts() -> None:
    assert find_checkpointed_layers(dlspec.build(GPT), ["*.0", "blocks.*.body"]) == [
        "blocks.0",
        "blocks.1.0",
        "blocks.1.1.body",
    ]
    assert find_checkpointed_layers(dlspec.build(["model=cnn"]), ["nothing"]) == []
    assert parametrize.is_parametrized(spectral()[0])


MODEL = """
layers:
  - Conv2d: {out_channels: 4, kernel_size: 3}
  - BatchNorm2d
  - ReLU
  - Flatten
  - Dropout: 0.3
  - Linear: 10
"""


@pytest.mark.parametrize(
    "word", ["trainer.activation_checkpointing=['[0-3]']", "trainer.num_workers=2", "trainer.allocator=keep"]
)
def test_the_run_is_the_same(word: str, work: Path, dlspec: Any, write: Any) -> None:
    write("conf/model/small.yaml", MODEL)
    words = ["model=small", "trainer.epochs=2", "trainer.limit_batches=10", *QUIET]
    assert dlspec(*words, "hydra.run.dir=plain").code == 0
    assert dlspec(*words, word, "hydra.run.dir=other").code == 0
    for name in ("metrics.jsonl", "checkpoints/last.safetensors"):
        assert _content(work / "plain" / name) == _content(work / "other" / name)


def _content(path: Path) -> Any:
    """The metadata of weights hold the spec."""
    from safetensors.torch import load_file

    if path.suffix == ".jsonl":
        return path.read_bytes()
    return {name: each.tolist() for name, each in load_file(path).items()}


def test_says_what_is_computed_twice(work: Path, dlspec: Any) -> None:
    word = "trainer.activation_checkpointing=['0']"
    assert dlspec("model=cnn", "trainer.max_steps=2", word, *QUIET, "hydra.run.dir=run").code == 0
    log = (work / "run/log.txt").read_text()
    assert "activation checkpointing for 1 module(s): 0" in log
    assert "computing on cpu" in log and "precision 32, Adam (fused)" in log
