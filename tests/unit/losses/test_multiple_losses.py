"""Losses of steps and pixels, of several outputs and targets, and the losses that compare outputs with each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dlspec.data.batches.sequence_lengths import PaddingTrim, change_lengths, masked_mean
from dlspec.data.dataset import Dataset, Field, Target
from dlspec.layouts import LengthChange, Lengths, TensorInfo
from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.torch.torch_parts import LOSSES
from helpers.loss_cases import (
    ABC,
    CALLS,
    LABEL,
    NUMBER,
    ONES,
    PAIR,
    ROWS,
    A,
    B,
    C,
    format_case_name,
    make_data,
    make_labels,
    make_outputs,
    read_criterion,
    read_valid_criterion,
)

T, K = 5, 3
STEPS = Target("tags", "classes", (T,), ABC, lengths="x")
STEPS_YES_NO = Target("tags", "classes", (T,), ABC[:2], lengths="x")
PIXELS, MASK = Target("mask", "classes", (4, 6), ABC), Target("mask", "classes", (4, 6), ABC[:2])
CURVE, IMAGE = Target("curve", "numbers", (T,), lengths="x"), Target("picture", "numbers", (2, 4, 6))
LENGTHS = torch.tensor([5, 1, 3, 2, 5, 4])
REAL = make_step_mask(LENGTHS, T)
SEQUENCE = (Field("x", (T, 4), "sequence", has_lengths=True),)


def sequence(target: Target) -> Dataset:
    return make_data(target, fields=SEQUENCE, x=torch.zeros(ROWS, T, 4), x_lengths=LENGTHS)


def steps(channels: int = K, layout: str = "sequence") -> TensorInfo:
    shape = (T, channels) if layout == "sequence" else (channels, T)
    return TensorInfo(shape, layout, Lengths("x"))  # type: ignore[arg-type]


def drawn(value: TensorInfo, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, *value.shape, generator=generator, requires_grad=True)


# ---- steps and pixels: the loss is that of the real rows alone -----------------------------------------------------

BY_STEP: list[tuple[Any, TensorInfo, str, Target, Any]] = [
    ("CrossEntropyLoss", steps(), "Linear", STEPS, functional.cross_entropy),
    ({"CrossEntropyLoss": {"weight": [1.0, 2.0, 3.0], "label_smoothing": 0.1}}, steps(), "Linear", STEPS,
     nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), label_smoothing=0.1)),
    ({"CrossEntropyLoss": {"ignore_index": 0}}, steps(), "Linear", STEPS, nn.CrossEntropyLoss(ignore_index=0)),
    ("CrossEntropyLoss", steps(layout="channels-first"), "Conv1d", STEPS, functional.cross_entropy),
    ("NLLLoss", steps(), "LogSoftmax", STEPS, functional.nll_loss),
    ("MultiMarginLoss", steps(), "Linear", STEPS, functional.multi_margin_loss),
    ("MultiMarginLoss", steps(layout="channels-first"), "Linear", STEPS, functional.multi_margin_loss),
    ("MSELoss", steps(), "Linear", STEPS, lambda o, t: functional.mse_loss(o, functional.one_hot(t, K).float())),
    ({"BCEWithLogitsLoss": {"pos_weight": [1.0, 2.0, 3.0]}}, steps(layout="channels-first"), "Linear", STEPS,
     lambda o, t: functional.binary_cross_entropy_with_logits(
         o, functional.one_hot(t, K).float(), pos_weight=torch.tensor([1.0, 2.0, 3.0]))),
    ({"KLDivLoss": {"reduction": "batchmean"}}, steps(), "LogSoftmax", STEPS,
     lambda o, t: functional.kl_div(o, functional.one_hot(t, K).float(), reduction="batchmean")),
    ("BCEWithLogitsLoss", steps(1), "Linear", STEPS_YES_NO,
     lambda o, t: functional.binary_cross_entropy_with_logits(o[:, 0], t.float())),
    ("BCEWithLogitsLoss", steps(1, "channels-first"), "Conv1d", STEPS_YES_NO,
     lambda o, t: functional.binary_cross_entropy_with_logits(o[:, 0], t.float())),
    ("L1Loss", steps(1), "Linear", CURVE, lambda o, t: functional.l1_loss(o[:, 0], t)),
]  # fmt: skip


def real_rows(output: Tensor, value: TensorInfo) -> Tensor:
    """(M, K): the real steps of an output, one below the other."""
    return output.movedim(value.channels_dim, -1)[REAL]


@pytest.mark.parametrize(("raw", "value", "end", "target", "plain"), BY_STEP, ids=format_case_name)
def test_padding_is_left_out_of_a_loss(raw: Any, value: TensorInfo, end: str, target: Target, plain: Any) -> None:
    data, output = sequence(target), drawn(value)
    criterion = read_valid_criterion(raw, make_outputs(output=(value, end)), data)
    assert criterion.target_names == (target.name, "x_lengths")
    labels = make_labels(target)
    loss = criterion(output, (labels, LENGTHS))
    torch.testing.assert_close(loss, plain(real_rows(output, value), labels[REAL]))
    loss.backward()
    assert output.grad is not None
    padded = output.grad.movedim(value.channels_dim, -1)[~REAL]
    assert not padded.any()


@pytest.mark.parametrize(("raw", "value", "end", "target", "plain"), BY_STEP, ids=format_case_name)
def test_metrics_see_the_real_steps_alone(raw: Any, value: TensorInfo, end: str, target: Target, plain: Any) -> None:
    criterion = read_valid_criterion(raw, make_outputs(output=(value, end)), sequence(target))
    output, labels = drawn(value).detach(), make_labels(target)
    ((predictions, truth),) = criterion.make_metric_pairs(output, (labels, LENGTHS))
    assert torch.equal(truth, labels[REAL])
    assert len(predictions) == len(truth) == int(LENGTHS.sum())
    whole = criterion.predict(output)
    assert torch.equal(whole[REAL], predictions)
    assert whole.shape == (ROWS, T, *((K,) if len(target.classes) == K else ()))
    if target.classes and value.channels == K and "BCE" not in str(raw) and "MSE" not in str(raw) and end == "Linear":
        torch.testing.assert_close(whole.sum(-1), torch.ones(ROWS, T))


def test_batches_of_steps_are_trimmed_as_the_output_is() -> None:
    windows = (LengthChange.from_window(3, stride=2, padding=1),)
    value = TensorInfo((3, K), "sequence", Lengths("x", windows))
    target = Target("tags", "classes", (3,), ABC)
    criterion = read_valid_criterion(
        "CrossEntropyLoss",
        make_outputs(output=value),
        make_data(target, fields=SEQUENCE, x=torch.zeros(ROWS, T, 4), x_lengths=LENGTHS),
    )
    assert criterion.trims == {"tags": PaddingTrim(Lengths("x", windows), 1)}
    output, labels = drawn(value), make_labels(target)
    real = make_step_mask(change_lengths(LENGTHS, windows), 3)
    assert change_lengths(5, windows) == 3 and change_lengths(LENGTHS, windows).tolist() == [3, 1, 2, 1, 3, 2]
    torch.testing.assert_close(
        criterion(output, (labels, LENGTHS)), functional.cross_entropy(output[real], labels[real])
    )


BY_PIXEL: list[tuple[str, TensorInfo, Target, Any]] = [
    ("CrossEntropyLoss", TensorInfo((3, 4, 6), "channels-first"), PIXELS, functional.cross_entropy),
    ("CrossEntropyLoss", TensorInfo((4, 6, 3), "channels-last"), PIXELS,
     lambda o, t: functional.cross_entropy(o.movedim(-1, 1), t)),
    ("BCEWithLogitsLoss", TensorInfo((1, 4, 6), "channels-first"), MASK,
     lambda o, t: functional.binary_cross_entropy_with_logits(o[:, 0], t.float())),
    ("CrossEntropyLoss", TensorInfo((2, 4, 6), "channels-first"), MASK, functional.cross_entropy),
    ("MSELoss", TensorInfo((2, 4, 6), "channels-first"), IMAGE, functional.mse_loss),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "value", "target", "plain"), BY_PIXEL, ids=format_case_name)
def test_a_loss_of_pixels_is_pytorchs_own(loss: str, value: TensorInfo, target: Target, plain: Any) -> None:
    criterion = read_valid_criterion(loss, make_outputs(output=(value, "Conv2d")), make_data(target))
    output, labels = drawn(value), make_labels(target)
    torch.testing.assert_close(criterion(output, (labels,)), plain(output, labels))
    ((predictions, truth),) = criterion.make_metric_pairs(output, (labels,))
    assert predictions.shape == (labels.numel(), *((3,) if len(target.classes) == 3 else ()))
    assert torch.equal(truth, labels.flatten())


def test_a_mean_over_a_mask_of_fewer_dimensions() -> None:
    values = torch.arange(12.0).reshape(2, 2, 3)
    mask = torch.tensor([[True, False], [True, True]])
    assert masked_mean(values, mask).item() == pytest.approx(torch.cat([values[0, :1], values[1]]).mean().item())


class Halves(nn.Module):
    """A loss of a user's own that wants class numbers by rows."""

    takes_class_numbers = True

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        assert output.dim() == 2 and target.dim() == 1
        return functional.cross_entropy(output, target) / 2


class Gap(nn.Module):
    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).abs().max()


@pytest.fixture
def own_losses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_classes", LOSSES._classes | {"Halves": Halves, "Gap": Gap})
    monkeypatch.setattr(LOSSES, "_described", dict(LOSSES._described))


@pytest.mark.usefixtures("own_losses")
@pytest.mark.parametrize("layout", ["sequence", "channels-first"])
def test_an_own_loss_sees_the_real_steps_as_rows(layout: str) -> None:
    value, labels = steps(layout=layout), make_labels(STEPS)
    output = drawn(value)
    given = real_rows(output, value)
    criterion = read_valid_criterion("Halves", make_outputs(output=value), sequence(STEPS))
    torch.testing.assert_close(criterion(output, (labels, LENGTHS)), functional.cross_entropy(given, labels[REAL]) / 2)
    gap = read_valid_criterion("Gap", make_outputs(output=value), sequence(STEPS))
    wanted = (given - functional.one_hot(labels[REAL], K)).abs().max()
    torch.testing.assert_close(gap(output, (labels, LENGTHS)), wanted)
    curve = read_valid_criterion("Gap", make_outputs(output=steps(1, layout)), sequence(CURVE))
    output, numbers = drawn(steps(1, layout)), make_labels(CURVE)
    wanted = (real_rows(output, steps(1, layout))[:, 0] - numbers[REAL]).abs().max()
    torch.testing.assert_close(curve(output, (numbers, LENGTHS)), wanted)


# ---- several terms ---------------------------------------------------------------------------------------------------

TWO = make_outputs(
    logits=TensorInfo((3,), "features"), amount=TensorInfo((1,), "features"), kl=(TensorInfo((), "features"), "Formula")
)
SEVERAL = {
    "main": {"type": "CrossEntropyLoss", "output": "logits", "target": "label"},
    "size": {"type": "L1Loss", "output": "amount", "target": "value", "factor": 0.5},
    "kl": {"type": "Mean", "output": "kl", "factor": 0.1},
}
BATCH = {"logits": torch.randn(ROWS, 3), "amount": torch.randn(ROWS, 1), "kl": torch.rand(ROWS)}


def test_several_terms_are_added_by_their_factors_and_each_is_told() -> None:
    criterion = read_valid_criterion(SEVERAL, TWO, make_data(LABEL, NUMBER))
    batch = {name: each.clone().requires_grad_() for name, each in BATCH.items()}
    label, number = make_labels(LABEL), make_labels(NUMBER)
    found = criterion(batch, (label, number))
    terms = [
        functional.cross_entropy(batch["logits"], label),
        functional.l1_loss(batch["amount"][:, 0], number),
        batch["kl"].mean(),
    ]
    torch.testing.assert_close(found, torch.stack([terms[0] + 0.5 * terms[1] + 0.1 * terms[2], *terms]))
    assert criterion.term_names == ("main", "size", "kl")
    assert criterion.target_names == ("label", "value")
    found.sum().backward()  # the terms' own values carry no gradients
    assert batch["kl"].grad is not None
    torch.testing.assert_close(batch["kl"].grad, torch.full((ROWS,), 0.1 / ROWS))


def test_each_target_is_predicted_once_by_the_first_term_that_compares_with_it() -> None:
    raw = {**SEVERAL, "again": {"type": "MSELoss", "output": "logits", "target": "label", "factor": -0.5}}
    criterion = read_valid_criterion(raw, TWO, make_data(LABEL, NUMBER))
    assert [each.name for each in criterion.predicted_targets] == ["label", "value"]
    predictions = criterion.predict(BATCH)
    assert torch.equal(predictions["label"], BATCH["logits"].softmax(1))
    assert torch.equal(predictions["value"], BATCH["amount"][:, 0])
    assert [len(pair) for pair in criterion.make_metric_pairs(BATCH, (make_labels(LABEL), make_labels(NUMBER)))] == [
        2,
        2,
    ]


def test_one_loss_may_have_a_factor() -> None:
    criterion = read_valid_criterion(
        {"type": "MSELoss", "factor": 3}, make_outputs(output=TensorInfo((1,), "features")), make_data(NUMBER)
    )
    output, number = BATCH["amount"], make_labels(NUMBER)
    torch.testing.assert_close(criterion(output, (number,)), 3 * functional.mse_loss(output[:, 0], number))
    assert criterion.term_names == ()


AUTO: list[tuple[Any, Dataset, list[tuple[str, str, str | None, str | None]]]] = [
    (make_outputs(output=TensorInfo((3,), "features")), make_data(LABEL), [("", "CrossEntropyLoss", None, None)]),
    (make_outputs(label=TensorInfo((3,), "features"), other=TensorInfo((9,), "features")), make_data(LABEL),
     [("", "CrossEntropyLoss", "label", "label")]),
    (make_outputs(value=TensorInfo((1,), "features"), label=(TensorInfo((3,), "features"), "LogSoftmax")),
     make_data(LABEL, NUMBER),
     [("label", "NLLLoss", "label", "label"), ("value", "MSELoss", "value", "value")]),
    (make_outputs(output=TensorInfo((4,), "features")), make_data(), [("", "MSELoss", None, "x")]),
    (make_outputs(output=steps(7)),
     make_data(fields=(Field("x", (T,), "tokens", 7, True),), x=torch.zeros(ROWS, T).long(), x_lengths=LENGTHS),
     [("", "CrossEntropyLoss", None, "x")]),
    (make_outputs(output=(steps(1), "Linear")), sequence(STEPS_YES_NO), [("", "BCEWithLogitsLoss", None, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("network", "data", "wanted"), AUTO)
def test_auto_joins_outputs_and_targets(network: Any, data: Dataset, wanted: list[Any]) -> None:
    terms = [each.match.term for each in read_valid_criterion("auto", network, data).terms]
    assert [(each.name, each.type, each.output, each.target) for each in terms] == wanted


def test_an_autoencoder_compares_with_its_input() -> None:
    network, field = make_outputs(output=TensorInfo((4,), "features")), torch.rand(ROWS, 4)
    for raw in ("MSELoss", {"type": "BCEWithLogitsLoss", "target": "x"}):
        criterion = read_valid_criterion(raw, network, make_data(x=field))
        assert criterion.target_names == ("x",)
    output = drawn(TensorInfo((4,), "features"))
    wanted = functional.binary_cross_entropy_with_logits(output, field)
    torch.testing.assert_close(criterion(output, (field,)), wanted)
    assert torch.equal(criterion.predict(output), output.sigmoid())


# ---- losses of several outputs, and of none but a number -------------------------------------------------------------


@pytest.mark.parametrize(("raw", "network", "target", "plain"), CALLS, ids=format_case_name)
def test_a_loss_of_several_outputs_is_pytorchs_own(raw: Any, network: Any, target: Target | None, plain: Any) -> None:
    data = make_data(*([] if target is None else [target]))
    criterion = read_valid_criterion(raw, network, data)
    columns = 1 if network is ONES else 4
    output = {"a": A[:, :columns], "b": B[:, :columns].abs() + 0.1, "c": C[:, :columns]}
    labels = None if target is None else make_labels(target)
    targets = (labels,) if criterion.target_names else ()
    torch.testing.assert_close(criterion(output, targets), plain(output, labels))
    predicts = raw["type"] == "GaussianNLLLoss"
    assert bool(criterion.predicted_targets) is predicts


def test_ctc_is_given_the_lengths_of_both() -> None:
    text = Target("text", "classes", (2,), ("blank", "a", "b"), lengths="text")
    data = make_data(
        text, fields=SEQUENCE, x=torch.zeros(ROWS, T, 4), x_lengths=LENGTHS, text_lengths=torch.ones(ROWS).long()
    )
    value = steps()
    network = make_outputs(output=(value, "LogSoftmax"))
    criterion = read_valid_criterion({"type": "CTCLoss", "zero_infinity": True}, network, data)
    assert criterion.target_names == ("text", "x_lengths", "text_lengths") and criterion.trims == {}
    scores = drawn(value).log_softmax(-1)
    tokens, ones = torch.tensor([[1, 0]] * 3 + [[2, 0]] * 3), torch.ones(ROWS).long()
    found = criterion(scores, (tokens, LENGTHS, ones))
    wanted = functional.ctc_loss(scores.transpose(0, 1), tokens, LENGTHS, ones, zero_infinity=True)
    torch.testing.assert_close(found, wanted)
    no_lengths = make_outputs(output=(TensorInfo((T, 3), "sequence"), "LogSoftmax"))
    plain = read_valid_criterion("CTCLoss", no_lengths, make_data(Target("text", "classes", (2,), ("blank", "a", "b"))))
    wanted = functional.ctc_loss(
        scores.transpose(0, 1), tokens + 1 - tokens, torch.full((ROWS,), T), torch.full((ROWS,), 2)
    )
    torch.testing.assert_close(plain(scores, (tokens + 1 - tokens,)), wanted)


def test_a_loss_over_steps_whose_lengths_are_unknown_is_refused() -> None:
    text = Target("text", "classes", (2,), ("blank", "a", "b"), lengths="text")
    data = make_data(text, fields=SEQUENCE, x=torch.zeros(ROWS, T, 4), x_lengths=LENGTHS)
    lost = make_outputs(output=(TensorInfo((T, 3), "sequence", lengths_lost_at="3"), "LogSoftmax"))
    criterion, [(_, found, fix)] = read_criterion("CTCLoss", lost, data)
    assert criterion is None and "lengths_of: NAME" in fix
    assert found == "CTCLoss needs each sample's length, which is unknown after layer '3'"


# ---- what is refused -------------------------------------------------------------------------------------------------

BOTH = make_data(LABEL, NUMBER)
SAME = "name each output like its target, or write which belong together: loss: {main: {type: LOSS, output: "
REFUSED: list[tuple[Any, Any, Dataset, tuple[str, str, str]]] = [
    # what is said
    ({"type": "MSELoss", "output": 3}, ONES, BOTH,
     ("loss.output", "'output' must be the name of one of the model's outputs, got 3", "")),
    ({"type": "MSELoss", "output": ["a", "b"]}, ONES, BOTH, ("loss.output", "got 2 outputs, but MSELoss takes one",
     "")),
    ({"type": "TripletMarginLoss", "output": ["a", "b", "c", "a"]}, PAIR, BOTH,
     ("loss.output", "got 4 outputs, but TripletMarginLoss takes 3 (anchor, positive, negative)", "")),
    ({"type": "GaussianNLLLoss", "output": {"input": "a", "variance": "b"}}, ONES, BOTH,
     ("loss.output.variance", "GaussianNLLLoss has no output argument 'variance'", "available: input, var")),
    ({"type": "MSELoss", "target": ["label"]}, ONES, BOTH,
     ("loss.target", "'target' must be the name of a target or field, or a number, got [label]", "")),
    ({"type": "Mean", "output": "a", "target": "label"}, ONES, BOTH,
     ("loss.target", "Mean takes no target", "remove 'target'")),
    ({"main": {"type": "MSELoss", "factor": "much"}}, ONES, BOTH,
     ("loss.main.factor", "'factor' must be a number, got 'much'", "")),
    ({"main": "L1Loss", "MSELoss": {}}, ONES, BOTH,
     ("loss.MSELoss", "MSELoss is the type of a loss; with multiple losses, each needs a name",
      "give each loss a name of your own: main: {type: MSELoss, ...}")),
    ({"main": {"type": "MSELos"}, "kl": "Mean"}, ONES, BOTH,
     ("loss.main.type", "unknown loss 'MSELos'", "did you mean 'MSELoss'?")),
    ({"a b": "MSELoss", "kl": "Mean"}, ONES, BOTH,
     ("loss.a b", "'a b' is not a valid name for a loss", "use letters, digits and _, starting with a letter")),
    # what it means
    ({"type": "MSELoss", "output": "aa"}, ONES, make_data(NUMBER),
     ("loss.output", "the model has no output 'aa'", "available: a, b")),
    ({"type": "MSELoss", "output": "a", "target": "valu"}, ONES, BOTH,
     ("loss.target", "the data have no target or field 'valu'", "did you mean 'value'?")),
    ("MSELoss", ONES, make_data(NUMBER),
     ("loss", "the model has 2 outputs (a, b)", "write which one the loss uses: {type: MSELoss, output: a}")),
    ({"type": "MSELoss", "output": "a"}, ONES, BOTH,
     ("loss.type", "the data have 2 targets (label, value)", "write which one MSELoss uses: target: label")),
    ({"type": "TripletMarginLoss", "output": ["a", "b"]}, PAIR, BOTH,
     ("loss.output", "TripletMarginLoss compares anchor, positive and negative",
      "write which outputs these are: output: {anchor: NAME, positive: NAME, negative: NAME}; "
      "the model's outputs: a, b, c")),
    ("auto", ONES, BOTH,
     ("model.outputs", "can't match 2 targets (label, value) with 2 outputs (a, b)", f"{SAME}a, target: label}}}}")),
    ("auto", PAIR, make_data(NUMBER),
     ("model.outputs", "can't match 1 target (value) with 3 outputs (a, b, c)", f"{SAME}a, target: value}}}}")),
    # what does not fit
    ({"type": "CosineEmbeddingLoss", "output": ["a", "b"]}, PAIR, make_data(LABEL),
     ("loss.type", "CosineEmbeddingLoss expects two classes, but 'label' has 3",
      "use a target of two classes, or of the numbers -1 and 1")),
    ({"type": "CosineEmbeddingLoss", "output": ["a", "b"], "target": 0}, PAIR, make_data(LABEL),
     ("loss.target", "CosineEmbeddingLoss expects -1 or 1, but target is 0",
      "use two classes, or the numbers -1 and 1")),
    ({"type": "MarginRankingLoss", "output": ["a", "b"], "target": 1}, PAIR, make_data(LABEL),
     ("model.layers.a", "the network outputs (4) features, but MarginRankingLoss expects (1)", "end with Linear: 1")),
    ({"type": "TripletMarginLoss", "output": ["a", "b", "c"]},
     make_outputs(a=TensorInfo((4,), "features"), b=TensorInfo((4,), "features"), c=TensorInfo((1,), "features")),
     make_data(LABEL),
     ("loss.output", "TripletMarginLoss expects outputs of the same shape, but anchor is (4) features and "
      "negative is (1) features", "")),
    ({"type": "GaussianNLLLoss", "output": ["b", "a"]}, ONES, make_data(NUMBER),
     ("model.layers.a", "a Linear must not come before GaussianNLLLoss's var",
      "a variance must be positive: end it with a Softplus")),
    ({"type": "GaussianNLLLoss", "output": ["a", "b"]}, ONES, make_data(LABEL),
     ("loss.type", "GaussianNLLLoss expects numbers, but 'label' has classes", "use CrossEntropyLoss")),
    ({"type": "BCEWithLogitsLoss"}, make_outputs(output=TensorInfo((4,), "features")),
     make_data(x=torch.full((ROWS, 4), 2.5)),
     ("loss.type", "BCEWithLogitsLoss expects numbers from 0 to 1, but 'x' ranges from 2.5 to 2.5",
      "use MSELoss, L1Loss, SmoothL1Loss or HuberLoss")),
    ({"type": "CrossEntropyLoss", "output": "a", "target": 4}, PAIR, BOTH,
     ("loss.target", "CrossEntropyLoss expects a class number, but target is 4", "write 0 to 3")),
    ("CrossEntropyLoss", make_outputs(output=TensorInfo((T, 4), "sequence")), sequence(STEPS),
     ("model.layers.output", "the network outputs (5, 4) sequence, but CrossEntropyLoss expects (5, 3): "
      "'tags' has 3 classes per step", "end with Linear: 3")),
    ("CrossEntropyLoss", make_outputs(output=TensorInfo((7, 4, 6), "channels-first")), make_data(PIXELS),
     ("model.layers.output", "the network outputs (7, 4, 6) channels-first, but CrossEntropyLoss expects (3, 4, 6): "
      "'mask' has 3 classes per pixel", "end with Conv2d: {out_channels: 3, kernel_size: 1}")),
    ("CrossEntropyLoss", make_outputs(output=TensorInfo((3, 3), "sequence")), sequence(STEPS),
     ("model.layers.output", "the network outputs (3, 3) sequence, but CrossEntropyLoss expects (5, 3): "
      "'tags' has 3 classes per step", "'tags' has shape (5): the network must output as many steps")),
    ("MSELoss", make_outputs(output=TensorInfo((1,), "features")), sequence(CURVE),
     ("model.layers.output", "the network outputs (1) features, but MSELoss expects (5): 'curve' has 5 numbers",
      "end with Linear: 5, or Linear: ${data.num_outputs}")),
    ("CTCLoss", make_outputs(output=(TensorInfo((T, 4), "sequence"), "LogSoftmax")), sequence(STEPS),
     ("model.layers.output", "the network outputs (5, 4) sequence, but CTCLoss expects a sequence (T, 3): "
      "'tags' has 3 classes per step", "end with Linear: 3")),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "network", "data", "told"), REFUSED, ids=format_case_name)
def test_what_is_refused(raw: Any, network: Any, data: Dataset, told: tuple[str, str, str]) -> None:
    assert read_criterion(raw, network, data) == (None, [told])


def test_every_mistake_of_several_terms_is_told_at_once() -> None:
    raw = {"main": {"type": "MSELoss", "output": "no"}, "kl": {"type": "Mean", "output": "nor"}}
    _, told = read_criterion(raw, ONES, BOTH)
    assert [path for path, _, _ in told] == ["loss.main.output", "loss.main.type", "loss.kl.output"]
