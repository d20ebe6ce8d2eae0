"""Check that the images of a run are scaled as those that its pretrained weights were trained on.

A network whose weights expect images from -1 to 1 learns badly from images from 0 to 1, and nothing else would show it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dlspec.data.dataset import Dataset
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.name_patterns import match_one
from dlspec.data.files.paths import expand_home
from dlspec.data.prepare.kinds.image import FittedImage
from dlspec.data.sources import DataSource
from dlspec.data.sources.saved_preparation import read_saved_preparation
from dlspec.errors import Code, DataError
from dlspec.formatting import format_argument, format_hydra_value
from dlspec.language.problems import Problems
from dlspec.runs.file_names import CHECKPOINTS_FOLDER, PREPARE_FILE

TOLERANCE = 1e-6  # of a mean or deviation: those of statistics are saved with all their digits


def check_scale_of_weights(path: str, source: DataSource, data: Dataset, problems: Problems) -> None:
    """Report images whose scale is not that of the weights, or is not known.

    Args:
        path: `weights.path`: a file, or the folder of a run, which has saved its scale
        source: the settings of the data
        data: the data
        problems: collects what was found
    """
    images = _find_images(data)
    if not images or getattr(source, "prepare", None):
        return
    theirs = _read_images_of_run(path)
    for name, image in images.items():
        other = theirs.get(name) or (next(iter(theirs.values())) if len(theirs) == len(images) == 1 else None)
        if other is None and not is_scale_written(source, name):
            found = f"'{path}' does not say how the images were scaled that its weights were trained on"
            choices = " or ".join(_format_fix(source, name, each) for each in ("imagenet", "half"))
            fix = f"write the scale, such as {choices}; docs/models.md lists those of published weights"
            problems.add(Code.MISSING_VALUE, ("weights", "path"), found, fix, at_value=True)
        elif other is not None and not _has_same_scale(image, other):
            found = f"the weights of '{path}' were trained on images with {_describe_scale(other)}"
            found = f"{found}, but '{name}' has {_describe_scale(image)}"
            fix = f"write {_format_fix(source, name, other.name_scale())}"
            problems.add(Code.CONFLICT, ("weights", "path"), found, fix, at_value=True)


def is_scale_written(source: DataSource, column: str) -> bool:
    """Whether the settings of the data say how a column of images is scaled.

    Args:
        source: the settings
        column: the column
    """
    if "scale" in type(source).model_fields:
        return getattr(source, "scale", None) is not None
    columns = getattr(source, "columns", {})
    written = [each for pattern, each in columns.items() if match_one(pattern, [column])]
    settings = [kind for each in written if isinstance(each, Mapping) for kind in each.values()]
    return any(isinstance(each, Mapping) and each.get("scale") is not None for each in settings)


def _find_images(data: Dataset) -> dict[str, FittedImage]:
    """Find the input images by column."""
    if not isinstance(data.preprocessing.get("columns"), Mapping):
        return {}
    return _select_images(FittedTable.from_json(data.preprocessing))


def _select_images(fitted: FittedTable) -> dict[str, FittedImage]:
    return {name: each for name, each in fitted.inputs.items() if isinstance(each, FittedImage)}


def _read_images_of_run(path: str) -> dict[str, FittedImage]:
    """Read how a run prepared its images; {} for weights that are not a run's, or not of images in files."""
    place = Path(expand_home(path))
    folder = place.parent.parent if place.parent.name == CHECKPOINTS_FOLDER else place
    if not (folder / PREPARE_FILE).is_file():
        return {}
    try:
        return _select_images(read_saved_preparation(str(folder)))
    except DataError:  # of arrays, or damaged: then the scale must be written
        return {}


def _has_same_scale(one: FittedImage, other: FittedImage) -> bool:
    return all(np.allclose(first, second, rtol=0, atol=TOLERANCE)
               for first, second in zip(_get_scale(one), _get_scale(other), strict=True))  # fmt: skip


def _get_scale(image: FittedImage) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return image.mean or (0.0,), image.std or (1.0,)


def _describe_scale(image: FittedImage) -> str:
    return f"scale: {format_hydra_value(image.name_scale())}"


def _format_fix(source: DataSource, column: str, scale: Any) -> str:
    if "scale" in type(source).model_fields:
        return format_argument("data.scale", scale)
    return format_argument("data.columns", {column: {"image": {"scale": scale}}})
