"""Layouts, roles and lengths after layers that select, reorder or reshape dimensions.

Dimensions are counted as in PyTorch; the batch is dimension 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Lengths, TensorInfo, guess_layout, layout_from_roles, roles_from_layout
from dlspec.parts.layers.rule import Inputs

Dims = Sequence[int]


def layout_from_dims(value: TensorInfo, dims: Dims) -> Layout:
    """Return the layout of an output that consists of these dimensions of the value, in this order.

    A single dimension before the channels counts as steps: (S, C) is a sequence.
    """
    return layout_after_selection(roles_from_dims(value, dims))


def guesses_layout_from_dims(value: TensorInfo, dims: Dims) -> bool:
    """Whether the layout of an output that consists of these dimensions is a guess: none of them is the channels."""
    return len(dims) > 2 and "C" not in roles_from_dims(value, dims)


def roles_from_dims(value: TensorInfo, dims: Dims) -> tuple[str, ...]:
    """Return the roles of these dimensions of the value, in this order, without the batch (the first of `dims`)."""
    before = ("N", *value.roles)
    return tuple(before[each] for each in dims[1:])


def layout_after_selection(output_roles: tuple[str, ...]) -> Layout:
    """Return the layout of an output with these roles. A single space dimension before the channels counts as steps."""
    if "C" not in output_roles:
        return guess_layout((1,) * len(output_roles))
    return "sequence" if len(output_roles) == 2 and output_roles[0] == "S" else layout_from_roles(output_roles)


def roles_after_reshape(value: TensorInfo, shape: Sequence[int]) -> tuple[str, ...]:
    """Return the roles of a value's dimensions after a reshape, matched from the left.

    If a dimension is split, both parts get its role. If dimensions are merged, the result is channels if one of them
    was. If dimensions are mixed in any other way, the roles are kept if the number of dimensions is the same, and
    otherwise guessed from the shape.
    """
    known = _match_reshaped_roles(value, shape)
    if known is not None:
        return known
    is_kept = value.layout != "features" and len(shape) == len(value.shape)
    return value.roles if is_kept and shape else roles_from_layout(guess_layout(shape), len(shape))


def guesses_reshaped_layout(value: TensorInfo, shape: Sequence[int]) -> bool:
    """Whether the roles after a reshape are a guess: nothing says what the dimensions of a vector mean."""
    return len(shape) > 1 and _match_reshaped_roles(value, shape) is None


def _match_reshaped_roles(value: TensorInfo, shape: Sequence[int]) -> tuple[str, ...] | None:
    """Match the dimensions before and after a reshape; None where a dimension is made of parts of several ones."""
    if value.layout == "features" or not shape:
        return None
    found: list[str] = []
    before, after = list(zip(value.shape, value.roles, strict=True)), list(shape)
    while before and after:
        taken, given = _pop_dims_of_equal_size(before, after)
        taken_roles = [role for _, role in taken]
        if len(taken) > 1 and len(given) > 1:
            return None
        found += [("C" if "C" in taken_roles else taken_roles[0])] * len(given)
    found += ["S" if "S" in found else found[-1]] * len(after)
    return tuple(found)


def _pop_dims_of_equal_size(
    sizes_before: list[tuple[int, str]], sizes_after: list[int]
) -> tuple[list[tuple[int, str]], list[int]]:
    """Remove from both lists the fewest leading dimensions whose sizes have the same product; all if none match."""
    taken, given = [sizes_before.pop(0)], [sizes_after.pop(0)]
    while sizes_before or sizes_after:
        size_before, size_after = prod(size for size, _ in taken), prod(given)
        if size_before == size_after:
            break
        if size_before < size_after:
            taken.append(sizes_before.pop(0))
        else:
            given.append(sizes_after.pop(0))
    return taken, given


def lengths_from_dims(value: TensorInfo, dims: Dims) -> Lengths | None:
    """Return the value's lengths if its time dimension is also the output's time dimension, else None."""
    return value.lengths if keeps_time(value, dims) else None


def keeps_time(value: TensorInfo, dims: Dims) -> bool:
    """Whether the value's time dimension is the time dimension of an output with these dimensions of the value."""
    after = TensorInfo((1,) * (len(dims) - 1), layout_from_dims(value, dims))
    return value.time_dim is not None and after.time_dim is not None and dims[after.time_dim] == value.time_dim


def find_common_lengths(inputs: Inputs) -> Lengths | None:
    """Return the lengths of inputs that are combined step by step; None if that combines padding with real steps."""
    found = {each.lengths for each in inputs if each.lengths}
    return found.pop() if len(found) == 1 and not any(each.lengths_lost_at for each in inputs) else None


def lengths_and_steps_agree(inputs: Inputs) -> bool:
    """Whether lengths agree and no input has a fixed number of steps, which would not fit a shorter batch."""
    padded = next((each for each in inputs if each.lengths), None)
    if padded is None:
        return True
    return find_common_lengths(inputs) is not None and not any(_has_fixed_steps(each, padded) for each in inputs)


def _has_fixed_steps(value: TensorInfo, input_with_lengths: TensorInfo) -> bool:
    """Whether a value without lengths has more than one step along the time dimension of the first value."""
    if input_with_lengths.lengths is None or input_with_lengths.time_dim is None or value.lengths is not None:
        return False
    at = input_with_lengths.time_dim - 1 - (len(input_with_lengths.shape) - len(value.shape))
    return at >= 0 and value.shape[at] != 1


def normalize_dim(dim: int, value: TensorInfo) -> int:
    """Convert a negative dimension to one counted from the front.

    Raises:
        ValueError: the value has no such dimension.
    """
    rank = len(value.shape) + 1
    if not -rank <= dim < rank:
        raise ValueError(f"dim is {dim}, but {value} has dimensions 1 to {rank - 1}")
    return dim % rank


def check_dim(dim: int, value: TensorInfo, setting: str = "dim") -> Finding | None:
    """Check that a dimension exists and is not the batch.

    Args:
        dim: The dimension; negative ones are counted from the end.
        value: The layer's input.
        setting: Name of the setting, for the message.

    Returns:
        What is wrong with the dimension, or None.
    """
    rank = len(value.shape) + 1
    if not -rank <= dim < rank:
        found = f"{setting} is {dim}, but {value} has dimensions 1 to {rank - 1}"
        return Finding(Code.WRONG_DIMENSION, found, "count the batch as 0, as PyTorch does")
    if dim % rank != 0:
        return None
    found = f"{setting} is {dim}, the batch; samples must not be mixed"
    return Finding(Code.SAMPLES_MIXED, found, "use 1 or more: the dimensions of a sample start at 1")
