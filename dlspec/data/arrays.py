"""A data set from arrays in memory, for the Python API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.data.assembly import assemble
from dlspec.data.dataset import Dataset, Field, Target
from dlspec.data.splits import split_rows
from dlspec.errors import DataError, shown, suggest
from dlspec.layouts import Layout

LAYOUT_OF_RANK: dict[int, Layout] = {1: "features", 2: "sequence", 3: "channels-first", 4: "channels-first"}
"""By a sample's rank: (C), (T, C), (C, H, W) and (C, D, H, W)."""


def from_arrays(
    arrays: Mapping[str, Any],
    target: str = "target",
    *,
    name: str = "arrays",
    validation: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
) -> Dataset:
    """A data set of NumPy arrays, tensors or nested lists, a row a sample; `target` is the one to be predicted.

    Floats (N, C) are features, (N, T, C) a sequence, (N, C, H, W) channels-first; integers (N, T) are tokens. Integer
    targets (N,) are classes 0 to K-1, float ones (N, ...) numbers. Values are taken as they are, nothing is scaled.
    Anything else is a `DataError`.
    """
    _check_shares(validation, test)
    if not isinstance(split_seed, int) or isinstance(split_seed, bool) or split_seed < 0:
        raise DataError("split_seed", f"split_seed is {shown(split_seed)}, wanted a whole number >= 0")
    columns = {key: _as_array(key, values) for key, values in arrays.items()}
    _check_names(columns, target)
    _check_lengths(columns)
    labels = columns.pop(target)
    fields = [_field(key, values) for key, values in columns.items()]
    predicted, labels = _target(target, labels)
    classes = labels if predicted.kind == "classes" else None
    parts = split_rows(len(labels), split_seed, validation, test, classes)
    inputs = {each.name: _stored(columns[each.name], each) for each in fields}
    return assemble(name, fields, predicted, inputs, labels, parts, {})


def _check_shares(validation: float, test: float) -> None:
    for key, share in (("validation", validation), ("test", test)):
        if not isinstance(share, int | float) or isinstance(share, bool):
            raise DataError(key, f"{key} is {shown(share)}, wanted a number >= 0 and < 1")
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        found = f"validation {validation:g} and test {test:g}"
        raise DataError("validation", f"{found}: each must be at least 0 and together they must be below 1")


def _check_names(columns: Mapping[str, Any], target: str) -> None:
    if target not in columns:
        raise DataError(target, f"no target '{target}' among the arrays; {suggest(target, columns)}".rstrip("; "))
    if len(columns) == 1:
        raise DataError("", f"only the target '{target}' was given; an array to predict it from is needed")
    for key in columns:
        if not key.isidentifier():
            raise DataError(key, f"'{key}' can't be a field's name: use letters, digits and _")


def _check_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    counts = {key: len(values) for key, values in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{key} has {count}" for key, count in counts.items())
        raise DataError("", f"the arrays' numbers of rows disagree: {found}")
    if 0 in counts.values():
        raise DataError("", "the arrays have no rows")


def _as_array(key: str, values: Any) -> NDArray[Any]:
    """As float32, int64 or bool; a row a sample."""
    try:
        array = _from_tensor(values) if isinstance(values, torch.Tensor) else np.asarray(values)
    except ValueError:
        raise DataError(key, f"'{key}' is ragged: its rows must all have the same shape") from None
    if array.dtype.kind not in "biuf":
        raise DataError(key, f"'{key}' holds {array.dtype}; numbers are wanted")
    if array.ndim == 0:
        raise DataError(key, f"'{key}' is a single number; a row for each sample is wanted")
    if array.size == 0 and array.ndim > 1 and len(array):
        raise DataError(key, f"'{key}' has samples of shape {list(array.shape[1:])}, which hold nothing")
    return _as_float(key, array) if array.dtype.kind == "f" else array


def _from_tensor(values: torch.Tensor) -> NDArray[Any]:
    plain = values.detach().cpu()
    array: NDArray[Any] = (plain.float() if plain.is_floating_point() else plain).numpy()
    return array


def _as_float(key: str, array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise DataError(
            key, f"'{key}' has {int(wrong.sum())} values that are no finite float32, the first in row {row}"
        )
    return numbers


def _field(key: str, values: NDArray[Any]) -> Field:
    shape = values.shape[1:]
    if values.dtype.kind in "iu":
        return _tokens(key, values)
    layout = LAYOUT_OF_RANK.get(max(1, len(shape)))
    if layout is None:
        wanted = "(N, C), (N, T, C) or (N, C, H, W)"
        raise DataError(key, f"'{key}' has shape {list(values.shape)}; {wanted} is wanted")
    return Field(key, shape or (1,), layout)


def _tokens(key: str, values: NDArray[Any]) -> Field:
    if values.ndim != 2:
        fix = "make it floats (for images in bytes: x / 255)"
        raise DataError(key, f"'{key}' holds integers of shape {list(values.shape)}; tokens are (N, T). Else {fix}")
    if values.min() < 0:
        raise DataError(key, f"'{key}' has the token {values.min()}; tokens count from 0. Else make it floats")
    return Field(key, values.shape[1:], "tokens", vocab_size=int(values.max()) + 1)


def _stored(values: NDArray[Any], each: Field) -> NDArray[Any]:
    kind = np.int64 if each.layout == "tokens" else np.float32
    return values.astype(kind, copy=False).reshape(len(values), *each.shape)


def _target(key: str, values: NDArray[Any]) -> tuple[Target, NDArray[Any]]:
    if values.dtype.kind == "f":
        return Target(key, "numbers", values.shape[1:]), values
    if values.ndim != 1:
        fix = "make it floats for numbers"
        raise DataError(key, f"'{key}' holds integers of shape {list(values.shape)}; classes are (N,). Else {fix}")
    found = np.unique(values)
    if found[0] != 0 or found[-1] != len(found) - 1:
        fix = "np.unique(values, return_inverse=True)[1] numbers them so"
        raise DataError(key, f"'{key}' has the classes {_listed(found)}; 0 to {len(found) - 1} are wanted: {fix}")
    if len(found) == 1:
        raise DataError(key, f"'{key}' has one class only; there is nothing to learn")
    return Target(key, "classes", (), tuple(str(index) for index in range(len(found)))), values.astype(np.int64)


def _listed(found: NDArray[Any], most: int = 5) -> str:
    return ", ".join(str(each) for each in found[:most].tolist()) + (", ..." if len(found) > most else "")
