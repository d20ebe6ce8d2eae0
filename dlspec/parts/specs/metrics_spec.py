"""Read the section `metrics`: one metric, a list, or a mapping from names to settings, each with an optional target."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dlspec.errors import Code, KeyPath, format_value
from dlspec.language.parse.part import Part, parse_part
from dlspec.language.problems import Problems
from dlspec.parts.schema import Schema
from dlspec.parts.torch.torch_metrics import metric_registry


@dataclass(frozen=True)
class MetricTerm:
    """A metric as written. Without a `target` it is computed for every target that it supports."""

    part: Part
    schema: Schema
    settings: Mapping[str, Any]
    target: str | None = None


def read_metrics(raw: Any, problems: Problems, choices: Iterable[str] = ()) -> tuple[MetricTerm, ...]:
    """Read the section `metrics`.

    Args:
        raw: The section as written.
        problems: Where everything wrong is reported.
        choices: Names of the files in the config group `metrics`, suggested for unknown names.

    Returns:
        The metrics that could be read.
    """
    found = [_read_metric(entry, path, problems, choices) for entry, path in _list_entries(raw)]
    return tuple(each for each in found if each is not None)


def _read_metric(entry: Any, path: KeyPath, problems: Problems, choices: Iterable[str]) -> MetricTerm | None:
    part = parse_part(entry, path, problems, kind="metric")
    if part is None:
        return None
    part = replace(part, path=part.path_of_name)
    schema = metric_registry().find(part, problems, extra_names=choices)
    if schema is None:
        return None
    target = part.settings.get("target")
    if target is not None and not isinstance(target, str):
        found = f"'target' must be the name of a target, got {format_value(target)}"
        problems.add(Code.WRONG_VALUE, part.path_of("target"), found, at_value=True)
        target = None
    own_settings = {key: value for key, value in part.settings.items() if key != "target"}
    settings = _leave_out_saved_defaults(schema, schema.read(replace(part, settings=own_settings), problems))
    return MetricTerm(part, schema, settings, target)


def _leave_out_saved_defaults(schema: Schema, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out defaults where every setting is written, as in a `spec.yaml` of an older version.

    An `average` that somebody wrote has an effect for two classes, and the default has none.
    """
    if settings.keys() != schema.settings.keys():
        return settings
    return {name: value for name, value in settings.items() if value != schema.settings[name].default}


def _list_entries(raw: Any) -> Iterable[tuple[Any, KeyPath]]:
    """List the metrics with their paths, whether written as one part, a list or a mapping from names to settings."""
    if isinstance(raw, list):
        return [(each, ("metrics", index)) for index, each in enumerate(raw)]
    if isinstance(raw, dict) and "type" not in raw:
        return [({name: settings}, ("metrics",)) for name, settings in raw.items()]
    return [(raw, ("metrics",))]
