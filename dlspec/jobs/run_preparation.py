"""From a config to everything that a run needs, checked to the last shape before anything is written.

form checked -> data opened -> rest checked -> network built and traced -> criterion, optimizer, metrics
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.optim import Optimizer

from dlspec.analysis.causality import check_causality
from dlspec.data.dataset import Dataset, Field
from dlspec.data.sources import DataSource, open_data
from dlspec.errors import Code, DataError
from dlspec.jobs.optimizer_setup import build_optimizer, build_schedule, freeze_parameters, resolve_scheduler
from dlspec.jobs.spec import Spec
from dlspec.jobs.spec_keys import SPEC_VERSION
from dlspec.jobs.spec_reading import read_spec, settle_spec
from dlspec.jobs.spec_saving import losses_to_spec, metrics_to_spec, part_to_spec
from dlspec.language.problems import Problems, raise_problems
from dlspec.language.source_map import SourceMap
from dlspec.losses.criterion import Criterion, make_criterion
from dlspec.metrics.selection import SelectedMetric, make_metrics, select_metrics
from dlspec.network.build_mode import RUN_MODE, BuildMode
from dlspec.network.builder import Network, build_network
from dlspec.network.inputs import match_inputs
from dlspec.network.weights.initial_values import initialize_weights
from dlspec.network.weights.weight_loading import load_weights
from dlspec.optim.frozen_parameters import FrozenParameters
from dlspec.optim.schedule import Schedule
from dlspec.training.runtime.determinism import deterministic_algorithms
from dlspec.training.runtime.devices import UnknownDevice, choose_device
from dlspec.training.runtime.randomness import seed_generators
from dlspec.training.step.activation_checkpointing import find_checkpointed_layers

GroupChoices = Mapping[str, Iterable[str]]
SAMPLES_FOR_TRACING = 2
"""So many samples are passed through a network that is built."""


@dataclass(frozen=True)
class OpenedSpec:
    """A spec whose data are open."""

    spec: Spec
    data: Dataset

    def with_trainer_settings(self, found: Mapping[str, Any]) -> OpenedSpec:
        """The same with settings of the trainer that were found."""
        return replace(self, spec=replace(self.spec, trainer=self.spec.trainer.model_copy(update=found)))


@dataclass(frozen=True)
class BuiltSpec:
    """A spec with its network, which fits the data; `notes` say what it begins with."""

    spec: Spec
    data: Dataset
    network: Network
    freezing: FrozenParameters
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedRun:
    """All that the trainer takes. `resolved` is the spec as a run saves it; `notes` tell the user what was done."""

    spec: Spec
    data: Dataset
    network: Network
    criterion: Criterion
    optimizer: Optimizer | None
    schedule: Schedule | None
    freezing: FrozenParameters
    make_metrics: Callable[[], Sequence[Mapping[str, Any]]]
    resolved: Mapping[str, Any]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Preparation:
    """The steps from a config to a run, each with the same tree and places.

    `make_source_map` says where each key was written: it takes a while, and is called only where there are mistakes.
    `data` replaces what the config opens, `opening` the way in which that is done. A run that is resumed takes its
    weights from a checkpoint, not from the file that it began with.
    """

    tree: Mapping[str, Any]
    make_source_map: Callable[[], SourceMap]
    choices: GroupChoices = field(default_factory=dict)
    data: Dataset | None = None
    is_resumed: bool = field(default=False, kw_only=True)
    open_source: Callable[[DataSource], Dataset] = field(default=open_data, kw_only=True)

    def read(self) -> Spec:
        """The form, checked; raises `SpecError`."""
        return read_spec(self.tree, self.make_source_map, choices=self.choices)

    def open(self, *, outline: bool = False) -> OpenedSpec:
        """The form checked, then the data opened, then what had to wait for them.

        As an `outline` noise is made of few samples: shapes need no more.
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
        try:
            return self.open_source(spec.data.shrink() if outline else spec.data)
        except DataError as error:
            problems = Problems()
            path = ("data", error.key) if error.key else ("data",)
            problems.add_finding(path, error.finding, at_value=True)
            raise_problems(problems, self.make_source_map)
            raise

    def build(self, mode: BuildMode = RUN_MODE, opened: OpenedSpec | None = None) -> BuiltSpec:
        """The network, its weights drawn from the spec's seed; raises `Unfit` where the place is none for it."""
        opened = opened or self.open()
        spec, data, problems = opened.spec, opened.data, opened.spec.problems.make_empty_copy()
        fields = match_inputs(spec.graph.inputs, data, problems)
        device = _choose_run_device(spec, problems)
        raise_problems(problems, self.make_source_map)
        data = _add_token_targets(spec, data, fields.values())
        seed_generators(spec.seed)
        samples = {name: (field, data.sample(field.name, SAMPLES_FOR_TRACING)) for name, field in fields.items()}
        network = build_network(spec.graph, spec.layers, samples, problems, mode)
        raise_problems(problems, self.make_source_map)
        assert network is not None  # or there was a mistake
        notes = () if self.is_resumed else _initialize_weights(network, spec, problems)
        freezing = freeze_parameters(network, spec.freeze, problems)
        raise_problems(problems, self.make_source_map)
        # Before the optimizer is made: some keep tensors beside the parameters from then on.
        network.module.to(mode.device or device)
        return BuiltSpec(spec, data, network, freezing, notes)

    def prepare(self, mode: BuildMode = RUN_MODE, opened: OpenedSpec | None = None) -> PreparedRun:
        """Everything that a run needs."""
        opened = opened or self.open()
        with deterministic_algorithms(opened.spec.trainer.deterministic):
            return self._prepare_built(self.build(mode, opened))

    def _prepare_built(self, built: BuiltSpec) -> PreparedRun:
        spec, data, network, problems = built.spec, built.data, built.network, built.spec.problems.make_empty_copy()
        criterion = make_criterion(network, data, spec.loss, problems)
        if criterion is not None:
            check_causality(network, criterion, data, problems)
        predicted = () if criterion is None else criterion.predicted_targets
        metrics = select_metrics(spec.metrics, predicted, data, problems) if criterion else []
        _check_recomputed_patterns(spec, network, problems)
        optimizer = build_optimizer(spec, network, built.freezing, problems)
        spec = replace(spec, scheduler=resolve_scheduler(spec, metrics, predicted, problems))
        schedule = build_schedule(spec, optimizer, data, problems)
        raise_problems(problems, self.make_source_map)
        assert criterion is not None  # or there was a mistake
        resolved_spec = _make_resolved_spec(spec, criterion, metrics)
        if self.data is not None:  # given in Python: no file says where they come from
            resolved_spec["data"] = {"type": "arrays", **data.origin}
        return PreparedRun(
            spec, data, network, criterion, optimizer, schedule, built.freezing,
            lambda: make_metrics(metrics, predicted), resolved_spec,
            (*built.notes, *_make_all_frozen_note(network, optimizer)),
        )  # fmt: skip


def _initialize_weights(network: Network, spec: Spec, problems: Problems) -> tuple[str, ...]:
    """Gives the network the weights that the spec wants it to begin with; says what came from elsewhere."""
    if spec.inits:
        initialize_weights(network, spec.inits, problems)
    if spec.weights is None or problems:
        return ()
    return (load_weights(network.module, spec.weights, problems),)


def _make_all_frozen_note(network: Network, optimizer: Optimizer | None) -> tuple[str, ...]:
    """Tells whom a pattern has frozen more than was meant."""
    has_weights = any(True for _ in network.module.parameters())
    return ("nothing is trained: all parameters are frozen",) if has_weights and optimizer is None else ()


def _check_recomputed_patterns(spec: Spec, network: Network, problems: Problems) -> None:
    """A pattern that matches no part of the network is a mistake."""
    for index, pattern in enumerate(spec.trainer.activation_checkpointing):
        if not find_checkpointed_layers(network.module, [pattern]):
            path = ("trainer", "activation_checkpointing", index)
            fix = "name a block or layer as `summary` shows it: 'blocks.*' for the copies of one that is repeated"
            problems.add(Code.NO_MATCH, path, f"no part of the network is called '{pattern}'", fix, at_value=True)


def _add_token_targets(spec: Spec, data: Dataset, fields: Iterable[Field]) -> Dataset:
    """The data as the network takes them: tokens that it is to give again come moved by one step."""
    target_names = {each.target for each in spec.loss or () if isinstance(each.target, str)}
    if not target_names and not data.targets:  # data without a target are their own
        target_names = {each.name for each in data.effective_targets}
    target_names |= {each.name for each in data.targets}
    for each in fields:
        if each.layout == "tokens" and each.name in target_names:
            data = data.with_next_token_target(each.name)
    return data


def _choose_run_device(spec: Spec, problems: Problems) -> torch.device:
    """The run's device; one that this machine does not have is a mistake."""
    try:
        return choose_device(spec.trainer.device)
    except UnknownDevice as error:
        problems.add_finding(("trainer", "device"), error.finding, at_value=True)
        return torch.device("cpu")


def _make_resolved_spec(spec: Spec, criterion: Criterion, metrics: Sequence[SelectedMetric]) -> dict[str, Any]:
    """The spec with every default and fact; params and formulas as written."""
    tree = dict(spec.tree)
    scheduler = spec.scheduler
    return {
        "spec_version": SPEC_VERSION,
        **({"imports": tree["imports"]} if tree.get("imports") else {}),
        "model": {key: value for key, value in tree["model"].items() if key != "loss"},
        "data": {"type": type(spec.data).source_name, **spec.data.model_dump(mode="json")},
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
