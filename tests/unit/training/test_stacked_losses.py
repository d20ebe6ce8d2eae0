"""The losses of a stack's members are those of PyTorch, to the last bit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlspec.training.stacking.member_values import MemberValues
from dlspec.training.stacking.stacked_loss import StackedLoss
from helpers.stacked_runs import make_trainer

CLASSES = torch.tensor([[0, 3, 1], [2, 2, 0]])


class Criterion(SimpleNamespace):
    calls = 0

    def __call__(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        self.calls += 1
        value: Tensor = self.loss(output, targets[0])
        return value


def compute(losses: list[nn.Module], logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, int]:
    criteria: list[Any] = [Criterion(loss=each, only_loss=each) for each in losses]
    values = logits.detach().requires_grad_()
    found = StackedLoss(criteria)(MemberValues(values), [MemberValues(classes)]).stack()
    (gradient,) = torch.autograd.grad((found * torch.tensor([1.0, 2.0])).sum(), values)
    return found, gradient, sum(each.calls for each in criteria)


@pytest.mark.parametrize(
    ("settings", "calls"),
    [
        ([{}, {}], 0),
        ([{"ignore_index": 2}, {"ignore_index": 2}], 0),
        ([{"ignore_index": 2}, {"ignore_index": 3}], 2),
        ([{}, {"label_smoothing": 0.1}], 2),
        ([{"weight": torch.tensor([1.0, 2.0, 3.0, 4.0])}, {}], 2),
        ([{"reduction": "sum"}, {}], 2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cross_entropies(settings: list[dict[str, Any]], calls: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=dtype)
    losses: list[nn.Module] = [nn.CrossEntropyLoss(**each).to(dtype) for each in settings]
    classes = CLASSES.clone()
    if "ignore_index" in settings[0]:
        classes[1] = torch.tensor([2, 0, 2])
    found, gradient, called = compute(losses, logits, classes)
    values = logits.clone().requires_grad_()
    wanted = torch.stack([loss(*pair) for loss, *pair in zip(losses, values, classes, strict=True)])
    (wanted_gradient,) = torch.autograd.grad((wanted * torch.tensor([1.0, 2.0])).sum(), values)
    assert torch.equal(found, wanted)
    assert torch.equal(gradient, wanted_gradient)
    assert called == calls


def test_a_class_that_does_not_exist_is_refused() -> None:
    with pytest.raises(IndexError, match="out of bounds"):
        compute([nn.CrossEntropyLoss(), nn.CrossEntropyLoss()], torch.zeros(2, 3, 4), CLASSES + 1)


@pytest.mark.parametrize(
    ("layers", "loss", "is_alone"),
    [
        (["Flatten", {"Linear": 10}], "auto", True),
        (["Flatten", {"Linear": 10}], {"half": {"type": "CrossEntropyLoss", "factor": 0.5}}, False),
        (["Flatten", {"Linear": 10}, {"LogSoftmax": {"dim": 1}}], {"NLLLoss": {}}, True),
        (["Flatten", {"Linear": 10}], {"MultiMarginLoss": {}}, False),
    ],
)
def test_which_criterion_is_its_loss_alone(layers: list[Any], loss: Any, is_alone: bool) -> None:
    spec = {
        "model": {"layers": layers},
        "data": {"type": "digits", "limit": 50},
        "loss": loss,
        "optimizer": {"SGD": {"lr": 0.1}},
    }
    criterion = make_trainer(spec).model.criterion
    output, targets = torch.randn(5, 10).log_softmax(1), (torch.arange(5),)
    assert (criterion.only_loss is not None) == is_alone
    if criterion.only_loss is not None:
        assert torch.equal(criterion.only_loss(output, targets[0]), criterion(output, targets))
