"""The files of an evaluation in the run's folder: evaluations/TIME.json, and pictures of the predictions beside it."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.inference.evaluation.run_evaluation import Evaluation, make_evaluator
from dlspec.runs.file_access import refuse_links
from dlspec.runs.file_names import EVALUATIONS_FOLDER, format_evaluation_name
from dlspec.runs.io import write_bytes, write_json
from dlspec.training.callbacks.prediction_plots import draw_predictions

log = logging.getLogger("dlspec")
MAX_EVALUATIONS = 1000  # of one second: more are not made by a person


def write_evaluation(evaluation: Evaluation, *, pictures: bool = True) -> list[Path]:
    """Write an evaluation into the run's folder; no file of the run itself changes.

    Args:
        evaluation: the results
        pictures: whether to draw the predictions too

    Returns:
        The files: first the JSON.

    Raises:
        UserError: if a link in the folder leads elsewhere.
    """
    root = evaluation.run.folder
    folder = root / EVALUATIONS_FOLDER
    refuse_links(root, [folder])
    folder.mkdir(exist_ok=True)
    path = _choose_free_name(folder, evaluation)
    drawn = _draw_pictures(evaluation) if pictures else {}
    written = [path]
    for name, content in drawn.items():
        picture = folder / f"{path.stem}_{name}"
        write_bytes(picture, content)
        written.append(picture)
    write_json(path, evaluation.to_json())  # last: whoever finds it finds its pictures too
    return written


def _choose_free_name(folder: Path, evaluation: Evaluation) -> Path:
    """Choose a name that no earlier evaluation of the same second has."""
    for count in range(1, MAX_EVALUATIONS):
        path = folder / format_evaluation_name(evaluation.created.astimezone(), count)
        if not os.path.lexists(path):
            return path
    raise UserError(f"'{folder}' has no free name for an evaluation; remove some of its files")


def _draw_pictures(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw the predictions as training does, by file name; without pictures the evaluation is still complete."""
    evaluator = make_evaluator(evaluation.run)
    try:
        pages: dict[str, Any] = draw_predictions(evaluator.make_view(evaluation.data.split, _name_rows(evaluation)))
        return {name: page.to_png() for name, page in pages.items()}
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        log.warning("can't draw the predictions: %s: %s", type(error).__name__, first_line(error))
        return {}


def _name_rows(evaluation: Evaluation) -> str:
    """Name the evaluated rows for the line below a picture's title."""
    data = evaluation.data
    return f"{data.name} split" if data.name is not None else first_line(data.path or "new rows", 60)
