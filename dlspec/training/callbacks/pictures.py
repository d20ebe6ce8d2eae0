"""What the network says, as a picture for each target: drawn once, after the test, from a part of its split."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.plots.class_plots import draw_classes
from dlspec.plots.drawing import Page
from dlspec.plots.image_plots import MOST_IMAGES, MOST_MAPS, draw_images, draw_maps, is_image
from dlspec.plots.number_plots import draw_numbers
from dlspec.runs.io import safe_name, write_bytes, write_text
from dlspec.runs.layout import PREDICTIONS, SAMPLES
from dlspec.text import first_line
from dlspec.training.callbacks.callback import Callback
from dlspec.training.evaluation.looking import Samples, View
from dlspec.training.evaluation.sampling import samples_of
from dlspec.training.state import State

log = logging.getLogger("dlspec")

FEWEST_STEPS = 5
"""A run of fewer tries whether all goes: drawing what it says would take as long as the run."""


class Pictures(Callback):
    """Draws `predictions.png`, of several targets `predictions_NAME.png`: of the test, without one of the validation.

    Of next tokens it writes `samples.txt`. What can't be drawn is told, and ends no run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, state: State) -> None:
        if not state.is_tested:
            self._draw(state)

    def on_test_end(self, state: State) -> None:
        self._draw(state)

    def _draw(self, state: State) -> None:
        if state.step < FEWEST_STEPS:
            return
        try:
            view = state.view()
            if view is None:
                return
            for name, page in drawn(view).items():
                write_bytes(self.folder / name, page.png())
            for name, text in written(view).items():
                write_text(self.folder / name, text)
        except Exception as error:
            reason = first_line(error)
            log.warning("can't draw the predictions: %s: %s", type(error).__name__, reason)


def drawn(view: View) -> dict[str, Page]:
    """The pages by their files' names. Of next tokens there is none: `samples.txt` says what they sound like."""
    targets = view.targets
    by_row = view.rows([each.name for each in targets if _form(each) == "rows"])
    whole = view.samples(MOST_IMAGES) if any(_form(each) in ("image", "map") for each in targets) else None
    pages = {}
    for target in targets:
        name = _file(PREDICTIONS, target, targets)
        if target.name in by_row.pairs:
            pages[name] = _draw_rows(target, *by_row.pairs[target.name], _note(view, by_row.samples))
        elif whole is not None and _form(target) != "none":
            pages[name] = _draw_whole(target, whole, view)
    return pages


def written(view: View) -> dict[str, str]:
    """What networks of next tokens write, by the files' names."""
    targets = view.targets
    texts = {_file(SAMPLES, each, targets): samples_of(view, each) for each in targets if each.is_next}
    return {name: text for name, text in texts.items() if text is not None}


def _file(name: str, target: Target, targets: Sequence[Target]) -> str:
    """`predictions.png`, of several targets `predictions_NAME.png`."""
    stem, _, ending = name.partition(".")
    return name if len(targets) == 1 else f"{stem}_{safe_name(target.name)}.{ending}"


def _form(target: Target) -> Literal["rows", "image", "map", "none"]:
    """How a target is drawn: all samples' values together, or some samples whole."""
    if target.kind == "numbers":
        return "image" if is_image(target.shape) else "rows"
    if target.is_next or len(target.shape) > 2:
        return "none"
    return "map" if len(target.shape) == 2 else "rows"


def _draw_rows(target: Target, told: Tensor, truth: Tensor, note: str) -> Page:
    if not len(truth):
        raise ValueError(f"no value of '{target.name}' is there to compare")
    if target.kind == "numbers":
        return draw_numbers(target, told, truth, note)
    return draw_classes(target, told, truth, note)


def _draw_whole(target: Target, samples: Samples, view: View) -> Page:
    told, truth = samples.predictions[target.name], samples.truth[target.name]
    note = _note(view, len(truth[:MOST_MAPS] if target.kind == "classes" else truth))
    if target.kind == "numbers":
        is_input = any(each.name == target.name for each in view.data.fields)
        return draw_images(target, told, truth, note, is_input=is_input)
    fitting = [
        each for each in samples.inputs.values() if is_image(each.shape[1:]) and each.shape[2:] == truth.shape[1:]
    ]
    images = fitting[0][:MOST_MAPS] if fitting else None
    return draw_maps(target, told[:MOST_MAPS], truth[:MOST_MAPS], images, note)


def _note(view: View, samples: int) -> str:
    """`test split, 360 samples`, `validation split, 4,096 of 60,000 samples`."""
    total = len(view.split)
    return f"{view.name} split, {samples:,}{f' of {total:,}' if samples < total else ''} samples"
