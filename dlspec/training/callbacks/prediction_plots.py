"""Plot predictions of each target, once after the test, from some samples of the test split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from dlspec.data.dataset import Field, Target
from dlspec.formatting import first_line
from dlspec.plots.canvas import Page
from dlspec.plots.class_plots import draw_classes
from dlspec.plots.image_plots import MAX_IMAGES, MAX_MAPS, draw_class_maps, draw_images, is_image_shape
from dlspec.plots.judged_plots import MAX_JUDGED_IMAGES, draw_judged_images, order_worst_maps
from dlspec.plots.number_plots import draw_numbers
from dlspec.runs.file_names import IMAGES_FILE, PREDICTIONS_FILE, SAMPLES_FILE
from dlspec.runs.io import to_safe_name, write_bytes, write_text
from dlspec.training.callbacks.callback import Callback
from dlspec.training.evaluation.prediction_view import PredictionView, SamplePredictions
from dlspec.training.evaluation.text_generation import generate_samples_text
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")

MAX_JUDGED_MAPS = 48  # maps among which the worst are searched
MIN_STEPS = 5  # shorter runs only try whether everything works, and plots would take longer than the run


class PredictionPlots(Callback):
    """Draws `predictions.png`, or `predictions_NAME.png` for each of multiple targets.

    Where an input is an image, `predictions_images.png` shows the worst errors. The predictions are those of the test
    split, or of the validation split if the run has no test. For next tokens it writes generated text to `samples.txt`.
    If this fails, a warning is logged and the run continues.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, state: TrainingState) -> None:
        if not state.will_test:
            self._write_files(state)

    def on_test_end(self, state: TrainingState) -> None:
        self._write_files(state)

    def _write_files(self, state: TrainingState) -> None:
        if state.step < MIN_STEPS:
            return
        try:
            view = state.view()
            if view is None:
                return
            for name, page in draw_predictions(view).items():
                write_bytes(self.folder / name, page.to_png())
            for name, text in generate_texts(view).items():
                write_text(self.folder / name, text)
        except Exception as error:
            reason = first_line(error)
            log.warning("can't draw the predictions: %s: %s", type(error).__name__, reason)


def draw_predictions(view: PredictionView) -> dict[str, Page]:
    """Draw the predictions of each target. Return pages by file name; next tokens have none, see `generate_texts`."""
    targets = view.targets
    flat_predictions = view.predict_flat([each.name for each in targets if _plot_form(each) == "rows"])
    sample_predictions = (
        view.predict_samples(MAX_JUDGED_MAPS if any(_plot_form(each) == "map" for each in targets) else MAX_IMAGES)
        if any(_plot_form(each) in ("image", "map") for each in targets)
        else None
    )
    pages = {}
    for target in targets:
        name = _file_name(PREDICTIONS_FILE, target, targets)
        if target.name in flat_predictions.pairs:
            pages[name] = _draw_flat_values(
                target, *flat_predictions.pairs[target.name], _describe_split(view, flat_predictions.samples)
            )
        elif sample_predictions is not None and _plot_form(target) != "none":
            pages[name] = _draw_whole_samples(target, sample_predictions, view)
        image_input = _find_image_input(view)
        if image_input and target.kind == "classes" and _plot_form(target) == "rows" and not target.shape:
            pages[_file_name(IMAGES_FILE, target, targets)] = _draw_images_of_classes(target, image_input, view)
    return pages


def _find_image_input(view: PredictionView) -> str:
    """Return the first input that can be shown as an image; '' if there is none."""
    fields = {each.name: each for each in view.data.fields}
    return next((name for name in view.inputs if name in fields and _can_be_shown(fields[name])), "")


def _can_be_shown(field: Field) -> bool:
    return field.layout == "channels-first" and len(field.shape) == 3 and min(field.shape[1:]) > 1


def _draw_images_of_classes(target: Target, input_name: str, view: PredictionView) -> Page:
    judged = view.judge_images(target, input_name, MAX_JUDGED_IMAGES)
    wrong = f"{judged.all_errors:,} error{'s' if judged.all_errors != 1 else ''}"
    note = f"{_describe_split(view, judged.samples)}: {wrong}; orange: wrong, blue: right"
    return draw_judged_images(target, judged, note)


def generate_texts(view: PredictionView) -> dict[str, str]:
    """Generate text for each target of next tokens. Return texts by file name."""
    targets = view.targets
    texts = {
        _file_name(SAMPLES_FILE, each, targets): generate_samples_text(view, each)
        for each in targets
        if each.is_next_token
    }
    return {name: text for name, text in texts.items() if text is not None}


def _file_name(name: str, target: Target, targets: Sequence[Target]) -> str:
    """Add the target's name to a file name if there are multiple targets: `predictions_NAME.png`."""
    stem, _, ending = name.partition(".")
    return name if len(targets) == 1 else f"{stem}_{to_safe_name(target.name)}.{ending}"


def _plot_form(target: Target) -> Literal["rows", "image", "map", "none"]:
    """Choose how to draw a target: "rows" for all values in one plot, or some samples as images or maps of classes."""
    if target.labels:
        return "none"
    if target.kind == "numbers":
        return "image" if is_image_shape(target.shape) else "rows"
    if target.is_next_token or len(target.shape) > 2:
        return "none"
    return "map" if len(target.shape) == 2 else "rows"


def _draw_flat_values(target: Target, predictions: Tensor, truth: Tensor, note: str) -> Page:
    if not len(truth):
        raise ValueError(f"no values of '{target.name}' to compare")
    if target.kind == "numbers":
        return draw_numbers(target, predictions, truth, note)
    return draw_classes(target, predictions, truth, note)


def _draw_whole_samples(target: Target, samples: SamplePredictions, view: PredictionView) -> Page:
    predictions, truth = samples.predictions[target.name], samples.truth[target.name]
    if target.kind == "numbers":
        is_input = any(each.name == target.name for each in view.data.fields)
        predictions, truth = predictions[:MAX_IMAGES], truth[:MAX_IMAGES]
        return draw_images(target, predictions, truth, _describe_split(view, len(truth)), is_input=is_input)
    chosen = order_worst_maps(predictions, truth, MAX_MAPS)
    worst = f"the worst {-(-len(chosen) // 2)} of {len(truth)} first"
    matching_images = [
        each for each in samples.inputs.values() if is_image_shape(each.shape[1:]) and each.shape[2:] == truth.shape[1:]
    ]
    images = matching_images[0][chosen] if matching_images else None
    note = f"{_describe_split(view, len(chosen))}, {worst}"
    return draw_class_maps(target, predictions[chosen], truth[chosen], images, note)


def _describe_split(view: PredictionView, samples: int) -> str:
    """Describe which samples are plotted: `test split, 360 samples`, `validation split, 4,096 of 60,000 samples`."""
    total = len(view.split)
    return f"{view.rows_name or f'{view.name} split'}, {samples:,}{f' of {total:,}' if samples < total else ''} samples"
