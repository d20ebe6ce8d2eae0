"""A compiled step computes what a plain one does."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from dlspec.optim.optimizer import make_optimizer
from dlspec.optim.schedule import Schedule
from helpers.toy_training import CrossEntropy, make_network, make_trainer

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler"),
    pytest.mark.filterwarnings("ignore"),  # the compiler's own
]


def normalised() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def trained(net: nn.Module, compile: str, **settings: Any) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    optimizer = make_optimizer(torch.optim.AdamW, list(net.parameters()), {"lr": 0.01})
    schedule = Schedule(StepLR(optimizer, 2, 0.9), "step")
    settings = {"compile": compile, "epochs": 3, "clip_grad_norm": 0.5, "precision": 64, **settings}
    training = make_trainer(net, settings=settings, optimizer=optimizer, schedule=schedule)
    training.fit()
    return net, training.state


@pytest.mark.soak
@pytest.mark.parametrize("compile", ["step", "model"])
def test_equals_the_plain_loop_in_doubles(compile: str) -> None:
    """Weights, running statistics, clipped gradients, a schedule of every step and a last batch of another size."""
    plain, plainly = trained(normalised(), "none")
    compiled, state = trained(normalised(), compile)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-7, atol=1e-9)
    assert state.step == plainly.step
    assert state.lr == pytest.approx(plainly.lr)
    for mine, theirs in zip(state.history, plainly.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)


class Odd(CrossEntropy):
    """What no graph holds: NumPy looks at the numbers."""

    def forward(self, output: torch.Tensor, targets: Any) -> torch.Tensor:
        return super().forward(output, targets) if output.detach().numpy().sum() > -1e9 else output.sum()


def test_what_can_not_be_compiled_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    net = make_network()
    training = make_trainer(net, settings={"compile": "step"}, criterion=Odd())
    training.fit()
    told = [each.message for each in caplog.records if each.name == "dlspec" and each.levelno >= 30]
    assert told[0] == "compiling the training step, 2 steps a call ..."
    assert told[1].startswith("trainer.compile: the step can't be compiled and runs eagerly: ")
    assert len(told) == 2
    plain = make_trainer(make_network(), settings={})
    plain.fit()
    assert training.state.results == plain.state.results
