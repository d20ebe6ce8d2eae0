"""Load a run from its folder: its network, criterion, and how rows are encoded. Its data are not read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dlspec.data.dataset import Dataset
from dlspec.data.encoding.dataset_columns import make_fitted_table
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.encoding.saved_dataset import read_saved_dataset
from dlspec.errors import DataError, UserError
from dlspec.inference.loading.run_files import find_weights_file, read_metadata, read_preparation
from dlspec.jobs.python_spec import DataInput, apply_changes, make_placeholder_section, prepare_spec
from dlspec.jobs.run_preparation import OpenedSpec, Preparation
from dlspec.jobs.run_resuming import find_run_folder
from dlspec.jobs.spec import Spec
from dlspec.language.problems import raise_problems
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.limits import allow_deep_recursion
from dlspec.losses.criterion import Criterion
from dlspec.losses.criterion_setup import make_criterion
from dlspec.metrics.selection import make_metrics, select_metrics
from dlspec.network.builder import Network
from dlspec.network.weights.weight_loading import load_saved_weights
from dlspec.training.components import Model, TrainingData
from dlspec.training.criterion_interface import MetricGroups
from dlspec.training.runtime.devices import UnknownDevice, choose_device
from dlspec.training.runtime.randomness import preserve_generators
from dlspec.training.step.compute_backend import ComputeBackend

# Settings of training that do not concern predictions, or only how fast they are.
_PREDICTION_SETTINGS: Mapping[str, Any] = {"limit_batches": None, "compile": "none", "num_workers": 0}


@dataclass(frozen=True)
class LoadedRun:
    """A run that was loaded from its folder, in eval mode."""

    folder: Path
    weights_file: Path
    metadata: Mapping[str, str]  # of the weights file
    spec: Spec
    built: Network
    criterion: Criterion
    data: Dataset  # without samples where it was rebuilt from the folder, with them where the source was opened
    preparation: FittedTable | None  # encodes new rows; None for a source of the user's own that is not a table
    preparing: Preparation  # the steps that open the run's own data
    make_metrics: Callable[[], MetricGroups]  # new metrics, as training reports them
    backend: ComputeBackend  # what training computed with: the run's precision and memory format
    has_samples: bool = False  # whether `data` contains the samples of the run

    @property
    def network(self) -> nn.Module:
        """The network, in eval mode, on the device."""
        return self.built.module

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that the network takes, in order."""
        return self.built.inputs

    @property
    def device(self) -> torch.device:
        """Where the run computes."""
        return self.backend.device

    @property
    def settings(self) -> TrainerSpec:
        """The settings of training, without those that limit or speed it up."""
        return self.backend.settings

    @property
    def epoch(self) -> int:
        """The epoch after which the weights were saved, from 1; 0 if the file does not say."""
        return _read_number(self.metadata, "epoch")

    @property
    def step(self) -> int:
        """The step after which the weights were saved; 0 if the file does not say."""
        return _read_number(self.metadata, "step")

    @property
    def model(self) -> Model:
        """The network with its criterion and metrics, as the trainer takes it."""
        return Model(self.network, self.criterion, self.inputs, self.make_metrics)

    def make_training_data(self, data: Dataset) -> TrainingData:
        """Describe data as the trainer takes them, from which a `BatchFactory` makes batches."""
        network = self.built
        return TrainingData(
            data, self.spec.seed, network.allows_trimming, network.fewest_steps, network.max_layer_outputs
        )

    def require_preparation(self) -> FittedTable:
        """Return what encodes new rows; UserError if the run's source has no such thing."""
        if self.preparation is None:
            found = f"data.type: {self.spec.data.source_name} is a source of your own that dlspec can't apply to rows"
            raise UserError(f"{found}; write it with @dlspec.rows, or call the network with tensors: dlspec.load")
        return self.preparation


def load_run(
    folder: str | Path,
    checkpoint: str = "best",
    *,
    imports: Sequence[str] = (),
    data: DataInput = None,
    device: str | None = None,
) -> LoadedRun:
    """Load a run from its folder: the network with its weights, and how rows are encoded.

    Runs of older versions do not describe their data. For them the data are opened as for training.

    Args:
        folder: The run's folder, or `latest`.
        checkpoint: Which weights: `best` (or the last ones, if no best ones were saved) or `last`.
        imports: Modules that the run's spec may import.
        data: The data of the run again, if it does not describe them and they were given in Python.
        device: Where to compute, as in `trainer.device`; None for what the run's own `trainer.device` means on this
            machine.

    Returns:
        The run, in eval mode.

    Raises:
        UserError: If the folder does not contain a run, its weights are missing, or a file is damaged.
        SpecError: If its spec imports modules that `imports` does not name, or does not fit.
    """
    run_folder = find_run_folder(str(folder))
    weights_file = find_weights_file(run_folder, checkpoint)
    metadata = read_metadata(weights_file)
    with preserve_generators(), allow_deep_recursion():
        preparing = _prepare_saved_spec(run_folder, imports, data, device)
        described = None if data is not None else _describe_data(run_folder, weights_file, metadata)
        opened = (_replace_data(preparing, described) if described is not None else preparing).open()
        built = replace(preparing, data=opened.data).build(opened=opened)
        return _finish(built.network, LoadedParts(run_folder, weights_file, metadata, preparing, opened), built.data,
                       has_samples=described is None)  # fmt: skip


@dataclass(frozen=True)
class LoadedParts:
    """What a run's folder contains, and its spec with the facts of its data."""

    folder: Path
    weights_file: Path
    metadata: Mapping[str, str]
    preparing: Preparation
    opened: OpenedSpec


def _prepare_saved_spec(run_folder: Path, imports: Sequence[str], data: DataInput, device: str | None) -> Preparation:
    changes = [f"imports=[{','.join(imports)}]"] if imports else []
    spec, _ = apply_changes(run_folder, changes, data)
    preparing = prepare_spec(spec, data, is_resumed=True)
    trainer = preparing.tree.get("trainer")
    settings = {} if trainer is None else trainer
    if isinstance(settings, Mapping):
        settings = {**settings, "device": _check_device(device, settings)}
    section = preparing.tree.get("data")
    if isinstance(section, Mapping):  # only training batches are augmented
        section = {key: each for key, each in section.items() if key != "augment"}
    return replace(preparing, tree={**preparing.tree, "trainer": settings, "data": section})


def _check_device(device: str | None, trainer: Mapping[str, Any]) -> Any:
    """Return where to compute; UserError if this machine does not have the device."""
    name = trainer.get("device", "auto") if device is None else device
    try:
        if isinstance(name, str):  # otherwise reading the spec explains what is wrong
            choose_device(name)
    except UnknownDevice as error:
        found = error.finding.found
        raise UserError(
            f"the run's trainer.device: {found}; write device=cpu" if device is None else f"device: {found}"
        ) from None
    return name


def _describe_data(run_folder: Path, weights_file: Path, metadata: Mapping[str, str]) -> Dataset | None:
    """Rebuild the data from their description; None if an older version saved none."""
    try:
        return read_saved_dataset(read_preparation(run_folder, metadata))
    except DataError as error:
        raise UserError(f"'{format_file_path(weights_file)}': {error}") from None


def _replace_data(preparing: Preparation, described: Dataset) -> Preparation:
    """Replace the data of a spec by their description. Data given in Python have no section that could be read."""
    section = preparing.tree.get("data")
    if isinstance(section, Mapping) and section.get("type") == "arrays":
        preparing = replace(preparing, tree={**preparing.tree, "data": make_placeholder_section(described)})
    return replace(preparing, data=described)


def _finish(network: Network, parts: LoadedParts, data: Dataset, *, has_samples: bool) -> LoadedRun:
    """Load the weights, and make what judges the outputs."""
    spec = parts.opened.spec
    problems = spec.problems.make_empty_copy()
    criterion = make_criterion(network, data, spec.loss, problems, spec.balanced)
    raise_problems(problems, parts.preparing.make_source_map)
    assert criterion is not None  # otherwise a problem was raised
    metrics = select_metrics(spec.metrics, criterion.predicted_targets, data, problems)
    raise_problems(problems, parts.preparing.make_source_map)
    settings, device = spec.trainer.model_copy(update=_PREDICTION_SETTINGS), choose_device(spec.trainer.device)
    # Before the weights are loaded, as it converts the network to the precision of the run.
    backend = ComputeBackend(network.module, criterion, settings, device, network.max_layer_outputs)
    load_saved_weights(network.module, parts.weights_file)
    network.module.eval()
    return LoadedRun(
        parts.folder, parts.weights_file, parts.metadata, spec, network, criterion, data,
        make_fitted_table(parts.opened.data), parts.preparing,
        lambda: make_metrics(metrics, criterion.predicted_targets),
        backend, has_samples,
    )  # fmt: skip


def _read_number(metadata: Mapping[str, str], key: str) -> int:
    text = metadata.get(key, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0
