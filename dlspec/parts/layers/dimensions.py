"""What layers do to dimensions: which of a value's dimensions an output's are, and what that makes of their roles.

Dimensions are counted as PyTorch counts them, the batch being 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Lengths, TensorInfo, guess_layout, layout_from_roles, roles_from_layout
from dlspec.parts.layers.rule import Inputs, main_input

Dims = Sequence[int]


def layout_from_dims(value: TensorInfo, dims: Dims) -> Layout:
    """The layout of an output whose dimensions are these of the value's, in this order.

    What stands alone beside the channels is the steps: (S, C) is a sequence.
    """
    return layout_after_selection(roles_from_dims(value, dims))


def roles_from_dims(value: TensorInfo, dims: Dims) -> tuple[str, ...]:
    """The roles of these of the value's dimensions, in this order, batch left out."""
    before = ("N", *value.roles)
    return tuple(before[each] for each in dims[1:])


def layout_after_selection(output_roles: tuple[str, ...]) -> Layout:
    """The layout of these roles."""
    if "C" not in output_roles:
        return guess_layout((1,) * len(output_roles))
    return "sequence" if len(output_roles) == 2 and output_roles[0] == "S" else layout_from_roles(output_roles)


def roles_after_reshape(value: TensorInfo, shape: Sequence[int]) -> tuple[str, ...]:
    """The roles of a value's numbers in another shape, followed from the left.

    A dimension that is cut in two gives both its role, dimensions that become one give it the channels' where they are
    among them. Where neither holds, as many dimensions as before keep their roles.
    """
    if value.layout == "features" or not shape:
        return roles_from_layout(guess_layout(shape), len(shape))
    found: list[str] = []
    before, after = list(zip(value.shape, value.roles, strict=True)), list(shape)
    while before and after:
        taken, given = _pop_equal_sizes(before, after)
        taken_roles = [role for _, role in taken]
        if len(taken) > 1 and len(given) > 1:
            return value.roles if len(shape) == len(value.shape) else roles_from_layout(guess_layout(shape), len(shape))
        found += [("C" if "C" in taken_roles else taken_roles[0])] * len(given)
    found += ["S" if "S" in found else found[-1]] * len(after)
    return tuple(found)


def _pop_equal_sizes(before: list[tuple[int, str]], after: list[int]) -> tuple[list[tuple[int, str]], list[int]]:
    """Takes away the fewest first dimensions that hold as many numbers on both sides, or all where none do."""
    taken, given = [before.pop(0)], [after.pop(0)]
    while before or after:
        size_before, size_after = prod(size for size, _ in taken), prod(given)
        if size_before == size_after:
            break
        if size_before < size_after:
            taken.append(before.pop(0))
        else:
            given.append(after.pop(0))
    return taken, given


def lengths_from_dims(value: TensorInfo, dims: Dims) -> Lengths | None:
    """The value's lengths, where its steps stand in the output at the dimension that has time."""
    return value.lengths if keeps_time(value, dims) else None


def keeps_time(value: TensorInfo, dims: Dims) -> bool:
    after = TensorInfo((1,) * (len(dims) - 1), layout_from_dims(value, dims))
    return value.time_dim is not None and after.time_dim is not None and dims[after.time_dim] == value.time_dim


def lengths_agree(inputs: Inputs) -> bool:
    """Whether all samples end where the main input's do, so that no padding meets a step."""
    return all(each.lengths in (None, main_input(inputs).lengths) for each in inputs)


def lengths_and_steps_agree(inputs: Inputs) -> bool:
    """Whether, besides, none has steps of a number of its own, which a batch of shorter samples would not have."""
    return lengths_agree(inputs) and not any(_has_fixed_steps(each, main_input(inputs)) for each in inputs)


def _has_fixed_steps(value: TensorInfo, first: TensorInfo) -> bool:
    if first.lengths is None or first.time_dim is None or value.lengths is not None:
        return False
    at = first.time_dim - 1 - (len(first.shape) - len(value.shape))
    return at >= 0 and value.shape[at] != 1


def normalize_dim(dim: int, value: TensorInfo) -> int:
    """The dimension counted from the front; `ValueError` where the value has no such one."""
    rank = len(value.shape) + 1
    if not -rank <= dim < rank:
        raise ValueError(f"dim is {dim}, and {value} has dimensions 1 to {rank - 1}")
    return dim % rank


def check_dim(dim: int, value: TensorInfo, setting: str = "dim") -> Finding | None:
    """Why a layer can't work on this dimension of the value, if it can't; `setting` is what names the dimension."""
    rank = len(value.shape) + 1
    if not -rank <= dim < rank:
        found = f"{setting} is {dim}, and {value} has dimensions 1 to {rank - 1}"
        return Finding(Code.WRONG_DIMENSION, found, "count the batch as 0, as PyTorch does")
    if dim % rank != 0:
        return None
    found = f"{setting} is {dim}: that is the batch, and samples must not mix"
    return Finding(Code.SAMPLES_MIXED, found, "the dimensions of a sample start at 1")
