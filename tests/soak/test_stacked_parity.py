"""Every optimizer, network and setting of a stack: each member equals its own run, in float64 after 200 steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch

from dlspec.training.trainer import Trainer
from helpers.stacked_runs import Spec, get_weights, train_alone, train_stacked

MAX_DIFFERENCE = 1e-9
DIGITS = {"type": "digits", "limit": 300}
STEPS = [{"Reshape": [8, 8]}, {"Permute": [0, 2, 1]}]  # the rows of an image as a sequence
NETWORKS: Mapping[str, Sequence[Any]] = {
    "MLP": ["Flatten", {"Linear": 24}, "BatchNorm1d", "ReLU", {"Dropout": 0.2}, {"Linear": 10}],
    "CNN": [
        {"Conv2d": {"out_channels": 4, "kernel_size": 3}}, "BatchNorm2d", "ReLU", {"MaxPool2d": 2}, {"Dropout": 0.2},
        "Flatten", {"Linear": 10},
    ],
    "LSTM": [*STEPS, {"LSTM": {"hidden_size": 8}}, {"Dropout": 0.2}, {"Select": -1}, {"Linear": 10}],
    "transformer block": [
        *STEPS, {"Linear": 16}, {"TransformerEncoderLayer": {"nhead": 2, "dim_feedforward": 32, "dropout": 0.1}},
        "Mean", {"Linear": 10},
    ],
}  # fmt: skip
OPTIMIZERS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "SGD": [{"lr": 0.1, "momentum": 0.9, "nesterov": True}, {"lr": 0.05, "momentum": 0.5, "dampening": 0.1}],
    "Adam": [{"lr": 0.01}, {"lr": 0.003, "betas": [0.8, 0.95], "amsgrad": True}],
    "AdamW": [{"lr": 0.01}, {"lr": 0.003, "eps": 1e-6}],
    "NAdam": [{"lr": 0.01}, {"lr": 0.003, "momentum_decay": 0.01}],
    "RMSprop": [{"lr": 0.003}, {"lr": 0.001, "momentum": 0.9, "centered": True}],
    "Adagrad": [{"lr": 0.05}, {"lr": 0.02, "lr_decay": 0.01}],
}
# What else the first member has; the second has none of it.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "clipping": {"trainer": {"clip_grad_norm": 0.5, "clip_grad_value": 0.1}},
    "weight decay": {"optimizer": {"weight_decay": 0.01}},
    "schedule": {"scheduler": {"CosineAnnealingLR": {"T_max": 40}, "interval": "step", "warmup": 5}},
    "label smoothing": {"loss": {"CrossEntropyLoss": {"label_smoothing": 0.1}}},
    "EMA": {"trainer": {"average": {"EMA": {"decay": 0.95}}}},
}


def make_specs(network: str, optimizer: str, setting: str) -> list[Spec]:
    first, second = OPTIMIZERS[optimizer]
    members = [(first, SETTINGS[setting]), (second, {}), (second, SETTINGS[setting])]
    base = {"model": {"layers": NETWORKS[network]}, "data": DIGITS}
    trainer = {"epochs": 1000, "max_steps": 200, "precision": 64, "batch_size": 32}
    return [
        {
            **base,
            "optimizer": {optimizer: {**settings, **change.get("optimizer", {})}},
            "trainer": {**trainer, **change.get("trainer", {})},
            "seed": seed,
            **{key: each for key, each in change.items() if key in ("loss", "scheduler")},
        }
        for seed, (settings, change) in enumerate(members)
    ]


def find_difference(stacked: Trainer | BaseException, alone: Trainer) -> float:
    """Return the largest difference between the weights of two runs."""
    if isinstance(stacked, BaseException):
        raise stacked
    weights, expected = get_weights(stacked), get_weights(alone)
    assert stacked.state.step == alone.state.step == 200
    pairs: Iterable[tuple[torch.Tensor, torch.Tensor]] = ((weights[name], each) for name, each in expected.items())
    return max(float((one.double() - other.double()).abs().max()) for one, other in pairs)


@pytest.mark.soak
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", NETWORKS)
def test_members_equal_their_own_runs(network: str, optimizer: str, setting: str) -> None:
    specs = make_specs(network, optimizer, setting)
    differences = [
        find_difference(one, train_alone(spec)) for one, spec in zip(train_stacked(specs), specs, strict=True)
    ]
    assert max(differences) <= MAX_DIFFERENCE
