"""A checked config, with one field for each section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from dlspec.data.sources import DataSource
from dlspec.language.expand.graph import Graph
from dlspec.language.expressions.expression_parsing import find_unknown_keys
from dlspec.language.parse.part import Part
from dlspec.language.parse.pattern import ParameterPattern
from dlspec.language.problems import Problems
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.language.sections.weights_section import WeightsSpec
from dlspec.network.layer import Layer
from dlspec.parts.schema import Schema
from dlspec.parts.specs.loss_spec import LossTerms
from dlspec.parts.specs.metrics_spec import MetricTerm
from dlspec.parts.specs.parameters_spec import Initialization


@dataclass(frozen=True)
class CheckedPart:
    """A part that was found in its registry, with checked settings."""

    part: Part
    schema: Schema
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Spec:
    """A config whose settings have been checked.

    Facts that are missing until the data are open are `UnknownValue`s.
    """

    tree: Mapping[str, Any]  # the config with every `${...}` resolved
    graph: Graph
    layers: tuple[Layer, ...]
    data: DataSource
    optimizer: CheckedPart
    trainer: TrainerSpec
    loss: LossTerms | None = None
    scheduler: CheckedPart | None = None
    interval: Literal["step", "epoch"] | None = None  # how often the scheduler steps; None: its default
    warmup: int = 0  # steps
    metrics: tuple[MetricTerm, ...] | None = None
    inits: tuple[Initialization, ...] = ()
    freeze: tuple[ParameterPattern, ...] = ()
    groups: tuple[ParameterPattern, ...] = ()
    weights: WeightsSpec | None = None
    seed: int = 0
    problems: Problems = field(default_factory=Problems)  # empty; it keeps where every key is written
    # The settings of losses that are `balanced`, `weight` or `pos_weight`, by the loss's name; '' for a single one.
    balanced: Mapping[str, str] = field(default_factory=dict)

    @property
    def unknown_facts(self) -> tuple[str, ...]:
        """The facts that are missing until the data are open, by name."""
        return tuple(sorted(find_unknown_keys(self.tree)))
