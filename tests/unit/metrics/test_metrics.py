"""Every metric by a table: what a hand computes, what `auto` means, what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy

import dlspec as library
from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset, Split, Target
from dlspec.errors import Code, SpecError
from dlspec.jobs.python_spec import prepare_spec
from dlspec.language.problems import Problems
from dlspec.metrics.selection import (
    SelectedMetric,
    choose_auto_metrics,
    fits_target,
    make_metrics,
    select_metrics,
    to_snake_case,
)
from dlspec.parts.specs.metrics_spec import read_metrics
from dlspec.parts.torch.torch_metrics import CLASSIFICATION_METRICS, TOKEN_METRICS, metric_registry

YES_NO = Target("label", "classes", (), ("no", "yes"))
THREE = Target("label", "classes", (), ("a", "b", "c"))
NUMBER = Target("price", "numbers")
PAIR = Target("place", "numbers", (2,))
CHARACTERS = tuple("abcdef")
NO_DATA = Dataset("none", (), (), Split({}), Split({}), Split({}))

EXAMPLES: dict[str, tuple[Target, Tensor, Tensor]] = {
    "two": (YES_NO, torch.tensor([0.9, 0.8, 0.3, 0.6, 0.1, 0.4]), torch.tensor([1, 1, 1, 0, 0, 0])),
    "three": (
        THREE,
        torch.tensor([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7]]),
        torch.tensor([0, 1, 2, 2]),
    ),
    "number": (NUMBER, torch.tensor([1.0, 2.0, 4.0, 5.0]), torch.tensor([1.0, 3.0, 4.0, 6.0])),
    "pair": (
        PAIR,
        torch.tensor([[1.0, 2.0], [2.0, 1.0], [4.0, 5.0]]),
        torch.tensor([[1.0, 3.0], [3.0, 1.0], [4.0, 6.0]]),
    ),
}

# By hand, from the examples above.
RESULTS: list[tuple[str, str, dict[str, Any], float]] = [
    ("Accuracy", "two", {}, 4 / 6),
    ("Accuracy", "three", {}, 3 / 4),
    ("Accuracy", "three", {"average": "macro"}, (1 + 1 + 1 / 2) / 3),
    ("Accuracy", "three", {"top_k": 2}, 1.0),
    ("F1Score", "two", {}, 2 * 2 / (2 * 2 + 1 + 1)),
    ("F1Score", "three", {"average": "macro"}, (2 / 3 + 1 + 2 / 3) / 3),
    ("Precision", "two", {}, 2 / 3),
    ("Recall", "two", {"threshold": 0.2}, 1.0),
    ("Specificity", "two", {}, 2 / 3),
    ("AUROC", "two", {}, 7 / 9),
    ("JaccardIndex", "three", {}, (1 / 2 + 1 + 1 / 2) / 3),
    ("JaccardIndex", "two", {}, 2 / 4),
    ("Perplexity", "three", {}, (0.8 * 0.7 * 0.3 * 0.7) ** (-1 / 4)),
    ("Perplexity", "two", {}, (0.9 * 0.8 * 0.3 * 0.4 * 0.9 * 0.6) ** (-1 / 6)),
    ("Perplexity", "three", {"ignore_index": 2}, (0.8 * 0.7) ** (-1 / 2)),
    ("BitsPerCharacter", "three", {}, -math.log2(0.8 * 0.7 * 0.3 * 0.7) / 4),
    ("MeanAbsoluteError", "number", {}, 0.5),
    ("MeanSquaredError", "number", {}, 0.5),
    ("MeanSquaredError", "number", {"squared": False}, 0.5**0.5),
    ("MeanSquaredError", "pair", {}, 0.5),
    ("PeakSignalNoiseRatio", "number", {"data_range": 5.0}, 10 * math.log10(25 / 0.5)),
    ("R2Score", "number", {}, 1 - 2 / 13),
    ("R2Score", "pair", {}, ((1 - 1 / (14 / 3)) + (1 - 2 / (38 / 3))) / 2),
]


def computed(name: str, example: str, settings: Mapping[str, Any]) -> float:
    target, predicted, truth = EXAMPLES[example]
    schema = metric_registry()[name]
    assert fits_target(schema, target)
    problems = Problems()
    (term,) = read_metrics({"type": name, **settings}, problems)
    assert not problems
    chosen = SelectedMetric(schema, target, term.settings)
    (((result, metric),),) = (each.items() for each in make_metrics([chosen], [target]))
    assert result == to_snake_case(name)
    metric.update(predicted[:2], truth[:2])
    metric.update(predicted[2:], truth[2:])
    return float(metric.compute())


@pytest.mark.parametrize(("name", "example", "settings", "wanted"), RESULTS)
def test_a_metric_is_what_a_hand_computes(name: str, example: str, settings: dict[str, Any], wanted: float) -> None:
    assert computed(name, example, settings) == pytest.approx(wanted, abs=1e-6)


KINDS = [
    (name, kind)
    for name in metric_registry()
    for kind in (("two", "three") if name in {*CLASSIFICATION_METRICS, *TOKEN_METRICS} else ("number", "pair"))
]
# Probabilities of the second of two classes for 60 samples, some of them wrong; labels that are not balanced.
SCORES = np.random.default_rng(3).beta(2, 2, size=60).round(3)
LABELS = (SCORES + np.random.default_rng(4).normal(0.1, 0.3, size=60) > 0.7).astype(int)


# By scikit-learn 1.9, with the thresholds 0.5 and 0.4: f1_score, fbeta_score(beta=2), ... with this `average`. The
# accuracy of a class is its recall, its specificity the other class's recall, its Hamming distance 1 - recall.
# average_precision_score is that of each class, averaged.
AVERAGED: dict[tuple[str, str], tuple[float, ...]] = {
    ("AUROC", "macro"): (0.763158,),
    ("AUROC", "weighted"): (0.763158,),
    ("Accuracy", "micro"): (0.700000, 0.600000),
    ("Accuracy", "macro"): (0.724880, 0.655502),
    ("Accuracy", "weighted"): (0.700000, 0.600000),
    ("AveragePrecision", "macro"): (0.713117,),
    ("AveragePrecision", "weighted"): (0.745220,),
    ("F1Score", "micro"): (0.700000, 0.600000),
    ("F1Score", "macro"): (0.696970, 0.599555),
    ("F1Score", "weighted"): (0.705051, 0.595996),
    ("FBetaScore", "micro"): (0.700000, 0.600000),
    ("FBetaScore", "macro"): (0.708333, 0.618187),
    ("FBetaScore", "weighted"): (0.697222, 0.585120),
    ("HammingDistance", "micro"): (0.300000, 0.400000),
    ("HammingDistance", "macro"): (0.275120, 0.344498),
    ("HammingDistance", "weighted"): (0.300000, 0.400000),
    ("JaccardIndex", "micro"): (0.538462, 0.428571),
    ("JaccardIndex", "macro"): (0.535714, 0.428247),
    ("JaccardIndex", "weighted"): (0.545238, 0.424617),
    ("Precision", "micro"): (0.700000, 0.600000),
    ("Precision", "macro"): (0.709821, 0.662500),
    ("Precision", "weighted"): (0.749107, 0.712500),
    ("Recall", "micro"): (0.700000, 0.600000),
    ("Recall", "macro"): (0.724880, 0.655502),
    ("Recall", "weighted"): (0.700000, 0.600000),
    ("Specificity", "micro"): (0.700000, 0.600000),
    ("Specificity", "macro"): (0.724880, 0.655502),
    ("Specificity", "weighted"): (0.749761, 0.711005),
}


@pytest.mark.parametrize(("name", "average"), AVERAGED)
def test_an_average_over_two_classes_is_that_of_scikit_learn(name: str, average: str) -> None:
    settings = {"average": average, **({"beta": 2.0} if name == "FBetaScore" else {})}
    for threshold, wanted in zip((0.5, 0.4), AVERAGED[name, average], strict=False):
        problems = Problems()
        changed = {} if threshold == 0.5 else {"threshold": threshold}
        terms = read_metrics({"type": name, **settings, **changed}, problems)
        ((metric,),) = (
            each.values() for each in make_metrics(select_metrics(terms, [YES_NO], NO_DATA, problems), [YES_NO])
        )
        for rows in (slice(0, 20), slice(20, 60)):
            metric.update(torch.tensor(SCORES[rows]), torch.tensor(LABELS[rows]))
        assert not problems
        assert float(metric.compute()) == pytest.approx(wanted, abs=2e-6)


@pytest.mark.parametrize(("name", "average"), AVERAGED)
def test_version_1_stops_where_an_average_of_two_classes_had_no_effect(name: str, average: str) -> None:
    settings = {"average": average, **({"beta": 2.0} if name == "FBetaScore" else {})}
    former = metric_registry()[name].build(task="binary", num_classes=2, validate_args=False, **settings)
    former.update(torch.tensor(SCORES), torch.tensor(LABELS))
    is_equal = float(former.compute()) == pytest.approx(AVERAGED[name, average][0], abs=2e-6)
    problems = Problems(spec_version=1)
    select_metrics(read_metrics({"type": name, **settings}, problems), [YES_NO], NO_DATA, problems)
    assert [each.code for each in problems.found] == ([] if is_equal else [Code.CHANGED_RULE])
    select_metrics(read_metrics({"type": name, **settings}, problems), [THREE], NO_DATA, only_three := Problems())
    assert not only_three


def test_version_1_stops_where_top_k_of_two_classes_had_no_effect() -> None:
    for top_k, count in ((1, 0), (2, 1)):
        problems = Problems(spec_version=1)
        select_metrics(read_metrics({"Accuracy": {"top_k": top_k}}, problems), [YES_NO], NO_DATA, problems)
        assert [each.code for each in problems.found] == [Code.CHANGED_RULE] * count


def test_every_metric_with_an_average_is_in_the_table() -> None:
    found = {
        (name, average)
        for name in metric_registry()
        for average in ("micro", "macro", "weighted")
        if "average" in metric_registry()[name].settings
        and metric_registry()[name].settings["average"].accepts(average)
    }
    assert found == AVERAGED.keys()


@pytest.mark.parametrize(
    ("written", "target", "found"),
    [
        ({"F1Score": {"threshold": 0.3}}, THREE, "'threshold' has an effect only for two classes, but 'label' has 3"),
        ({"MatthewsCorrCoef": {"threshold": 0.3}}, THREE,
         "'threshold' has an effect only for two classes, but 'label' has 3"),
        ({"AUROC": {"max_fpr": 0.3}}, THREE, "'max_fpr' has an effect only for two classes, but 'label' has 3"),
        ({"AUROC": {"max_fpr": 0.3, "average": "macro"}}, YES_NO, "'max_fpr' can't be combined with 'average'"),
        ({"Recall": {"threshold": 0.3, "top_k": 2}}, YES_NO, "'threshold' can't be combined with 'top_k'"),
        ({"Accuracy": {"top_k": 4}}, THREE, "top_k must be at most 3, the number of classes of 'label', got 4"),
    ],
)  # fmt: skip
def test_a_setting_without_effect_is_refused(written: Any, target: Target, found: str) -> None:
    problems = Problems()
    select_metrics(read_metrics(written, problems), [target], NO_DATA, problems)
    assert [each.found for each in problems.found] == [found]


@pytest.mark.parametrize("target", [YES_NO, THREE])
@pytest.mark.parametrize("name", ["F1Score", "AUROC", "JaccardIndex", "Accuracy"])
def test_all_defaults_of_an_older_saved_spec_change_nothing(name: str, target: Target) -> None:
    problems, schema = Problems(), metric_registry()[name]
    terms = read_metrics({"type": name, **{each.name: each.default for each in schema.settings.values()}}, problems)
    assert [dict(each.settings) for each in terms] == [{}]
    problems = Problems(spec_version=1)
    select_metrics(terms, [target], NO_DATA, problems)
    assert not problems


@pytest.mark.parametrize("written", [{}, {"average": "micro"}, {"average": "macro"}])
def test_a_saved_spec_gives_the_same_metric(written: dict[str, Any]) -> None:
    features = GENERATOR.normal(size=(60, 3)).astype(np.float32)
    arrays = {"x": features, "target": (features[:, 0] > 0.4).astype(int)}
    prepared = prepare_spec({"layers": [{"Linear": 1}], "metrics": {"F1Score": written}, **QUICK}, arrays).prepare()
    saved = prepared.resolved["metrics"]["F1Score"]
    assert saved == {"ignore_index": None, "zero_division": 0.0} | written


@pytest.mark.parametrize("written", [{}, {"average": "micro", "top_k": 1, "ignore_index": None}], ids=str)
def test_accuracy_over_all_samples_has_the_states_of_torchmetrics(written: dict[str, Any]) -> None:
    chosen = SelectedMetric(metric_registry()["Accuracy"], THREE, written)
    metric = make_metrics([chosen], [THREE])[0]["accuracy"]
    wanted = MulticlassAccuracy(3, average="micro", validate_args=False)
    for count in (1, 5, 32):
        probabilities, classes = torch.rand(count, 3).round(decimals=1), torch.randint(3, (count,))  # with ties
        metric.update(probabilities, classes)
        wanted.update(probabilities, classes)
        assert torch.equal(metric.compute(), wanted.compute())
    assert all(
        torch.equal(*pair) for pair in zip(metric.metric_state.values(), wanted.metric_state.values(), strict=True)
    )


def test_top_k_of_two_classes() -> None:
    assert computed("Accuracy", "two", {"top_k": 1}) == pytest.approx(4 / 6)
    assert computed("Accuracy", "two", {"top_k": 2}) == 1.0


NEEDED: dict[str, dict[str, Any]] = {"FBetaScore": {"beta": 2.0}, "PeakSignalNoiseRatio": {"data_range": 0.8}}


@pytest.mark.parametrize(("name", "example"), KINDS)
def test_every_metric_gives_one_number_for_its_targets(name: str, example: str) -> None:
    assert computed(name, example, NEEDED.get(name, {})) == pytest.approx(0.5, abs=1.5)


def test_a_metric_of_the_other_kind_does_not_fit() -> None:
    for name in metric_registry():
        assert fits_target(metric_registry()[name], THREE) is (name in {*CLASSIFICATION_METRICS, *TOKEN_METRICS})
        assert fits_target(metric_registry()[name], NUMBER) is not fits_target(metric_registry()[name], THREE)


@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        (THREE, ["Accuracy"]),
        (YES_NO, ["Accuracy", "F1Score"]),
        (NUMBER, ["MeanAbsoluteError", "R2Score"]),
        (Target("next", "classes", (8,), CHARACTERS, next_of="text"), ["Perplexity", "Accuracy"]),
        (Target("tags", "classes", (8,), CHARACTERS), ["Accuracy"]),
        (Target("mask", "classes", (8, 8), ("no", "yes")), ["Accuracy", "JaccardIndex"]),
        (Target("mask", "classes", (8, 8), tuple(map(str, range(6000)))), ["Accuracy"]),
    ],
)
def test_auto_chooses_by_the_target(target: Target, chosen: list[str]) -> None:
    assert choose_auto_metrics(target) == chosen


def test_auto_tells_bits_of_characters() -> None:
    target = Target("next", "classes", (8,), CHARACTERS, next_of="text")
    assert choose_auto_metrics(target, is_character=True) == ["BitsPerCharacter", "Accuracy"]
    for kind, name in (("characters", "BitsPerCharacter"), ("bytes", "BitsPerCharacter"), ("words", "Perplexity")):
        data = replace(NO_DATA, targets=(target,), preprocessing={"text": {"kind": kind}})
        chosen = select_metrics(None, [replace(target, shape=())], data, Problems())
        assert [each.schema.name for each in chosen] == [name, "Accuracy"]


def test_auto_tells_the_error_of_an_input_that_is_given_again() -> None:
    assert choose_auto_metrics(Target("image", "numbers", (1, 8, 8)), is_input=True) == ["MeanSquaredError", "R2Score"]


@pytest.mark.parametrize("sizes", [(7, 5, 1), (13,)])
def test_perplexity_is_exact_over_all_pieces(sizes: tuple[int, ...]) -> None:
    logits, tokens = torch.randn(13, 50) * 8, torch.randint(0, 50, (13,))
    for name, wanted in (("Perplexity", torch.exp), ("BitsPerCharacter", lambda loss: loss / math.log(2))):
        metric = metric_registry()[name].build()
        for predicted, truth in zip(logits.softmax(1).split(sizes), tokens.split(sizes), strict=True):
            metric.update(predicted, truth)
        assert float(metric.compute()) == pytest.approx(float(wanted(functional.cross_entropy(logits, tokens))), 1e-5)


def test_a_token_without_any_probability_leaves_perplexity_finite() -> None:
    metric = metric_registry()["Perplexity"].build()
    metric.update(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 1]))
    assert float(metric.compute()) == pytest.approx(1.1754943508222875e-38**-0.5, 1e-4)


GENERATOR = np.random.default_rng(0)
QUICK = {"trainer": {"epochs": 1, "batch_size": 8, "device": "cpu", "progress": "none", "eval_batch_size": 3}}


def trained(layers: list[Any], data: Dataset) -> tuple[torch.nn.Module, dict[str, float]]:
    result = library.train({"layers": layers, **QUICK}, data)
    return result.network, {name: each for name, each in result.results.items() if name.startswith("test/")}


def test_a_language_models_perplexity_is_that_of_its_real_tokens() -> None:
    lengths = GENERATOR.integers(1, 7, size=60)
    words = GENERATOR.integers(1, 9, size=(60, 6)) * (np.arange(6) < lengths[:, None])
    data = dataset_from_arrays({"words": words, "words_lengths": lengths, "target": None})
    network, told = trained([{"Embedding": 8}, {"GRU": 8}, {"Linear": 9}], data)
    tokens, real = data.test.tensors["words"], data.test.tensors["words_lengths"]
    with torch.no_grad():
        output = network(functional.pad(tokens[:, :-1], (1, 0)), real)
    rows = torch.arange(6) < real[:, None]
    wanted = functional.cross_entropy(output[rows], tokens[rows]).exp()
    assert told.keys() == {"test/loss", "test/perplexity", "test/accuracy"}
    assert told["test/perplexity"] == pytest.approx(float(wanted), 1e-5)


def test_a_class_a_pixel_is_told_by_its_mean_iou() -> None:
    images = GENERATOR.normal(size=(60, 1, 4, 5)).astype(np.float32)
    labels = (images[:, 0] > 0).astype(int) + (images[:, 0] > 1)
    network, told = trained(
        [{"Conv2d": {"out_channels": 3, "kernel_size": 1}}], dataset_from_arrays({"image": images, "target": labels})
    )
    assert told.keys() == {"test/loss", "test/accuracy", "test/jaccard_index"}
    data = dataset_from_arrays({"image": images, "target": labels}).test
    with torch.no_grad():
        found, truth = network(data.tensors["image"]).argmax(1), data.target
    both = [((found == each) & (truth == each)).sum() / ((found == each) | (truth == each)).sum() for each in range(3)]
    assert told["test/jaccard_index"] == pytest.approx(float(sum(both)) / 3, 1e-5)


def test_an_input_given_again_is_told_by_its_squared_error() -> None:
    data = dataset_from_arrays({"image": GENERATOR.normal(size=(60, 1, 4, 4)), "target": None})
    _, told = trained([{"Conv2d": {"out_channels": 1, "kernel_size": 1}}], data)
    assert told.keys() == {"test/loss", "test/mean_squared_error", "test/r2_score"}
    assert told["test/mean_squared_error"] == pytest.approx(told["test/loss"], 1e-5)


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("JaccardIndex", ["JaccardIndex counts pairs of classes, but 'next' has 6,000 classes, more than 5,000"]),
        ({"F1Score": {"average": "macro"}},
         ["F1Score counts pairs of classes, but 'next' has 6,000 classes, more than 5,000"]),
        ("F1Score", []),
        ({"AUROC": {"average": "macro", "thresholds": 10}}, []),
    ],
)  # fmt: skip
def test_nothing_is_counted_by_pairs_of_very_many_classes(written: Any, told: list[str]) -> None:
    target, problems = Target("next", "classes", (), tuple(map(str, range(6000)))), Problems()
    terms = read_metrics(written, problems)
    select_metrics(terms, [target], NO_DATA, problems)
    assert [each.found for each in problems.found] == told


def test_labels_have_their_own_loss_and_metrics() -> None:
    features = GENERATOR.normal(size=(300, 5)).astype(np.float32)
    labels = features[:, :3] + GENERATOR.normal(size=(300, 3)) * 0.5 > 0.3
    spec = {"layers": [{"Linear": 3}], "metrics": {"F1Score": {"average": "macro"}, "Precision": None, "AUROC": None}}
    quick = QUICK["trainer"] | {"epochs": 6}
    result = library.train({**spec, "trainer": quick, "optimizer": {"lr": 0.05}}, {"x": features, "target": labels})
    test = dataset_from_arrays({"x": features, "target": labels}).test
    with torch.no_grad():
        logits, truth = result.network(test.tensors["x"]), test.target
    found, real = (logits > 0).numpy(), truth.numpy() > 0
    hits, counts = (found & real).sum(0), found.sum(0) + real.sum(0)
    # The share of pairs of a sample with the label and one without it that are in the right order.
    auroc = [
        float((column[label][:, None] > column[~label][None]).mean())
        for column, label in zip(logits.numpy().T, real.T, strict=True)
    ]
    wanted = {
        "loss": float(functional.binary_cross_entropy_with_logits(logits, truth)),
        "f1_score": float((2 * hits / counts).mean()),
        **{f"f1_score_{label}": float(2 * hits[label] / counts[label]) for label in range(3)},
        "precision": float(hits.sum() / found.sum()),
        **{f"precision_{label}": float(hits[label] / found[:, label].sum()) for label in range(3)},
        "auroc": sum(auroc) / 3,
        **{f"auroc_{label}": auroc[label] for label in range(3)},
    }
    told = {name.removeprefix("test/"): each for name, each in result.results.items() if name.startswith("test/")}
    assert told == pytest.approx(wanted, abs=1e-5)


def test_version_1_stops_where_a_bool_target_had_classes_of_steps() -> None:
    features = GENERATOR.normal(size=(60, 3)).astype(np.float32)
    tags = features > 0

    def find_codes(target: Any, version: int, **data: Any) -> list[Code]:
        spec = {"spec_version": version, "layers": [{"Linear": 3}], "data": data, **QUICK}
        try:
            prepare_spec(spec, {"x": features, "target": target}).prepare()
        except SpecError as error:
            return [each.code for each in error.problems]
        return []

    assert find_codes(tags, 1) == [Code.CHANGED_RULE]
    assert find_codes(tags, 2) == find_codes(tags.astype(np.float32), 1) == []
    assert find_codes(tags[:, 0].astype(int) + tags[:, 1], 1) == []
    assert find_codes(tags.astype(int), 1, labels="target") == []  # what nobody could write in version 1


LABELS_TARGET = Target("tags", "numbers", (3,), labels=("a", "b", "c"))


@pytest.mark.parametrize("name", sorted(CLASSIFICATION_METRICS - {"CohenKappa", "CalibrationError"}))
def test_every_metric_of_labels_gives_a_number(name: str) -> None:
    problems = Problems()
    terms = read_metrics({"type": name, **NEEDED.get(name, {})}, problems)
    (group,) = make_metrics(select_metrics(terms, [LABELS_TARGET], NO_DATA, problems), [LABELS_TARGET])
    assert list(group) == [to_snake_case(name), *(f"{to_snake_case(name)}_{each}" for each in "abc")]
    for metric in group.values():
        metric.update(torch.rand(20, 3), torch.arange(60).reshape(20, 3) * 7 % 5 % 2)
        assert -1 <= float(metric.compute()) <= 1


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("CohenKappa", "CohenKappa expects classes, but 'tags' has labels"),
        ("R2Score", "R2Score expects numbers, but 'tags' has labels"),
        ({"F1Score": {"top_k": 2}}, "'top_k' has no effect for labels, but 'tags' has 3"),
        ({"AUROC": {"max_fpr": 0.5}}, "'max_fpr' has no effect for labels, but 'tags' has 3"),
    ],
)
def test_a_metric_that_does_not_fit_labels(written: Any, found: str) -> None:
    problems = Problems()
    select_metrics(read_metrics(written, problems), [LABELS_TARGET], NO_DATA, problems)
    assert [each.found for each in problems.found] == [found]


def test_many_labels_have_only_averaged_results() -> None:
    target = Target("tags", "numbers", (30,), labels=tuple(map(str, range(30))))
    (group,) = make_metrics(select_metrics(None, [target], NO_DATA, Problems()), [target])
    assert list(group) == ["accuracy", "f1_score"]


def test_results_have_readable_names() -> None:
    names = ["F1Score", "R2Score", "AUROC", "MeanAbsoluteError", "MatthewsCorrCoef", "CalibrationError"]
    assert [to_snake_case(name) for name in names] == [
        "f1_score", "r2_score", "auroc", "mean_absolute_error", "matthews_corr_coef", "calibration_error",
    ]  # fmt: skip
