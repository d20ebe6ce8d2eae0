"""A whole config becomes a `Spec`: every part found in its registry, every setting checked, every mistake at once.

It is read with the data's facts unknown (form); once the data are open `settle_spec` puts the facts in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dlspec.data.sources import SOURCES, DataSource
from dlspec.errors import Code, KeyPath, shown
from dlspec.jobs.layer_reading import check_names, read_layers, settle_layers
from dlspec.jobs.spec import ReadPart, Spec
from dlspec.jobs.spec_keys import check_keys, import_modules
from dlspec.jobs.trainer_reading import read_interval, read_trainer, read_warmup, without_keys
from dlspec.language.expand.expander import expand
from dlspec.language.expand.graph import Graph
from dlspec.language.expand.settling import SettledConfig, settle_config
from dlspec.language.expressions import references
from dlspec.language.expressions.expressions import Unknown, Wrong
from dlspec.language.parse.block import read_model
from dlspec.language.parse.part import Part, parse_part
from dlspec.language.parse.pattern import Pattern
from dlspec.language.problems import Problems, dotted, refuse
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.language.source_map import SourceMap
from dlspec.network.layer import Layer
from dlspec.parts.registry import Registry
from dlspec.parts.schema import Schema
from dlspec.parts.sections import leaves, read_section
from dlspec.parts.specs.loss_spec import Terms, read_losses
from dlspec.parts.specs.metrics_spec import MetricTerm, read_metrics
from dlspec.parts.specs.parameters_spec import Init, read_freeze, read_groups, read_inits
from dlspec.parts.torch.torch_parts import OPTIMIZERS, SCHEDULERS

T = TypeVar("T")
# What can't be known where a module that may register it could not be imported.
_UNKNOWN_PARTS = (
    *(Code.UNKNOWN_LAYER, Code.UNKNOWN_LOSS, Code.UNKNOWN_OPTIMIZER, Code.UNKNOWN_SCHEDULER, Code.UNKNOWN_METRIC),
    Code.UNKNOWN_DATA,
)


def read_spec(
    tree: Mapping[str, Any],
    places: Callable[[], SourceMap],
    *,
    facts: Mapping[str, Any] | None = None,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> Spec:
    """Read the spec that a config writes; raises `SpecError` with all mistakes of form.

    `facts` are what the data hold, None before they are open; `choices` are the files that a group offers.
    """
    problems = Problems()
    reader = _Reader(problems, choices or {})
    return _checked(reader.read(references.resolve(dict(tree), facts, problems)), problems, places)


def settle_spec(
    spec: Spec,
    tree: Mapping[str, Any],
    places: Callable[[], SourceMap],
    *,
    facts: Mapping[str, Any],
    choices: Mapping[str, Iterable[str]] | None = None,
) -> Spec:
    """Put the data's facts into a spec that was read from `tree` without them; raises `SpecError` where they don't fit.

    Only the sections in which a fact stands are read again. Of a model these are the layers whose own settings are
    facts; the whole of it where its structure may depend on one.
    """
    problems = Problems(origins=dict(spec.problems.origins), names=dict(spec.problems.names))
    settled = settle_config(spec.graph, tree, spec.tree, facts, problems)
    if settled.graph is spec.graph and not settled.changed:
        return spec
    reader = _Reader(problems, choices or {}, _Earlier(spec, settled))
    return _checked(reader.read(settled.tree), problems, places)


def _checked(spec: Spec | None, problems: Problems, places: Callable[[], SourceMap]) -> Spec:
    refuse(problems, places)
    assert spec is not None  # whatever is missing was a mistake
    return spec


@dataclass(frozen=True)
class _Earlier:
    """A spec that was read before the facts were known, and what the facts make of its config."""

    spec: Spec
    settled: SettledConfig


class _Reader:
    """Reads a config's sections. After an `earlier` reading only those are read again in which something changed."""

    def __init__(
        self, problems: Problems, choices: Mapping[str, Iterable[str]], earlier: _Earlier | None = None
    ) -> None:
        self.problems, self.choices, self.earlier = problems, choices, earlier

    def read(self, tree: dict[str, Any]) -> Spec | None:
        if self.earlier is None:
            check_keys(tree, self.problems)
            import_modules(tree.get("imports"), self.problems)
        found, layers = self._model(tree)
        graph = found or Graph()
        data = self._kept("data", ("data",), lambda: self._data(tree.get("data")))
        optimizer = self._kept("optimizer", ("optimizer",), lambda: self._optimizer(tree.get("optimizer")))
        scheduler = self._kept("scheduler", ("scheduler",), lambda: self._scheduler(tree.get("scheduler")))
        loss = self._kept("loss", ("model", "loss"), lambda: self._loss(tree.get("loss"), graph))
        metrics = self._kept("metrics", ("metrics",), lambda: self._metrics(tree.get("metrics")))
        trainer = self._kept("trainer", ("trainer",), lambda: read_trainer(tree.get("trainer") or {}, self.problems))
        warmup = self._kept(
            "warmup", ("scheduler",), lambda: read_warmup(tree.get("scheduler"), scheduler, self.problems)
        )
        read_section(SweepSpec, tree.get("sweep") or {}, ("sweep",), self.problems)
        seed = self._kept("seed", ("seed",), lambda: _read_seed(tree.get("seed", 0), self.problems))
        inits = self._kept("inits", ("model", "init"), lambda: self._inits(tree, graph))
        freeze = self._kept("freeze", ("model", "freeze"), lambda: self._freeze(tree, graph))
        groups = self._kept("groups", ("optimizer",), lambda: self._groups(tree.get("optimizer"), optimizer))
        weights = self._kept("weights", ("weights",), lambda: _read_weights(tree.get("weights"), self.problems))
        if any(each.path[:1] == ("imports",) for each in self.problems.found):
            self.problems.drop(_UNKNOWN_PARTS)
        if found is None or data is None or optimizer is None or trainer is None:
            return None
        interval = read_interval(tree.get("scheduler"), self.problems)
        return Spec(
            tree, graph, layers, data, optimizer, trainer, loss, scheduler, interval, warmup, metrics, inits, freeze,
            groups, weights, seed, self.problems,
        )  # fmt: skip

    def _kept(self, field: str, keys: Collection[str], read: Callable[[], T]) -> T:
        """What the earlier reading found, where nothing has changed at the keys that it depends on."""
        earlier = self.earlier
        if earlier is None or not earlier.settled.changed.isdisjoint(keys):
            return read()
        kept: T = getattr(earlier.spec, field)
        return kept

    def _model(self, tree: Mapping[str, Any]) -> tuple[Graph | None, tuple[Layer, ...]]:
        """The model's graph, None where it writes none, and its layers, their settings checked."""
        earlier = self.earlier
        kept = None if earlier is None else earlier.settled.graph
        if earlier is not None and kept is not None:
            return kept, settle_layers(earlier.spec.layers, kept, self.problems)
        block = read_model(tree.get("model"), ("model",), self.problems)
        if block is None:
            return None, ()
        graph = expand(block, self.problems)
        layers = read_layers(graph, self.problems)
        check_names(block, self.problems)
        return graph, layers

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

    def _optimizer(self, raw: Any) -> ReadPart | None:
        return self._part("optimizer", without_keys(raw, "groups"), OPTIMIZERS, must=True)

    def _scheduler(self, raw: Any) -> ReadPart | None:
        return self._part("scheduler", without_keys(raw, "interval", "warmup"), SCHEDULERS)

    def _inits(self, tree: Mapping[str, Any], graph: Graph) -> tuple[Init, ...]:
        """The model's own, then the config's."""
        return (*self._own("init", graph, read_inits), *read_inits(tree.get("init"), ("init",), self.problems))

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
        if raw is None or _is_auto(raw, "loss", self.problems):
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

    def _metrics(self, raw: Any) -> tuple[MetricTerm, ...] | None:
        if raw is None or _is_auto(raw, "metrics", self.problems):
            return None
        return read_metrics(raw, self.problems, self.choices.get("metrics", ()))


def _is_auto(raw: Any, group: str, problems: Problems) -> bool:
    """`type: auto`, beside which nothing is set; beside losses by name it is what they replace."""
    if not isinstance(raw, dict) or raw.get("type") != "auto":
        return bool(raw == "auto")
    others = raw.keys() - {"type"}
    if others and group == "loss" and all(isinstance(raw[key], dict) for key in others):
        return False
    for key in others:
        fix = f"name the {group} to set it: {group}=NAME"
        problems.add(Code.CONFLICT, (group, key), "'auto' chooses, and takes no settings", fix)
    return True


def _read_weights(raw: Any, problems: Problems) -> WeightsSpec | None:
    return None if raw is None else read_section(WeightsSpec, raw, ("weights",), problems)


def _read_seed(raw: Any, problems: Problems) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 2**63:
        return raw
    if not isinstance(raw, Unknown):  # a fact of the data is read when they are open
        problems.add(Code.WRONG_VALUE, ("seed",), f"seed is {shown(raw)}, wanted a whole number >= 0", at_value=True)
    return 0
