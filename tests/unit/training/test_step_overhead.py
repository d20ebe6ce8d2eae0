"""What a step costs beside the loop that one would write by hand, counted: operations, and memory asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from dlspec.language.sections.trainer_section import EMA
from helpers.toy_training import make_dataset, make_network, make_trainer

FEW, MORE = 10, 30
ROWS = 8


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not str(func).startswith("profiler"):
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations(train: Callable[[], Any]) -> Counter[str]:
    with Operations() as mode:
        train()
    return mode.counts


def allocations(train: Callable[[], Any]) -> Counter[str]:
    """How often PyTorch asks for memory."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        train()
    events = recorded.profiler.kineto_results.events()  # type: ignore[union-attr]
    return Counter({"allocations": sum(each.name() == "[memory]" and each.nbytes() > 0 for each in events)})


def a_step(count: Callable[[Callable[[], Any]], Counter[str]], run: Callable[[int], Callable[[], Any]]) -> Counter[str]:
    """What is counted of a step: of more steps, less that of few."""
    few, more = count(run(FEW)), count(run(MORE))
    return Counter({name: number / (MORE - FEW) for name, number in (more - few).items()})


def ours(**settings: Any) -> Callable[[int], Callable[[], Any]]:
    def run(steps: int) -> Callable[[], Any]:
        sizes = {"batch_size": ROWS, "epochs": 1, "test": "none", "monitor": "train/loss", **settings}
        training = make_trainer(data=make_dataset(train=ROWS * steps, validation=0, test=0), settings=sizes)
        training.guard.always_checks_before_update = False  # as where waiting costs something
        return training.fit

    return run


def by_hand(steps: int) -> Callable[[], Any]:
    """The best eager loop."""
    data, net = make_dataset(train=ROWS * steps), make_network()
    images, labels = data.train.tensors["image"], data.train.target
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)

    def train() -> None:
        for rows in torch.randperm(len(labels)).split(ROWS):
            optimizer.zero_grad(set_to_none=True)
            loss = nn.functional.cross_entropy(net(images.index_select(0, rows)), labels.index_select(0, rows))
            loss.backward()
            optimizer.step()

    return train


@pytest.mark.parametrize(
    ("settings", "more", "less"),
    [
        ({}, {}, {}),
        ({"accumulate": 1, "channels_last": True}, {}, {}),
        ({"num_workers": 1}, {}, {"aten.index_select.default": 2}),  # threads gather, out of sight
        ({"clip_grad_value": 1.0}, {"aten._foreach_clamp_min_.Scalar": 1, "aten._foreach_clamp_max_.Scalar": 1}, {}),
    ],
    ids=str,
)
def test_a_step_does_what_a_loop_by_hand_does(settings: dict[str, Any], more: dict[str, int], less: Any) -> None:
    mine, theirs = a_step(operations, ours(**settings)), a_step(operations, by_hand)
    output_and_loss = {"aten.detach.default": 2}  # they are kept for the epoch's results
    one_addition = {"aten.add_.Tensor": 1}  # to the counts of steps of all parameters
    assert dict(mine - theirs) == output_and_loss | one_addition | more
    assert dict(theirs - mine) == {"aten._foreach_add_.Scalar": 1} | less


@pytest.mark.parametrize("settings", [{}, {"average": EMA()}, {"clip_grad_value": 1.0}], ids=str)
def test_a_step_takes_no_more_memory(settings: dict[str, Any]) -> None:
    mine, theirs = a_step(allocations, ours(**settings)), a_step(allocations, by_hand)
    assert 0 < mine["allocations"] <= theirs["allocations"]
