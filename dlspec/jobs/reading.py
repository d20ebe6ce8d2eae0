"""A whole config becomes a `Spec`: every part found in its registry, every setting checked, every mistake at once.

It is read twice: first with the data's facts unknown (form), then, once the data are open, with the facts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import fx, nn

from dlspec.data.sources import SOURCES, DataSource
from dlspec.data.sources.source import SplitSource
from dlspec.errors import Code, KeyPath, near, shown, suggest
from dlspec.language.expand.containers import JOIN
from dlspec.language.expand.entry_inputs import PARAMETER
from dlspec.language.expand.expander import expand
from dlspec.language.expand.graph import Graph, Node
from dlspec.language.expressions import references
from dlspec.language.expressions.expressions import Unknown, Wrong
from dlspec.language.parse.block import Block, read_model
from dlspec.language.parse.entry import CONTAINERS, Entry
from dlspec.language.parse.part import Part, parse_part
from dlspec.language.parse.pattern import Pattern
from dlspec.language.problems import Problems, dotted, refuse
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.language.source_map import SourceMap
from dlspec.network.layer_call import PARAMETRIZATIONS, Layer
from dlspec.network.rules.layout_rules import rule_for
from dlspec.parts.registry import Registry
from dlspec.parts.schema import Schema
from dlspec.parts.sections import leaves, read_section
from dlspec.parts.specs.average_spec import read_average
from dlspec.parts.specs.loss_spec import Terms, read_losses
from dlspec.parts.specs.metrics_spec import MetricTerm, read_metrics
from dlspec.parts.specs.parameters_spec import Init, read_freeze, read_groups, read_inits
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS

T = TypeVar("T")
SPEC_VERSION = 1
# What every module has of its own, beside its class's attributes.
_ATTRIBUTES = frozenset(vars(nn.Sequential())) | {"graph", "code"}
KEYS = (
    *("model", "data", "loss", "optimizer", "scheduler", "metrics", "trainer"),
    *("init", "freeze", "weights", "seed", "imports", "spec_version", "sweep"),
)
# Keys that are often written without their section, and where they belong.
_HOMES = {
    **{key: f"data.{key}" for key in SplitSource.model_fields},
    **{key: f"sweep.{key}" for key in SweepSpec.model_fields},
    **{key: f"trainer.{key}" for key in TrainerSpec.model_fields},
    **{key: f"model.{key}" for key in ("layers", "params", "inputs", "outputs", "blocks")},
    **{key: f"optimizer.{key}" for key in ("lr", "weight_decay", "momentum", "betas", "eps")},
    "learning_rate": "optimizer.lr",
}
# Schedulers that no warm-up can stand before.
NO_WARMUP = {
    **dict.fromkeys(("OneCycleLR", "CyclicLR"), "it rises and falls itself: see its own settings"),
    "ReduceLROnPlateau": "it waits for results; take CosineAnnealingLR, StepLR or another that counts",
}
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_OTHER_DEVICES = {"gpu": "cuda", "nvidia": "cuda", "metal": "mps", "apple": "mps"}
# What can't be known where a module that may register it could not be imported.
_UNKNOWN_PARTS = (
    *(Code.UNKNOWN_LAYER, Code.UNKNOWN_LOSS, Code.UNKNOWN_OPTIMIZER, Code.UNKNOWN_SCHEDULER, Code.UNKNOWN_METRIC),
    Code.UNKNOWN_DATA,
)


@dataclass(frozen=True)
class ReadPart:
    """A part whose name was found and whose settings were checked."""

    part: Part
    schema: Schema
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Spec:
    """A config whose form is right. `tree` is the config with every `${...}` looked up.

    `problems` are none; they know where everything was written.
    """

    tree: Mapping[str, Any]
    graph: Graph
    layers: tuple[Layer, ...]
    data: DataSource
    optimizer: ReadPart
    trainer: TrainerSpec
    loss: Terms | None = None
    scheduler: ReadPart | None = None
    interval: Literal["step", "epoch"] | None = None
    warmup: int = 0
    metrics: tuple[MetricTerm, ...] | None = None
    inits: tuple[Init, ...] = ()
    freeze: tuple[Pattern, ...] = ()
    groups: tuple[Pattern, ...] = ()
    weights: WeightsSpec | None = None
    seed: int = 0
    waiting: tuple[str, ...] = ()
    problems: Problems = field(default_factory=Problems)


def read_spec(
    tree: Mapping[str, Any],
    places: Callable[[], SourceMap],
    *,
    facts: Mapping[str, Any] | None = None,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> Spec:
    """The spec that a config writes; raises `SpecError` with all mistakes of form.

    `facts` are what the data hold, None before they are open; `choices` are the files that a group offers.
    """
    problems = Problems()
    spec = _Reader(problems, choices or {}).read(references.resolve(dict(tree), facts, problems))
    refuse(problems, places)
    assert spec is not None  # whatever is missing was a mistake
    return spec


class _Reader:
    def __init__(self, problems: Problems, choices: Mapping[str, Iterable[str]]) -> None:
        self.problems, self.choices = problems, choices

    def read(self, tree: dict[str, Any]) -> Spec | None:
        self._check_keys(tree)
        self._import(tree.get("imports"))
        block = read_model(tree.get("model"), ("model",), self.problems)
        graph = expand(block, self.problems) if block else Graph()
        layers = self._layers(graph)
        if block is not None:
            self._check_names(block)
        data = self._data(tree.get("data"))
        optimizer = self._part("optimizer", _without(tree.get("optimizer"), "groups"), OPTIMIZERS, must=True)
        scheduler = self._part("scheduler", _without(tree.get("scheduler"), "interval", "warmup"), SCHEDULERS)
        loss = self._loss(tree.get("loss"), graph)
        metrics = self._metrics(tree.get("metrics"))
        trainer = self._trainer(tree.get("trainer") or {})
        warmup = self._warmup(tree.get("scheduler"), scheduler)
        read_section(SweepSpec, tree.get("sweep") or {}, ("sweep",), self.problems)
        seed = self._seed(tree.get("seed", 0))
        inits = (*self._own("init", graph, read_inits), *read_inits(tree.get("init"), ("init",), self.problems))
        freeze, groups = self._freeze(tree, graph), self._groups(tree.get("optimizer"), optimizer)
        weights = (
            None
            if tree.get("weights") is None
            else read_section(WeightsSpec, tree["weights"], ("weights",), self.problems)
        )
        if any(each.path[:1] == ("imports",) for each in self.problems.found):
            self.problems.drop(_UNKNOWN_PARTS)
        if block is None or data is None or optimizer is None or trainer is None:
            return None
        waiting = tuple(sorted(_unknowns(tree)))
        return Spec(
            tree,
            graph,
            layers,
            data,
            optimizer,
            trainer,
            loss,
            scheduler,
            self._interval(tree.get("scheduler")),
            warmup,
            metrics,
            inits,
            freeze,
            groups,
            weights,
            seed,
            waiting,
            self.problems,
        )

    def _check_keys(self, tree: dict[str, Any]) -> None:
        for key in tree:
            if key not in KEYS:
                self.problems.add(Code.UNKNOWN_KEY, (key,), "no such key", _suggest_key(str(key)))
        version = tree.get("spec_version", SPEC_VERSION)
        if version != SPEC_VERSION:
            fix = f"this dlspec reads version {SPEC_VERSION}: install the one that wrote it"
            self.problems.add(Code.WRONG_VERSION, ("spec_version",), f"version {version}", fix, at_value=True)

    def _import(self, names: Any) -> None:
        """The user's own modules, whose decorators register parts."""
        if names is None:
            return
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            written = names if isinstance(names, str) else "my_package.layers"
            fix = f"write them in brackets: imports=[{written}], in a file imports: [{written}]"
            self.problems.add(Code.WRONG_TYPE, ("imports",), "imports are no list of modules", fix)
            return
        if str(Path.cwd()) not in sys.path:  # `python -m` puts it there, the script `dlspec` does not
            sys.path.insert(0, str(Path.cwd()))
        for index, name in enumerate(names):
            try:
                import_module(name)
            except (Exception, SystemExit) as error:
                found = f"importing '{name}' failed: {type(error).__name__}: {error}"
                self.problems.add(
                    Code.IMPORT_FAILED,
                    ("imports", index),
                    found,
                    "the module must be importable from here",
                    at_value=True,
                )

    def _trainer(self, raw: Any) -> TrainerSpec | None:
        trainer = read_section(TrainerSpec, _without(raw, "average"), ("trainer",), self.problems)
        average = raw.get("average") if isinstance(raw, dict) else None
        read = read_average(average, trainer.epochs if trainer else None, self.problems)
        if trainer is None:
            return None
        self._check_trainer(trainer)
        return trainer.model_copy(update={"average": read})

    def _check_trainer(self, trainer: TrainerSpec) -> None:
        """The form of a device's and a result's name; whether there is one such is seen when the run is made."""
        if not _DEVICE.fullmatch(trainer.device):
            meant = _OTHER_DEVICES.get(trainer.device.lower()) or near(trainer.device, ("auto", "cpu", "cuda", "mps"))
            fix = f"did you mean '{meant}'?" if meant else "write auto, cpu, cuda, cuda:1 (a number) or mps"
            self.problems.add(
                Code.UNKNOWN_DEVICE, ("trainer", "device"), f"no device '{trainer.device}'", fix, at_value=True
            )
        if not trainer.monitor.startswith(("train/", "val/")):
            result = re.sub(r"^[a-z]*/|^(val|valid|validation|train|test)_", "", trainer.monitor) or "loss"
            found = f"'{trainer.monitor}' is no result of an epoch: those begin with train/ or val/"
            self.problems.add(
                Code.UNKNOWN_CHOICE,
                ("trainer", "monitor"),
                found,
                f"write val/{result} or train/{result}",
                at_value=True,
            )

    def _warmup(self, raw: Any, scheduler: ReadPart | None) -> int:
        """How long the learning rate rises before the scheduler begins."""
        warmup = raw.get("warmup") if isinstance(raw, dict) else None
        if warmup is None or isinstance(warmup, Unknown):
            return 0
        if not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 1:
            found = f"warmup is {shown(warmup)}, wanted a whole number >= 1: how many steps the learning rate rises"
            self.problems.add(Code.WRONG_VALUE, ("scheduler", "warmup"), found, at_value=True)
            return 0
        if scheduler is not None and scheduler.schema.name in NO_WARMUP:
            found, fix = f"no warmup beside {scheduler.schema.name}", NO_WARMUP[scheduler.schema.name]
            self.problems.add(Code.CONFLICT, ("scheduler", "warmup"), found, fix)
        return warmup

    def _interval(self, scheduler: Any) -> Literal["step", "epoch"] | None:
        interval = scheduler.get("interval") if isinstance(scheduler, dict) else None
        if interval == "step" or interval == "epoch" or interval is None:
            return interval
        if isinstance(interval, Wrong):
            return None
        found = f"interval is {shown(interval)}, wanted step or epoch"
        self.problems.add(Code.WRONG_VALUE, ("scheduler", "interval"), found, at_value=True)
        return None

    def _layers(self, graph: Graph) -> tuple[Layer, ...]:
        layers = [self._layer(node) for node in graph.nodes]
        self.problems.enter({})
        for part in graph.absent:
            schema = LAYERS.find(part, self.problems, also=CONTAINERS)
            if schema is not None:
                schema.check_names(part, self.problems)
        return tuple(each for each in layers if each is not None)

    def _layer(self, node: Node) -> Layer | None:
        if node.part.type == JOIN:
            return Layer(node, LAYERS["Add"], node.part.settings)
        problems = Problems() if node.is_shared else self.problems  # a module that is used again was read before
        problems.enter(node.origins)
        found = LAYERS.read(node.part, problems, also=(*node.blocks, *CONTAINERS))
        if node.parametrize not in (None, *PARAMETRIZATIONS) and not isinstance(node.parametrize, Unknown):
            fix = suggest(str(node.parametrize), PARAMETRIZATIONS)
            where = node.part.where("parametrize")
            problems.add(
                Code.UNKNOWN_CHOICE, where, f"no parametrization {shown(node.parametrize)}", fix, at_value=True
            )
        if found is not None and node.part.type == PARAMETER:
            self._check_parameter(node, *found)
        return None if found is None else Layer(node, *found)

    def _check_parameter(self, node: Node, schema: Schema, settings: Mapping[str, Any]) -> None:
        """It takes no input, so its settings can be checked without any."""
        is_known = isinstance(settings.get("shape"), list) and not _unknowns(dict(settings))
        refused = rule_for(schema).refuse((), settings) if is_known else None
        if refused is not None:
            self.problems.add_finding(node.part.where("init"), refused, at_value=True)

    def _check_names(self, block: Block) -> None:
        """Names that modules have already would hide them, those of parts would be hidden."""
        for each in block.all_blocks():
            if each.name in LAYERS or each.name in LOSSES:
                found = f"'{each.name}' can't name a block: a layer has the name"
                self.problems.add(Code.NAME_TAKEN, each.path, found, "take another word", at_key=True)
        for entry in (entry for each in (block, *block.all_blocks()) for entry in each.all_entries()):
            self._check_name(entry)

    def _check_name(self, entry: Entry) -> None:
        name = entry.part.keys.get("name", entry.key)
        if not isinstance(name, str) or name.isdigit() or not name:
            return
        if name in _ATTRIBUTES or any(hasattr(cls, name) for cls in (nn.Sequential, fx.GraphModule)):
            at_value = "name" in entry.part.keys
            path = entry.part.where("name") if at_value else entry.path
            found = f"'{name}' can't name an output: every module has one"
            self.problems.add(
                Code.INVALID_NAME, path, found, "take another word", at_value=at_value, at_key=not at_value
            )

    def _data(self, raw: Any) -> DataSource | None:
        part = parse_part(raw, ("data",), self.problems, kind="data set")
        if part is None:
            return None
        if part.type == "arrays" and part.type not in SOURCES:
            fix = "give them again: train(SPEC, data=...), resume(FOLDER, data=...); or choose a data set: data=NAME"
            found = "the data of this run were arrays given in Python, which no folder keeps"
            self.problems.add(Code.MISSING_VALUE, part.name_path, found, fix, at_value=True)
            return None
        named = replace(part, path=part.name_path)
        source = SOURCES.find(named, self.problems, also=self.choices.get("data", ()), at_value=True)
        if source is None:
            return None
        before = len(self.problems)
        for where, value in leaves(part.settings):
            if isinstance(value, Unknown) and not isinstance(value, Wrong):
                found = f"{dotted(where)} is {value}, which only the opened data know"
                self.problems.add(
                    Code.KNOWN_TOO_LATE, (*part.settings_path, *where), found, "write the value itself", at_value=True
                )
        if len(self.problems) > before:
            return None
        return read_section(source, dict(part.settings), part.settings_path, self.problems)

    def _part(self, key: str, raw: Any, registry: Registry[Schema], *, must: bool = False) -> ReadPart | None:
        if raw is None and not must:
            return None
        part = parse_part(raw, (key,), self.problems, kind=key)
        return None if part is None else self._found(part, registry, key)

    def _found(self, part: Part, registry: Registry[Schema], group: str) -> ReadPart | None:
        part = replace(part, path=part.name_path)
        schema = registry.find(part, self.problems, also=self.choices.get(group, ()))
        return None if schema is None else ReadPart(part, schema, schema.read(part, self.problems))

    def _loss(self, raw: Any, graph: Graph) -> Terms | None:
        """The config's losses, else the model's own; None is `auto`."""
        own = self._own("loss", graph, read_losses) or None
        if raw is None or self._is_auto(raw, "loss"):
            return own
        return read_losses(raw, ("loss",), self.problems, self.choices.get("loss", ()))

    def _own(
        self, key: str, graph: Graph, read: Callable[[Any, KeyPath, Problems], tuple[T, ...] | None]
    ) -> tuple[T, ...]:
        """What the model brings along under a key."""
        raw = graph.own.get(key)
        return () if raw is None or isinstance(raw, Wrong) else read(raw, ("model", key), self.problems) or ()

    def _freeze(self, tree: dict[str, Any], graph: Graph) -> tuple[Pattern, ...]:
        """The config's, else the model's own."""
        own = self._own("freeze", graph, read_freeze)
        return own if tree.get("freeze") is None else read_freeze(tree["freeze"], ("freeze",), self.problems)

    def _groups(self, raw: Any, optimizer: ReadPart | None) -> tuple[Pattern, ...]:
        groups = raw.get("groups") if isinstance(raw, dict) else None
        if groups is None or optimizer is None:
            return ()
        return read_groups(groups, ("optimizer", "groups"), optimizer.schema, self.problems)

    def _is_auto(self, raw: Any, group: str) -> bool:
        """`type: auto`, beside which nothing is set; beside losses by name it is what they replace."""
        if not isinstance(raw, dict) or raw.get("type") != "auto":
            return bool(raw == "auto")
        others = raw.keys() - {"type"}
        if others and group == "loss" and all(isinstance(raw[key], dict) for key in others):
            return False
        for key in others:
            fix = f"name the {group} to set it: {group}=NAME"
            self.problems.add(Code.CONFLICT, (group, key), "'auto' chooses, and takes no settings", fix)
        return True

    def _metrics(self, raw: Any) -> tuple[MetricTerm, ...] | None:
        if raw is None or self._is_auto(raw, "metrics"):
            return None
        return read_metrics(raw, self.problems, self.choices.get("metrics", ()))

    def _seed(self, raw: Any) -> int:
        if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 2**63:
            return raw
        if not isinstance(raw, Unknown):  # a fact of the data is read when they are open
            self.problems.add(
                Code.WRONG_VALUE, ("seed",), f"seed is {shown(raw)}, wanted a whole number >= 0", at_value=True
            )
        return 0


def _suggest_key(key: str) -> str:
    """For a key at the top that is none: where it belongs, or the nearest."""
    meant = _HOMES.get(key) or near(key, KEYS) or _HOMES.get(near(key, _HOMES))
    return f"did you mean '{meant}'?" if meant else suggest(key, KEYS, most=20)


def _without(raw: Any, *keys: str) -> Any:
    return {each: value for each, value in raw.items() if each not in keys} if isinstance(raw, dict) else raw


def _unknowns(tree: Any) -> set[str]:
    if isinstance(tree, Unknown):
        return {tree.key}
    children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
    return {key for child in children for key in _unknowns(child)}
