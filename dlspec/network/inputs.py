"""Match the inputs of a model with the fields of the data, and check what the model declares about them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dlspec.data.dataset import Dataset, Field
from dlspec.errors import Code, format_value, suggest
from dlspec.formatting import format_argument
from dlspec.language.problems import Problems

if TYPE_CHECKING:
    from dlspec.language.parse.model_inputs import ModelInput

MAX_DROPPED = 20  # columns in a fix


def match_inputs(
    inputs: Sequence[ModelInput], data: Dataset, problems: Problems, *, takes_tokens: bool = False
) -> dict[str, Field]:
    """Find the field for each of the model's inputs.

    Inputs and fields match by name; if there is only one of each, the names may differ. A target with one class per
    step can be an input too: it is then shifted by one step, for a decoder.

    Args:
        inputs: The inputs that the model declares; without any, the only field is used.
        data: The data.
        problems: Collects inputs without a field, and declared facts that the data contradict.
        takes_tokens: Whether the model begins with a layer that takes tokens, for the fix of a problem.

    Returns:
        The matched fields by the model's names.
    """
    if not inputs:
        return _match_only_field(data, problems, takes_tokens)
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


def _match_only_field(data: Dataset, problems: Problems, takes_tokens: bool) -> dict[str, Field]:
    if len(data.fields) > 1:
        names = ", ".join(each.name for each in data.fields)
        found = f"{data.name} has {len(data.fields)} fields ({names}), and the model does not declare its inputs"
        fix = f"write inputs: [{names}] in the model, or only those that it needs"
        kept = next((each for each in data.fields if takes_tokens and each.layout == "tokens"), data.fields[0])
        columns = [name for each in data.fields if each != kept for name in data.list_columns(each.name)]
        if 0 < len(columns) <= MAX_DROPPED:
            drop = format_argument("data.drop", columns)
            fix += f"; or keep only '{kept.name}': {drop}"
        problems.add(Code.AMBIGUOUS, ("model",), found, fix)
    return {each.name: each for each in data.fields[:1]}


def _report_missing_field(stated: ModelInput, data: Dataset, problems: Problems) -> None:
    names = [each.name for each in data.fields]
    fix = suggest(stated.name, [*names, *(each.name for each in data.targets if data.field(each.name))])
    what = f"{data.name} has no field '{stated.name}'"
    if any(each.name == stated.name for each in data.targets):
        what, fix = f"'{stated.name}' is a target of {data.name}, not a field", f"use a field: {', '.join(names)}"
    problems.add(Code.UNKNOWN_FIELD, stated.path, what, fix)


def _check_stated_facts(stated: ModelInput, field: Field, data: Dataset, problems: Problems) -> None:
    """Compare what the model declares about an input with the data; null matches anything."""
    found = {"shape": list(field.shape), "layout": field.layout, "vocab_size": field.vocab_size}
    found["length"] = field.shape[0] if field.layout in ("tokens", "sequence") else None
    for key, expected in stated.facts.items():
        if expected is not None and not _matches_stated_fact(expected, found[key]):
            text = (
                f"the model expects {key} {format_value(expected)}, "
                f"but '{field.name}' of {data.name} has {format_value(found[key])}"
            )
            problems.add(
                Code.SHAPE_MISMATCH, (*stated.path, key), text, "use data that fit, or change the model's inputs"
            )


def _matches_stated_fact(expected: Any, found: Any) -> bool:
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(
            _matches_stated_fact(one, other) for one, other in zip(expected, found, strict=True)
        )
    return expected is None or bool(expected == found)
