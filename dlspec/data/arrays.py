"""Make a data set from arrays in memory, for the Python API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.data.array_splits import make_splits
from dlspec.data.array_targets import ArraysByName, infer_target, make_class_names, read_multi_label_target
from dlspec.data.class_arrays import (
    describe_one_hot,
    is_one_hot,
    is_text_array,
    number_class_names,
    refuse_other_objects,
)
from dlspec.data.dataset import Dataset, Field, Target
from dlspec.data.split_indices import SplitPlan, split_rows
from dlspec.errors import Code, DataError, find_closest, format_value, suggest
from dlspec.layouts import guess_layout

MAX_RANK = 4  # of a sample: (C), (T, C), (C, H, W) and (C, D, H, W)
LENGTHS_SUFFIX = "_lengths"


def dataset_from_arrays(
    arrays: Mapping[str, Any],
    target: str = "target",
    *,
    name: str = "arrays",
    validation: float = 0.1,
    test: float = 0.2,
    split_seed: int = 0,
    labels: str | Sequence[str] = (),
) -> Dataset:
    """Make a data set from NumPy arrays, tensors or nested lists with one row for each sample.

    Values are used unchanged: nothing is scaled.

    Inputs are floats (N, C) for features, (N, T, C) for a sequence or (N, C, H, W) for channels-first images, or
    integers (N, T) for tokens. Integers (N,) named `NAME_lengths` are the number of real steps in each sample of
    NAME; the rest is padding. Integer targets are classes 0 to K-1: (N,) one for each sample, (N, T) one for each
    step, (N, H, W) one for each pixel; texts of these shapes are names of classes. Integers (N, K) with a single 1 in
    each row are one-hot classes. Bool targets (N, L) are labels, of which each sample may have several. Float targets
    (N, ...) are numbers; `CrossEntropyLoss` takes floats (N, K) as probabilities of K classes.

    Args:
        arrays: the inputs and the target, by name
        target: key of the target in `arrays`. Its value may be a mapping of multiple targets by name, or None for
            data without a target, whose input the network should reconstruct
        name: name of the data set in messages
        validation: fraction of the samples for validation
        test: fraction of the samples for the final test
        split_seed: seed of the split
        labels: names of targets (N, L) of zeros and ones that are labels too

    Returns:
        The data set, split in the proportions of the classes.

    Raises:
        DataError: if an array or a setting cannot be used.
    """
    _check_fractions(validation, test)
    _check_split_seed(split_seed)
    inputs, outputs = _separate_targets(arrays, target)
    label_names = [labels] if isinstance(labels, str) else list(labels)
    described = _describe_arrays(inputs, outputs, label_names)
    classes = _choose_stratification_classes(described.targets, described.outputs)
    parts = split_rows(_count_rows(described.inputs), SplitPlan(split_seed, validation, test), classes)
    origin: dict[str, Any] = {"validation": validation, "test": test, "split_seed": split_seed}
    origin |= {"labels": label_names} if label_names else {}
    splits = make_splits(described.inputs, described.outputs, parts)
    return Dataset(name, described.fields, described.targets, *splits, origin=origin, notes=described.notes)


@dataclass(frozen=True)
class _DescribedArrays:
    """Arrays as a data set stores them, and what they are."""

    fields: tuple[Field, ...]
    targets: tuple[Target, ...]
    inputs: ArraysByName  # with `NAME_lengths`
    outputs: ArraysByName
    notes: tuple[str, ...]


def _describe_arrays(inputs: ArraysByName, outputs: ArraysByName, label_names: Sequence[str]) -> _DescribedArrays:
    """Find out what arrays are, and convert them.

    Args:
        inputs: the inputs, with `NAME_lengths`
        outputs: the targets
        label_names: names of targets that are labels
    """
    outputs, class_names, notes = _number_classes(outputs, inputs, label_names)
    outputs |= {name: read_multi_label_target(name, outputs) for name in label_names}
    _check_rows(inputs | outputs)
    lengths = {key: inputs.pop(key) for key in _find_lengths(inputs, outputs)}
    fields = [_make_field(key, values, f"{key}{LENGTHS_SUFFIX}" in lengths) for key, values in inputs.items()]
    targets = [
        infer_target(key, values, inputs, {} if key in label_names else lengths, class_names.get(key, ()))
        for key, values in outputs.items()
    ]
    fields = [_copy_vocab_size_from_target(each, targets) for each in fields]
    stored = {each.name: _convert_inputs(inputs[each.name], each) for each in fields}
    stored |= {key: _check_lengths(key, values, inputs | outputs) for key, values in lengths.items()}
    found = {each.name: _convert_labels(outputs[each.name], each) for each in targets}
    return _DescribedArrays(tuple(fields), tuple(targets), stored, found, notes)


def _separate_targets(arrays: Mapping[str, Any], target: str) -> tuple[ArraysByName, ArraysByName]:
    """Separate the arrays into inputs, including those named `NAME_lengths`, and targets."""
    given = dict(arrays)
    if target not in given:
        is_clear = not given or find_closest(target, given)
        fix = suggest(target, given) + ("" if is_clear else f"; for data without a target, pass '{target}': None")
        raise DataError(target, f"no target '{target}' among the arrays; {fix}".rstrip("; "), Code.UNKNOWN_FIELD)
    target_values = given.pop(target, None)
    labels = (
        {}
        if target_values is None
        else target_values
        if isinstance(target_values, Mapping)
        else {target: target_values}
    )
    if not given:
        raise DataError(
            "", f"only the target '{target}' was given; add an array to predict it from", Code.MISSING_VALUE
        )
    for key in labels.keys() & given.keys():
        raise DataError(key, f"'{key}' is both an input and a target: give one of them another name", Code.NAME_TAKEN)
    for key in (*given, *labels):
        if not isinstance(key, str) or not key.isidentifier():
            raise DataError(
                str(key), f"{format_value(key)} can't be a field's name: use letters, digits and _", Code.INVALID_NAME
            )
    return _as_arrays(given), {key: _as_target_array(key, values) for key, values in labels.items()}


def _as_arrays(given: Mapping[str, Any]) -> ArraysByName:
    return {key: _as_array(key, values) for key, values in given.items()}


def _as_target_array(key: str, values: Any) -> NDArray[Any]:
    """Convert a target to an array: of numbers as inputs are, or of class names."""
    if not isinstance(values, torch.Tensor):
        array = np.asarray(values)
        if is_text_array(array):
            return array
        refuse_other_objects(key, array)
    return _as_array(key, values)


def _number_classes(
    targets: ArraysByName, inputs: ArraysByName, labels: Sequence[str]
) -> tuple[ArraysByName, dict[str, tuple[str, ...]], tuple[str, ...]]:
    """Number the classes of targets that are texts or one-hot.

    Args:
        targets: all targets
        inputs: the inputs, whose numbers of steps no one-hot target has
        labels: the targets that are labels

    Returns:
        All targets, the names of the numbered classes by target, and notes for the user.
    """
    arrays, names, notes, steps = dict(targets), dict[str, tuple[str, ...]](), [], _list_steps(inputs)
    for key, each in targets.items():
        if is_text_array(each):
            arrays[key], names[key] = number_class_names(key, each)
        elif key not in labels and is_one_hot(each, steps):
            arrays[key], names[key] = each.argmax(1), make_class_names(each.shape[1])
            notes.append(describe_one_hot(key, each))
    return arrays, names, tuple(notes)


def _list_steps(inputs: ArraysByName) -> set[int]:
    """List the numbers of steps of the inputs that may have steps: (N, T) integers and (N, T, ...)."""
    return {each.shape[1] for each in inputs.values() if each.ndim > 2 or (each.ndim == 2 and each.dtype.kind in "iu")}


def _is_lengths_key(key: str, given: Mapping[str, Any]) -> bool:
    return key.endswith(LENGTHS_SUFFIX) and key.removesuffix(LENGTHS_SUFFIX) in given


def _find_lengths(inputs: ArraysByName, labels: ArraysByName) -> list[str]:
    return [key for key in inputs if _is_lengths_key(key, inputs | labels)]


def _check_split_seed(split_seed: object) -> None:
    if not isinstance(split_seed, int) or isinstance(split_seed, bool) or split_seed < 0:
        found = f"split_seed must be a whole number >= 0, got {format_value(split_seed)}"
        raise DataError("split_seed", found, Code.WRONG_VALUE)


def _check_fractions(validation: float, test: float) -> None:
    for key, share in (("validation", validation), ("test", test)):
        if not isinstance(share, int | float) or isinstance(share, bool):
            raise DataError(key, f"{key} must be a number >= 0 and < 1, got {format_value(share)}", Code.WRONG_VALUE)
    if not (validation >= 0 and test >= 0 and validation + test < 1):
        found = f"validation {validation:g} and test {test:g}"
        raise DataError("validation", f"{found}: each must be at least 0 and their sum below 1", Code.WRONG_VALUE)


def _check_rows(columns: ArraysByName) -> None:
    counts = {key: len(values) for key, values in columns.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{key} has {count}" for key, count in counts.items())
        raise DataError("", f"all arrays must have the same number of rows: {found}")
    if 0 in counts.values():
        raise DataError("", "the arrays have no rows")


def _as_array(key: str, values: Any) -> NDArray[Any]:
    """Convert values to an array of numbers with one row for each sample; floats become float32."""
    try:
        array = _array_from_tensor(values) if isinstance(values, torch.Tensor) else np.asarray(values)
    except ValueError:
        raise DataError(key, f"'{key}' is ragged: its rows must all have the same shape") from None
    if array.dtype.kind not in "biuf":
        raise DataError(key, f"'{key}' must contain numbers, got dtype {array.dtype}")
    if array.ndim == 0:
        raise DataError(key, f"'{key}' must have one row for each sample, got a single number")
    if array.size == 0 and array.ndim > 1 and len(array):
        raise DataError(key, f"'{key}' has empty samples of shape {list(array.shape[1:])}")
    return _to_float32(key, array) if array.dtype.kind == "f" else array


def _array_from_tensor(values: torch.Tensor) -> NDArray[Any]:
    plain = values.detach().cpu()
    array: NDArray[Any] = (plain.float() if plain.is_floating_point() else plain).numpy()
    return array


def _to_float32(key: str, array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        numbers = array.astype(np.float32)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        row = int(np.argwhere(wrong)[0][0])
        raise DataError(
            key, f"'{key}' has {int(wrong.sum())} values that are not finite as float32, the first in row {row}"
        )
    return numbers


def _make_field(key: str, values: NDArray[Any], has_lengths: bool) -> Field:
    shape = values.shape[1:]
    if values.dtype.kind in "iu":
        return _make_token_field(key, values, has_lengths)
    if len(shape) > MAX_RANK:
        expected = "(N, C), (N, T, C) or (N, C, H, W)"
        raise DataError(key, f"'{key}' must have shape {expected}, got {list(values.shape)}")
    return Field(key, shape or (1,), guess_layout(shape), has_lengths=has_lengths)


def _make_token_field(key: str, values: NDArray[Any], has_lengths: bool) -> Field:
    if values.ndim != 2:
        fix = "convert other inputs to floats (images of bytes: x / 255)"
        raise DataError(
            key, f"'{key}' contains integers of shape {list(values.shape)}, but tokens must be (N, T); {fix}"
        )
    if values.min() < 0:
        raise DataError(
            key, f"'{key}' contains the token {values.min()}, but tokens must be >= 0; convert other inputs to floats"
        )
    return Field(key, values.shape[1:], "tokens", int(values.max()) + 1, has_lengths)


def _copy_vocab_size_from_target(token_field: Field, targets: Sequence[Target]) -> Field:
    """Give a field of tokens the vocabulary of its next-token target, whose last step may contain a new token."""
    sizes = [len(target.classes) for target in targets if target.next_of == token_field.name]
    return replace(token_field, vocab_size=max(sizes)) if sizes else token_field


def _check_lengths(key: str, values: NDArray[Any], columns: ArraysByName) -> NDArray[Any]:
    name = key.removesuffix(LENGTHS_SUFFIX)
    if columns[name].ndim < 2:
        raise DataError(key, f"'{key}' are lengths, but '{name}' of shape {list(columns[name].shape)} has no steps")
    steps = columns[name].shape[1]
    if values.dtype.kind not in "iu" or values.ndim != 1 or values.min() < 1 or values.max() > steps:
        raise DataError(key, f"'{key}' must be whole numbers (N,) from 1 to {steps}, the steps of '{name}'")
    return values.astype(np.int64)


def _convert_inputs(values: NDArray[Any], each: Field) -> NDArray[Any]:
    kind = np.int64 if each.layout == "tokens" else np.float32
    return values.astype(kind, copy=False).reshape(len(values), *each.shape)


def _convert_labels(values: NDArray[Any], target: Target) -> NDArray[Any]:
    return values.astype(np.int64 if target.kind == "classes" else np.float32, copy=False)


def _count_rows(columns: ArraysByName) -> int:
    return len(next(iter(columns.values())))


def _choose_stratification_classes(targets: Sequence[Target], labels: ArraysByName) -> NDArray[np.int64] | None:
    """Return the classes to stratify by: those of the first target with one class for each sample."""
    return next((labels[each.name] for each in targets if each.kind == "classes" and not each.shape), None)
