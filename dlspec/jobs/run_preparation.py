"""Turn a config into everything that a run needs, and check all of it before anything is written.

The steps: check all settings, open the data, fill in their facts and check what depended on them, build and trace the
network, make criterion, optimizer and metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from dlspec.analysis.causality import check_causality
from dlspec.data.dataset import Dataset, Field
from dlspec.data.sources import DataSource, open_data
from dlspec.errors import Code, DataError
from dlspec.jobs.ignored_settings import describe_ignored_dropout
from dlspec.jobs.optimizer_setup import (
    build_optimizer,
    build_schedule,
    check_run_length,
    freeze_parameters,
    resolve_scheduler,
)
from dlspec.jobs.spec import Spec
from dlspec.jobs.spec_reading import read_spec, settle_spec
from dlspec.jobs.spec_saving import losses_to_spec, metrics_to_spec, part_to_spec
from dlspec.jobs.trial_step import try_training_step
from dlspec.jobs.weights_origin import check_weights_origin
from dlspec.jobs.weights_scale import check_scale_of_weights
from dlspec.language.problems import Problems, raise_problems
from dlspec.language.source_map import SourceMap
from dlspec.language.spec_versions import LABELS_OF_BOOLS, SPEC_VERSION
from dlspec.losses.criterion import Criterion
from dlspec.losses.criterion_setup import make_criterion
from dlspec.metrics.selection import SelectedMetric, make_metrics, select_metrics
from dlspec.network.build_mode import RUN_MODE, BuildMode
from dlspec.network.builder import Network, build_network
from dlspec.network.divided_values import DividedValues
from dlspec.network.inputs import match_inputs
from dlspec.network.weights.initial_values import initialize_weights
from dlspec.network.weights.weight_loading import load_weights
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.optim.schedule import Schedule, TrainedLength
from dlspec.training.components import find_sampled_target
from dlspec.training.runtime.determinism import deterministic_algorithms
from dlspec.training.runtime.devices import UnknownDevice, choose_device
from dlspec.training.runtime.randomness import seed_generators
from dlspec.training.step.activation_checkpointing import find_checkpointed_layers
from dlspec.training.tuning.learning_rate_finder import FoundLearningRate

GroupChoices = Mapping[str, Iterable[str]]
SAMPLES_FOR_TRACING = 2  # samples that pass through the network when it is built


@dataclass(frozen=True)
class OpenedSpec:
    """A spec and its open data."""

    spec: Spec
    data: Dataset

    def with_trainer_settings(self, found: Mapping[str, Any]) -> OpenedSpec:
        """Return a copy with these settings of the trainer, which were found by tuning."""
        return replace(self, spec=replace(self.spec, trainer=self.spec.trainer.model_copy(update=found)))

    def with_optimizer_settings(self, found: Mapping[str, Any]) -> OpenedSpec:
        """Return a copy with these settings of the optimizer, which were found by tuning."""
        optimizer = self.spec.optimizer
        changed = replace(optimizer, settings={**optimizer.settings, **found})
        return replace(self, spec=replace(self.spec, optimizer=changed))


@dataclass(frozen=True)
class BuiltSpec:
    """A spec with its data and a network that fits them."""

    spec: Spec
    data: Dataset
    network: Network
    freezing: FrozenParameters
    notes: tuple[str, ...] = ()  # lines for the user about weights that were loaded


@dataclass(frozen=True)
class PreparedRun:
    """Everything that the trainer needs."""

    spec: Spec
    data: Dataset
    network: Network
    criterion: Criterion
    optimizer: Optimizer | None
    schedule: Schedule | None
    freezing: FrozenParameters
    make_metrics: Callable[[], Sequence[Mapping[str, Any]]]
    resolved: Mapping[str, Any]  # the spec as it is saved in the run's folder
    notes: Sequence[str] = ()  # lines for the user, such as which weights were loaded
    found_rate: FoundLearningRate | None = None  # the result of `trainer.tune: lr`
    network_copy: nn.Module | None = None  # for averaged weights, if the parameters are divided among processes
    source_data: Dataset | None = None  # the data as their source returned them; None if they are `data`


@dataclass(frozen=True)
class Preparation:
    """The steps that turn a config into a run: read, open, build, prepare."""

    tree: Mapping[str, Any]
    # Finds where each key is written. That is slow, so it is called only if there are problems to report.
    make_source_map: Callable[[], SourceMap]
    choices: GroupChoices = field(default_factory=dict)  # names of the config files in each group
    data: Dataset | None = None  # replaces the data of the config
    is_resumed: bool = field(default=False, kw_only=True)  # whether the weights come from a checkpoint
    trained: TrainedLength = field(default=TrainedLength(), kw_only=True)  # what was trained before the checkpoint
    open_source: Callable[[DataSource], Dataset] = field(default=open_data, kw_only=True)

    def with_spec_version(self, version: int) -> Preparation:
        """Return a copy whose config follows the rules of a version, unless it states a version itself."""
        return self if version == SPEC_VERSION else replace(self, tree={"spec_version": version, **self.tree})

    def read(self) -> Spec:
        """Check all settings that don't depend on the data; raises `SpecError`."""
        return read_spec(self.tree, self.make_source_map, choices=self.choices)

    def open(self, *, outline: bool = False) -> OpenedSpec:
        """Check the settings, open the data, then fill in their facts and check what depends on them.

        With `outline`, random data are made with only a few samples, which is enough to check shapes.
        """
        if self.data is not None:
            facts = self.data.facts
            return OpenedSpec(read_spec(self.tree, self.make_source_map, facts=facts, choices=self.choices), self.data)
        spec = self.read()
        data = self._open_data(spec, outline)
        settled = settle_spec(spec, self.tree, self.make_source_map, facts=data.facts, choices=self.choices)
        return OpenedSpec(settled, data)

    def _open_data(self, spec: Spec, outline: bool) -> Dataset:
        seed_generators(spec.seed)
        with self.locate_data_errors():
            return self.open_source(spec.data.shrink() if outline else spec.data)

    @contextmanager
    def locate_data_errors(self) -> Iterator[None]:
        """Turn a `DataError` inside the `with` block into a `SpecError` at the setting of `data` that it is about."""
        try:
            yield
        except DataError as error:
            problems = Problems()
            path = ("data", error.key, *error.inner_path) if error.key else ("data",)
            problems.add_finding(path, error.finding, at_value=True)
            raise_problems(problems, self.make_source_map)
            raise

    def build(self, mode: BuildMode = RUN_MODE, opened: OpenedSpec | None = None) -> BuiltSpec:
        """Build the network, with weights drawn from the spec's seed.

        Raises:
            SpecError: If the network can't be built or does not fit the data.
            BuildModeError: If building in this mode is too expensive or impossible.
        """
        opened = opened or self.open()
        spec, data, problems = opened.spec, opened.data, opened.spec.problems.make_empty_copy()
        takes_tokens = bool(spec.graph.nodes) and spec.graph.nodes[0].part.type == "Embedding"
        fields = match_inputs(spec.graph.inputs, data, problems, takes_tokens=takes_tokens)
        device = _choose_run_device(spec, problems)
        raise_problems(problems, self.make_source_map)
        data = add_token_targets(spec, data, fields.values())
        seed_generators(spec.seed)
        samples = {name: (field, data.sample(field.name, SAMPLES_FOR_TRACING)) for name, field in fields.items()}
        network = build_network(spec.graph, spec.layers, samples, problems, mode)
        raise_problems(problems, self.make_source_map)
        assert network is not None  # otherwise a problem was raised
        if spec.weights is not None and not self.is_resumed:
            check_scale_of_weights(spec.weights.path, spec.data, data, problems)
        notes = () if self.is_resumed else _initialize_weights(network, spec, data, problems, mode.values)
        notes += describe_ignored_dropout(network.module)
        freezing = freeze_parameters(network, spec.freeze, problems)
        raise_problems(problems, self.make_source_map)
        # Before the optimizer is made: some optimizers create tensors on the parameters' device at once.
        network.module.to(mode.device or device)
        return BuiltSpec(spec, data, network, freezing, notes)

    def prepare(self, mode: BuildMode = RUN_MODE, opened: OpenedSpec | None = None) -> PreparedRun:
        """Build the network, and make everything else that the trainer needs; raises as `build` does."""
        opened = opened or self.open()
        with deterministic_algorithms(opened.spec.trainer.deterministic):
            return replace(self._prepare_built(self.build(mode, opened)), source_data=opened.data)

    def _prepare_built(self, built: BuiltSpec) -> PreparedRun:
        spec, data, network, problems = built.spec, built.data, built.network, built.spec.problems.make_empty_copy()
        criterion = make_criterion(network, data, spec.loss, problems, spec.balanced)
        _check_sampling(spec, data, problems)
        check_run_length(spec, data, self.trained, problems)
        causality_notes = () if criterion is None else check_causality(network, criterion, data, problems)
        predicted = () if criterion is None else criterion.predicted_targets
        if any(each.labels and each.name not in data.origin.get("labels", ()) for each in predicted):
            problems.refuse_changed_rule(LABELS_OF_BOOLS, ("spec_version",), at_value=True)
        metrics = select_metrics(spec.metrics, predicted, data, problems) if criterion else []
        _check_recomputed_patterns(spec, network, problems)
        optimizer = build_optimizer(spec, network, built.freezing, problems)
        spec = replace(spec, scheduler=resolve_scheduler(spec, metrics, predicted, problems))
        schedule = build_schedule(spec, optimizer, data, self.trained, problems)
        raise_problems(problems, self.make_source_map)
        assert criterion is not None  # otherwise a problem was raised
        try_training_step(spec, data, network, criterion, problems)
        raise_problems(problems, self.make_source_map)
        resolved_spec = _make_resolved_spec(spec, data, criterion, metrics)
        if self.data is not None:  # the data were given in Python, so the spec can't name their source
            resolved_spec["data"] = {"type": "arrays", **data.origin, **data.resolved}
        return PreparedRun(
            spec, data, network, criterion, optimizer, schedule, built.freezing,
            lambda: make_metrics(metrics, predicted), resolved_spec,
            (*data.notes, *built.notes, *causality_notes, *criterion.describe_own_losses(),
             *_make_all_frozen_note(network, optimizer)),
        )  # fmt: skip


def _initialize_weights(
    network: Network, spec: Spec, data: Dataset, problems: Problems, values: DividedValues | None
) -> tuple[str, ...]:
    """Initialize the network's weights as `init` and `weights` say; return a note on weights that were loaded."""
    if spec.inits:
        initialize_weights(network, spec.inits, problems, values)
    if spec.weights is None or problems:
        return ()
    note = load_weights(network.module, spec.weights, problems, values)
    if note:
        check_weights_origin(spec, network, data, problems)
    return (note,)


def _make_all_frozen_note(network: Network, optimizer: Optimizer | None) -> tuple[str, ...]:
    """Return a note if all parameters are frozen, as a `freeze` pattern may match more than the user meant."""
    has_weights = any(True for _ in network.module.parameters())
    return ("nothing is trained: all parameters are frozen",) if has_weights and optimizer is None else ()


def _check_sampling(spec: Spec, data: Dataset, problems: Problems) -> None:
    """Report `trainer.sampling: balanced` for data without a target of one class for each sample."""
    if spec.trainer.sampling is not None and find_sampled_target(data) is None:
        found = f"{data.name} has no target with one class for each sample, so no classes can be balanced"
        problems.add(Code.UNSUPPORTED, ("trainer", "sampling"), found, "remove it", at_value=True)


def _check_recomputed_patterns(spec: Spec, network: Network, problems: Problems) -> None:
    """Report patterns of `trainer.activation_checkpointing` that match no layer of the network."""
    for index, pattern in enumerate(spec.trainer.activation_checkpointing):
        if not find_checkpointed_layers(network.module, [pattern]):
            path = ("trainer", "activation_checkpointing", index)
            fix = "name a block or layer as `summary` shows it, or 'blocks.*' for the copies of a repeated one"
            problems.add(Code.NO_MATCH, path, f"'{pattern}' matches no layer of the network", fix, at_value=True)


def add_token_targets(spec: Spec, data: Dataset, fields: Iterable[Field]) -> Dataset:
    """Add a next-token target for each of the model's token fields that a loss or the data use as a target.

    Args:
        spec: The spec.
        data: The data.
        fields: The fields that the model takes.
    """
    target_names = {each.target for each in spec.loss or () if isinstance(each.target, str)}
    if not target_names and not data.targets:  # the fields of data without a target are their own targets
        target_names = {each.name for each in data.effective_targets}
    target_names |= {each.name for each in data.targets}
    for each in fields:
        if each.layout == "tokens" and each.name in target_names:
            data = data.with_next_token_target(each.name)
    return data


def _choose_run_device(spec: Spec, problems: Problems) -> torch.device:
    """Choose the run's device; a device that this machine does not have is reported as a problem."""
    try:
        return choose_device(spec.trainer.device)
    except UnknownDevice as error:
        problems.add_finding(("trainer", "device"), error.finding, at_value=True)
        return torch.device("cpu")


def _make_resolved_spec(
    spec: Spec, data: Dataset, criterion: Criterion, metrics: Sequence[SelectedMetric]
) -> dict[str, Any]:
    """Make the spec that the run saves: with every default and fact; params and formulas stay as written."""
    tree = dict(spec.tree)
    scheduler = spec.scheduler
    return {
        "spec_version": spec.problems.spec_version,
        **({"imports": tree["imports"]} if tree.get("imports") else {}),
        "model": {key: value for key, value in tree["model"].items() if key != "loss"},
        "data": {"type": type(spec.data).source_name, **spec.data.model_dump(mode="json"), **data.resolved},
        "loss": losses_to_spec(criterion),
        "optimizer": part_to_spec(spec.optimizer.schema, spec.optimizer.settings) | _get_group_settings(tree),
        "scheduler": None
        if scheduler is None
        else part_to_spec(scheduler.schema, scheduler.settings) | _get_scheduler_step_settings(spec),
        "metrics": metrics_to_spec(metrics, criterion),
        **{key: tree[key] for key in ("init", "freeze", "weights") if tree.get(key) is not None},
        "trainer": spec.trainer.model_dump(mode="json"),
        "seed": spec.seed,
    }


def _get_scheduler_step_settings(spec: Spec) -> dict[str, Any]:
    settings = {"interval": spec.interval, "warmup": spec.warmup}
    return {key: each for key, each in settings.items() if each}


def _get_group_settings(tree: Mapping[str, Any]) -> dict[str, Any]:
    groups = tree["optimizer"].get("groups") if isinstance(tree["optimizer"], dict) else None
    return {"groups": groups} if groups else {}
