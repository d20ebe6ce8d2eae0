"""The description of a data set: all that a network needs to know of its data, saved with a run as JSON.

A run is loaded with its description instead of its data: fields, targets with their classes, and no samples but two of
zeros, with which a network is built.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor

from dlspec.data.dataset import Dataset, Field, Split, Target
from dlspec.data.encoding.dataset_columns import make_fitted_table
from dlspec.data.prepare.kinds.array_column import MAX_NUMBERS, MAX_TOKEN, read_shape
from dlspec.data.prepare.kinds.saved_values import SavedValues, check_text, make_saved_error
from dlspec.data.target_scale import TargetScale
from dlspec.layouts import LAYOUTS
from dlspec.limits import MAX_CLASSES

DATASET = "dataset"  # key of the description, beside what was fitted
SAVED_FORMAT = 1
MAX_NAME = 1_000  # characters of a name
MAX_FIELDS = 10_000
ROWS = 2  # samples of zeros: as many as a network is built with
_FIELD_KEYS = ("name", "shape", "layout", "vocab_size", "has_lengths")
_TARGET_KEYS = (
    *("name", "shape", "classes", "scale", "next_of", "lengths", "labels", "weights", "unscaled_setting"),
    *("target_kind", "has_ignored"),
)
_NAME_KEYS = ("next_of", "lengths", "weights", "unscaled_setting")


def make_saved_preparation(data: Dataset) -> dict[str, Any]:
    """Make what a run saves of its data as JSON: how rows are encoded, and the description of the data."""
    fitted = make_fitted_table(data)
    saved = dict(data.preprocessing)
    if fitted is not None and "columns" not in saved:
        saved = fitted.to_json()
    return {**saved, DATASET: describe_dataset(data)}


def describe_dataset(data: Dataset) -> dict[str, Any]:
    """Describe a data set without its samples, as JSON values."""
    suffix = "_lengths"
    return {
        "format": SAVED_FORMAT,
        "name": data.name,
        "fields": [_describe_field(each) for each in data.fields],
        "targets": [_describe_target(each) for each in data.targets],
        "lengths": sorted(key.removesuffix(suffix) for key in data.train.tensors if key.endswith(suffix)),
        "reconstructed_field": data.reconstructed_field,
        "origin": json.loads(json.dumps(dict(data.origin))),
        "samples": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
    }


def _describe_field(field: Field) -> dict[str, Any]:
    return {**{key: getattr(field, key) for key in _FIELD_KEYS}, "shape": list(field.shape)}


def _describe_target(target: Target) -> dict[str, Any]:
    lists = {key: list(getattr(target, key)) for key in ("shape", "classes", "labels")}
    scale = None if target.scale is None else target.scale.to_json()
    return {"name": target.name, "target_kind": target.kind, "scale": scale, **lists,
            **{key: getattr(target, key) for key in (*_NAME_KEYS, "has_ignored")}}  # fmt: skip


def read_saved_dataset(saved: Mapping[str, Any]) -> Dataset | None:
    """Rebuild a data set without its samples from what a run saved of it.

    Args:
        saved: the result of `make_saved_preparation`

    Returns:
        The data set, with two training samples of zeros; None if an older version saved no description.

    Raises:
        DataError: if the description is damaged or of a newer version.
    """
    if DATASET not in saved:
        return None
    found = saved[DATASET]
    if not isinstance(found, Mapping) or found.get("format") != SAVED_FORMAT:
        raise make_saved_error("the description of the data is damaged, or of another version of dlspec")
    fields = tuple(_read_field(each) for each in _read_list(found, "fields", MAX_FIELDS))
    targets = tuple(_read_target(each) for each in _read_list(found, "targets", MAX_FIELDS))
    lengths = [_read_name(each) for each in _read_list(found, "lengths", MAX_FIELDS)]
    _check_names(fields, targets, lengths)
    train = _make_zeros(fields, targets, lengths)
    empty = train.take(slice(0))
    reconstructed = _read_name(found.get("reconstructed_field"))
    origin = found.get("origin")
    if not isinstance(origin, Mapping) or reconstructed not in ("", *(each.name for each in fields)):
        raise make_saved_error("the description of the data is damaged")
    preprocessing = {key: each for key, each in saved.items() if key != DATASET}
    return Dataset(_read_name(found.get("name")), fields, targets, train, empty, empty, preprocessing, origin,
                   reconstructed, is_described=True)  # fmt: skip


def _read_list(found: Mapping[str, Any], key: str, max_items: int) -> list[Any]:
    value = found.get(key)
    if not isinstance(value, list) or len(value) > max_items:
        raise make_saved_error(f"{key} must be a list of at most {max_items:,} values")
    return value


def _read_name(value: object) -> str:
    return check_text("a name", value, MAX_NAME)


def _read_field(saved: object) -> Field:
    values = SavedValues({**_as_mapping(saved), "kind": "field"}, _FIELD_KEYS)
    layout = values.get_choice("layout", LAYOUTS)
    vocab_size = None if values.values["vocab_size"] is None else values.get_integer("vocab_size", 1, MAX_TOKEN)
    shape, has_lengths = read_shape(values.values["shape"]), values.get_flag("has_lengths")
    if (layout == "tokens") != (vocab_size is not None) or not shape:
        raise make_saved_error("a field needs a shape, and tokens need a vocab_size")
    return Field(_read_name(values.values["name"]), shape, next(each for each in LAYOUTS if each == layout),
                 vocab_size, has_lengths)  # fmt: skip


def _read_target(saved: object) -> Target:
    values = SavedValues({"has_ignored": False, **_as_mapping(saved), "kind": "target"}, _TARGET_KEYS)
    name, shape = _read_name(values.values["name"]), read_shape(values.values["shape"])
    kinds: tuple[Literal["classes", "numbers"], ...] = ("classes", "numbers")
    found = values.get_choice("target_kind", kinds)
    classes, labels = values.get_texts("classes", MAX_CLASSES), values.get_texts("labels", MAX_CLASSES)
    if (found == "classes") != (len(classes) > 1) or (labels and (found == "classes" or shape != (len(labels),))):
        raise make_saved_error(f"the target '{name}' must have two classes or more, or labels of its shape")
    rest = {key: _read_name(values.values[key]) for key in _NAME_KEYS}
    return Target(name, next(each for each in kinds if each == found), shape, classes,
                  scale=_read_scale(values.values["scale"], shape), labels=labels,
                  has_ignored=values.get_flag("has_ignored"), **rest)  # fmt: skip


def _read_scale(saved: object, shape: tuple[int, ...]) -> TargetScale | None:
    scale = None if saved is None else TargetScale.from_json(saved)
    channels = 1 if not shape else shape[1] if len(shape) == 2 else shape[0]
    if scale is not None and len(scale.shift) not in (1, channels):
        raise make_saved_error("a scale must have one number, or one for each number or channel of the target")
    return scale


def _as_mapping(saved: object) -> Mapping[str, Any]:
    if not isinstance(saved, Mapping) or "kind" in saved:
        raise make_saved_error("fields and targets must be mappings")
    return saved


def _check_names(fields: tuple[Field, ...], targets: tuple[Target, ...], lengths: list[str]) -> None:
    """Check that names are different, and that lengths belong to something with steps."""
    everything: list[Field | Target] = [*fields, *targets]
    names, shapes = [each.name for each in everything], {each.name: each.shape for each in everything}
    if not fields or len(set(names)) < len(names) or not all(shapes.get(name) for name in lengths):
        raise make_saved_error("fields and targets must have different names, and lengths belong to one of them")
    missing = {each.name for each in fields if each.has_lengths} - set(lengths)
    missing |= {each.lengths for each in targets if each.lengths} - set(lengths)
    if missing:
        raise make_saved_error(f"the lengths of '{min(missing)}' are missing")
    if sum(prod(shape) for shape in shapes.values()) > MAX_NUMBERS:
        raise make_saved_error(f"a sample has more than {MAX_NUMBERS:,} numbers")


def _make_zeros(fields: tuple[Field, ...], targets: tuple[Target, ...], lengths: list[str]) -> Split:
    shapes = {each.name: each.shape for each in targets} | {each.name: each.shape for each in fields}
    tensors = {each.name: _make_zero(each.shape, is_integer=each.layout == "tokens") for each in fields}
    tensors |= {f"{name}_lengths": torch.full((ROWS,), shapes[name][0]) for name in lengths}
    tensors |= {each.weights: torch.ones(ROWS) for each in targets if each.weights}
    return Split(tensors, {each.name: _make_zero(each.shape, is_integer=each.kind == "classes") for each in targets})


def _make_zero(shape: tuple[int, ...], *, is_integer: bool) -> Tensor:
    return torch.zeros(ROWS, *shape, dtype=torch.int64 if is_integer else torch.float32)
