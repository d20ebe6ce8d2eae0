"""A spec, data and values that are given in Python: from them to the steps of a run."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from dlspec.config.applied_overrides import change_values
from dlspec.config.composition import ComposedConfig, start_hydra
from dlspec.config.conf_files import GROUPS
from dlspec.config.overrides import format_choice, parse_overrides, replaces_section
from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.dataset import Dataset
from dlspec.data.sources import SOURCES
from dlspec.errors import Code, Problem, SpecError, UserError, suggest
from dlspec.jobs.composed_spec import compose_or_raise
from dlspec.jobs.run_preparation import Preparation
from dlspec.jobs.spec_keys import TOP_LEVEL_KEYS
from dlspec.language.source_map import SourceMap
from dlspec.limits import explain_raising_limit, get_limit

KEYS_CHOSEN_BY_NAME = (*GROUPS, "run")  # a text says which file, part or run it is
DATA_FIX = "give arrays by name, {'x': ..., 'target': ...}, or a data set's name"
ARRAY_SETTINGS = ("validation", "test", "split_seed")
NO_VALUES: Mapping[str, Any] = {}
SpecInput = Mapping[str, Any] | Sequence[str]
DataInput = Mapping[str, Any] | Dataset | str | None


def prepare_spec(
    spec: SpecInput, data: DataInput, values: Mapping[str, Any] = NO_VALUES, *, is_resumed: bool = False
) -> Preparation:
    """The steps from a spec to a run; `values` take the place of what it says, by their keys."""
    written, overrides = split_spec(spec)
    settings = {} if data is None else extract_data_settings(written.pop("data", None))
    arrays, section = _load_data_or_section(data, settings | _extract_data_overrides(overrides))
    if arrays is not None:
        overrides = [each for each in overrides if not re.match(r"[+~]*data[.=]", each)]
    if section is not None:
        written["data"] = section
    chosen = {key: value for key, value in written.items() if key in KEYS_CHOSEN_BY_NAME and isinstance(value, str)}
    python_sections = {key: value for key, value in written.items() if key not in chosen}
    composed = compose_or_raise([*overrides, *map(format_choice, chosen, chosen.values())], start_hydra())
    chosen_tree = composed.tree
    tree = chosen_tree | {
        key: _merge_section(chosen_tree.get(key), value, key) for key, value in python_sections.items()
    }
    if settings and arrays is None:
        tree["data"] = _merge_section(tree["data"], settings, "data")
    if arrays is not None:
        tree["data"] = _make_placeholder_source(arrays) | settings
    if values:
        tree = change_values(tree, values)
    files = {group: composed.loader.files(group) for group in GROUPS}
    python_keys = [*python_sections, *(key.split(".")[0] for key in values)]
    return Preparation(tree, partial(_find_file_locations, composed, python_keys), files, arrays, is_resumed=is_resumed)


def split_spec(spec: SpecInput) -> tuple[dict[str, Any], Sequence[str]]:
    """What a mapping says, by the config's keys, and what a list of overrides says."""
    if isinstance(spec, Mapping):
        written = dict(spec)
        if "layers" in written and "model" not in written:
            outer = {key: written.pop(key) for key in TOP_LEVEL_KEYS if key in written}
            written = {**outer, "model": written}
        return written, ()
    if isinstance(spec, Sequence) and not isinstance(spec, str) and all(isinstance(each, str) for each in spec):
        return {}, spec
    raise UserError(f"{spec!r} is no spec: write a mapping, {{'model': 'cnn'}}, or overrides, ['model=cnn']")


def extract_data_settings(section: Any) -> dict[str, Any]:
    """What the spec's `data` changes; nothing where it names a data set, whose place another takes."""
    if not isinstance(section, Mapping) or section.get("type", "arrays") != "arrays":
        return {}
    return {str(key): value for key, value in section.items() if key != "type"}


def _extract_data_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """What a list of overrides says of the data, by the setting."""
    values = [each for each in parse_overrides(overrides) if each.key_or_group.startswith("data.")]
    return {each.key_or_group.removeprefix("data."): each.value() for each in values if not each.is_sweep_override()}


def _load_data_or_section(data: DataInput, settings: Mapping[str, Any]) -> tuple[Dataset | None, Any]:
    """The data set itself, or what to write in the config's section."""
    if data is None or isinstance(data, str):
        return None, data
    if isinstance(data, Dataset):
        _check_data_settings(settings, (), "a data set that was made in Python")
        return data, None
    if not isinstance(data, Mapping):
        raise UserError(f"{_describe_value(data)} is no data: {DATA_FIX}")
    if "type" in data:
        return None, dict(data)
    if "target" in data or any(hasattr(each, "__array__") for each in data.values()):
        _check_data_settings(settings, ARRAY_SETTINGS, "arrays")
        return dataset_from_arrays(data, **settings), None
    _require_num_classes(data)
    return None, {"type": "random", "size": 16, **data}


def _make_placeholder_source(data: Dataset) -> dict[str, Any]:
    """A source that states what these data do: the form is checked with it, and it is never opened."""
    field = data.fields[0]
    if field.vocab_size is not None:
        return {"type": "random", "vocab_size": field.vocab_size, "length": field.shape[0]}
    return {"type": "random", "shape": list(field.shape)}


def _describe_value(data: object) -> str:
    """A number as it is, of anything that may be long its kind alone."""
    return repr(data) if isinstance(data, int | float) else f"a {type(data).__name__}"


def _check_data_settings(settings: Iterable[str], allowed: Sequence[str], owner: str) -> None:
    wrong = [key for key in settings if key not in allowed]
    if wrong:
        found = f"no setting of {owner}"
        raise SpecError(
            [
                Problem(Code.UNKNOWN_SETTING, f"data.{key}", found, suggest(key, allowed) or "leave it out")
                for key in wrong
            ]
        )


def _require_num_classes(facts: Mapping[str, Any]) -> None:
    """Left out, the classes would be taken for a number to predict, without a word."""
    is_stated = facts.keys() & {"num_classes", "targets"}
    if not is_stated and facts.keys() <= SOURCES["random"].model_fields.keys():
        fix = "add how many classes there are, 'num_classes': 10, or None where a number is predicted"
        raise SpecError([Problem(Code.MISSING_VALUE, "data.num_classes", "not stated", fix)])


def _merge_section(before: Any, newer: Any, group: str) -> Any:
    """A mapping changes what was chosen, key by key; one that says which part or layers it is replaces it."""
    if not isinstance(newer, Mapping) or not isinstance(before, dict) or replaces_section(group, dict(newer)):
        return _to_plain(newer, 1)
    return {**before, **{key: _merge_section(before.get(key), value, "") for key, value in newer.items()}}


def to_plain_value(value: Any) -> Any:
    """A mapping, list, text or number as YAML would have given it; UserError for what is none."""
    return _to_plain(value, 1)


def _to_plain(value: Any, depth: int) -> Any:
    """Mappings, sequences and numbers as YAML would have given them."""
    max_depth = get_limit("nesting")
    if depth > max_depth:  # a list may hold itself
        found = f"nested more than {max_depth} deep"
        raise SpecError(
            [Problem(Code.TOO_LARGE, "", found, f"use blocks or fewer levels; {explain_raising_limit('nesting')}")]
        )
    if isinstance(value, Mapping):
        return {str(key): _to_plain(each, depth + 1) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(each, depth + 1) for each in value]
    if isinstance(value, torch.Tensor) or hasattr(value, "tolist"):
        return value.tolist()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise UserError(f"{value!r} can't stand in a spec: use numbers, text, lists and mappings")


def _find_file_locations(composed: ComposedConfig, python_keys: Collection[str]) -> SourceMap:
    """The files' places, without those of keys that were given in Python."""
    locations = composed.find_locations()
    keys = {path: location for path, location in locations.keys.items() if not path or path[0] not in python_keys}
    values = {path: location for path, location in locations.values.items() if not path or path[0] not in python_keys}
    return SourceMap(keys, values)
