"""Numbers gone wrong: where they began is told, whether the weights had moved on or not."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.runs.file_names import METRICS_FILE
from dlspec.training.callbacks.callback import Callback
from dlspec.training.callbacks.default_callbacks import make_default_callbacks
from dlspec.training.health.nan_checks import are_all_finite, find_non_finite
from dlspec.training.state import TrainingState
from dlspec.training.trainer import Trainer
from helpers.failing_networks import (
    FunctionLayer,
    RareDivisionByZero,
    get_failure_message,
    make_stack,
    sqrt_of_positive,
)
from helpers.toy_training import CrossEntropy, make_dataset, make_trainer

Make = Callable[..., Trainer]


class Log(CrossEntropy):
    """A loss that takes the logarithm of 0."""

    def forward(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        return -output.relu().log().mean()


class Square(CrossEntropy):
    def forward(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        return output.square().mean()


class Terms(CrossEntropy):
    term_names = ("fine", "bad")

    def forward(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        fine, bad = super().forward(output, targets), output.sum() / 0
        return torch.stack([fine + bad, fine.detach(), bad.detach()])


SMALLER = "a smaller learning rate or trainer.clip_grad_norm may help"
SPOILED = f"{SMALLER}; trainer.debug=anomaly finds the layer if a gradient was the cause"
SLOPES = "the gradient of a root, norm or logarithm is infinite at 0: add a small number to its input"
LOSS = "the network's output is finite, but"


@pytest.fixture(params=["at once", "too late"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a trainer that looks at each loss, or as on a GPU only when the weights have moved on."""

    def made(*args: Any, **options: Any) -> Trainer:
        training = make_trainer(*args, **options)
        training.guard.always_checks_before_update = request.param == "at once"
        return training

    return made


@pytest.mark.parametrize(
    ("network", "options", "text"),
    [
        (
            make_stack(FunctionLayer(lambda x: (x * 1e3).exp())),
            {},
            "layer '1' (FunctionLayer) is the first to output inf; ",
        ),
        (
            make_stack(FunctionLayer(lambda x: (x * 1e5).half()), FunctionLayer(Tensor.float)),
            {},
            "layer '1' (FunctionLayer) is the first to output ",
        ),
        (
            make_stack(nn.ReLU(), nn.Sequential(nn.Identity(), FunctionLayer(torch.log))),
            {},
            "layer '2.1' (FunctionLayer) is the first to",
        ),
        (
            make_stack(nn.Dropout(0.5), FunctionLayer(lambda x: 1 / x)),
            {},
            "layer '2' (FunctionLayer) is the first to output inf; ",
        ),
        (make_stack(), {"criterion": Log()}, f"{LOSS} the loss is inf (a logarithm of 0 or a division by 0); "),
        (make_stack(), {"criterion": Terms(), "metrics": ()}, f"{LOSS} loss 'bad' is "),
        (
            make_stack(FunctionLayer(lambda x: x * 1e25)),
            {"criterion": Square(), "metrics": ()},
            f"{LOSS} the loss is inf",
        ),
    ],
)
def test_the_first_layer_is_named(network: nn.Module, options: dict[str, Any], text: str, make: Make) -> None:
    said = get_failure_message(make(network, **options))
    assert f" in epoch 1 at step 1, learning rate 0.01: {text}" in said
    assert said.endswith(SMALLER)


@pytest.mark.parametrize(
    ("lr", "optimizer", "text"),
    [
        # A sum of numbers too large for float32 is inf or nan by the order in which a processor adds.
        (1e30, torch.optim.SGD, f"layer '1' (Linear) is the first to output (nan|inf); {re.escape(SMALLER)}"),
        (1e38, torch.optim.Adam, f"weight of layer '0' (Linear) was inf before this step; {re.escape(SPOILED)}"),
    ],
)
def test_a_learning_rate_that_is_too_large(
    lr: float, optimizer: type[torch.optim.Optimizer], text: str, make: Make
) -> None:
    said = get_failure_message(make(make_stack(), lr=lr, optimizer_class=optimizer))
    text = text.replace("(Linear)", r"\(Linear\)")
    assert re.fullmatch(
        f"train/loss became (nan|inf) in epoch 1 at step 2, learning rate {re.escape(str(lr))}: {text}", said
    )


def test_a_gradient_that_is_not_finite_is_told_a_step_later(make: Make) -> None:
    net = make_stack(FunctionLayer(sqrt_of_positive))
    assert get_failure_message(make(net)) == (
        "train/loss became nan in epoch 1 at step 2, learning rate 0.01: "
        f"weight of layer '0' (Linear) was nan before this step; {SPOILED}"
    )


@pytest.mark.parametrize("more", [{}, {"accumulate": 2}], ids=str)
def test_late_or_not_the_same_is_told(more: dict[str, Any], make: Make) -> None:
    data = make_dataset()
    data.train.tensors["image"][23] = math.inf
    training = make(data=data, settings={"batch_size": 8, **more})
    assert "input 'image' has inf in sample 23 of the training split (the first is 0); fix" in get_failure_message(
        training
    )


def test_a_network_that_learns_nothing() -> None:
    data = make_dataset()
    data.train.tensors["image"][5] = math.nan
    said = get_failure_message(make_trainer(nn.Softmax(1), data, optimizer=None, criterion=CrossEntropy(), metrics=()))
    assert "train/loss became nan in epoch 1 at step 0, learning rate None: input 'image' has nan in sample 5" in said


class Flaw(CrossEntropy):
    """Gives nan once, as a machine with a bad memory does."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.left = at

    def forward(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        loss = super().forward(output, targets)
        self.left -= 1
        return loss * math.nan if not self.left else loss


@pytest.mark.parametrize("at", [2, 7])
def test_what_does_not_come_again_is_as_if_it_had_not_been(
    at: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run(name: str, criterion: CrossEntropy) -> tuple[bytes, list[Tensor]]:
        settings = {"epochs": 4, "test": "last", "progress": "none", "pictures": False, "curves": False}
        net = make_stack(nn.Dropout(0.2), nn.ReLU())
        (tmp_path / name).mkdir()
        callbacks = make_default_callbacks(TrainerSpec(**settings), tmp_path / name)
        training = make_trainer(net, settings=settings, criterion=criterion, callbacks=callbacks)
        training.guard.always_checks_before_update = False
        training.run()
        return (tmp_path / name / METRICS_FILE).read_bytes(), [*net.parameters()]

    rows, weights = run("straight", CrossEntropy())
    with caplog.at_level(logging.WARNING, logger="dlspec"):
        again, others = run("flawed", Flaw(at))
    assert rows == again
    assert all(map(torch.equal, weights, others))
    first, second = (each.message for each in caplog.records if each.levelno >= logging.WARNING)
    assert first.startswith("train/loss was not finite in epoch ")
    assert second.startswith("the loss stayed finite up to step ")


def test_weights_that_are_not_finite_are_not_kept(caplog: pytest.LogCaptureFixture) -> None:
    kept: list[bool] = []

    class Spoil(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            if state.step == 5:
                next(state.network.parameters()).data[0, 0] = math.nan
            if state.phase == "train":
                kept.append(state.snapshot() is not None)

    assert "at step 6" in get_failure_message(make_trainer(callbacks=[Spoil()]))
    assert kept == [True, True, True, True, False]
    assert "no snapshot at step 5: the weights are not finite" in caplog.text


def test_what_chance_does_is_found(make: Make) -> None:
    said = get_failure_message(make(make_stack(nn.Dropout(0.2), RareDivisionByZero()), settings={"epochs": 30}))
    assert ": layer '2' (RareDivisionByZero) is the first to output " in said


def test_a_search_along_a_line_may_meet_an_infinite_loss() -> None:
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    optimizer = torch.optim.LBFGS(net.parameters(), lr=1e3, line_search_fn="strong_wolfe")
    losses: list[float] = []

    class Steep(CrossEntropy):
        def forward(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
            loss = super().forward(output, targets) + output.square().mean().exp() * 0.1
            losses.append(loss.item())
            return loss

    make_trainer(net, optimizer=optimizer, criterion=Steep(), settings={"epochs": 1, "batch_size": 70}).fit()
    assert not all(map(math.isfinite, losses))


class Inner(nn.Module):
    """A layer with a layer in it, and something of its own behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return sqrt_of_positive(self.linear(x))


class Edge(CrossEntropy):
    def forward(self, output: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
        return sqrt_of_positive(output).mean()


@pytest.mark.parametrize(
    ("network", "criterion", "text"),
    [
        (
            make_stack(nn.Dropout(0.3), FunctionLayer(sqrt_of_positive), nn.ReLU()),
            CrossEntropy(),
            "layer '2' (FunctionLayer)",
        ),
        (
            make_stack(nn.Sequential(nn.ReLU(), FunctionLayer(sqrt_of_positive)), nn.ReLU()),
            CrossEntropy(),
            "layer '1.1' (FunctionLayer)",
        ),
        (make_stack(Inner(), nn.BatchNorm1d(16)), CrossEntropy(), "layer '1' (Inner)"),
        (
            make_stack(nn.ReLU(inplace=True), FunctionLayer(sqrt_of_positive)),
            CrossEntropy(),
            "layer '2' (FunctionLayer)",
        ),
        (make_stack(), Edge(), "the loss"),
    ],
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_first_gradient_is_named(
    network: nn.Module, criterion: CrossEntropy, text: str, accumulate: int, caplog: pytest.LogCaptureFixture
) -> None:
    network.zero_grad()
    before = [each.detach().clone() for each in network.state_dict().values()]
    settings = {"debug": "anomaly", "accumulate": accumulate}
    with caplog.at_level(logging.DEBUG, logger="dlspec"):
        said = get_failure_message(make_trainer(network, criterion=criterion, settings=settings))
    assert said == (
        "train/loss is finite, but a gradient is not, in epoch 1 at step 1, learning rate 0.01: "
        f"{text} is the first to give a gradient of nan; {SLOPES}"
    )
    assert "Traceback of forward call that caused the error" in caplog.text
    parameters = dict(network.named_parameters())
    kept = [torch.equal(*pair) for pair in zip(before, network.state_dict().values(), strict=True)]
    assert all(same for name, same in zip(network.state_dict(), kept, strict=True) if name in parameters)
    assert not torch.is_anomaly_enabled()


def test_without_an_anomaly_the_run_is_the_same() -> None:
    runs = [make_trainer(make_stack(nn.Dropout(0.3)), settings={"debug": debug}).run() for debug in (None, "anomaly")]
    assert runs[0].results == runs[1].results


def test_finds_what_is_not_finite() -> None:
    assert find_non_finite({"a": [torch.ones(2), (torch.tensor([1, math.inf]),)]}) == math.inf
    assert find_non_finite((torch.ones(2, dtype=torch.long), None, "x")) is None
    places, values = torch.tensor([[1, 3]]), torch.tensor([1.0, math.nan])
    sparse = torch.sparse_coo_tensor(places, values, (5,), check_invariants=True)
    assert not are_all_finite([torch.ones(3), sparse])
    assert are_all_finite([torch.zeros(0), torch.full((3,), 1e30), torch.ones(2, dtype=torch.float64)])
    assert are_all_finite([])


GRAPH = """
layers:
  - Flatten
  - Linear: {out_features: 8, name: stem}
  - Formula: exp(_ * 1000)
  - Residual: [Linear: 8, ReLU]
  - Linear: 10
"""


def test_a_formula_of_a_spec_is_named(dlspec, write) -> None:
    write("conf/model/steep.yaml", GRAPH)
    said = dlspec("model=steep", "trainer.epochs=1", "trainer.curves=false")
    assert said.code == 1
    assert "at step 1, learning rate 0.001: layer '2' (Formula) is the first to output inf; " in said.err
    assert said.err.count("\n") == 1
    write("conf/model/steep.yaml", GRAPH.replace("exp(_ * 1000)", "sqrt(relu(_) * sign(relu(_)))"))
    said = dlspec("model=steep", "trainer.epochs=1", "trainer.curves=false", "trainer.debug=anomaly")
    assert said.code == 1
    assert "layer '2' (Formula) is the first to give a gradient of inf; " in said.err
    assert said.err.count("\n") == 1
