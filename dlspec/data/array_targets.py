"""Find out what a target array contains: numbers, labels, or classes of samples, steps, pixels or next tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.dataset import Target
from dlspec.errors import Code, DataError, suggest
from dlspec.limits import MAX_CLASSES

ArraysByName = dict[str, NDArray[Any]]


def infer_target(
    name: str, values: NDArray[Any], inputs: ArraysByName, lengths: ArraysByName, class_names: tuple[str, ...] = ()
) -> Target:
    """Describe the target that an array contains.

    Args:
        name: name of the target
        values: its array, (N, ...)
        inputs: the input arrays by name, to recognize next tokens
        lengths: the arrays named `NAME_lengths`
        class_names: names of the classes by index, if they are not their numbers

    Returns:
        The target.

    Raises:
        DataError: if the array cannot be a target.
    """
    if values.dtype.kind == "f":
        return Target(name, "numbers", values.shape[1:], lengths=_find_lengths_field(name, values, inputs, lengths))
    lengths_field = _find_lengths_field(name, values, inputs, lengths)
    if values.dtype.kind == "b" and values.ndim == 2 and values.shape[1] > 1 and not lengths_field:
        return Target(name, "numbers", values.shape[1:], labels=make_class_names(values.shape[1]))
    if class_names:
        lengths_field = _find_lengths_field(name, values, inputs, lengths) if values.ndim > 1 else ""
        return Target(name, "classes", values.shape[1:], class_names, lengths=lengths_field)
    if values.ndim == 1:
        return Target(name, "classes", (), make_class_names(_count_classes(name, values)))
    return _read_step_target(name, values, inputs, lengths)


def read_multi_label_target(name: str, targets: ArraysByName) -> NDArray[np.bool_]:
    """Return a target of zeros and ones, (N, L) for L labels, as an array of bools.

    Raises:
        DataError: if the target is missing, or its shape or values do not fit.
    """
    if name not in targets:
        raise DataError("labels", f"no target '{name}'; {suggest(name, targets)}", Code.UNKNOWN_TARGET)
    values = targets[name]
    if values.ndim != 2 or values.shape[1] < 2 or not np.isin(values, (0, 1)).all():
        found = f"got shape {list(values.shape)} with values from {values.min():g} to {values.max():g}"
        raise DataError("labels", f"'{name}' must be zeros and ones (N, L) for L labels, {found}")
    return values.astype(bool)


def _count_classes(name: str, values: NDArray[Any]) -> int:
    """Count the classes, which must be numbered from 0 without gaps."""
    found = np.unique(values)
    if found[0] != 0 or found[-1] != len(found) - 1:
        fix = "np.unique(values, return_inverse=True)[1] renumbers them"
        raise DataError(
            name, f"'{name}' must have the classes 0 to {len(found) - 1}, got {_format_values(found)}; {fix}"
        )
    if len(found) == 1:
        raise DataError(name, f"'{name}' has only one class; there is nothing to learn")
    return len(found)


def _read_step_target(name: str, values: NDArray[Any], inputs: ArraysByName, lengths: ArraysByName) -> Target:
    """Describe a target with one class for each step or pixel. As with tokens, not every class has to occur."""
    most = int(values.max()) + 1
    if values.shape[1:] == (1,) * (values.ndim - 1):
        fix = "convert numbers to floats"
        raise DataError(
            name, f"'{name}' contains integers of shape {list(values.shape)}, but classes must be (N,); {fix}"
        )
    if values.min() < 0 or most > MAX_CLASSES:
        found = values.min() if values.min() < 0 else most - 1
        raise DataError(name, f"'{name}' contains the class {found}; classes must be 0 to {MAX_CLASSES - 1:,}")
    source = next((key for key, tokens in inputs.items() if _is_next_token(values, tokens)), "")
    count = max(most, int(inputs[source].max()) + 1) if source else most
    if count == 1:
        raise DataError(name, f"'{name}' has only one class; there is nothing to learn")
    return Target(
        name, "classes", values.shape[1:], make_class_names(count), next_of=source,
        lengths=_find_lengths_field(name, values, inputs, lengths, source),
    )  # fmt: skip


def _is_next_token(values: NDArray[Any], tokens: NDArray[Any]) -> bool:
    """Whether each step of `values` equals the next step of `tokens`, in every row."""
    have_equal_shapes = (
        tokens.shape == values.shape and tokens.dtype.kind in "iu" and values.ndim == 2 and values.shape[1] > 1
    )
    return have_equal_shapes and bool((values[:, :-1] == tokens[:, 1:]).all())


def _find_lengths_field(
    name: str, values: NDArray[Any], inputs: ArraysByName, lengths: ArraysByName, source: str = ""
) -> str:
    """Find the field whose lengths apply to the target.

    That is the target itself, the field `source` whose next tokens it contains, or the only field with lengths and
    as many steps. "" if there is none.
    """
    for own in (name, source):
        if f"{own}_lengths" in lengths:
            return own
    named = [key.removesuffix("_lengths") for key in lengths]
    of_same_length = [
        key for key in named if key in inputs and values.ndim > 1 and inputs[key].shape[1] == values.shape[1]
    ]
    return of_same_length[0] if len(of_same_length) == 1 and values.shape[1] > 1 else ""


def make_class_names(count: int) -> tuple[str, ...]:
    """Return the names of classes that have only numbers."""
    return tuple(str(index) for index in range(count))


def _format_values(values: NDArray[Any], max_shown: int = 5) -> str:
    return ", ".join(str(each) for each in values[:max_shown].tolist()) + (", ..." if len(values) > max_shown else "")
