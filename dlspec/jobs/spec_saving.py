"""Write losses and metrics as in a saved spec: with the defaults, so that reading it gives the same ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dlspec.losses.criterion import Criterion
from dlspec.losses.loss_matching import LossMatch
from dlspec.metrics.classification import TARGET_DEPENDENT_SETTINGS
from dlspec.metrics.selection import SelectedMetric
from dlspec.parts.schema import Schema
from dlspec.parts.torch.torch_parts import settings_with_defaults


def losses_to_spec(criterion: Criterion) -> dict[str, Any]:
    """Return the single loss, or several losses by name; each with `output` and `target` where these were chosen."""
    terms = {each.match.term.name: _loss_to_spec(each.match) for each in criterion.terms}
    return terms.get("") or terms


def _loss_to_spec(match: LossMatch) -> dict[str, Any]:
    term = match.term
    comparison = {"output": term.output, "target": term.target, "factor": None if term.factor == 1 else term.factor}
    return part_to_spec(term.schema, term.settings) | {
        key: _tuples_to_lists(each) for key, each in comparison.items() if each is not None
    }


def metrics_to_spec(metrics: Sequence[SelectedMetric], criterion: Criterion) -> Any:
    """Return the metrics by name; with several targets, a list in which each metric names its target."""
    if len(criterion.predicted_targets) < 2:
        return {each.schema.name: _metric_settings_to_spec(each) for each in metrics}
    return [
        {"type": each.schema.name, **_metric_settings_to_spec(each), "target": each.target.name} for each in metrics
    ]


def _metric_settings_to_spec(metric: SelectedMetric) -> dict[str, Any]:
    completed = _settings_to_spec(metric.schema, metric.settings)
    omitted = set(TARGET_DEPENDENT_SETTINGS) - metric.settings.keys()
    return {name: value for name, value in completed.items() if name not in omitted}


def part_to_spec(schema: Schema, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a part as one mapping: `type` and its settings."""
    return {"type": schema.name, **_settings_to_spec(schema, settings)}


def _settings_to_spec(schema: Schema, settings: Mapping[str, Any]) -> Any:
    return _tuples_to_lists(settings_with_defaults(schema, settings))


def _tuples_to_lists(value: Any) -> Any:
    """Convert tuples to lists, as YAML has no tuples."""
    if isinstance(value, Mapping):
        return {key: _tuples_to_lists(each) for key, each in value.items()}
    return [_tuples_to_lists(each) for each in value] if isinstance(value, list | tuple) else value
