"""Trace the module that is exported, with sizes that may differ between batches."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.inference.export.exported_model import ExportedModel
from dlspec.inference.export.file_inputs import STEPS
from dlspec.inference.export.recurrent_operators import KeepRecurrentLayers

EXAMPLE_ROWS = 2
BATCH = "batch"
Axes = tuple[tuple[int | str, ...], ...]  # of each input, with the batch: a name for each size that may differ


@contextlib.contextmanager
def silence_exporters() -> Iterator[None]:
    """Keep the warnings and progress of PyTorch's exporters off the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()):
                yield
    finally:
        logging.disable(disabled)


def trace_model(
    model: ExportedModel, examples: Sequence[Tensor], *, keep_recurrent: bool = True
) -> torch.export.ExportedProgram:
    """Trace a module by torch.export; the batch size may differ, and steps where the network allows it.

    Args:
        model: the module, in eval mode
        examples: its inputs, for two rows
        keep_recurrent: whether recurrent layers become operators of `recurrent_operators`; else each of their steps is
            traced, and the number of steps is that of the examples

    Raises:
        UserError: if PyTorch can't export a layer.
    """
    has_steps = any(STEPS in each.shape for each in model.inputs)
    with KeepRecurrentLayers() if keep_recurrent else contextlib.nullcontext():
        try:
            return _trace(model, examples, has_steps=has_steps)
        except Exception as error:  # from any layer, or from PyTorch
            found = error
        if has_steps:  # a network may need all steps, such as one with Flatten and Linear
            with contextlib.suppress(Exception):
                return _trace(model, examples, has_steps=False)
    reason = f"PyTorch can't export this network: {first_line(found, 300)}"
    raise UserError(f"{reason}; format=safetensors exports its weights")


def _trace(model: ExportedModel, examples: Sequence[Tensor], *, has_steps: bool) -> torch.export.ExportedProgram:
    shapes: list[dict[int, Any]] = []
    for each in model.inputs:
        steps = [at for at, size in enumerate(each.shape, start=1) if size == STEPS] if has_steps else []
        shapes.append({0: torch.export.Dim(BATCH), **dict.fromkeys(steps, torch.export.Dim.AUTO)})
    with torch.no_grad(), silence_exporters():
        return torch.export.export(model, tuple(examples), dynamic_shapes=(tuple(shapes),), strict=False)


def find_axes(program: torch.export.ExportedProgram, model: ExportedModel) -> Axes:
    """Return the sizes of each input as they were traced, with a name for each that may differ."""
    names = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    return tuple(
        tuple(_name_size(size, at, each.shape) for at, size in enumerate(value.shape))
        for value, each in zip(values, model.inputs, strict=True)
    )


def _name_size(size: Any, at: int, declared: Sequence[int | str]) -> int | str:
    if str(size).isdigit():  # a number, or a size that turned out to be fixed
        return int(size)
    return BATCH if at == 0 else str(declared[at - 1])
