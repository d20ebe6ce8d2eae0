"""In which numbers a run computes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import dlspec
from dlspec.data.batches.batch_loader import make_permutation
from dlspec.optim.optimizer import make_optimizer
from dlspec.training.callbacks.callback import Callback
from dlspec.training.state import TrainingState
from helpers.toy_training import make_dataset, make_network, make_trainer


def trained(precision: Any, **more: Any) -> tuple[nn.Module, dict[str, float]]:
    torch.manual_seed(0)
    net = make_network()
    training = make_trainer(net, settings={"precision": precision, "epochs": 3, **more})
    training.fit()
    return net, training.state.results


def test_64_is_a_loop_in_doubles() -> None:
    net, results = trained(64, test="none")
    torch.manual_seed(0)
    by_hand = make_network().double()
    optimizer = make_optimizer(torch.optim.Adam, list(by_hand.parameters()), {"lr": 0.01})
    data = make_dataset()
    x, y = next(iter(data.train.tensors.values())).double(), data.train.target
    settings = make_trainer().settings
    for epoch in (1, 2, 3):
        total = 0.0
        for rows in make_permutation(len(y), 0, epoch).split(settings.batch_size):
            optimizer.zero_grad()
            loss = functional.cross_entropy(by_hand(x[rows]), y[rows])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
    assert all(each.dtype == torch.float64 for each in net.parameters())
    for mine, theirs in zip(net.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-14)
    assert results["train/loss"] == pytest.approx(total / len(y), rel=1e-12)


class Seen(Callback):
    """The types in which a layer computes."""

    def __init__(self, net: nn.Module) -> None:
        self.types: set[torch.dtype] = set()
        linear = next(each for each in net.modules() if isinstance(each, nn.Linear))
        linear.register_forward_hook(lambda module, inputs, output: self.types.add(output.dtype))


@pytest.mark.parametrize(("precision", "type"), [("bf16", torch.bfloat16), (16, torch.float16), (32, torch.float32)])
def test_halves_compute_and_the_loss_falls_as_in_float32(precision: Any, type: torch.dtype) -> None:
    torch.manual_seed(0)
    net = make_network()
    seen = Seen(net)
    training = make_trainer(
        net, settings={"precision": precision, "epochs": 3, "clip_grad_norm": 1.0}, callbacks=[seen]
    )
    training.fit()
    assert seen.types == {type}
    assert all(each.dtype == torch.float32 for each in net.parameters())
    plain = trained(32, clip_grad_norm=1.0)[1]
    assert training.state.results["train/loss"] == pytest.approx(plain["train/loss"], rel=0.03)


def test_tf32_is_set_back() -> None:
    before, seen = torch.get_float32_matmul_precision(), []

    class Look(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            seen.append(torch.get_float32_matmul_precision())

    make_trainer(settings={"precision": "tf32"}, callbacks=[Look()]).run()
    assert (set(seen), torch.get_float32_matmul_precision()) == ({"high"}, before)


@pytest.mark.parametrize(
    ("loss", "end", "classes"),
    [
        ("BCELoss", ["Sigmoid"], 2),
        ("BCELoss", ["Sigmoid"], 3),
        ("BCEWithLogitsLoss", [], 3),
        ("MSELoss", [], 3),
        ("SoftMarginLoss", [], 2),
        ("CrossEntropyLoss", [], 3),
    ],
)
@pytest.mark.parametrize("steps", [0, 4])
def test_classes_are_compared_in_doubles(loss: str, end: list[str], classes: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20, steps, 3, generator=generator) if steps else torch.randn(20, 3, generator=generator)
    target = torch.arange(20 * max(1, steps)).reshape(x.shape[:-1]) % classes
    width = 1 if classes == 2 else classes
    spec = {"layers": [{"Linear": width}, *end], "loss": loss}
    trainer = {"epochs": 1, "progress": "none", "test": "none"}
    losses = [
        dlspec.train({**spec, "trainer": {**trainer, "precision": precision}}, {"x": x, "target": target}).results
        for precision in (64, 32)
    ]
    assert losses[0]["train/loss"] == pytest.approx(losses[1]["train/loss"], rel=1e-4)
