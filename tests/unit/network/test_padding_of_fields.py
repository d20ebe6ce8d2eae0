"""Padding of two fields with different lengths, and padding that counts only while a layer of one's own is trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dlspec
from dlspec.errors import SpecError
from dlspec.parts.torch.torch_parts import LAYERS

STEPS, SAMPLES = 7, 16
TWO = [{"Embedding": 4, "from": "a", "name": "x"}, {"Embedding": 4, "from": "b", "name": "y"}]


def make_field(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Make texts of 3 to 7 words with their lengths."""
    generator = np.random.default_rng(seed)
    lengths = generator.integers(3, STEPS + 1, SAMPLES)
    lengths[0] = STEPS
    words = generator.integers(1, 9, (SAMPLES, STEPS))
    words[np.arange(STEPS)[None] >= lengths[:, None]] = 0
    return words, lengths


def build(layers: list[Any], *fields: str) -> nn.Module:
    data: dict[str, Any] = {"target": np.arange(SAMPLES) % 3}
    for seed, name in enumerate(fields):
        data[name], data[f"{name}_lengths"] = make_field(seed)
    return dlspec.build({"model": {"inputs": list(fields), "layers": layers}}, data=data)


X, Y = "is_step(x)[:, :, None]", "is_step(y)[:, :, None]"


@pytest.mark.parametrize(
    ("formula", "field"),
    [
        (f"sum((x + y) * {X}, dim=1)", "b"),
        (f"sum(x * {Y}, dim=1)", "a"),
        (f"amax(where({X}, x - y, -100), dim=1)", "b"),
        (f"sum(softmax(where({X}, x, -1e9), dim=1) * y, dim=1)", "b"),
        (f"sum(where({Y}, x * y, 0), dim=1)", "a"),
    ],
)
def test_the_padding_of_the_other_field_counts(formula: str, field: str) -> None:
    with pytest.raises(SpecError, match=rf"depends on what '{field}' has after a sample's end   mask it with is_step"):
        build([*TWO, {"Formula": formula}, {"Linear": 3}], "a", "b")


@pytest.mark.parametrize(
    "formula",
    [
        f"sum((x + y) * {X} * {Y}, dim=1)",
        f"sum(where({X}, x, 0) + where({Y}, y, 0), dim=1)",
        f"sum(x * {X}, dim=1) - amax(where({Y}, y, -100), dim=1)",
        "x[:, 0] * y[:, 0]",
    ],
)
def test_the_padding_of_both_fields_is_left_out(formula: str) -> None:
    network = build([*TWO, {"Formula": formula}, {"Linear": 3}], "a", "b").eval()
    (a, a_lengths), (b, b_lengths) = (map(torch.as_tensor, make_field(seed)) for seed in (0, 1))
    other = [torch.where(torch.arange(STEPS) < lengths[:, None], words, 5)
             for words, lengths in ((a, a_lengths), (b, b_lengths))]  # fmt: skip
    lengths = [a_lengths, b_lengths][: 2 if "is_step" in formula else 0]
    assert torch.equal(network(a, b, *lengths), network(*other, *lengths))


class CenteredInTraining(nn.Module):
    """Subtracts the mean over time, padding included, but only in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=1, keepdim=True) if self.training else x


class NoisyInTraining(nn.Module):
    """Adds noise in training."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


class ScaledInTraining(nn.Module):
    """Treats all steps alike, in training otherwise than in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if self.training else x


@pytest.mark.parametrize("layer", [CenteredInTraining, NoisyInTraining, ScaledInTraining])
def test_padding_that_counts_in_training_alone(layer: type[nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "__module__", "my_layers")
    monkeypatch.setattr(LAYERS, "_classes", {**LAYERS._classes, layer.__name__: layer})
    layers = [{"Embedding": 4, "name": "x"}, layer.__name__, {"Formula": f"sum(_ * {X}, dim=1)"}, {"Linear": 3}]
    if layer is CenteredInTraining:
        with pytest.raises(SpecError, match="counts padding in training: its output differs if a sample is padded by"):
            build(layers, "a")
    else:
        assert build(layers, "a").training
