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
from dlspec.jobs.learning import following, freeze, optimizer_for, schedule_for
from dlspec.jobs.reading import read_spec, settle_spec
from dlspec.jobs.saved_parts import saved_losses, saved_metrics, saved_part
from dlspec.jobs.spec import Spec
from dlspec.jobs.spec_keys import SPEC_VERSION
from dlspec.language.problems import Problems, refuse
from dlspec.language.source_map import SourceMap
from dlspec.losses.criterion import Criterion, make_criterion
from dlspec.metrics.selection import Chosen, make_metrics, match_metrics
from dlspec.network.builder import Network, build
from dlspec.network.inputs import match_inputs
from dlspec.network.meta_device import RUN, Place
from dlspec.network.weights.initial_values import initialize
from dlspec.network.weights.loading import load_weights
from dlspec.optim.freezing import Freezing
from dlspec.optim.schedule import Schedule
from dlspec.training.runtime.devices import UnknownDevice, choose_device
from dlspec.training.runtime.randomness import seed_generators
from dlspec.training.runtime.reproducing import deterministic
from dlspec.training.step.recomputing import recomputed_parts

Choices = Mapping[str, Iterable[str]]
ROWS = 2
"""So many samples are passed through a network that is built."""


@dataclass(frozen=True)
class Opened:
    """A spec whose data are open."""

    spec: Spec
    data: Dataset

    def with_settings(self, found: Mapping[str, Any]) -> Opened:
        """The same with settings of the trainer that were found."""
        return replace(self, spec=replace(self.spec, trainer=self.spec.trainer.model_copy(update=found)))


@dataclass(frozen=True)
class Built:
    """A spec with its network, which fits the data; `notes` say what it begins with."""

    spec: Spec
    data: Dataset
    network: Network
    freezing: Freezing
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prepared:
    """All that the trainer takes. `resolved` is the spec as a run saves it; `notes` tell the user what was done."""

    spec: Spec
    data: Dataset
    network: Network
    criterion: Criterion
    optimizer: Optimizer | None
    schedule: Schedule | None
    freezing: Freezing
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
    choices: Choices = field(default_factory=dict)
    data: Dataset | None = None
    is_resumed: bool = field(default=False, kw_only=True)
    opening: Callable[[DataSource], Dataset] = field(default=open_data, kw_only=True)

    def read(self) -> Spec:
        """The form, checked; raises `SpecError`."""
        return read_spec(self.tree, self.make_source_map, choices=self.choices)

    def open(self, *, outline: bool = False) -> Opened:
        """The form checked, then the data opened, then what had to wait for them.

        As an `outline` noise is made of few samples: shapes need no more.
        """
        if self.data is not None:
            facts = self.data.facts
            return Opened(read_spec(self.tree, self.make_source_map, facts=facts, choices=self.choices), self.data)
        spec = self.read()
        data = self._open(spec, outline)
        settled = settle_spec(spec, self.tree, self.make_source_map, facts=data.facts, choices=self.choices)
        return Opened(settled, data)

    def _open(self, spec: Spec, outline: bool) -> Dataset:
        seed_generators(spec.seed)
        try:
            return self.opening(spec.data.outline() if outline else spec.data)
        except DataError as error:
            problems = Problems()
            path = ("data", error.key) if error.key else ("data",)
            problems.add_finding(path, error.finding, at_value=True)
            refuse(problems, self.make_source_map)
            raise

    def build(self, place: Place = RUN, opened: Opened | None = None) -> Built:
        """The network, its weights drawn from the spec's seed; raises `Unfit` where the place is none for it."""
        opened = opened or self.open()
        spec, data, problems = opened.spec, opened.data, opened.spec.problems.anew()
        fields = match_inputs(spec.graph.inputs, data, problems)
        device = _device(spec, problems)
        refuse(problems, self.make_source_map)
        data = _taught(spec, data, fields.values())
        seed_generators(spec.seed)
        samples = {name: (field, data.sample(field.name, ROWS)) for name, field in fields.items()}
        network = build(spec.graph, spec.layers, samples, problems, place)
        refuse(problems, self.make_source_map)
        assert network is not None  # or there was a mistake
        notes = () if self.is_resumed else _begin(network, spec, problems)
        freezing = freeze(network, spec.freeze, problems)
        refuse(problems, self.make_source_map)
        # Before the optimizer is made: some keep tensors beside the parameters from then on.
        network.module.to(place.device or device)
        return Built(spec, data, network, freezing, notes)

    def prepare(self, place: Place = RUN, opened: Opened | None = None) -> Prepared:
        """Everything that a run needs."""
        opened = opened or self.open()
        with deterministic(opened.spec.trainer.deterministic):
            return self._prepared(self.build(place, opened))

    def _prepared(self, built: Built) -> Prepared:
        spec, data, network, problems = built.spec, built.data, built.network, built.spec.problems.anew()
        criterion = make_criterion(network, data, spec.loss, problems)
        if criterion is not None:
            check_causality(network, criterion, data, problems)
        predicted = () if criterion is None else criterion.predicted
        metrics = match_metrics(spec.metrics, predicted, data, problems) if criterion else []
        _check_recomputed(spec, network, problems)
        optimizer = optimizer_for(spec, network, built.freezing, problems)
        spec = replace(spec, scheduler=following(spec, metrics, predicted, problems))
        schedule = schedule_for(spec, optimizer, data, problems)
        refuse(problems, self.make_source_map)
        assert criterion is not None  # or there was a mistake
        resolved = _resolved(spec, criterion, metrics)
        if self.data is not None:  # given in Python: no file says where they come from
            resolved["data"] = {"type": "arrays", **data.origin}
        return Prepared(
            spec, data, network, criterion, optimizer, schedule, built.freezing,
            lambda: make_metrics(metrics, predicted), resolved, (*built.notes, *_idle(network, optimizer)),
        )  # fmt: skip


def _begin(network: Network, spec: Spec, problems: Problems) -> tuple[str, ...]:
    """Gives the network the weights that the spec wants it to begin with; says what came from elsewhere."""
    if spec.inits:
        initialize(network, spec.inits, problems)
    if spec.weights is None or problems:
        return ()
    return (load_weights(network.module, spec.weights, problems),)


def _idle(network: Network, optimizer: Optimizer | None) -> tuple[str, ...]:
    """Tells whom a pattern has frozen more than was meant."""
    has_weights = any(True for _ in network.module.parameters())
    return ("nothing is trained: all parameters are frozen",) if has_weights and optimizer is None else ()


def _check_recomputed(spec: Spec, network: Network, problems: Problems) -> None:
    """A pattern that matches no part of the network is a mistake."""
    for index, pattern in enumerate(spec.trainer.activation_checkpointing):
        if not recomputed_parts(network.module, [pattern]):
            path = ("trainer", "activation_checkpointing", index)
            fix = "name a block or layer as `summary` shows it: 'blocks.*' for the copies of one that is repeated"
            problems.add(Code.NO_MATCH, path, f"no part of the network is called '{pattern}'", fix, at_value=True)


def _taught(spec: Spec, data: Dataset, taken: Iterable[Field]) -> Dataset:
    """The data as the network takes them: tokens that it is to give again come moved by one step."""
    wanted = {each.target for each in spec.loss or () if isinstance(each.target, str)}
    if not wanted and not data.targets:  # data without a target are their own
        wanted = {each.name for each in data.aims}
    wanted |= {each.name for each in data.targets}
    for each in taken:
        if each.layout == "tokens" and each.name in wanted:
            data = data.taught(each.name)
    return data


def _device(spec: Spec, problems: Problems) -> torch.device:
    """The run's device; one that this machine does not have is a mistake."""
    try:
        return choose_device(spec.trainer.device)
    except UnknownDevice as error:
        problems.add_finding(("trainer", "device"), error.finding, at_value=True)
        return torch.device("cpu")


def _resolved(spec: Spec, criterion: Criterion, metrics: Sequence[Chosen]) -> dict[str, Any]:
    """The spec with every default and fact; params and formulas as written."""
    tree = dict(spec.tree)
    scheduler = spec.scheduler
    return {
        "spec_version": SPEC_VERSION,
        **({"imports": tree["imports"]} if tree.get("imports") else {}),
        "model": {key: value for key, value in tree["model"].items() if key != "loss"},
        "data": {"type": type(spec.data).source_name, **spec.data.model_dump(mode="json")},
        "loss": saved_losses(criterion),
        "optimizer": saved_part(spec.optimizer.schema, spec.optimizer.settings) | _groups(tree),
        "scheduler": None if scheduler is None else saved_part(scheduler.schema, scheduler.settings) | _interval(spec),
        "metrics": saved_metrics(metrics, criterion),
        **{key: tree[key] for key in ("init", "freeze", "weights") if tree.get(key) is not None},
        "trainer": spec.trainer.model_dump(mode="json"),
        "seed": spec.seed,
    }


def _interval(spec: Spec) -> dict[str, Any]:
    said = {"interval": spec.interval, "warmup": spec.warmup}
    return {key: each for key, each in said.items() if each}


def _groups(tree: Mapping[str, Any]) -> dict[str, Any]:
    groups = tree["optimizer"].get("groups") if isinstance(tree["optimizer"], dict) else None
    return {"groups": groups} if groups else {}
