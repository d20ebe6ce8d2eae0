"""Which of the data's fields each input of a model takes, and whether they are what the model says it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlspec.data.dataset import Dataset, Field
from dlspec.errors import Code, format_value, suggest
from dlspec.language.problems import Problems

if TYPE_CHECKING:
    from dlspec.language.parse.model_inputs import ModelInput


def match_inputs(inputs: Sequence[ModelInput], data: Dataset, problems: Problems) -> dict[str, Field]:
    """The field of each of the model's inputs, by the model's names for them.

    They match by name; a single input takes a single field whatever its name. A target of a class a step may be an
    input too: it comes moved by one step.
    """
    if not inputs:
        return _match_only_field(data, problems)
    found: dict[str, Field] = {}
    for each in inputs:
        matched = data.field(each.name)
        if matched is None and len(inputs) == len(data.fields) == 1:
            matched = data.fields[0]
        if matched is None:
            _report_missing_field(each, data, problems)
            continue
        found[each.name] = matched
        _check_stated_facts(each, matched, data, problems)
    return found


def _match_only_field(data: Dataset, problems: Problems) -> dict[str, Field]:
    if len(data.fields) > 1:
        names = ", ".join(each.name for each in data.fields)
        found = f"{data.name} has {len(data.fields)} fields ({names}), and the model says not what it takes"
        problems.add(Code.AMBIGUOUS, ("model",), found, f"write inputs: [{names}] in the model, or those that it needs")
    return {each.name: each for each in data.fields[:1]}


def _report_missing_field(stated: ModelInput, data: Dataset, problems: Problems) -> None:
    names = [each.name for each in data.fields]
    fix = suggest(stated.name, [*names, *(each.name for each in data.targets if data.field(each.name))])
    what = f"{data.name} has no field '{stated.name}'"
    if any(each.name == stated.name for each in data.targets):
        what, fix = f"'{stated.name}' is what {data.name} has to be predicted", f"take a field: {', '.join(names)}"
    problems.add(Code.UNKNOWN_FIELD, stated.path, what, fix)


def _check_stated_facts(stated: ModelInput, field: Field, data: Dataset, problems: Problems) -> None:
    """What the model states of its input against what the data hold; null is open."""
    found = {"shape": list(field.shape), "layout": field.layout, "vocab_size": field.vocab_size}
    found["length"] = field.shape[0] if field.layout in ("tokens", "sequence") else None
    for key, expected in stated.facts.items():
        if expected is not None and not _matches(expected, found[key]):
            text = f"the model wants {key} {format_value(expected)}, and '{field.name}' of {data.name} has {format_value(found[key])}"
            problems.add(
                Code.SHAPE_MISMATCH, (*stated.path, key), text, "choose data that fit, or change what the model states"
            )


def _matches(expected: Any, found: Any) -> bool:
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(
            _matches(one, other) for one, other in zip(expected, found, strict=True)
        )
    return expected is None or bool(expected == found)
