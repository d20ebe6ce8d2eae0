"""Turn a spec, data and values that were given in Python into a run's `Preparation`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dlspec.config.applied_overrides import change_config_values
from dlspec.config.composition import ComposedConfig, start_hydra
from dlspec.config.conf_files import GROUPS
from dlspec.config.overrides import format_choice, parse_overrides, replaces_section
from dlspec.data.arrays import dataset_from_arrays
from dlspec.data.augment.augmentation_settings import read_augmentations
from dlspec.data.augment.dataset_augmentation import augment_dataset
from dlspec.data.dataset import Dataset
from dlspec.data.sources import SOURCES
from dlspec.errors import Code, DataError, Problem, SpecError, UserError, suggest
from dlspec.formatting import format_hydra_value, format_override
from dlspec.jobs.composed_spec import compose_or_raise
from dlspec.jobs.rows_in_python import is_table_like, make_table_of_rows
from dlspec.jobs.run_preparation import Preparation
from dlspec.jobs.spec_keys import TOP_LEVEL_KEYS
from dlspec.language.problems import Problems, format_path, raise_problems
from dlspec.language.source_map import SourceMap
from dlspec.language.yaml.yaml_files import load_yaml_file
from dlspec.limits import explain_raising_limit, get_limit
from dlspec.runs.file_names import SPEC_FILE

KEYS_CHOSEN_BY_NAME = (*GROUPS, "run")  # given as a string, each of these names a file, a part or a run
DATA_FIX = "pass arrays by name, {'x': ..., 'target': ...}, a frame, a list of rows, (X, y), or a data set's name"
ARRAY_SETTINGS = ("validation", "test", "split_seed", "labels", "target", "augment")
PYTHON_TYPES = ("arrays", "table")  # `data.type` of a run whose data were given in Python
NO_VALUES: Mapping[str, Any] = {}
SpecInput = Mapping[str, Any] | Sequence[str]
# Arrays or settings by name; a data set, or its name; or rows: a frame, a list of rows, (X, y).
DataInput = Any


def prepare_spec(
    spec: SpecInput,
    data: DataInput,
    values: Mapping[str, Any] = NO_VALUES,
    *,
    target: str | None = None,
    is_resumed: bool = False,
) -> Preparation:
    """Make the steps that turn a spec into a run.

    Args:
        spec: A mapping, or a list of overrides.
        data: Arrays by field name, rows, a data set, its name or settings, its shapes; None takes the spec's own data.
        values: Values by dotted path, such as `optimizer.lr`, which replace those of the spec.
        target: What to predict, as `data.target`; None for what the spec or the data say.
        is_resumed: Whether the run starts from a checkpoint.
    """
    if target is not None and not is_python_data(data):
        values, target = {**values, "data.target": target}, None
    written, overrides = split_spec(spec)
    settings = {} if data is None else extract_data_settings(written.pop("data", None))
    settings |= {} if target is None else {"target": target}
    arrays, section = load_data_or_section(data, settings | _extract_data_overrides(overrides))
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
        tree["data"] = _make_data_section(arrays, settings)
    if values:
        tree = change_config_values(tree, values)
    files = {group: composed.loader.files(group) for group in GROUPS}
    python_keys = [*python_sections, *(key.split(".")[0] for key in values)]
    return Preparation(tree, partial(_find_file_locations, composed, python_keys), files, arrays, is_resumed=is_resumed)


def split_spec(spec: SpecInput) -> tuple[dict[str, Any], Sequence[str]]:
    """Split a spec into its sections, if it is a mapping, and its overrides, if it is a list.

    A mapping with `layers` and no `model` is a model; its other top-level keys, such as `trainer`, stay sections.
    """
    if isinstance(spec, Mapping):
        written = dict(spec)
        if "layers" in written and "model" not in written:
            outer = {key: written.pop(key) for key in TOP_LEVEL_KEYS if key in written}
            written = {**outer, "model": written}
        return written, ()
    if isinstance(spec, Sequence) and not isinstance(spec, str) and all(isinstance(each, str) for each in spec):
        return {}, spec
    raise UserError(
        f"a spec must be a mapping, {{'model': 'cnn'}}, or a list of overrides, ['model=cnn'], got {spec!r}"
    )


def extract_data_settings(section: Any) -> dict[str, Any]:
    """Return the settings in a spec's `data` section; none if it names a data set, which the given data replace."""
    if not isinstance(section, Mapping) or section.get("type", "arrays") not in PYTHON_TYPES:
        return {}
    return {str(key): value for key, value in section.items() if key != "type"}


def _extract_data_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values that a list of overrides gives to settings of `data`, by setting."""
    values = [each for each in parse_overrides(overrides) if each.key_or_group.startswith("data.")]
    return {each.key_or_group.removeprefix("data."): each.value() for each in values if not each.is_sweep_override()}


def load_data_or_section(data: DataInput, settings: Mapping[str, Any]) -> tuple[Dataset | None, Any]:
    """Return a data set if the data were given in Python, else the content of the config's `data` section.

    `settings` are those of the config's `data` section.
    """
    if data is None or isinstance(data, str):
        return None, data
    if isinstance(data, Dataset):
        _check_data_settings(settings, ("augment",), "a data set that was made in Python")
        return augment_python_data(data, settings), None
    if is_table_like(data):
        return make_table_of_rows(data, settings), None
    if not isinstance(data, Mapping):
        raise UserError(f"can't use {_describe_value(data)} as data: {DATA_FIX}")
    if "type" in data:
        return None, dict(data)
    if _has_arrays(data, settings):
        _check_data_settings(settings, ARRAY_SETTINGS, "arrays")
        split_settings = {key: value for key, value in settings.items() if key != "augment"}
        return augment_python_data(dataset_from_arrays(data, **split_settings), settings), None
    _require_num_classes(data)
    return None, {"type": "random", "size": 16, **data}


def augment_python_data(data: Dataset, settings: Mapping[str, Any]) -> Dataset:
    """Add the augmentations of the setting `augment` to data that were given in Python.

    Raises:
        SpecError: if an augmentation is wrong, or does not fit the data.
    """
    augment = settings.get("augment")
    if not augment:
        return data
    problems = Problems()
    read_augmentations(augment, ("data", "augment"), problems)
    raise_problems(problems, SourceMap)
    try:
        augmented = augment_dataset(data, augment)
    except DataError as error:
        path = format_path(("data", error.key, *error.inner_path))
        raise SpecError([Problem(error.finding.code, path, str(error))]) from None
    return replace(augmented, origin={**data.origin, "augment": augment})


def is_python_data(data: DataInput) -> bool:
    """Whether data are given in Python, not named or described."""
    if isinstance(data, Mapping):
        return "type" not in data and _has_arrays(data, {})
    return data is not None and not isinstance(data, str)


def _has_arrays(data: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    is_given = settings.get("target", "target") in data or "target" in data
    return is_given or any(hasattr(each, "__array__") for each in data.values())


def apply_changes(run_folder: Path, changes: SpecInput, data: DataInput) -> tuple[SpecInput, list[str]]:
    """Return a run's spec with changes, and the changed keys.

    Args:
        run_folder: The run's folder.
        changes: A spec with only the settings that change.
        data: The data of the run again, if they are given in Python; arrays are split as before.
    """
    changed_sections, overrides = split_spec(changes)
    saved = load_yaml_file(run_folder / SPEC_FILE).tree.get("data") if is_python_data(data) else None
    splits = extract_data_settings(saved) if isinstance(saved, Mapping) else {}
    if isinstance(changes, Mapping) or not changes:
        kept = {"data": splits | dict(changed_sections.get("data", {}))} if splits else {}
        return {"run": str(run_folder), **changed_sections, **kept}, list(changes)
    keys = [each.key_or_group.lstrip("+~") for each in parse_overrides(overrides)]
    return [
        format_override("run", str(run_folder)),
        *(f"data.{key}={format_hydra_value(value)}" for key, value in splits.items()),
        *overrides,
    ], keys


def _make_data_section(data: Dataset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make a data section to check the config with; it is never opened."""
    if data.origin.get("type") == "table":
        return {**data.origin, **settings}
    kept = {key: value for key, value in settings.items() if key not in ("labels", "target")}
    return make_placeholder_section(data) | kept


def make_placeholder_section(data: Dataset) -> dict[str, Any]:
    """Make a data section with the shape of these data. The config is checked with it; it is never opened."""
    field = data.fields[0]
    if field.vocab_size is not None:
        return {"type": "random", "vocab_size": field.vocab_size, "length": field.shape[0]}
    return {"type": "random", "shape": list(field.shape)}


def _describe_value(data: object) -> str:
    """Format a number; of other values, which may be long, only name the type."""
    return repr(data) if isinstance(data, int | float) else f"a {type(data).__name__}"


def _check_data_settings(settings: Iterable[str], allowed: Sequence[str], owner: str) -> None:
    wrong = [key for key in settings if key not in allowed]
    if wrong:
        found = f"not a setting of {owner}"
        raise SpecError(
            [
                Problem(Code.UNKNOWN_SETTING, f"data.{key}", found, suggest(key, allowed) or "leave it out")
                for key in wrong
            ]
        )


def _require_num_classes(facts: Mapping[str, Any]) -> None:
    """Require `num_classes`: without it the target would silently be a number."""
    is_stated = facts.keys() & {"num_classes", "targets"}
    if not is_stated and facts.keys() <= SOURCES["random"].model_fields.keys():
        fix = "add the number of classes, 'num_classes': 10, or None if the target is a number"
        raise SpecError([Problem(Code.MISSING_VALUE, "data.num_classes", "missing", fix)])


def _merge_section(before: Any, newer: Any, group: str) -> Any:
    """Merge a mapping into the chosen section key by key; replace the section if the mapping names a part or layers."""
    if not isinstance(newer, Mapping) or not isinstance(before, dict) or replaces_section(group, dict(newer)):
        return _to_plain(newer, 1)
    return {**before, **{key: _merge_section(before.get(key), value, "") for key, value in newer.items()}}


def to_plain_value(value: Any) -> Any:
    """Convert mappings, sequences, arrays and numbers to the types that YAML has; raises UserError for others."""
    return _to_plain(value, 1)


def _to_plain(value: Any, depth: int) -> Any:
    """Convert a value as `to_plain_value` does, at the given nesting depth."""
    max_depth = get_limit("nesting")
    if depth > max_depth:  # a list may contain itself
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
    raise UserError(f"a spec can't contain {value!r}: use numbers, strings, lists and mappings")


def _find_file_locations(composed: ComposedConfig, python_keys: Collection[str]) -> SourceMap:
    """Return the locations of all keys, except those that were given in Python."""
    locations = composed.find_locations()
    keys = {path: location for path, location in locations.keys.items() if not path or path[0] not in python_keys}
    values = {path: location for path, location in locations.values.items() if not path or path[0] not in python_keys}
    return SourceMap(keys, values)
