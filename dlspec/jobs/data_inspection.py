"""Inspect the data of a spec without training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dlspec.data.augment.batch_augmentation import list_image_fields
from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan
from dlspec.data.dataset import Dataset
from dlspec.data.inspection.inspection import Inspection
from dlspec.data.inspection.source_inspection import inspect_dataset, inspect_source
from dlspec.data.sources import open_data
from dlspec.errors import UserError
from dlspec.jobs.python_spec import DataInput, is_python_data, load_data_or_section, prepare_spec
from dlspec.jobs.rows_in_python import inspect_rows, is_table_like
from dlspec.jobs.run_preparation import Preparation
from dlspec.jobs.spec import Spec
from dlspec.plots.batch_plots import MAX_SHOWN_SAMPLES, draw_batch


def inspect_data(preparation: Preparation) -> tuple[Spec, Inspection]:
    """Read the data of a spec once, and describe them.

    Raises:
        SpecError: if the spec is wrong, or the data can't be read or do not fit its settings.
    """
    spec = preparation.read()
    with preparation.locate_data_errors():
        return spec, inspect_source(spec.data)


def draw_training_batch(preparation: Preparation) -> bytes:
    """Draw the first training batch of a spec's data, augmented as in the first epoch, as a PNG file.

    Raises:
        SpecError: if the spec is wrong, or the data can't be read or do not fit its settings.
        UserError: if the data have no images, or no training samples.
    """
    spec = preparation.read()
    with preparation.locate_data_errors():
        dataset = open_data(spec.data)
    images = [each.name for each in list_image_fields(dataset)]
    if not images or not len(dataset.train):
        missing = "training samples" if images else "images"
        raise UserError(f"--picture draws images of the training split, and {dataset.name} has no {missing}")
    targets = [each.name for each in dataset.targets]
    plan = BatchPlan(spec.trainer.initial_batch_size, augmentation=dataset.augmentation)
    loader = BatchLoader(dataset.train, images, targets, plan, torch.device("cpu"))
    inputs, truth = next(loader.iterate_shuffled(spec.seed, 1))
    pairs = (dict(zip(images, inputs, strict=True)), dict(zip(targets, truth, strict=True)))
    return draw_batch(dataset, *pairs, _describe_batch(dataset, len(inputs[0]))).to_png()


def _describe_batch(dataset: Dataset, samples: int) -> str:
    """Describe what a picture of a batch shows."""
    shown = f"the first {MAX_SHOWN_SAMPLES} of {samples}" if samples > MAX_SHOWN_SAMPLES else f"{samples}"
    augmented = "not augmented" if dataset.augmentation is None else "augmented as in epoch 1"
    return f"{shown} samples of the first batch, {augmented}"


def inspect_python_data(data: DataInput | Path, settings: Mapping[str, Any]) -> Inspection:
    """Inspect data given in Python: rows, arrays, a file, the name of a data set, or its settings.

    Args:
        data: the data
        settings: settings of `data`, such as `target`

    Raises:
        SpecError: if a setting is wrong, or the data do not fit it.
    """
    if is_table_like(data):
        return inspect_rows(data, settings)
    if isinstance(data, Path) or (isinstance(data, str) and ("/" in data or Path(data).is_file())):
        data = {"type": "table", "path": str(data)}
    if is_python_data(data):
        dataset, _ = load_data_or_section(data, settings)
        assert dataset is not None  # such data are opened there
        return inspect_dataset(dataset)
    section = {**(data if isinstance(data, Mapping) else {"type": data}), **settings}
    return inspect_data(prepare_spec({"data": section if settings or isinstance(data, Mapping) else data}, None))[1]


def write_data_settings(spec: Spec, inspection: Inspection) -> dict[str, Any]:
    """Return the settings of `data` as a config file has them: as written, with the inferred kinds."""
    written = spec.data.model_dump(mode="json", exclude_defaults=True)
    return {"type": spec.data.source_name, **written, **inspection.resolved}
