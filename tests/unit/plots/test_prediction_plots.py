"""What the network says, as pictures: their numbers against torchmetrics, and real files of real runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics import functional

import dlspec as library
from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset, Split, Target
from dlspec.plots import image_plots
from dlspec.plots.axes import LEGEND_PADDING, Axes, axis_limits, sample_along_line
from dlspec.plots.canvas import Page
from dlspec.plots.class_plots import compute_roc, confusion_matrix, draw_classes, find_confused_pairs
from dlspec.plots.image_plots import IGNORED_COLOR, draw_class_maps, draw_masks_over, make_class_colors
from dlspec.plots.judged_plots import draw_judged_images, order_worst_maps
from dlspec.plots.number_plots import compute_errors, draw_numbers
from dlspec.runs.file_names import PREDICTIONS_FILE
from dlspec.training.callbacks import prediction_plots
from dlspec.training.callbacks.prediction_plots import draw_predictions
from dlspec.training.evaluation import prediction_view
from dlspec.training.evaluation.prediction_view import PredictionView, spread_samples
from helpers.weights_files import read_weights

GENERATOR = np.random.default_rng(0)
ROWS = 60
IMAGES = GENERATOR.random(size=(ROWS, 1, 6, 5)).astype(np.float32)
FEATURES = GENERATOR.normal(size=(ROWS, 4)).astype(np.float32)
LABELS = np.arange(ROWS) % 3
STEPS = np.tile(LABELS, (8, 1)).T
TRAINER = {"epochs": 1, "device": "cpu", "progress": "none", "tensorboard": False, "curves": False}
ONE = {"Conv2d": {"out_channels": 1, "kernel_size": 1}}


# ---- the numbers ---------------------------------------------------------------------------------------------------


def test_the_confusion_matrix_counts_as_torchmetrics_does() -> None:
    truth, told = torch.randint(0, 5, (2, 400))
    wanted = functional.classification.multiclass_confusion_matrix(told, truth, 5)
    assert torch.equal(confusion_matrix(told, truth, 5), wanted)
    assert confusion_matrix(told, truth, 7).shape == (7, 7)


def test_the_most_frequent_errors_come_first() -> None:
    truth, told = torch.tensor([0, 0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 2, 1, 0, 2])
    assert find_confused_pairs(told, truth)[0] == (0, 1, 2)
    assert sorted(find_confused_pairs(told, truth)[1:]) == [(1, 2, 1), (2, 0, 1)]
    assert find_confused_pairs(truth, truth) == []


@pytest.mark.parametrize("digits", [1, 6], ids=["with ties", "without"])
def test_the_roc_curve_is_torchmetrics_own(digits: int) -> None:
    told, truth = torch.rand(300).round(decimals=digits), torch.randint(0, 2, (300,))
    found = compute_roc(told, truth)
    assert found is not None
    false_rate, true_rate, _ = functional.classification.binary_roc(told, truth)
    torch.testing.assert_close(found.false_positive_rate.float(), false_rate)
    torch.testing.assert_close(found.true_positive_rate.float(), true_rate)
    assert found.area == pytest.approx(float(functional.classification.binary_auroc(told, truth)), 1e-6)
    assert compute_roc(told, torch.zeros(300)) is None


def test_errors_are_predicted_minus_true() -> None:
    told, truth = torch.randn(2, 50)
    found = compute_errors(told, truth)
    torch.testing.assert_close(found.residuals.float(), told - truth)
    assert found.mean_absolute == pytest.approx(float((told - truth).abs().mean()), 1e-5)
    assert found.r2 == pytest.approx(float(functional.r2_score(told, truth)), 1e-5)


def test_pixels_without_a_class_count_in_no_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, predicted = torch.tensor([[[0, 1], [-100, 1]], [[-100, -100], [-100, -100]]]), torch.ones(2, 2, 2).long()
    grids: list[tuple[Any, Any]] = []
    draw = image_plots._draw_image_grid
    monkeypatch.setattr(image_plots, "_draw_image_grid", lambda *given: grids.append(given[:2]) or draw(*given))
    image_plots.draw_class_maps(Target("mask", "classes", (2, 2), ("a", "b")), predicted, truth, None, "")
    ((rows, captions),) = grids
    assert captions == ["66.7%", "0.0%"]
    assert rows["true"][0, 1, 0].tolist() == pytest.approx(image_plots.IGNORED_COLOR)


@pytest.mark.parametrize("count", [1, 2, 11, 300])
def test_each_class_has_a_colour_of_its_own(count: int) -> None:
    assert make_class_colors(count).shape == (count, 3)
    assert len({tuple(each) for each in make_class_colors(count).tolist()}) == count


def test_a_large_split_is_looked_at_from_its_beginning_to_its_end() -> None:
    split = Split({"x": torch.arange(100)}, {"y": torch.arange(100) * 2})
    some = spread_samples(split, 5)
    assert some.tensors["x"].tolist() == [0, 24, 49, 74, 99]
    assert torch.equal(some.targets["y"], some.tensors["x"] * 2)
    assert spread_samples(split, 100) is split
    many = Split({"x": torch.zeros(1).expand(99_999_999)})  # more than float32 can count
    assert len(spread_samples(many, 7)) == 7


# ---- the files -----------------------------------------------------------------------------------------------------


def pixels(path: Path) -> Any:
    """A picture's pixels (H, W, RGB), which must be more than a blank page."""
    from matplotlib.image import imread

    found = imread(path)[..., :3]
    assert min(found.shape[:2]) > 200
    assert found.std() > 0.02
    return found


def train(layers: list[Any], arrays: dict[str, Any], folder: Path, **settings: Any) -> Path:
    spec = {"layers": layers, "trainer": {**TRAINER, **settings}}
    run = library.train(spec, arrays, folder=folder).folder
    assert run is not None
    assert "can't draw" not in (run / "log.txt").read_text()
    return run


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlspec.training.callbacks.prediction_plots.MIN_STEPS", 1)


RUNS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "classes": ([{"Linear": 3}], {"x": FEATURES, "target": LABELS}),
    "yes or no": ([{"Linear": 1}], {"x": FEATURES, "target": LABELS % 2}),
    "number": ([{"Linear": 1}], {"x": FEATURES, "target": FEATURES[:, 0]}),
    "numbers": ([{"Linear": 2}], {"x": FEATURES, "target": FEATURES[:, :2]}),
    "image": ([ONE], {"image": IMAGES, "target": None}),
    "features": ([{"Linear": 4}], {"x": FEATURES, "target": None}),
    "pixels": (
        [{"Conv2d": {"out_channels": 3, "kernel_size": 1}}],
        {"image": IMAGES, "target": (IMAGES[:, 0] * 3).astype(int)},
    ),
    "two kinds of pixels": ([ONE], {"image": IMAGES, "target": (IMAGES[:, 0] > 0.5).astype(int)}),
    "steps": (
        [{"Embedding": 4}, {"Linear": 3}],
        {"x": STEPS, "x_lengths": np.arange(ROWS) % 8 + 1, "target": (STEPS + np.arange(8)) % 3},
    ),
    "many classes": ([{"Linear": 202}], {"x": np.tile(FEATURES, (4, 1)), "target": np.arange(240) % 202}),
}  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_every_kind_of_target_has_its_picture(name: str, tmp_path: Path) -> None:
    layers, arrays = RUNS[name]
    pixels(train(layers, arrays, tmp_path) / PREDICTIONS_FILE)


def test_next_tokens_have_none(tmp_path: Path) -> None:
    words = GENERATOR.integers(0, 5, size=(ROWS, 6))
    run = train([{"Embedding": 4}, {"GRU": 4}, {"Linear": 5}], {"x": words, "target": None}, tmp_path)
    assert not (run / PREDICTIONS_FILE).exists()


def test_each_target_has_a_picture_of_its_own(tmp_path: Path) -> None:
    layers = [
        {"Linear": {"out_features": 3, "name": "kind"}},
        {"Linear": {"out_features": 1, "name": "size", "from": "kind"}},
    ]
    model = {"layers": layers, "outputs": ["kind", "size"]}
    data = {"x": FEATURES, "target": {"kind": LABELS, "size": FEATURES[:, 0]}}
    run = library.train({"model": model, "trainer": TRAINER}, data, folder=tmp_path).folder
    assert run is not None
    assert {path.name for path in run.glob("*.png")} == {"predictions_kind.png", "predictions_size.png"}


@pytest.mark.parametrize("classes", [2, 3, 12, 13, 31, 201])
def test_a_matrix_of_any_size_is_drawn(classes: int, tmp_path: Path) -> None:
    target = Target("kind", "classes", (), tuple(f"a class of a rather long name {each}" for each in range(classes)))
    truth = torch.arange(1000) % classes
    page = draw_classes(target, truth.flip(0), truth, "test split")
    (tmp_path / "it.png").write_bytes(page.to_png())
    pixels(tmp_path / "it.png")
    right = int((truth.flip(0) == truth).sum())
    assert f"kind: {right:,} of 1,000 correct, {right / 1000:.1%}" in page.texts


# ---- a run is what it was ------------------------------------------------------------------------------------------

NOISY = ["Flatten", {"Linear": {"out_features": 8, "name": "mu"}}, {"Formula": "mu + randn_like(mu)"}, {"Linear": 3}]


@pytest.mark.parametrize("classes", [2, 3, 31, 201])
def test_a_dollar_in_a_name_begins_no_formula(classes: int) -> None:
    names = ("$^$", "$\\nothing$", *map(str, range(classes)))[:classes]
    truth = torch.arange(60) % classes
    told = torch.rand(60) if classes == 2 else truth.flip(0)
    page = draw_classes(Target("$_$", "classes", (), names), told, truth, "$_$")
    assert "$_$" in " ".join(page.texts) and page.to_png()


def test_a_run_is_the_same_with_and_without_pictures(tmp_path: Path) -> None:
    """Its network draws numbers whenever it is asked, so that a generator that was moved would be seen."""
    arrays, after = {"image": IMAGES, "target": LABELS}, []
    for name in ("with", "without"):
        train(NOISY, arrays, tmp_path / name, pictures=name == "with", epochs=3)
        after.append(torch.get_rng_state())
    made, other = (tmp_path / name / "run" for name in ("with", "without"))
    assert torch.equal(*after)
    assert (made / PREDICTIONS_FILE).exists() and not (other / PREDICTIONS_FILE).exists()
    assert (made / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    for file in ("checkpoints/best.safetensors", "checkpoints/last.safetensors"):
        weights, others = (read_weights(each / file)[0] for each in (made, other))
        assert weights.keys() == others.keys()
        assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_a_picture_that_fails_is_told_once_and_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(view: PredictionView) -> None:
        raise RuntimeError("no paint left\nat all")

    monkeypatch.setattr(prediction_plots, "draw_predictions", fail)
    with caplog.at_level(logging.WARNING):
        result = library.train({"layers": RUNS["classes"][0], "trainer": TRAINER}, RUNS["classes"][1], folder=tmp_path)
    assert "test/accuracy" in result.results
    assert [each.getMessage() for each in caplog.records] == ["can't draw the predictions: RuntimeError: no paint left"]


# ---- what is looked at ---------------------------------------------------------------------------------------------


def notes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arrays: Any, layers: list[Any], **settings: Any
) -> list[str]:
    """What the pictures say that they show."""
    found: list[str] = []

    def note(view: PredictionView) -> dict[str, Any]:
        pages = draw_predictions(view)
        found.extend(words for page in pages.values() for words in page.texts if " split, " in words)
        return pages

    monkeypatch.setattr(prediction_plots, "draw_predictions", note)
    train(layers, arrays, tmp_path, **settings)
    return found


def test_a_picture_says_what_it_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    layers, arrays = RUNS["classes"]
    assert notes(monkeypatch, tmp_path, arrays, layers) == ["test split, 12 samples"]
    assert notes(monkeypatch, tmp_path, arrays, layers, test="none") == ["validation split, 6 samples"]
    assert notes(monkeypatch, tmp_path, dataset_from_arrays(arrays, test=0.0), layers) == [
        "validation split, 6 samples"
    ]
    assert notes(monkeypatch, tmp_path, dataset_from_arrays(arrays, test=0.0, validation=0.0), layers) == []
    monkeypatch.setattr(prediction_view, "MAX_SAMPLES", 7)
    assert notes(monkeypatch, tmp_path, arrays, layers) == ["test split, 7 of 12 samples"]
    monkeypatch.setattr(prediction_view, "MAX_NUMBERS", 2)
    assert notes(monkeypatch, tmp_path, arrays, layers, eval_batch_size=2) == ["test split, 2 of 12 samples"]


def test_a_number_is_drawn_in_its_own_unit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    def note(target: Target, told: Tensor, truth: Tensor, note: str) -> Any:
        seen.append((told, truth))
        return draw_numbers(target, told, truth, note)

    monkeypatch.setattr(prediction_plots, "draw_numbers", note)
    spec = {"model": {"layers": [{"Linear": 1}]}, "trainer": {**TRAINER, "epochs": 5}, "data": "diabetes"}
    result = library.train(spec, folder=tmp_path)
    ((told, truth),) = seen
    assert float(truth.min()) > 20 and float(truth.max()) < 350
    assert float((told - truth).abs().mean()) == pytest.approx(result.results["test/mean_absolute_error"], 1e-4)


def test_pictures_show_the_same_predictions_as_the_metrics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    layers, arrays = RUNS["steps"]
    views: list[PredictionView] = []
    monkeypatch.setattr(prediction_plots, "draw_predictions", lambda view: views.append(view) or {})
    result = library.train({"layers": layers, "trainer": TRAINER}, arrays, folder=tmp_path)
    rows = views[0].predict_flat(["target"])
    told, truth = rows.pairs["target"]
    data: Dataset = views[0].data
    assert rows.samples == len(data.test)
    assert len(truth) == int(data.test.tensors["x_lengths"].sum()), "padding is left out"
    assert float((told == truth).float().mean()) == pytest.approx(result.results["test/accuracy"], 1e-6)


# ---- a plot --------------------------------------------------------------------------------------------------------

TICKS = {
    (0.0, 1.0): ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"],
    (-0.003, 0.003): ["−0.003", "−0.002", "−0.001", "0.000", "0.001", "0.002", "0.003"],
    (0.0, 2e7): ["0", "5e+06", "1e+07", "1.5e+07", "2e+07"],
    (1000.0, 1000.5): ["1000.0", "1000.1", "1000.2", "1000.3", "1000.4", "1000.5"],
}


@pytest.mark.parametrize("side", TICKS)
def test_a_side_has_round_numbers_that_differ(side: tuple[float, float]) -> None:
    page = Page(4.0, 4.0)
    Axes(page, 1.0, 1.0, 2.5, 1.5, side, (0.0, 1.0)).draw_frame("x")
    assert [words for words in page.texts if words in TICKS[side]][-len(TICKS[side]) :] == TICKS[side]


def test_limits_leave_room_and_need_no_number() -> None:
    assert axis_limits([0.0, 10.0, float("nan"), float("inf")]) == (-0.5, 10.5)
    low, high = axis_limits([3.0, 3.0])
    assert low < 3 < high
    assert axis_limits([float("nan")]) == (0.0, 1.0)


def test_a_legend_lies_where_nothing_is_drawn() -> None:
    plot = Axes(page := Page(4.0, 4.0), 0.5, 0.5, 3.0, 3.0, (0.0, 1.0), (0.0, 1.0))
    curve = sample_along_line(plot.to_page([0.0, 0.9, 1.0], [0.1, 0.2, 1.0]), 0.05)
    left, top = plot._find_free_corner(1.0, 0.5, curve)
    assert (left, top) == (0.5 + LEGEND_PADDING, 3.5 - LEGEND_PADDING)
    assert page.texts == []


def test_a_line_ends_where_a_number_is_not_finite() -> None:
    page = Page(2.0, 1.0)
    page.draw_line([(0.2, 0.5), (0.8, 0.5), (1.0, float("nan")), (1.2, 0.5), (1.8, 0.5)], "#000000", 3)
    row = np.asarray(page._renderer.buffer_rgba())[65, :, 0]
    assert row[65] == 0 and row[130] == 255 and row[195] == 0


# ---- images: the worst first ---------------------------------------------------------------------------------------


class _Constant(torch.nn.Module):
    """Predicts the probabilities that are written in the first pixels of an image."""

    def forward(self, image: Tensor) -> Tensor:
        return image[:, 0, 0, :3]


def test_the_most_confident_errors_come_first() -> None:
    shares = torch.tensor([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.34, 0.33, 0.33], [0.5, 0.4, 0.1]])
    images = torch.zeros(5, 1, 4, 4)
    images[:, 0, 0, :3] = shares
    truth = torch.tensor([1, 1, 0, 0, 2])  # the first, the third and the last are wrong
    predicted = shares.argmax(1)
    confidence = shares.max(1).values
    wrong = sorted((row for row in range(5) if predicted[row] != truth[row]), key=lambda row: -float(confidence[row]))
    split = Split({"input": images}, {"target": truth})
    target = Target("target", "classes", (), ("a", "b", "c"))

    class View(PredictionView):
        @property
        def split(self) -> Split:
            return split

        def predict_targets(self, inputs: Any) -> Any:
            return {"target": inputs[0][:, 0, 0, :3]}

    def make_batches(part: Split) -> Any:
        class Batches:
            def iterate_in_order(self) -> Any:
                yield (part.tensors["input"][:3],), ()
                yield (part.tensors["input"][3:],), ()

        return Batches()

    view = View("test", _Constant(), None, None, ("input",), make_batches)  # type: ignore[arg-type]
    found = view.judge_images(target, "input", 4)
    assert (found.errors, found.all_errors, found.samples) == (3, 3, 5)
    assert torch.equal(found.images[:3], images[wrong])
    assert found.predicted[:3].tolist() == predicted[wrong].tolist() == [0, 2, 0]
    assert found.truth.tolist()[:3] == truth[wrong].tolist() and found.truth[3] == found.predicted[3]
    page = draw_judged_images(target, found, "note")
    assert {"a 90%", "is b", "c 60%", "is a"} <= set(page.texts)


def test_the_worst_maps_come_first() -> None:
    truth = torch.zeros(10, 4, 4, dtype=torch.int64)
    predicted = truth.clone()
    for sample, wrong in ((7, 8), (2, 4), (5, 12)):
        predicted[sample].view(-1)[:wrong] = 1
    truth[9] = -100  # nothing is known of it, so nothing is right
    assert order_worst_maps(predicted, truth, 6).tolist() == [9, 5, 7, 0, 3, 8]
    assert order_worst_maps(predicted[:1], truth[:1], 6).tolist() == [0]


def test_pixels_without_a_class_are_pink_and_not_counted() -> None:
    truth, predicted = torch.ones(1, 2, 2, dtype=torch.int64), torch.ones(1, 2, 2, dtype=torch.int64)
    truth[0, 0] = -100
    predicted[0, 1, 1] = 0
    target = Target("mask", "classes", (2, 2), ("ground", "road"))
    page = draw_class_maps(target, predicted, truth, torch.rand(1, 3, 2, 2), "note")
    assert {"50.0%", "ignored", "road"} <= set(page.texts)
    over = draw_masks_over(torch.zeros(1, 2, 2, 3), truth, 2, opacity=1)
    assert torch.allclose(over[0, 0, 0], torch.tensor(IGNORED_COLOR))
