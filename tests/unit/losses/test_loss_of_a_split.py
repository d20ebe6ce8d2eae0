"""The loss over a split is PyTorch's own for the whole split, and an accumulated update that of one large batch.

Neither depends on the batch size, whatever the loss averages: samples, real steps, weighted or ignored classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.data.dataset import Field, Target
from dlspec.layouts import Lengths, TensorInfo
from dlspec.losses.criterion import Criterion
from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.torch.torch_parts import LOSSES
from dlspec.training.evaluation.scores import Scores
from dlspec.training.step.step_functions import GradientClipping, GradientComputation, compute_batch_weights
from helpers.loss_cases import ABC, make_data, make_labels, make_outputs, read_valid_criterion

SAMPLES, T = 41, 5
CLASS_WEIGHTS = [1.0, 5.0, 20.0]
LABEL, YES_NO = Target("label", "classes", (), ABC), Target("is", "classes", (), ABC[:2])
NUMBER, SHARE = Target("value", "numbers"), Target("share", "numbers", (3,))
STEPS = Target("tags", "classes", (T,), ABC, lengths="x")
STEPS_YES_NO, CURVE = (
    Target("tags", "classes", (T,), ABC[:2], lengths="x"),
    Target("tags", "numbers", (T,), lengths="x"),
)
PIXELS = Target("mask", "classes", (2, 3), ABC)
LENGTHS = torch.arange(SAMPLES) * 7 % T + 1
REAL = make_step_mask(LENGTHS, T)
SEQUENCE = (Field("x", (T, 4), "sequence", has_lengths=True),)


def features(size: int) -> TensorInfo:
    return TensorInfo((size,), "features")


def steps(channels: int, layout: str = "sequence") -> TensorInfo:
    shape = (T, channels) if layout == "sequence" else (channels, T)
    return TensorInfo(shape, layout, Lengths("x"))  # type: ignore[arg-type]


def one_hot(classes: Tensor) -> Tensor:
    return functional.one_hot(classes, 3).double()


def signs(classes: Tensor) -> Tensor:
    return one_hot(classes) * 2 - 1


def as_double(values: Tensor) -> Tensor:
    return values.double()


def as_is(values: Tensor) -> Tensor:
    return values


def first(values: Tensor) -> Tensor:
    return values[..., 0]


@dataclass(frozen=True)
class Case:
    """A loss of `torch.nn`, the outputs that it compares, and what PyTorch's own takes of output and target."""

    loss: str
    ends: tuple[tuple[TensorInfo, str], ...]
    target: Target
    aim: Callable[[Tensor], Tensor] = as_is
    given: Callable[[Tensor], Tensor] = as_is
    settings: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value}" for name, value in self.settings)
        return f"{self.loss}-{self.ends[0][0]}-{settings}"

    def read(self) -> Criterion:
        names = [*"abc"][: len(self.ends)]
        raw = {"type": self.loss, "output": names if len(names) > 1 else "a", **dict(self.settings)}
        if LOSSES[self.loss].name != "Mean" and self.loss != "TripletMarginLoss":
            raw["target"] = self.target.name
        network = make_outputs(**dict(zip(names, self.ends, strict=True)))
        has_steps = bool(self.target.lengths)
        fields = {"fields": SEQUENCE, "x": torch.zeros(6, T, 4), "x_lengths": LENGTHS[:6]} if has_steps else {}
        return read_valid_criterion(raw, network, make_data(self.target, **fields))  # type: ignore[arg-type]

    def draw(self) -> dict[str, Tensor]:
        """Outputs as the last layers would make them."""
        drawn = {}
        for seed, (name, (value, end)) in enumerate(zip("abc", self.ends, strict=False)):
            values = torch.randn(SAMPLES, *value.shape, generator=torch.Generator().manual_seed(seed))
            channels = value.channels_dim
            made = {"LogSoftmax": partial(torch.log_softmax, dim=channels), "Sigmoid": torch.sigmoid,
                    "Softplus": lambda each: functional.softplus(each) + 1}.get(end, as_is)(values)  # fmt: skip
            drawn[name] = made
        return drawn

    def compute_plain(self, outputs: dict[str, Tensor], labels: Tensor, rows: slice = slice(None)) -> Tensor:
        """The loss of these samples by PyTorch alone, of the real steps only, in float64."""
        settings = {
            name: torch.tensor(each).double() if isinstance(each, list) else each for name, each in self.settings
        }
        loss = getattr(nn, self.loss, lambda: Tensor.mean)(**settings)
        given = [self._select(outputs[name], value, rows) for name, (value, _) in zip("abc", self.ends, strict=False)]
        aim = self.aim(labels[rows][REAL[rows]] if self.target.lengths else labels[rows])
        if self.loss in ("Mean", "TripletMarginLoss"):
            return loss(*given)  # type: ignore[no-any-return]
        return loss(*given[:1], aim, *given[1:]) if self.loss == "GaussianNLLLoss" else loss(*given, aim)  # type: ignore[no-any-return]

    def _select(self, output: Tensor, value: TensorInfo, rows: slice) -> Tensor:
        output = output[rows].double()
        if self.target.lengths:
            output = output.movedim(value.channels_dim, -1)[REAL[rows]]
        return self.given(output)


def single(loss: str, value: TensorInfo, target: Target, end: str = "Linear", **more: Any) -> Case:
    settings = tuple((name, each) for name, each in more.items() if name not in ("aim", "given"))
    return Case(loss, ((value, end),), target, more.get("aim", as_is), more.get("given", as_is), settings)


def several(loss: str, target: Target, *ends: tuple[TensorInfo, str], **more: Any) -> Case:
    settings = tuple((name, each) for name, each in more.items() if name not in ("aim", "given"))
    return Case(loss, ends, target, more.get("aim", as_is), more.get("given", as_is), settings)


def pair_signs(classes: Tensor) -> Tensor:
    return classes.double() * 2 - 1


VECTOR, NUMBER_END = (features(4), "Linear"), (features(1), "Linear")
CASES = [
    # classes: weighted, ignored, smoothed
    single("CrossEntropyLoss", features(3), LABEL),
    single("CrossEntropyLoss", features(3), LABEL, weight=CLASS_WEIGHTS),
    single("CrossEntropyLoss", features(3), LABEL, weight=[0.0, 5.0, 20.0]),
    single("CrossEntropyLoss", features(3), LABEL, weight=CLASS_WEIGHTS, label_smoothing=0.1),
    single("CrossEntropyLoss", features(3), LABEL, ignore_index=1),
    single("CrossEntropyLoss", features(3), LABEL, ignore_index=0, weight=CLASS_WEIGHTS, label_smoothing=0.2),
    single("CrossEntropyLoss", TensorInfo((3, 2, 3), "channels-first"), PIXELS, weight=CLASS_WEIGHTS),
    single("NLLLoss", features(3), LABEL, "LogSoftmax", weight=CLASS_WEIGHTS),
    single("NLLLoss", features(3), LABEL, "LogSoftmax", ignore_index=2),
    single("MultiMarginLoss", features(3), LABEL, weight=CLASS_WEIGHTS),
    single("BCELoss", features(3), LABEL, "Sigmoid", aim=one_hot),
    single("BCEWithLogitsLoss", features(3), LABEL, aim=one_hot, pos_weight=CLASS_WEIGHTS),
    single("MultiLabelSoftMarginLoss", features(3), LABEL, aim=one_hot, weight=CLASS_WEIGHTS),
    single("SoftMarginLoss", features(3), LABEL, aim=signs),
    single("KLDivLoss", features(3), LABEL, "LogSoftmax", aim=one_hot, reduction="batchmean"),
    single("KLDivLoss", features(3), LABEL, "LogSoftmax", aim=one_hot, reduction="mean"),
    # numbers
    *[single(loss, features(1), NUMBER, aim=as_double, given=first)
      for loss in ("HuberLoss", "L1Loss", "MSELoss", "SmoothL1Loss", "PoissonNLLLoss")],
    single("MSELoss", features(3), SHARE, aim=as_double),
    # several outputs
    several("TripletMarginLoss", YES_NO, VECTOR, VECTOR, VECTOR),
    several("CosineEmbeddingLoss", YES_NO, VECTOR, VECTOR, aim=pair_signs),
    several("MarginRankingLoss", YES_NO, NUMBER_END, NUMBER_END, aim=pair_signs, given=first),
    several("HingeEmbeddingLoss", YES_NO, NUMBER_END, aim=pair_signs, given=first),
    several("GaussianNLLLoss", NUMBER, NUMBER_END, (features(1), "Softplus"), aim=as_double, given=first),
    single("Mean", features(4), LABEL),
    # padded
    single("CrossEntropyLoss", steps(3), STEPS),
    single("CrossEntropyLoss", steps(3), STEPS, weight=CLASS_WEIGHTS, label_smoothing=0.1),
    single("CrossEntropyLoss", steps(3, "channels-first"), STEPS, weight=CLASS_WEIGHTS),
    single("CrossEntropyLoss", steps(3), STEPS, ignore_index=0),
    single("NLLLoss", steps(3), STEPS, "LogSoftmax", ignore_index=1, weight=CLASS_WEIGHTS),
    single("MultiMarginLoss", steps(3), STEPS, weight=CLASS_WEIGHTS),
    single("BCEWithLogitsLoss", steps(1), STEPS_YES_NO, aim=as_double, given=first),
    single("BCEWithLogitsLoss", steps(3, "channels-first"), STEPS, aim=one_hot, pos_weight=CLASS_WEIGHTS),
    single("KLDivLoss", steps(3), STEPS, "LogSoftmax", aim=one_hot, reduction="batchmean"),
    *[single(loss, steps(1), CURVE, aim=as_double, given=first)
      for loss in ("HuberLoss", "L1Loss", "MSELoss", "SmoothL1Loss", "PoissonNLLLoss")],
    several("GaussianNLLLoss", CURVE, (steps(1), "Linear"), (steps(1), "Softplus"), aim=as_double, given=first),
    single("Mean", steps(3), STEPS),
]  # fmt: skip
# PyTorch warns of this mean.
pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss:UserWarning")
each_case = pytest.mark.parametrize("case", CASES, ids=str)


def test_every_loss_of_the_registry_has_a_case() -> None:
    own = {name for name in LOSSES if LOSSES[name].build.__module__.startswith("torch.")}
    assert own == {each.loss for each in CASES} - {"Mean"} | {"CTCLoss"}


def gather_batch(case: Case, criterion: Criterion, outputs: dict[str, Tensor], labels: Tensor, rows: slice) -> Any:
    """(output, targets) of some samples, as the loop has them."""
    output = {name: each[rows] for name, each in outputs.items()} if len(outputs) > 1 else outputs["a"][rows]
    tensors = {case.target.name: labels, "x_lengths": LENGTHS}
    return output, tuple(tensors[name][rows] for name in criterion.target_names)


def split_rows(batch_size: int, stop: int = SAMPLES) -> list[slice]:
    return [slice(start, min(start + batch_size, stop)) for start in range(0, stop, batch_size)]


def evaluate(criterion: Criterion, batches: list[tuple[Any, Any]], rows: list[slice]) -> dict[str, float]:
    """The results of a pass over a split."""
    scores = Scores(criterion, [])
    with torch.inference_mode():
        for (output, targets), each in zip(batches, rows, strict=True):
            scores.add(output, criterion(output, targets), targets, each.stop - each.start)
    assert scores.find_non_finite_step() is None  # nor is a batch that has only ignored classes
    return scores.results()


@each_case
@pytest.mark.parametrize("batch_size", [1, 5, 7, 1000])
def test_the_loss_of_a_split_is_pytorchs_own_for_the_whole_split(case: Case, batch_size: int) -> None:
    criterion, outputs, labels = case.read(), case.draw(), make_labels(case.target, SAMPLES)
    rows = split_rows(batch_size)
    found = evaluate(criterion, [gather_batch(case, criterion, outputs, labels, each) for each in rows], rows)
    assert found["loss"] == pytest.approx(case.compute_plain(outputs, labels).item(), rel=1e-6)


def accumulate_gradients(
    criterion: Criterion, batches: list[tuple[Any, Any]], sizes: list[int], weights: list[nn.Parameter]
) -> list[Tensor]:
    """Add up the gradients of one update as training does; return the loss of each batch."""
    gradients = GradientComputation(lambda output: output, criterion, weights, GradientClipping(), lambda loss: None)
    found = [criterion.weigh(targets) for _, targets in batches]
    sample_weights = None if found[0] is None else torch.cat([each for each in found if each is not None])
    losses = []
    for batch_weight, (output, targets) in zip(
        compute_batch_weights(sizes, len(sizes), sample_weights), batches, strict=True
    ):
        losses.append(gradients.accumulate((output,), targets, batch_weight)[1])
    return losses


@each_case
def test_an_accumulated_update_is_that_of_one_large_batch(case: Case) -> None:
    criterion, labels = case.read(), make_labels(case.target, SAMPLES)
    outputs = {name: nn.Parameter(each) for name, each in case.draw().items()}
    for stop in (3, 20):  # batches of one sample, some of them only of an ignored class; and a rest
        rows = split_rows(-(-stop // 3), stop)
        batches = [gather_batch(case, criterion, outputs, labels, each) for each in rows]
        sizes = [each.stop - each.start for each in rows]
        assert len(sizes) == 3
        accumulate_gradients(criterion, batches, sizes, list(outputs.values()))
        found = [each.grad.clone() for each in outputs.values() if each.grad is not None]
        plain = torch.autograd.grad(case.compute_plain(dict(outputs), labels, slice(stop)), list(outputs.values()))
        torch.testing.assert_close(found, list(plain), rtol=1e-5, atol=1e-7)
        assert len(found) == len(outputs)


def test_ctc_averages_over_samples() -> None:
    text = Target("text", "classes", (2,), ("blank", "a", "b"), lengths="text")
    data = make_data(
        text, fields=SEQUENCE, x=torch.zeros(6, T, 4), x_lengths=LENGTHS[:6], text_lengths=torch.ones(6).long()
    )
    criterion = read_valid_criterion("CTCLoss", make_outputs(output=(steps(3), "LogSoftmax")), data)
    scores = torch.randn(SAMPLES, T, 3).log_softmax(-1)
    tokens, ones = torch.arange(SAMPLES * 2).reshape(-1, 2) % 2 + 1, torch.arange(SAMPLES) % 2 + 1
    lengths = LENGTHS.clamp(min=2)
    whole = functional.ctc_loss(scores.double().transpose(0, 1), tokens, lengths, ones).item()
    for batch_size in (1, 5, 7, 1000):
        rows = split_rows(batch_size)
        batches = [(scores[each], (tokens[each], lengths[each], ones[each])) for each in rows]
        assert evaluate(criterion, batches, rows)["loss"] == pytest.approx(whole, rel=1e-6)


# ---- multiple terms --------------------------------------------------------------------------------------------------

TERMS = {
    "kind": {"type": "CrossEntropyLoss", "output": "a", "target": "label", "weight": CLASS_WEIGHTS, "ignore_index": 0},
    "size": {"type": "L1Loss", "output": "b", "target": "value", "factor": 0.5},
}


def make_terms() -> tuple[Criterion, dict[str, Tensor], tuple[Tensor, Tensor]]:
    network = make_outputs(a=features(3), b=features(1))
    outputs = {"a": torch.randn(SAMPLES, 3), "b": torch.randn(SAMPLES, 1)}
    labels = make_labels(LABEL, SAMPLES), make_labels(NUMBER, SAMPLES)
    return read_valid_criterion(TERMS, network, make_data(LABEL, NUMBER)), outputs, labels


def compute_plain_terms(outputs: dict[str, Tensor], label: Tensor, number: Tensor) -> list[Tensor]:
    weight = torch.tensor(CLASS_WEIGHTS).double()
    kind = functional.cross_entropy(outputs["a"].double(), label, weight, ignore_index=0)
    size = functional.l1_loss(outputs["b"][:, 0].double(), number.double())
    return [kind + 0.5 * size, kind, size]


@pytest.mark.parametrize("batch_size", [1, 5, 7, 1000])
def test_each_term_is_averaged_by_its_own_weights(batch_size: int) -> None:
    criterion, outputs, labels = make_terms()
    rows = split_rows(batch_size)
    batches = [
        ({name: each[row] for name, each in outputs.items()}, tuple(each[row] for each in labels)) for row in rows
    ]
    found = evaluate(criterion, batches, rows)
    wanted = [each.item() for each in compute_plain_terms(outputs, *labels)]
    assert found == pytest.approx(dict(zip(("loss", "loss_kind", "loss_size"), wanted, strict=True)), rel=1e-6)


def test_terms_with_different_weights_are_accumulated_each_by_its_own() -> None:
    criterion, outputs, labels = make_terms()
    weights = {name: nn.Parameter(each[:20]) for name, each in outputs.items()}
    rows = split_rows(7, 20)
    batches = [
        ({name: each[row] for name, each in weights.items()}, tuple(each[row] for each in labels)) for row in rows
    ]
    accumulate_gradients(criterion, batches, [7, 7, 6], list(weights.values()))
    plain = torch.autograd.grad(
        compute_plain_terms(dict(weights), *(each[:20] for each in labels))[0], list(weights.values())
    )
    torch.testing.assert_close([each.grad for each in weights.values()], list(plain), rtol=1e-5, atol=1e-7)


# ---- losses of the user's own ----------------------------------------------------------------------------------------


class Doubled(nn.Module):
    takes_class_numbers = True

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return functional.cross_entropy(output, target) * 2


class Spread(nn.Module):
    """Takes no target."""

    def forward(self, output: Tensor) -> Tensor:
        return output.square().mean()


@pytest.fixture
def own_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_classes", LOSSES._classes | {"Doubled": Doubled, "Spread": Spread})
    monkeypatch.setattr(LOSSES, "_described", dict(LOSSES._described))


@pytest.mark.usefixtures("own_losses")
@pytest.mark.parametrize(
    ("loss", "has_steps", "counted"),
    [
        ("Doubled", False, "samples"),
        ("Doubled", True, "real steps"),
        ("Spread", False, "samples"),
        ("Spread", True, "real steps"),
    ],
)
def test_an_own_loss_counts_as_a_mean_and_says_so(loss: str, has_steps: bool, counted: str) -> None:
    value, target = (steps(3), STEPS) if has_steps else (features(3), LABEL)
    case = Case(loss, ((value, "Linear"),), target)
    fields: Any = {"fields": SEQUENCE, "x": torch.zeros(6, T, 4), "x_lengths": LENGTHS[:6]} if has_steps else {}
    criterion = read_valid_criterion(loss, make_outputs(output=value), make_data(target, **fields))
    assert criterion.describe_own_losses() == (
        f"{loss} returns one number for each batch: it counts as the mean over the batch's {counted}",
    )
    output, labels = case.draw()["a"], make_labels(target, SAMPLES)
    rows = (output[REAL], labels[REAL]) if has_steps else (output, labels)
    plain = Doubled()(*rows) if loss == "Doubled" else Spread()(rows[0])
    for batch_size in (1, 7, 1000):
        slices = split_rows(batch_size)
        batches = [gather_batch(case, criterion, {"a": output}, labels, each) for each in slices]
        assert evaluate(criterion, batches, slices)["loss"] == pytest.approx(plain.item(), rel=1e-6)


def test_a_loss_of_pytorch_is_not_described() -> None:
    assert make_terms()[0].describe_own_losses() == ()
