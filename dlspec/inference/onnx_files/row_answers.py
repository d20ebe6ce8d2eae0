"""Outputs of an exported file as output columns, as `predict` writes them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.errors import UserError
from dlspec.inference.onnx_files.model_reading import ExportedFile

Answers = dict[str, NDArray[Any]]
PROBABILITIES, INDEX, SEPARATOR = ".probabilities", ".index", "|"


def make_answers(file: ExportedFile, outputs: Mapping[str, NDArray[Any]], *, probabilities: bool) -> Answers:
    """Make the output columns of some rows.

    Args:
        file: the exported file, which describes its outputs
        outputs: what it returned, by name
        probabilities: whether to make a column for each class
    """
    answers: Answers = {}
    for each in file.outputs:
        name, target, classes = (each.get(key) for key in ("name", "target", "classes"))
        if (
            not isinstance(name, str)
            or name not in outputs
            or not isinstance(target, str)
            or not isinstance(classes, list)
        ):
            raise UserError("the file does not describe its outputs; export the run again")
        values = outputs[name]
        if name.endswith(PROBABILITIES):
            has_index = f"{name.removesuffix(PROBABILITIES)}{INDEX}" in outputs
            answers |= _name_classes(target, list(map(str, classes)), values, has_index, probabilities)
        elif not name.endswith(INDEX):
            answers[target] = values
    return answers


def _name_classes(
    target: str, classes: list[str], values: NDArray[Any], is_single: bool, probabilities: bool
) -> Answers:
    if values.ndim != 2 or values.shape[1] != len(classes):
        raise UserError(f"'{target}' has a class for each step or pixel, which file= does not write; predict with run=")
    names = np.array(classes, object)
    if not is_single:
        answers: Answers = {target: _join_labels(names, values > 0.5)}
    elif len(classes) == 2:
        answers = {target: names[(values[:, 1] > 0.5).astype(int)], f"{target}.{classes[1]}": values[:, 1]}
    else:
        answers = {target: names[values.argmax(1)], f"{target}.probability": values.max(1)}
    if probabilities:
        answers |= {f"{target}.{each}": values[:, at] for at, each in enumerate(classes)}
    return answers


def _join_labels(names: NDArray[Any], chosen: NDArray[np.bool_]) -> NDArray[Any]:
    return np.fromiter((SEPARATOR.join(names[row]) for row in chosen), object, len(chosen))
