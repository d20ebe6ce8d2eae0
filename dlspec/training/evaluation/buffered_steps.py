"""Join the outputs and targets of several steps, to update metrics with all of them at once or to save them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlspec.training.criterion_interface import Targets

BufferedStep = tuple[Any, Targets]  # (output, targets)


def pack_steps(steps: list[BufferedStep]) -> dict[str, Any]:
    """Concatenate the tensors of all steps for a checkpoint, as copying hundreds of small tensors is slow."""
    if (
        not steps
        or len({_sample_shapes(each) for each in steps}) > 1
        or any(not isinstance(output, Tensor) for output, _ in steps)
    ):
        return {"steps": list(steps)}
    columns = list(zip(*((output, *targets) for output, targets in steps), strict=True))
    if any(not each[0].dim() for each in columns):
        return {"steps": list(steps)}
    return {"columns": [torch.cat(each) for each in columns], "sizes": [[len(one) for one in each] for each in columns]}


def unpack_steps(packed: Mapping[str, Any]) -> list[BufferedStep]:
    """Restore the steps from their concatenation.

    They are copied, because some kernels round differently if a tensor's memory is not aligned.
    """
    if "steps" in packed:
        return [(output, targets) for output, targets in packed["steps"]]
    pairs = zip(packed["columns"], packed["sizes"], strict=True)
    columns = [[one.clone() for one in column.split(sizes)] for column, sizes in pairs]
    return [(output, tuple(targets)) for output, *targets in zip(*columns, strict=True)]


def concatenate_steps(steps: list[BufferedStep]) -> list[BufferedStep]:
    """Concatenate steps to one; leave them unchanged if their samples differ in shape."""
    if len(steps) == 1 or len({_sample_shapes(each) for each in steps}) > 1:
        return steps
    outputs, targets = zip(*steps, strict=True)
    return [(concatenate_outputs(outputs), tuple(torch.cat(each) for each in zip(*targets, strict=True)))]


def _sample_shapes(step: BufferedStep) -> Any:
    output, targets = step
    values = (output,) if isinstance(output, Tensor) else output.values() if isinstance(output, Mapping) else output
    return tuple(each.shape[1:] if each.dim() else None for each in (*values, *targets))


def concatenate_outputs(outputs: Sequence[Any]) -> Any:
    """Concatenate outputs along the first dimension.

    Of scalars the first is kept: no target is predicted from them.
    """
    first = outputs[0]
    if isinstance(first, Tensor):
        return torch.cat(list(outputs)) if first.dim() else first
    if isinstance(first, Mapping):
        return {name: concatenate_outputs([each[name] for each in outputs]) for name in first}
    return tuple(concatenate_outputs(each) for each in zip(*outputs, strict=True))
