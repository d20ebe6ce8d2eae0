"""Optimizers without the compiler's import: the same weights, to the last bit."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer
from torch.optim.lr_scheduler import StepLR

from dlspec.compat.torch_dynamo import CACHE_ATTRIBUTE, WRAPPED_METHODS, make_step_function, without_dynamo
from dlspec.optim.optimizer import can_fuse, has_sparse_gradients, make_optimizer, needs_closure

CLASSES = {
    name: each
    for name in torch.optim.__all__
    if isinstance(each := getattr(torch.optim, name), type) and issubclass(each, Optimizer) and each is not Optimizer
}
SETTINGS: dict[str, dict[str, Any]] = {"SGD": {"lr": 0.1, "momentum": 0.9}, "RMSprop": {"lr": 0.01, "momentum": 0.5}}


def _train(optimizer: Optimizer, net: nn.Module, step: Any) -> list[Tensor]:
    for seed in range(4):
        inputs = torch.randn(8, 5, generator=torch.Generator().manual_seed(seed))
        optimizer.zero_grad()
        net(inputs).square().sum().backward()
        step()
    return [each.detach() for each in net.parameters()]


def _net(name: str) -> nn.Module:
    torch.manual_seed(3)
    if name == "SparseAdam":
        return _Bag()
    return nn.Sequential(nn.Linear(5, 4, bias=name != "Muon"), nn.Tanh(), nn.Linear(4, 2, bias=name != "Muon"))


class _Bag(nn.Module):
    """A network whose only gradients are sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 3, sparse=True)

    def forward(self, inputs: Tensor) -> Tensor:
        result: Tensor = self.embedding(inputs.abs().long())
        return result


# LBFGS takes a closure; the trainer's tests train with it.
@pytest.mark.parametrize("name", [name for name in CLASSES if name != "LBFGS"])
def test_weights_equal_pytorchs_own_step(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = _net(name), _net(name)
    quick = make_optimizer(CLASSES[name], ours.parameters(), SETTINGS.get(name, {}))
    fused = {"fused": True} if quick.defaults.get("fused") else {}
    plain = CLASSES[name](theirs.parameters(), **SETTINGS.get(name, {}), **fused)
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)  # else the plain step would be taken
    step = make_step_function(quick)
    monkeypatch.undo()
    pairs = zip(_train(quick, ours, step), _train(plain, theirs, plain.step), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_only_lbfgs_needs_a_closure() -> None:
    made = {name: make_optimizer(each, _net("Muon").parameters(), {}) for name, each in CLASSES.items()}
    assert [name for name, each in made.items() if needs_closure(each)] == ["LBFGS"]


def test_fused_where_it_can_be_and_is_not_chosen_otherwise() -> None:
    def fused(name: str, net: nn.Module | None = None, **settings: Any) -> Any:
        return make_optimizer(CLASSES[name], (net or nn.Linear(2, 2)).parameters(), settings).defaults.get("fused")

    assert [name for name in CLASSES if fused(name, nn.Linear(2, 2, bias=False))] == ["Adagrad", "Adam", "AdamW", "SGD"]
    assert fused("Adam", foreach=True) is None
    assert fused("Adam", fused=False) is False
    assert fused("Adam", nn.Linear(2, 2, dtype=torch.complex64)) is None
    sparse = make_optimizer(torch.optim.SGD, nn.Linear(2, 2).parameters(), {}, fuse=False)
    assert not sparse.defaults["fused"]
    assert has_sparse_gradients(_Bag())
    assert not has_sparse_gradients(nn.Embedding(3, 3))


def test_groups_keep_their_settings() -> None:
    net = nn.Linear(2, 2)
    groups = [{"params": [net.weight], "lr": 0.5}, {"params": net.bias, "weight_decay": 0.1}]
    made = make_optimizer(torch.optim.AdamW, groups, {"lr": 0.1})
    assert [(group["lr"], group["weight_decay"]) for group in made.param_groups] == [(0.5, 0.01), (0.1, 0.1)]
    named = make_optimizer(torch.optim.AdamW, net.named_parameters(), {})
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]
    assert named.defaults["fused"]


def test_nothing_is_left_behind_on_pytorchs_functions() -> None:
    with without_dynamo():
        pass
    raws = [getattr(Optimizer, name).__wrapped__ for name in WRAPPED_METHODS]
    assert not any(getattr(raw, CACHE_ATTRIBUTE, None) is raw for raw in raws)


def test_step_hooks_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls = nn.Linear(5, 2), []
    optimizer = make_optimizer(torch.optim.SGD, net.parameters(), {"lr": 0.1})
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    step = make_step_function(optimizer)
    monkeypatch.undo()
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    _train(optimizer, net, step)
    assert calls == ["after"] * 4


def test_schedulers_see_that_steps_were_taken() -> None:
    net = nn.Linear(5, 2)
    optimizer = make_optimizer(torch.optim.SGD, net.parameters(), {"lr": 1.0})
    schedule = StepLR(optimizer, 1)
    step = make_step_function(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _train(optimizer, net, lambda: (step(), schedule.step()))
    assert schedule.get_last_lr() == pytest.approx([1e-4])


def test_an_optimizer_of_the_users_own_is_stepped_its_own_way() -> None:
    class Halving(Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {})

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for parameter in self.param_groups[0]["params"]:
                parameter.data.mul_(0.5)

    net = nn.Linear(5, 2)
    before = net.weight.detach().clone()
    optimizer = make_optimizer(Halving, net.parameters(), {})
    _train(optimizer, net, make_step_function(optimizer))
    assert torch.equal(net.weight, before / 16)


@pytest.mark.parametrize(
    ("name", "device", "fuses"), [("Adagrad", "cpu", True), ("Adagrad", "cuda", False), ("Adam", "cuda", True)]
)
def test_what_is_fused_on_which_device(name: str, device: str, fuses: bool) -> None:
    with FakeTensorMode():  # knows devices that are not there
        parameter = torch.empty(2, device=device)
    assert can_fuse(getattr(torch.optim, name), [parameter], {}) == fuses
