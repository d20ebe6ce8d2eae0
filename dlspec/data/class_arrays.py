"""Read target arrays that name or mark their classes: texts, and one-hot rows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlspec.data.prepare.kinds.class_table import order_classes
from dlspec.errors import DataError, format_value


def is_text_array(values: NDArray[Any]) -> bool:
    """Whether an array contains texts: of NumPy's type for texts, or objects that are all str."""
    return values.dtype.kind in "US" or (
        values.dtype.kind == "O" and values.size > 0 and all(isinstance(each, str) for each in values.flat)
    )


def number_class_names(name: str, values: NDArray[Any]) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Number the classes of an array of class names.

    Args:
        name: name of the target
        values: the names, (N,), or (N, ...) with one for each step or pixel

    Returns:
        The index of each class, and the names of the classes in order: alphabetical, and of two classes the positive
        one second, as in a table.

    Raises:
        DataError: if there are fewer than two classes, or a name is empty.
    """
    texts = [each.decode("utf-8", "replace") if isinstance(each, bytes) else str(each) for each in values.flat]
    missing = next((row for row, each in enumerate(texts) if not each.strip()), None)
    if missing is not None:
        place = np.unravel_index(missing, values.shape)[0]
        raise DataError(name, f"'{name}' has an empty class name in row {place}; drop the row or name its class")
    classes = order_classes(texts, name)
    index = {each: number for number, each in enumerate(classes)}
    return np.array([index[each] for each in texts], np.int64).reshape(values.shape), classes


def is_one_hot(values: NDArray[Any], input_steps: Collection[int]) -> bool:
    """Whether integers (N, K) mark one class in each row. Bools are labels, which a sample may have several of.

    Args:
        values: the array
        input_steps: the numbers of steps of the inputs: an array with a class for each of their steps isn't one-hot
    """
    if values.dtype.kind not in "iu" or values.ndim != 2 or values.shape[1] < 2 or values.shape[1] in input_steps:
        return False
    marks = values.astype(bool)
    return bool(((values == 0) | (values == 1)).all() and (marks.sum(1) == 1).all() and marks.any(0).sum() > 1)


def describe_one_hot(name: str, values: NDArray[Any]) -> str:
    """Return the line that says how a one-hot target is read."""
    return f"'{name}' is one-hot: each row is one of {values.shape[1]} classes; give floats to train on the numbers"


def refuse_other_objects(name: str, values: NDArray[Any]) -> None:
    """Raise DataError for an array of objects that are neither numbers nor all texts."""
    if values.dtype.kind == "O":
        wrong = next((each for each in values.flat if not isinstance(each, str)), None)
        raise DataError(name, f"'{name}' must contain numbers, or only class names, got {format_value(wrong)}")
