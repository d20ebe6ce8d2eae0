"""What is tried before a run starts: half precision and batches of one sample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dlspec
from dlspec.errors import SpecError
from dlspec.parts.torch.torch_parts import LAYERS

CLASSES = torch.arange(12) % 3
FEATURES = {"x": torch.randn(12, 4), "target": CLASSES}
STEPS = {"x": torch.randn(12, 5, 4), "target": CLASSES}
IMAGES = {"x": torch.randn(12, 2, 6, 6), "target": CLASSES}
QUIET = {"epochs": 1, "progress": "none", "test": "none"}


def train(layers: list[Any], data: dict[str, Tensor], **trainer: Any) -> dlspec.Result:
    return dlspec.train({"layers": layers, "trainer": {**QUIET, **trainer}}, data)


@pytest.mark.parametrize(
    ("layers", "data", "layer"),
    [
        ([{"Linear": 8}, "BatchNorm1d", {"Linear": 3}], FEATURES, "BatchNorm1d '1'"),
        (["Flatten", {"Linear": 8}, {"BatchNorm1d": {"name": "norm"}}, {"Linear": 3}], IMAGES, "BatchNorm1d 'norm'"),
        ([{"Conv2d": [4, 6]}, "BatchNorm2d", "Flatten", {"Linear": 3}], IMAGES, "BatchNorm2d '1'"),
    ],
)
def test_a_batch_of_one_sample_that_a_layer_refuses_is_told_before_the_start(
    layers: list[Any], data: dict[str, Tensor], layer: str
) -> None:
    layers = [
        {"Conv2d": {"out_channels": 4, "kernel_size": 6}} if each == {"Conv2d": [4, 6]} else each for each in layers
    ]
    with pytest.raises(SpecError) as raised:
        train(layers, data, batch_size=1)
    (problem,) = raised.value.problems
    assert problem.path == "trainer.batch_size"
    assert problem.found == f"{layer} can't be trained on batches of one sample"
    assert "use 2 or more" in problem.fix
    assert train(layers, data, batch_size=2).best_epoch == 1


@pytest.mark.parametrize(
    ("layers", "data"),
    [
        ([{"Linear": 8}, "LayerNorm", {"Linear": 3}], FEATURES),
        ([{"Conv2d": {"out_channels": 4, "kernel_size": 3}}, "BatchNorm2d", "Flatten", {"Linear": 3}], IMAGES),
    ],
)
def test_other_norms_train_on_one_sample(layers: list[Any], data: dict[str, Tensor]) -> None:
    assert train(layers, data, batch_size=1).best_epoch == 1


class RefusesHalf(nn.Module):
    """A layer without a kernel for half precision, as some of PyTorch's are on some devices."""

    def __init__(self, in_features: int, out_features: int = 4) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.linear(x)
        if found.dtype in (torch.float16, torch.bfloat16):
            raise RuntimeError('"own_kernel" not implemented for half')
        return found


@pytest.mark.parametrize("precision", [16, "bf16"])
def test_a_layer_without_half_precision_is_told_before_the_start(precision: Any) -> None:
    dlspec.layer(RefusesHalf)
    try:
        with pytest.raises(SpecError) as raised:
            train([{"Linear": 4}, {"RefusesHalf": {"name": "own"}}, {"Linear": 3}], FEATURES, precision=precision)
        (problem,) = raised.value.problems
        assert problem.path == "trainer.precision"
        assert problem.found == f"RefusesHalf 'own' can't compute in precision {precision} on cpu"
        assert problem.fix.endswith("use 32")
    finally:
        LAYERS._classes.pop("RefusesHalf")


def test_a_trial_leaves_no_trace() -> None:
    layers = [{"Linear": 8}, "BatchNorm1d", {"Dropout": 0.5}, {"Linear": 3}]
    networks = [dlspec.build({"layers": layers, "trainer": {"precision": each}}, FEATURES) for each in (32, "bf16")]
    assert all(map(torch.equal, networks[0].state_dict().values(), networks[1].state_dict().values()))
    first, second = (train(layers, FEATURES, precision="bf16", epochs=2).history for _ in range(2))
    plain = {**QUIET, "precision": "bf16", "epochs": 2}
    assert [each["train/loss"] for each in first] == [each["train/loss"] for each in second]
    assert dlspec.train({"layers": layers, "trainer": plain}, FEATURES).network[1].num_batches_tracked == 2


@pytest.mark.parametrize(
    "optimizer", [{"type": "Adam", "lr": float("inf")}, {"type": "SGD", "lr": 0.1, "weight_decay": float("inf")}]
)
def test_an_infinite_rate_is_refused(optimizer: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="must be a number >= 0, got inf"):
        dlspec.train({"layers": [{"Linear": 3}], "optimizer": optimizer, "trainer": QUIET}, FEATURES)
