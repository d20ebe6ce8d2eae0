"""Samples with weights: how much each counts in losses, in the mean over a split, and in metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset, Split
from dlspec.errors import Code, SpecError
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.python_spec import prepare_spec
from dlspec.losses.criterion import Criterion

ROWS = 60
KEY = "target weights"
WEIGHTS = torch.from_numpy(np.random.default_rng(1).integers(0, 4, ROWS)).float()
TRAINER = {"epochs": 2, "checkpoints": False, "progress": "none", "batch_size": 7, "device": "cpu"}


def add_weights(data: Dataset, weights: Tensor) -> Dataset:
    """The data with a weight for each sample; no rows are shuffled between splits."""
    start, splits = 0, []
    for split in (data.train, data.validation, data.test):
        splits.append(Split({**split.tensors, KEY: weights[start : start + len(split)]}, split.targets))
        start += len(split)
    targets = tuple(replace(each, weights=KEY) for each in data.targets)
    return replace(data, targets=targets, train=splits[0], validation=splits[1], test=splits[2])


def make_data(target: Any, x: Any = None, **lengths: Any) -> Dataset:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(ROWS, 3)).astype(np.float32) if x is None else x
    return dataset_from_arrays({"x": inputs, "target": target, **lengths}, validation=0.2, test=0.2)


def draw_classes(count: int, shape: tuple[int, ...] = (ROWS,)) -> Any:
    return np.random.default_rng(2).integers(0, count, shape)


def make_criterion(data: Dataset, layers: list[Any], loss: Any = "auto") -> Criterion:
    return prepare_spec({"layers": layers, "loss": loss}, data).prepare().criterion


def make_targets(criterion: Criterion, split: Split) -> tuple[Tensor, ...]:
    return tuple(split.get_loss_target(name) for name in criterion.target_names)


CLASS_WEIGHTS = [1.0, 2.0, 0.5]
NUMBERS = np.random.default_rng(3).normal(size=ROWS).astype(np.float32)


def compute_two_classes(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(output.squeeze(1), target.float(), reduction="none")


# The data's target, number of outputs, the loss, and the same by plain PyTorch: each sample's loss, what it counts.
CASES: dict[str, Any] = {
    "two classes": (draw_classes(2), 1, "auto", compute_two_classes, None),
    "classes": (draw_classes(3), 3, "auto", lambda o, t: nn.functional.cross_entropy(o, t, reduction="none"), None),
    "class weights": (
        draw_classes(3), 3, {"type": "CrossEntropyLoss", "weight": CLASS_WEIGHTS},
        lambda o, t: nn.functional.cross_entropy(o, t, torch.tensor(CLASS_WEIGHTS), reduction="none"),
        lambda t: torch.tensor(CLASS_WEIGHTS)[t],
    ),
    "numbers": (NUMBERS, 1, "auto", lambda o, t: (o.squeeze(1) - t) ** 2, None),
    "vectors": (
        np.stack([NUMBERS, NUMBERS * 2], 1), 2, "SmoothL1Loss",
        lambda o, t: nn.functional.smooth_l1_loss(o, t, reduction="none").mean(1), None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_loss_counts_each_sample_by_its_weight(name: str) -> None:
    target, outputs, loss, compute, count = CASES[name]
    data = add_weights(make_data(target), WEIGHTS)
    criterion = make_criterion(data, [{"Linear": outputs}], loss)
    split, output = data.train, torch.randn(len(data.train), outputs, requires_grad=True)
    weights = split.tensors[KEY]
    counted = weights if count is None else weights * count(split.target)
    expected = (compute(output, split.target) * weights).sum() / counted.sum()
    found = criterion(output, make_targets(criterion, split))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, output, retain_graph=True), torch.autograd.grad(expected, output)
    )
    assert torch.equal(criterion.weigh(make_targets(criterion, split))[:, 0], counted.double())  # type: ignore[index]


def test_a_step_counts_by_its_sample() -> None:
    lengths = np.random.default_rng(4).integers(1, 6, ROWS)
    x = np.random.default_rng(5).normal(size=(ROWS, 5, 3)).astype(np.float32)
    data = add_weights(make_data(draw_classes(3, (ROWS, 5)), x, x_lengths=lengths), WEIGHTS)
    criterion = make_criterion(data, [{"Linear": 3}])
    split = data.train
    output = torch.randn(len(split), 5, 3)
    losses = nn.functional.cross_entropy(output.movedim(2, 1), split.target, reduction="none")
    is_real = torch.arange(5) < split.tensors["x_lengths"][:, None]
    factors = is_real * split.tensors[KEY][:, None]
    torch.testing.assert_close(
        criterion(output, make_targets(criterion, split)), (losses * factors).sum() / factors.sum()
    )
    ((predictions, truth, weights),) = criterion.make_metric_pairs(output, make_targets(criterion, split))
    assert len(predictions) == len(truth) == int(is_real.sum())
    assert torch.equal(weights, split.tensors[KEY][:, None].expand(-1, 5)[is_real])


def test_a_batch_without_any_weight_has_loss_0() -> None:
    data = add_weights(make_data(draw_classes(2)), torch.zeros(ROWS))
    criterion = make_criterion(data, [{"Linear": 1}])
    output = torch.randn(len(data.train), 1, requires_grad=True)
    loss = criterion(output, make_targets(criterion, data.train))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0 and torch.equal(output.grad, torch.zeros_like(output))  # type: ignore[arg-type]


def test_losses_that_cannot_weight_samples_are_refused() -> None:
    data = add_weights(make_data(np.stack([NUMBERS, NUMBERS], 1)), WEIGHTS)
    spec = {
        "layers": [{"Linear": 2}, {"LogSoftmax": {"dim": 1}}],
        "loss": {"type": "KLDivLoss", "reduction": "batchmean"},
    }
    with pytest.raises(SpecError) as error:
        prepare_spec(spec, data).prepare()
    assert error.value.problems[0].code is Code.UNSUPPORTED


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", ["two classes", "class weights", "numbers"])
def test_a_weight_of_two_is_the_sample_twice(name: str, accumulate: int) -> None:
    """Trained in one batch, results with whole weights are those of repeated samples."""
    target, outputs, loss, _, _ = CASES[name]
    data = make_data(target)
    weighted = add_weights(data, WEIGHTS)
    start, repeated = 0, []
    for split in (data.train, data.validation, data.test):
        counts = WEIGHTS[start : start + len(split)].long()
        start += len(split)
        repeated.append(Split(
            {key: each.repeat_interleave(counts, 0) for key, each in split.tensors.items()},
            {key: each.repeat_interleave(counts, 0) for key, each in split.targets.items()},
        ))  # fmt: skip
    twice = replace(data, train=repeated[0], validation=repeated[1], test=repeated[2])
    is_number = name == "numbers"
    metrics = ["MeanAbsoluteError", "R2Score", "MeanSquaredError"] if is_number else ["Accuracy", "F1Score", "Recall"]
    found = []
    for each, accumulated in ((weighted, accumulate), (twice, 1)):
        size = -(-len(each.train) // accumulated)
        trainer = {**TRAINER, "batch_size": size, "accumulate": accumulated}
        spec = {"layers": [{"Linear": outputs}], "loss": loss, "metrics": metrics, "trainer": trainer}
        job = make_job(prepare_spec(spec, each), shows_progress=False)
        found.append({**job.run().best, **job.run().test})
    assert found[0].keys() == found[1].keys() and len(found[0]) >= 10
    for key, value in found[0].items():
        if not key.startswith(("seconds", "samples")):
            assert value == pytest.approx(found[1][key], rel=2e-4, abs=1e-5), key
