"""A config's `metrics`, read: one, a list, or a mapping from names to settings; each may say of which target it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dlspec.errors import Code, KeyPath, shown
from dlspec.language.parse.part import Part, parse_part
from dlspec.language.problems import Problems
from dlspec.parts.schema import Schema
from dlspec.parts.torch.torch_metrics import metrics


@dataclass(frozen=True)
class MetricTerm:
    """A metric as written; without a `target` it is one of each that it fits."""

    part: Part
    schema: Schema
    settings: Mapping[str, Any]
    target: str | None = None


def read_metrics(raw: Any, problems: Problems, choices: Iterable[str] = ()) -> tuple[MetricTerm, ...]:
    """What `raw` writes; what it spells wrong is among the mistakes. `choices` are a group's files."""
    found = [_read(entry, path, problems, choices) for entry, path in _entries(raw)]
    return tuple(each for each in found if each is not None)


def _read(entry: Any, path: KeyPath, problems: Problems, choices: Iterable[str]) -> MetricTerm | None:
    part = parse_part(entry, path, problems, kind="metric")
    if part is None:
        return None
    part = replace(part, path=part.name_path)
    schema = metrics().find(part, problems, also=choices)
    if schema is None:
        return None
    target = part.settings.get("target")
    if target is not None and not isinstance(target, str):
        found = f"target is {shown(target)}, wanted the name of a target"
        problems.add(Code.WRONG_VALUE, part.where("target"), found, at_value=True)
        target = None
    own = {key: value for key, value in part.settings.items() if key != "target"}
    return MetricTerm(part, schema, schema.read(replace(part, settings=own), problems), target)


def _entries(raw: Any) -> Iterable[tuple[Any, KeyPath]]:
    """Metrics come as one part, a list of parts, or a mapping from names to settings."""
    if isinstance(raw, list):
        return [(each, ("metrics", index)) for index, each in enumerate(raw)]
    if isinstance(raw, dict) and "type" not in raw:
        return [({name: settings}, ("metrics",)) for name, settings in raw.items()]
    return [(raw, ("metrics",))]
