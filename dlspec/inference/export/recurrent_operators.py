"""Recurrent layers while a network is traced: one operator each, so that their number of steps may differ.

PyTorch traces its own operators step by step, which fixes the number of steps. The operators defined here have the same
arguments and are never run: they only know the sizes of their outputs. A `.pt2` file gets PyTorch's operators again, an
ONNX file those of ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_ARGUMENTS = (
    "Tensor input, {state} state, Tensor[] weights, bool has_biases, int num_layers, float dropout, bool train, "
    "bool bidirectional, bool batch_first"
)


@cache
def get_traced_operators() -> Mapping[str, Any]:
    """Define the operators on first use, and return them by the names of PyTorch's functions."""
    for name in NAMES:
        has_cell = name == "lstm"
        arguments = _ARGUMENTS.format(state="Tensor[]" if has_cell else "Tensor")
        results = ", ".join(["Tensor"] * (3 if has_cell else 2))
        torch.library.define(f"dlspec::{name}", f"({arguments}) -> ({results})")
        torch.library.register_fake(f"dlspec::{name}", _make_empty_outputs)
    return {name: getattr(torch.ops.dlspec, name).default for name in NAMES}


def _make_empty_outputs(
    input: Tensor, state: Tensor | list[Tensor], weights: Any, has_biases: Any, num_layers: Any, dropout: Any,
    train: Any, bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    states = [state] if isinstance(state, Tensor) else state
    size = states[0].shape[-1] * (2 if bidirectional else 1)
    return (input.new_empty(*input.shape[:2], size), *map(torch.empty_like, states))


class KeepRecurrentLayers(TorchFunctionMode):
    """Calls the operators defined here in place of PyTorch's."""

    def __init__(self) -> None:
        super().__init__()
        self._operators: Mapping[Callable[..., Any], Any] = {
            getattr(torch, name): each for name, each in get_traced_operators().items()
        }

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        own = self._operators.get(function)
        if own is None or not isinstance(args[3], bool):  # for packed steps the weights are there
            return function(*args, **(kwargs or {}))
        return own(*args)


def use_pytorch_operators(program: torch.export.ExportedProgram) -> None:
    """Replace the operators defined here by PyTorch's own.

    Args:
        program: the traced network; it is changed
    """
    own = {each: getattr(torch.ops.aten, name).input for name, each in get_traced_operators().items()}
    for node in program.graph.nodes:
        node.target = own.get(node.target, node.target)
    program.graph_module.recompile()
