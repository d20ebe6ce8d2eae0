"""Every optimizer and scheduler by a table: PyTorch's own steps, the run's length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim
from torch.optim import lr_scheduler

from dlspec.compat.torch_dynamo import make_step_function
from dlspec.errors import SpecError
from dlspec.jobs.run_preparation import Preparation, PreparedRun
from dlspec.language.parse.part import parse_part
from dlspec.language.problems import Problems
from dlspec.language.source_map import SourceMap
from dlspec.optim.optimizer import make_optimizer, needs_closure
from dlspec.parts.torch.torch_parts import OPTIMIZERS, SCHEDULERS
from helpers.toy_training import make_dataset

OPTIMIZER_ROWS: dict[str, dict[str, Any]] = {
    "ASGD": {"lr": 0.1},
    "Adadelta": {"rho": 0.8},
    "Adafactor": {"lr": 0.1, "eps": [None, 1e-3]},
    "Adagrad": {"lr": "1e-1", "lr_decay": 0.1},
    "Adam": {"lr": 0.1, "betas": [0.8, 0.9], "amsgrad": True},
    "AdamW": {"lr": 0.1, "weight_decay": 0.1},
    "Adamax": {"lr": 0.1},
    "LBFGS": {"lr": 0.5, "max_iter": 3, "line_search_fn": "strong_wolfe"},
    "Muon": {"lr": 0.1, "nesterov": False},
    "NAdam": {"lr": 0.1, "decoupled_weight_decay": True},
    "RAdam": {"lr": 0.1},
    "RMSprop": {"lr": 0.1, "momentum": 0.5, "centered": True},
    "Rprop": {"lr": 0.1, "etas": [0.4, 1.3]},
    "SGD": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "SparseAdam": {"lr": 0.1},
}
SCHEDULER_ROWS: dict[str, dict[str, Any]] = {
    "ConstantLR": {"factor": 0.5, "total_iters": 1},
    "CosineAnnealingLR": {"eta_min": 0.01},
    "CosineAnnealingWarmRestarts": {"T_0": 4, "T_mult": 2},
    "CyclicLR": {"base_lr": 0.01, "max_lr": 0.2, "step_size_up": 3, "mode": "triangular2"},
    "ExponentialLR": {"gamma": 0.9},
    "LinearLR": {"start_factor": 0.2, "total_iters": 4},
    "MultiStepLR": {"milestones": [1, 3], "gamma": 0.5},
    "OneCycleLR": {"max_lr": 0.3},
    "PolynomialLR": {"total_iters": 4, "power": 2},
    "ReduceLROnPlateau": {"factor": 0.5, "patience": 0},
    "StepLR": {"step_size": 1, "gamma": 0.5},
}


def read(registry: Any, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the registry reads them from flat YAML."""
    problems = Problems()
    part = parse_part({"type": name, **settings}, (registry.kind,), problems, kind=registry.kind)
    assert part is not None
    found = registry.read(part, problems)
    assert found is not None and not problems, problems.found
    return dict(found[1])


def own(registry: Any) -> set[str]:
    return {name for name in registry if registry[name].build.__module__.startswith("torch.")}


def test_every_optimizer_and_scheduler_has_a_row() -> None:
    assert own(OPTIMIZERS) == {name for name in OPTIMIZER_ROWS if hasattr(optim, name)}
    assert own(SCHEDULERS) == SCHEDULER_ROWS.keys()


# ---- optimizers ----------------------------------------------------------------------------------------------------


def weights() -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4).clone())


def steps(optimizer: optim.Optimizer, parameter: nn.Parameter, sparse: bool) -> Tensor:
    """The weights after two steps down a bowl whose bottom is 2."""

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = ((parameter - 2) ** 2).sum()
        value.backward()
        if sparse:
            assert parameter.grad is not None
            parameter.grad = parameter.grad.to_sparse()
        return value

    if needs_closure(optimizer):
        for _ in range(2):
            optimizer.step(loss)
        return parameter.detach()
    step = make_step_function(optimizer)
    for _ in range(2):
        loss()
        step()
    return parameter.detach()


@pytest.mark.parametrize(("name", "settings"), OPTIMIZER_ROWS.items(), ids=list(OPTIMIZER_ROWS))
def test_two_steps_are_pytorchs_own(name: str, settings: dict[str, Any]) -> None:
    if not hasattr(optim, name):
        pytest.skip(f"this torch has no {name}")
    sparse = name == "SparseAdam"
    mine, theirs = weights(), weights()
    ours = make_optimizer(getattr(optim, name), [mine], read(OPTIMIZERS, name, settings))
    plain = {key: tuple(each) if isinstance(each, list) else each for key, each in settings.items()} | {
        key: float(each) for key, each in settings.items() if key == "lr"
    }
    after = steps(ours, mine, sparse)
    torch.testing.assert_close(after, steps(getattr(optim, name)([theirs], **plain), theirs, sparse))
    assert (after - weights().detach()).abs().min() > 1e-4
    assert ((after - 2) ** 2).sum() < ((weights().detach() - 2) ** 2).sum()


# ---- schedulers ----------------------------------------------------------------------------------------------------


def prepared(
    scheduler: Mapping[str, Any] | None, optimizer: Mapping[str, Any] | None = None, **trainer: Any
) -> PreparedRun:
    """A run of 70 rows in batches of 32, three steps an epoch, unless `trainer` says otherwise."""
    tree: dict[str, Any] = {
        "model": {"layers": [{"Linear": 3}]},
        "data": {"type": "digits"},
        "optimizer": optimizer or {"type": "SGD", "lr": 0.1, "momentum": 0.9},
        "scheduler": scheduler,
        "trainer": {"epochs": 4, "batch_size": 32, **trainer},
    }
    return Preparation(tree, SourceMap, data=make_dataset(train=70)).prepare()


def rates(scheduler: Any, count: int = 6) -> list[float]:
    """The learning rates of some steps; a plateau's scheduler is told that nothing gets better."""
    found = []
    for _ in range(count):
        found.append(scheduler.optimizer.param_groups[0]["lr"])
        scheduler.optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
    return found


@pytest.mark.parametrize(("name", "settings"), SCHEDULER_ROWS.items(), ids=list(SCHEDULER_ROWS))
def test_a_scheduler_moves_the_rate_as_pytorchs_own(name: str, settings: dict[str, Any]) -> None:
    schedule = prepared({"type": name, **settings}).schedule
    assert schedule is not None
    assert schedule.interval == ("step" if name in ("OneCycleLR", "CyclicLR") else "epoch")
    filled = {"CosineAnnealingLR": {"T_max": 4}, "OneCycleLR": {"total_steps": 12}}
    plain = getattr(lr_scheduler, name)(
        optim.SGD([weights()], lr=0.1, momentum=0.9), **settings, **filled.get(name, {})
    )
    moved = rates(schedule.scheduler)
    assert moved == rates(plain)
    assert len(set(moved)) > 1


HORIZONS: list[tuple[dict[str, Any], dict[str, Any], str, int]] = [
    ({"type": "CosineAnnealingLR"}, {}, "T_max", 4),
    ({"type": "CosineAnnealingLR", "T_max": None}, {}, "T_max", 4),
    ({"type": "CosineAnnealingLR", "T_max": 7}, {}, "T_max", 7),
    ({"type": "CosineAnnealingLR", "interval": "step"}, {}, "T_max", 12),
    ({"type": "CosineAnnealingLR"}, {"max_steps": 7}, "T_max", 3),
    ({"type": "CosineAnnealingLR", "interval": "step"}, {"max_steps": 7}, "T_max", 7),
    ({"type": "OneCycleLR", "max_lr": 1}, {}, "total_steps", 12),
    ({"type": "OneCycleLR", "max_lr": 1}, {"limit_batches": 2}, "total_steps", 8),
    ({"type": "OneCycleLR", "max_lr": 1}, {"accumulate": 2}, "total_steps", 8),
    ({"type": "CosineAnnealingLR"}, {"accumulate": 2, "max_steps": 5}, "T_max", 3),
    ({"type": "OneCycleLR", "max_lr": 1, "interval": "epoch"}, {}, "total_steps", 4),
    ({"type": "OneCycleLR", "max_lr": 1, "total_steps": 50}, {}, "total_steps", 50),
    ({"type": "OneCycleLR", "max_lr": 1, "epochs": 5, "steps_per_epoch": 3}, {}, "total_steps", 15),
]


@pytest.mark.parametrize(("scheduler", "trainer", "name", "wanted"), HORIZONS)
def test_the_runs_length_is_filled_in(
    scheduler: dict[str, Any], trainer: dict[str, Any], name: str, wanted: int
) -> None:
    schedule = prepared(scheduler, **trainer).schedule
    assert schedule is not None
    assert getattr(schedule.scheduler, name) == wanted


REFUSED: list[tuple[dict[str, Any] | None, dict[str, Any] | None, str]] = [
    (None, {"type": "Muon", "lr": 0.1}, "optimizer.type   invalid settings for Muon   PyTorch says: "),
    (None, {"type": "Adam", "betas": [1.5, 0.9]}, "optimizer.betas   invalid settings for Adam   PyTorch says: "),
    (None, {"type": "SGD", "nesterov": True}, "optimizer.nesterov   invalid settings for SGD   PyTorch says: "),
    ({"type": "OneCycleLR", "max_lr": 1, "epochs": 5}, None,
     "scheduler.epochs   invalid settings for OneCycleLR   PyTorch says: "),
    ({"type": "ReduceLROnPlateau", "factor": 2}, None,
     "scheduler.factor   invalid settings for ReduceLROnPlateau   PyTorch says: "),
]  # fmt: skip


@pytest.mark.parametrize(("scheduler", "optimizer", "told"), REFUSED)
def test_what_pytorch_refuses_is_told(scheduler: Any, optimizer: Any, told: str) -> None:
    with pytest.raises(SpecError) as error:
        prepared(scheduler, optimizer)
    lines = str(error.value).splitlines()
    assert lines[0].startswith(told) and len(lines[0]) > len(told) + 5
    assert lines[-1] == "1 problem; nothing was run."
