"""Read a config into a `Spec`: find every part in its registry, check every setting, report all problems at once.

The config is read before the data are open, so their facts are unknown; `settle_spec` then fills them in.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from dlspec.data.augment.augmentation_settings import read_augmentations
from dlspec.data.sources import SOURCES, DataSource
from dlspec.errors import Code, KeyPath, format_value
from dlspec.jobs.layer_reading import check_model_names, read_layers, settle_layers
from dlspec.jobs.spec import CheckedPart, Spec
from dlspec.jobs.spec_keys import check_keys, import_modules
from dlspec.jobs.trainer_reading import read_interval, read_trainer, read_warmup, remove_keys
from dlspec.language.expand.data_facts import ConfigWithDataFacts, resolve_data_facts
from dlspec.language.expand.expander import expand_model
from dlspec.language.expand.graph import Graph
from dlspec.language.expressions import references
from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.parse.block import read_model
from dlspec.language.parse.part import Part, parse_part
from dlspec.language.parse.pattern import ParameterPattern
from dlspec.language.problems import Problems, format_path, raise_problems
from dlspec.language.sections.sweep_section import SweepSpec
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.language.source_map import SourceMap
from dlspec.language.spec_versions import get_spec_version
from dlspec.network.layer import Layer
from dlspec.parts.registry import Registry
from dlspec.parts.schema import Schema
from dlspec.parts.section_reader import iterate_leaves, read_section
from dlspec.parts.specs.loss_spec import LossTerms, read_losses, separate_balanced
from dlspec.parts.specs.metrics_spec import MetricTerm, read_metrics
from dlspec.parts.specs.parameters_spec import Initialization, read_freeze, read_groups, read_inits
from dlspec.parts.torch.torch_parts import OPTIMIZERS, SCHEDULERS

T = TypeVar("T")
# Problems that are dropped if a module of `imports` failed, as it may have registered the unknown part.
_UNKNOWN_PART_CODES = (
    *(Code.UNKNOWN_LAYER, Code.UNKNOWN_LOSS, Code.UNKNOWN_OPTIMIZER, Code.UNKNOWN_SCHEDULER, Code.UNKNOWN_METRIC),
    Code.UNKNOWN_DATA,
)


def read_spec(
    tree: Mapping[str, Any],
    find_locations: Callable[[], SourceMap],
    *,
    facts: Mapping[str, Any] | None = None,
    choices: Mapping[str, Iterable[str]] | None = None,
) -> Spec:
    """Read and check a config.

    Args:
        tree: The config.
        find_locations: Finds where each key is written; called only if there are problems.
        facts: The data's facts by name; None before the data are open.
        choices: Names of the config files in each group.

    Raises:
        SpecError: With all problems.
    """
    problems = Problems(spec_version=get_spec_version(tree))
    reader = _SpecReader(problems, choices or {})
    return _raise_problems(
        reader.read(references.resolve_references(dict(tree), facts, problems)), problems, find_locations
    )


def settle_spec(
    spec: Spec,
    tree: Mapping[str, Any],
    find_locations: Callable[[], SourceMap],
    *,
    facts: Mapping[str, Any],
    choices: Mapping[str, Iterable[str]] | None = None,
) -> Spec:
    """Fill the data's facts into a spec that was read from `tree` without them.

    Only sections that contain a fact are read again. In the model these are only the layers that have a fact in their
    settings, unless its structure may depend on a fact.

    Args:
        spec: The spec without the facts.
        tree: The config that it was read from.
        find_locations: Finds where each key is written; called only if there are problems.
        facts: The data's facts by name.
        choices: Names of the config files in each group.

    Raises:
        SpecError: With all problems, if settings don't fit the facts.
    """
    kept = spec.problems
    problems = Problems(origins=dict(kept.origins), names=dict(kept.names), spec_version=kept.spec_version)
    settled = resolve_data_facts(spec.graph, tree, spec.tree, facts, problems)
    if settled.graph is spec.graph and not settled.changed_sections:
        return spec
    reader = _SpecReader(problems, choices or {}, _SpecWithoutFacts(spec, settled))
    return _raise_problems(reader.read(settled.tree), problems, find_locations)


def _raise_problems(spec: Spec | None, problems: Problems, find_locations: Callable[[], SourceMap]) -> Spec:
    raise_problems(problems, find_locations)
    assert spec is not None  # otherwise a problem was raised
    return spec


@dataclass(frozen=True)
class _SpecWithoutFacts:
    """A spec that was read without the data's facts, and its config with the facts filled in."""

    spec: Spec
    settled: ConfigWithDataFacts


class _SpecReader:
    """Reads the sections of a config; with an `earlier` reading, only those that have changed since."""

    def __init__(
        self, problems: Problems, choices: Mapping[str, Iterable[str]], earlier: _SpecWithoutFacts | None = None
    ) -> None:
        self.problems, self.choices, self.earlier = problems, choices, earlier

    def read(self, tree: dict[str, Any]) -> Spec | None:
        if self.earlier is None:
            check_keys(tree, self.problems)
            import_modules(tree.get("imports"), self.problems)
        found, layers = self._read_model(tree)
        graph = found or Graph()
        data = self._reuse_or_read("data", ("data",), lambda: self._read_data(tree.get("data")))
        optimizer = self._reuse_or_read(
            "optimizer", ("optimizer",), lambda: self._read_optimizer(tree.get("optimizer"))
        )
        scheduler = self._reuse_or_read(
            "scheduler", ("scheduler",), lambda: self._read_scheduler(tree.get("scheduler"))
        )
        loss = self._reuse_or_read("loss", ("model", "loss"), lambda: self._read_loss(tree.get("loss"), graph))
        metrics = self._reuse_or_read("metrics", ("metrics",), lambda: self._read_metrics(tree.get("metrics")))
        trainer = self._reuse_or_read(
            "trainer", ("trainer",), lambda: read_trainer(tree.get("trainer") or {}, self.problems)
        )
        warmup = self._reuse_or_read(
            "warmup", ("scheduler",), lambda: read_warmup(tree.get("scheduler"), scheduler, self.problems)
        )
        read_section(SweepSpec, tree.get("sweep") or {}, ("sweep",), self.problems)
        seed = self._reuse_or_read("seed", ("seed",), lambda: _read_seed(tree.get("seed", 0), self.problems))
        inits = self._reuse_or_read("inits", ("model", "init"), lambda: self._read_inits(tree, graph))
        freeze = self._reuse_or_read("freeze", ("model", "freeze"), lambda: self._read_freeze(tree, graph))
        groups = self._reuse_or_read(
            "groups", ("optimizer",), lambda: self._read_groups(tree.get("optimizer"), optimizer)
        )
        weights = self._reuse_or_read(
            "weights", ("weights",), lambda: _read_weights(tree.get("weights"), self.problems)
        )
        if any(each.path[:1] == ("imports",) for each in self.problems.found):
            self.problems.remove_codes(_UNKNOWN_PART_CODES)
        if found is None or data is None or optimizer is None or trainer is None:
            return None
        interval = read_interval(tree.get("scheduler"), scheduler, self.problems)
        return Spec(
            tree, graph, layers, data, optimizer, trainer, loss, scheduler, interval, warmup, metrics, inits, freeze,
            groups, weights, seed, self.problems, self._find_balanced(tree.get("loss"), graph),
        )  # fmt: skip

    def _reuse_or_read(self, field: str, keys: Collection[str], read: Callable[[], T]) -> T:
        """Return a field from the earlier reading if none of the sections it depends on has changed, else read it."""
        earlier = self.earlier
        if earlier is None or not earlier.settled.changed_sections.isdisjoint(keys):
            return read()
        kept: T = getattr(earlier.spec, field)
        return kept

    def _read_model(self, tree: Mapping[str, Any]) -> tuple[Graph | None, tuple[Layer, ...]]:
        """Read the model's graph (None if the model has problems) and its layers, with checked settings."""
        earlier = self.earlier
        kept = None if earlier is None else earlier.settled.graph
        if earlier is not None and kept is not None:
            return kept, settle_layers(earlier.spec.layers, kept, self.problems)
        block = read_model(tree.get("model"), ("model",), self.problems)
        if block is None:
            return None, ()
        graph = expand_model(block, self.problems)
        layers = read_layers(graph, self.problems)
        check_model_names(block, self.problems)
        return graph, layers

    def _read_data(self, raw: Any) -> DataSource | None:
        part = parse_part(raw, ("data",), self.problems, kind="data set")
        if part is None:
            return None
        if part.type == "arrays" and part.type not in SOURCES:
            fix = "pass them again: train(SPEC, data=...), resume(FOLDER, data=...); or choose a data set: data=NAME"
            found = "the data of this run were arrays given in Python, which are not saved"
            self.problems.add(Code.MISSING_VALUE, part.path_of_name, found, fix, at_value=True)
            return None
        named = replace(part, path=part.path_of_name)
        source = SOURCES.find(named, self.problems, extra_names=self.choices.get("data", ()), at_value=True)
        if source is None:
            return None
        before = len(self.problems)
        for path, value in iterate_leaves(part.settings):
            if isinstance(value, UnknownValue) and not isinstance(value, InvalidValue):
                found = f"{format_path(path)} is {value}, which is unknown until the data are open"
                self.problems.add(
                    Code.KNOWN_TOO_LATE, (*part.settings_path, *path), found, "write the value itself", at_value=True
                )
        if len(self.problems) > before:
            return None
        settings = read_section(source, dict(part.settings), part.settings_path, self.problems)
        if settings is not None and settings.augment:
            read_augmentations(settings.augment, (*part.settings_path, "augment"), self.problems)
        return settings

    def _read_optimizer(self, raw: Any) -> CheckedPart | None:
        return self._read_part("optimizer", remove_keys(raw, "groups"), OPTIMIZERS, is_required=True)

    def _read_scheduler(self, raw: Any) -> CheckedPart | None:
        return self._read_part("scheduler", remove_keys(raw, "interval", "warmup"), SCHEDULERS)

    def _read_inits(self, tree: Mapping[str, Any], graph: Graph) -> tuple[Initialization, ...]:
        """Read the initializations: those under `model`, then those of the top-level `init`."""
        return (
            *self._read_model_setting("init", graph, read_inits),
            *read_inits(tree.get("init"), ("init",), self.problems),
        )

    def _read_part(
        self, key: str, raw: Any, registry: Registry[Schema], *, is_required: bool = False
    ) -> CheckedPart | None:
        if raw is None and not is_required:
            return None
        part = parse_part(raw, (key,), self.problems, kind=key)
        return None if part is None else self._find_part(part, registry, key)

    def _find_part(self, part: Part, registry: Registry[Schema], group: str) -> CheckedPart | None:
        part = replace(part, path=part.path_of_name)
        schema = registry.find(part, self.problems, extra_names=self.choices.get(group, ()))
        return None if schema is None else CheckedPart(part, schema, schema.read(part, self.problems))

    def _find_balanced(self, raw: Any, graph: Graph) -> dict[str, str]:
        """Find which losses are balanced, and by which setting: those at the top level, or else under `model`."""
        rest, balanced = separate_balanced(raw)
        if balanced or rest not in (None, "auto", {"type": "auto"}):
            return balanced
        return separate_balanced(graph.training_settings.get("loss"))[1]

    def _read_loss(self, raw: Any, graph: Graph) -> LossTerms | None:
        """Read the top-level losses, or else those under `model`; None means `auto`."""
        raw, _ = separate_balanced(raw)
        own = self._read_model_setting("loss", graph, _read_model_losses) or None
        if raw is None or _is_auto(raw, "loss", self.problems):
            return own
        return read_losses(raw, ("loss",), self.problems, self.choices.get("loss", ()))

    def _read_model_setting(
        self, key: str, graph: Graph, read: Callable[[Any, KeyPath, Problems], tuple[T, ...] | None]
    ) -> tuple[T, ...]:
        """Read a section that is written under `model`, such as `model.loss`; () if there is none."""
        raw = graph.training_settings.get(key)
        return () if raw is None or isinstance(raw, InvalidValue) else read(raw, ("model", key), self.problems) or ()

    def _read_freeze(self, tree: dict[str, Any], graph: Graph) -> tuple[ParameterPattern, ...]:
        """Read the top-level `freeze`, or else the one under `model`."""
        own = self._read_model_setting("freeze", graph, read_freeze)
        return own if tree.get("freeze") is None else read_freeze(tree["freeze"], ("freeze",), self.problems)

    def _read_groups(self, raw: Any, optimizer: CheckedPart | None) -> tuple[ParameterPattern, ...]:
        groups = raw.get("groups") if isinstance(raw, dict) else None
        if groups is None or optimizer is None:
            return ()
        return read_groups(groups, ("optimizer", "groups"), optimizer.schema, self.problems)

    def _read_metrics(self, raw: Any) -> tuple[MetricTerm, ...] | None:
        if raw is None or _is_auto(raw, "metrics", self.problems):
            return None
        return read_metrics(raw, self.problems, self.choices.get("metrics", ()))


def _is_auto(raw: Any, section: str, problems: Problems) -> bool:
    """Whether a section is `type: auto`. Other settings beside it are reported; named losses beside it replace it."""
    if not isinstance(raw, dict) or raw.get("type") != "auto":
        return bool(raw == "auto")
    others = raw.keys() - {"type"}
    if others and section == "loss" and all(isinstance(raw[key], dict) for key in others):
        return False
    for key in others:
        fix = f"to set it, choose the {section} by name: {section}=NAME"
        problems.add(Code.CONFLICT, (section, key), "'auto' has no settings", fix)
    return True


def _read_model_losses(raw: Any, path: KeyPath, problems: Problems) -> LossTerms | None:
    """Read the losses under `model`, without their settings that are `balanced`."""
    return read_losses(separate_balanced(raw)[0], path, problems)


def _read_weights(raw: Any, problems: Problems) -> WeightsSpec | None:
    return None if raw is None else read_section(WeightsSpec, raw, ("weights",), problems)


def _read_seed(raw: Any, problems: Problems) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 2**63:
        return raw
    if not isinstance(raw, UnknownValue):  # a fact, which is filled in when the data are open
        found = f"seed must be a whole number >= 0 and < 2 ** 63, got {format_value(raw)}"
        problems.add(Code.WRONG_VALUE, ("seed",), found, at_value=True)
    return 0
