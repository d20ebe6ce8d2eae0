"""Losses and metrics as a saved spec writes them, every default with them, so that they are read as the same again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlspec.losses.criterion import Criterion
from dlspec.losses.matching import Match
from dlspec.metrics.selection import Chosen
from dlspec.parts.schema import Schema
from dlspec.parts.torch.torch_parts import settings_with_defaults


def saved_losses(criterion: Criterion) -> dict[str, Any]:
    """The only loss, or several by their names; each says what it compares where that was not plain."""
    terms = {each.match.term.name: _loss(each.match) for each in criterion.terms}
    return terms.get("") or terms


def _loss(match: Match) -> dict[str, Any]:
    term = match.term
    said = {"output": term.output, "target": term.target, "factor": None if term.factor == 1 else term.factor}
    return saved_part(term.schema, term.settings) | {
        key: _plain(each) for key, each in said.items() if each is not None
    }


def saved_metrics(metrics: Sequence[Chosen], criterion: Criterion) -> Any:
    """By their names; of several targets each says which one it is of."""
    if len(criterion.predicted) < 2:
        return {each.schema.name: _settings(each.schema, each.settings) for each in metrics}
    return [saved_part(each.schema, each.settings) | {"target": each.target.name} for each in metrics]


def saved_part(schema: Schema, settings: Mapping[str, Any]) -> dict[str, Any]:
    """A part, flat."""
    return {"type": schema.name, **_settings(schema, settings)}


def _settings(schema: Schema, settings: Mapping[str, Any]) -> Any:
    return _plain(settings_with_defaults(schema, settings))


def _plain(value: Any) -> Any:
    """Tuples as the lists that YAML has."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
