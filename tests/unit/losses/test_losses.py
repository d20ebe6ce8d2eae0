"""Every loss by the table: which ends and targets it fits, that it is PyTorch's own number, and what is predicted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.data.dataset import Target
from dlspec.data.target_scale import TargetScale
from dlspec.language.problems import Problems
from dlspec.losses.criterion import Criterion
from dlspec.losses.criterion_setup import make_criterion
from dlspec.losses.loss_matching import choose_auto_loss
from dlspec.network.builder import Network
from dlspec.parts.specs.loss_spec import LossTerm
from dlspec.parts.torch.torch_parts import LOSSES
from helpers.layer_table import build_valid_layers, channels_first, features
from helpers.loss_cases import CALLS, make_data

YES_NO = Target("label", "classes", (), ("no", "yes"))
THREE = Target("label", "classes", (), ("a", "b", "c"))
NUMBER = Target("price", "numbers")
SCALED = Target("price", "numbers", scale=TargetScale((10.0,), (4.0,)))
SETTING = replace(SCALED, name="cost", unscaled_setting="data.raw=true")
PAIR = Target("place", "numbers", (2,))
GRID = Target("grid", "numbers", (1, 1))


def ending(size: int, *after: Any) -> Network:
    """A network whose outputs come from a `Linear` and what stands behind it."""
    torch.manual_seed(5)
    return build_valid_layers([{"Linear": size}, *after], features(4))


def made(
    loss: str, network: Network, target: Target, **settings: Any
) -> tuple[Criterion | None, list[tuple[str, ...]]]:
    problems = Problems()
    criterion = make_criterion(network, make_data(target), (LossTerm("", LOSSES[loss], settings),), problems)
    return criterion, [(".".join(map(str, each.path)), each.found, each.fix) for each in problems.found]


def fitting(loss: str, network: Network, target: Target, **settings: Any) -> Criterion:
    criterion, problems = made(loss, network, target, **settings)
    assert criterion is not None, problems
    return criterion


def judged_truth(criterion: Criterion, output: Tensor, target: Tensor) -> Tensor:
    ((_, truth),) = criterion.make_metric_pairs(output, (target,))
    return truth


def one_hot(classes: Tensor, count: int = 3) -> Tensor:
    return functional.one_hot(classes, count).float()


def signs(classes: Tensor) -> Tensor:
    return one_hot(classes) * 2 - 1


def as_is(values: Tensor) -> Tensor:
    return values


@dataclass(frozen=True)
class Row:
    """`end` stands behind a Linear of a class each, `aim` makes the target what PyTorch's loss takes of it."""

    end: tuple[Any, ...] = ()
    target: Callable[[Tensor], Tensor] = as_is
    predict_next: Callable[[Tensor], Tensor] = as_is
    settings: dict[str, Any] = field(default_factory=dict)
    sums_to_one: bool = True
    two_outputs_only: bool = False


def softmax(output: Tensor) -> Tensor:
    return output.softmax(1)


def clamp(output: Tensor) -> Tensor:
    return output.clamp(0, 1)


CLASS_LOSSES: dict[str, Row] = {
    "BCELoss": Row(("Sigmoid",), one_hot, sums_to_one=False),
    "BCEWithLogitsLoss": Row((), one_hot, torch.sigmoid, {"pos_weight": [1.0, 2.0, 3.0]}, sums_to_one=False),
    "CrossEntropyLoss": Row(
        (), as_is, softmax, {"weight": [1.0, 2.0, 3.0], "label_smoothing": 0.1}, two_outputs_only=True
    ),
    "KLDivLoss": Row(("LogSoftmax",), one_hot, torch.exp, {"reduction": "batchmean"}),
    "MultiLabelSoftMarginLoss": Row((), one_hot, torch.sigmoid, sums_to_one=False),
    "MultiMarginLoss": Row((), as_is, softmax, {"p": 2}, two_outputs_only=True),
    "NLLLoss": Row(("LogSoftmax",), as_is, torch.exp, two_outputs_only=True),
    "SoftMarginLoss": Row((), signs, torch.sigmoid, sums_to_one=False),
    "HuberLoss": Row((), one_hot, clamp, {"delta": 0.5}, sums_to_one=False),
    "L1Loss": Row((), one_hot, clamp, {"reduction": "sum"}, sums_to_one=False),
    "MSELoss": Row(("Softmax",), one_hot, clamp),
    "SmoothL1Loss": Row((), one_hot, clamp, {"beta": 0.5}, sums_to_one=False),
}
NUMBER_LOSSES: dict[str, dict[str, Any]] = {
    "HuberLoss": {"delta": 0.5},
    "L1Loss": {},
    "MSELoss": {},
    "PoissonNLLLoss": {"full": True},
    "SmoothL1Loss": {"beta": 0.5},
}
each_class_loss = pytest.mark.parametrize(("name", "row"), CLASS_LOSSES.items(), ids=list(CLASS_LOSSES))
each_number_loss = pytest.mark.parametrize(("name", "settings"), NUMBER_LOSSES.items(), ids=list(NUMBER_LOSSES))


def test_every_loss_of_the_registry_has_a_row() -> None:
    own = {name for name in LOSSES if LOSSES[name].build.__module__.startswith("torch.")}
    several = {str(raw["type"]) for raw, *_ in CALLS} | {"CTCLoss"}
    assert own == (CLASS_LOSSES.keys() | NUMBER_LOSSES.keys() | several) - {"Mean"}


def plain(name: str, settings: dict[str, Any]) -> nn.Module:
    loss: nn.Module = getattr(nn, name)(
        **{key: torch.tensor(each) if isinstance(each, list) else each for key, each in settings.items()}
    )
    return loss


@each_class_loss
def test_a_class_loss_is_pytorchs_own(name: str, row: Row) -> None:
    network = ending(3, *row.end)
    criterion = fitting(name, network, THREE, **row.settings)
    output, classes = network.module(torch.randn(5, 4)), torch.tensor([0, 2, 1, 1, 0])
    loss = criterion(output, (classes,))
    assert torch.equal(loss, plain(name, row.settings)(output, row.target(classes)))
    loss.backward()
    assert all(each.grad is not None for each in network.module.parameters())
    predicted = criterion.predict(output.detach())
    torch.testing.assert_close(predicted, row.predict_next(output.detach()))
    assert predicted.shape == (5, 3) and predicted.min() >= 0 and predicted.max() <= 1
    if row.sums_to_one:
        torch.testing.assert_close(predicted.sum(1), torch.ones(5))
    assert torch.equal(judged_truth(criterion, output, classes), classes)


@each_class_loss
def test_two_classes_are_told_by_the_seconds_probability(name: str, row: Row) -> None:
    settings = {key: each for key, each in row.settings.items() if not isinstance(each, list)}
    classes = torch.tensor([0, 1, 1])
    network = ending(2, *row.end)
    criterion = fitting(name, network, YES_NO, **settings)
    output = network.module(torch.randn(3, 4)).detach()
    aim = row.target(classes)
    assert torch.equal(
        criterion(output, (classes,)), plain(name, settings)(output, aim[:, :2] if aim.dim() == 2 else aim)
    )
    torch.testing.assert_close(criterion.predict(output), row.predict_next(output)[:, 1])


@each_class_loss
def test_one_output_for_two_classes_is_squeezed(name: str, row: Row) -> None:
    if row.two_outputs_only or row.end in (("Softmax",), ("LogSoftmax",)):
        pytest.skip("wants an output a class")
    settings = {key: each for key, each in row.settings.items() if not isinstance(each, list)}
    network = ending(1, *row.end)
    criterion = fitting(name, network, YES_NO, **settings)
    output, classes = network.module(torch.randn(3, 4)).detach(), torch.tensor([0, 1, 1])
    wanted = signs(classes)[:, 1] if row.target is signs else classes.float()
    assert torch.equal(criterion(output, (classes,)), plain(name, settings)(output.squeeze(1), wanted))
    torch.testing.assert_close(criterion.predict(output), row.predict_next(output).squeeze(1))


@each_number_loss
@pytest.mark.parametrize("target", [NUMBER, PAIR], ids=["one", "two"])
def test_a_number_loss_is_pytorchs_own(name: str, settings: dict[str, Any], target: Target) -> None:
    network = ending(target.num_outputs)
    criterion = fitting(name, network, target, **settings)
    output, numbers = network.module(torch.randn(5, 4)), torch.rand(5, *target.shape)
    shaped = output if target.shape else output.squeeze(1)
    loss = criterion(output, (numbers,))
    assert torch.equal(loss, plain(name, settings)(shaped, numbers))
    loss.backward()
    wanted = shaped.exp() if name == "PoissonNLLLoss" else shaped
    assert torch.equal(criterion.predict(output), wanted)
    assert torch.equal(judged_truth(criterion, output, numbers), numbers)


def test_numbers_come_out_in_their_own_unit() -> None:
    criterion = fitting("MSELoss", ending(1), SCALED)
    assert criterion.predict(torch.tensor([[0.0], [1.0]])).tolist() == [10.0, 14.0]
    assert judged_truth(criterion, torch.zeros(2, 1), torch.tensor([0.5, -1.0])).tolist() == [12.0, 6.0]


def test_counts_without_a_logarithm_are_predicted_as_they_are() -> None:
    criterion = fitting("PoissonNLLLoss", ending(1, "Softplus"), NUMBER, log_input=False)
    assert criterion.predict(torch.tensor([[2.0]])).tolist() == [2.0]


# ---- what the spec alone can see -----------------------------------------------------------------------------------

PIXELS = build_valid_layers([{"Conv2d": {"out_channels": 3, "kernel_size": 1}}, "ReLU"], channels_first(3, 4, 4))
INSIDE = "remove it: the loss expects logits, and predictions are still probabilities"
REFUSED: list[tuple[str, Network, Target, dict[str, Any], tuple[str, str, str]]] = [
    ("CrossEntropyLoss", ending(3, "Softmax"), THREE, {},
     ("model.layers.1", "a Softmax must not come before CrossEntropyLoss", INSIDE)),
    ("CrossEntropyLoss", ending(3, "Softmax", {"Dropout": 0.1}, "Identity", "Flatten"), THREE, {},
     ("model.layers.1", "a Softmax must not come before CrossEntropyLoss", INSIDE)),
    ("CrossEntropyLoss", ending(3, "Sigmoid"), THREE, {},
     ("model.layers.1", "a Sigmoid must not come before CrossEntropyLoss", INSIDE)),
    ("BCEWithLogitsLoss", ending(1, "Sigmoid"), YES_NO, {},
     ("model.layers.1", "a Sigmoid must not come before BCEWithLogitsLoss", INSIDE)),
    ("BCEWithLogitsLoss", ending(2, "Softmax", "Identity"), YES_NO, {},
     ("model.layers.1", "a Softmax must not come before BCEWithLogitsLoss", INSIDE)),
    ("MultiMarginLoss", ending(3, "Softmax"), THREE, {},
     ("model.layers.1", "a Softmax must not come before MultiMarginLoss",
      "remove it: the loss expects unbounded scores")),
    ("BCELoss", ending(1), YES_NO, {},
     ("model.layers.0", "BCELoss expects the network to end with Sigmoid, Softmax or Hardsigmoid, got Linear",
      "end with a Sigmoid, or use BCEWithLogitsLoss")),
    ("NLLLoss", ending(3), THREE, {},
     ("model.layers.0", "NLLLoss expects the network to end with LogSoftmax, got Linear",
      "end with a LogSoftmax: {dim: 1}, or use CrossEntropyLoss")),
    ("BCELoss", ending(1, "Softmax"), YES_NO, {},
     ("model.layers.1", "a Softmax over one output always gives the same value",
      "end with a Sigmoid, or use 2 outputs")),
    ("MSELoss", ending(1, "Softmax"), NUMBER, {},
     ("model.layers.1", "a Softmax over one output always gives the same value",
      "end with a Sigmoid, or use 2 outputs")),
    # sizes
    ("CrossEntropyLoss", ending(10), THREE, {},
     ("model.layers.0", "the network outputs (10) features, but CrossEntropyLoss expects (3): 'label' has 3 classes",
      "end with Linear: 3, or Linear: ${data.num_outputs}")),
    ("CrossEntropyLoss", ending(1), YES_NO, {},
     ("model.layers.0", "the network outputs (1) features, but CrossEntropyLoss expects (2): 'label' has 2 classes",
      "end with Linear: 2")),
    ("BCEWithLogitsLoss", ending(3), YES_NO, {},
     ("model.layers.0", "the network outputs (3) features, but BCEWithLogitsLoss expects (1) or (2): "
      "'label' has 2 classes",
      "end with Linear: 1, or Linear: ${data.num_outputs}")),
    ("MSELoss", ending(3), NUMBER, {},
     ("model.layers.0", "the network outputs (3) features, but MSELoss expects (1): 'price' is a number",
      "end with Linear: 1, or Linear: ${data.num_outputs}")),
    ("MSELoss", ending(1), PAIR, {},
     ("model.layers.0", "the network outputs (1) features, but MSELoss expects (2): 'place' has 2 numbers",
      "end with Linear: 2, or Linear: ${data.num_outputs}")),
    ("CrossEntropyLoss", PIXELS, THREE, {},
     ("model.layers.1", "the network outputs (3, 4, 4) channels-first, but CrossEntropyLoss expects (3): "
      "'label' has 3 classes",
      "end with Flatten and Linear: 3")),
    # targets
    ("CrossEntropyLoss", ending(1), NUMBER, {},
     ("loss", "CrossEntropyLoss expects classes, but 'price' is a number",
      "use MSELoss, L1Loss, SmoothL1Loss or HuberLoss")),
    *[(loss, ending(1), GRID, {},
       ("model.layers.0", f"the network outputs (1) features, but {loss} expects (1, 1): "
        "'grid' has numbers of shape (1, 1)",
        "end with Reshape: [1, 1]")) for loss in ("MSELoss", "L1Loss")],
    ("PoissonNLLLoss", ending(3), THREE, {},
     ("loss", "PoissonNLLLoss expects counts, but 'label' has classes", "use CrossEntropyLoss")),
    ("PoissonNLLLoss", ending(1), SCALED, {},
     ("loss", "PoissonNLLLoss expects counts, but 'price' is standardized", "use MSELoss")),
    ("PoissonNLLLoss", ending(1), SETTING, {},
     ("loss", "PoissonNLLLoss expects counts, but 'cost' is standardized", "write data.raw=true, or use MSELoss")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "network", "target", "settings", "told"),
    REFUSED,
    ids=[f"{each[0]}-{'-'.join(layer.type for layer in each[1].layers)}-{each[2].name}" for each in REFUSED],
)
def test_what_does_not_fit_is_refused(
    loss: str, network: Network, target: Target, settings: dict[str, Any], told: tuple[str, str, str]
) -> None:
    assert made(loss, network, target, **settings) == (None, [told])


@pytest.mark.parametrize("weights", [[1.0], [1.0, 2.0]])
@pytest.mark.parametrize("loss", ["CrossEntropyLoss", "MultiMarginLoss"])
def test_class_weights_of_a_wrong_length_are_found_before_anything_runs(loss: str, weights: list[float]) -> None:
    criterion, told = made(loss, ending(3), THREE, weight=weights)
    assert criterion is None
    ((path, found, _),) = told
    assert (path, found) == ("loss", f"'weight' must have 3 numbers, one for each class of 'label', got {weights}")


def test_a_weight_that_fits_a_batch_by_chance_is_found_too() -> None:
    assert made("BCEWithLogitsLoss", ending(1), YES_NO, pos_weight=[1.0, 2.0])[0] is None
    assert made("BCEWithLogitsLoss", ending(1), YES_NO, pos_weight=[1.0, 2.0, 3.0])[0] is None
    assert made("BCEWithLogitsLoss", ending(1), YES_NO, pos_weight=[2.0])[0] is not None


AUTO: list[tuple[Network, Target, str]] = [
    (ending(3), THREE, "CrossEntropyLoss"),
    (ending(3, "LogSoftmax"), THREE, "NLLLoss"),
    (ending(2), YES_NO, "CrossEntropyLoss"),
    (ending(1), YES_NO, "BCEWithLogitsLoss"),
    (ending(1, "Sigmoid", {"Dropout": 0.1}), YES_NO, "BCELoss"),
    (ending(2, "LogSoftmax", "Identity"), YES_NO, "NLLLoss"),
    (ending(1), NUMBER, "MSELoss"),
    (ending(2), PAIR, "MSELoss"),
]


@pytest.mark.parametrize(("network", "target", "loss"), AUTO)
def test_auto_is_the_loss_that_fits(network: Network, target: Target, loss: str) -> None:
    assert choose_auto_loss(network.outputs["output"], target) == loss
    fitting(loss, network, target)


# ---- losses of the user's own --------------------------------------------------------------------------------------


class Distance(nn.Module):
    """Element by element, with a setting."""

    def __init__(self, power: float = 2.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return ((output - target).abs() ** self.power).mean()


class Focal(nn.Module):
    """Wants class numbers, and knows how its outputs become probabilities."""

    takes_class_numbers = True

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        loss = functional.cross_entropy(output, target, reduction="none")
        return ((1 - (-loss).exp()) ** 2 * loss).mean()

    def predict(self, output: Tensor) -> Tensor:
        return output.softmax(1)


class Each(nn.Module):
    """Forgets to average."""

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target) ** 2


class Noisy(nn.Module):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target + torch.randn(())).mean()


@pytest.fixture
def own_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {each.__name__: each for each in (Distance, Focal, Each, Noisy)}
    monkeypatch.setattr(LOSSES, "_classes", LOSSES._classes | own)
    monkeypatch.setattr(LOSSES, "_described", dict(LOSSES._described))


@pytest.mark.usefixtures("own_losses")
def test_an_own_loss_compares_element_by_element() -> None:
    output, classes = torch.rand(4, 3), torch.tensor([0, 2, 1, 1])
    criterion = fitting("Distance", ending(3), THREE, power=1.0)
    assert torch.equal(criterion(output, (classes,)), (output - one_hot(classes)).abs().mean())
    numbers = fitting("Distance", ending(1), SCALED)
    assert torch.equal(numbers(output[:, :1], (output[:, 1],)), ((output[:, 0] - output[:, 1]) ** 2).mean())
    assert numbers.predict(torch.tensor([[1.0]])).tolist() == [14.0]


@pytest.mark.usefixtures("own_losses")
def test_an_own_loss_may_take_class_numbers_and_say_how_to_predict() -> None:
    output, classes = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    criterion = fitting("Focal", ending(3), THREE)
    assert torch.equal(criterion(output, (classes,)), Focal()(output, classes))
    assert torch.equal(criterion.predict(output), output.softmax(1))


@pytest.mark.usefixtures("own_losses")
def test_an_own_loss_that_gives_no_single_number_is_told() -> None:
    assert made("Each", ending(3), THREE)[1] == [
        (
            "loss",
            "Each can't compare (3) features with 'label'",
            "its own code says: the loss has shape (2, 3), expected a scalar: the mean over the batch",
        )
    ]


@pytest.mark.usefixtures("own_losses")
def test_trying_a_loss_draws_nothing() -> None:
    network, state = ending(3), torch.get_rng_state()
    fitting("Noisy", network, THREE)
    assert torch.equal(torch.get_rng_state(), state)
