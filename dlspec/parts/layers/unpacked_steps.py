"""Recurrent layers over sequences of several lengths without packing, for exported files.

The backward direction runs over each sample reversed within its length. The results are those of packing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.parts.layers.padding import make_step_mask

_PASSES: Mapping[str, Callable[..., Any]] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}
CLOSED_GATE = 1e4  # what is added before the sigmoid of a gate to make it exactly 1, or subtracted to make it 0


def is_exporting() -> bool:
    """Whether PyTorch traces a network for an exported file."""
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())


def run_without_packing(
    layer: nn.RNNBase, input: Tensor, state: Any, lengths: Tensor, *, keep_cells: bool = False
) -> tuple[Tensor, Any]:
    """Run a recurrent layer in eval mode over samples of several lengths.

    Args:
        layer: PyTorch's layer, batch first
        input: the steps, (N, T, C)
        state: the initial state as PyTorch takes it: (num_layers * directions, N, H), of an LSTM a pair; None for zeros
        lengths: real steps of each sample, (N,), at least 1
        keep_cells: whether the last cell states of an LSTM are needed; else they are wrong

    Returns:
        The output of every step (N, T, H), zero in padding, and the last state as PyTorch returns it.
    """
    is_real = make_step_mask(lengths, input.shape[1])
    steps = torch.arange(input.shape[1], device=input.device)
    reversed_steps = torch.where(is_real, lengths[:, None] - 1 - steps, steps)  # (N, T)
    directions, hidden, cells = 2 if layer.bidirectional else 1, [], []
    for number in range(layer.num_layers):
        outputs = []
        for direction in range(directions):
            at = number * directions + direction
            given = _reorder(input, reversed_steps) if direction else input
            weights: Sequence[Tensor] = layer.all_weights[at]
            if keep_cells and layer.mode == "LSTM":
                given, weights = _close_gates(layer, given, weights, is_real)
            output, *finals = _run_pass(layer, given, weights, state, at)
            hidden.append(_reorder(output, (lengths - 1)[:, None])[:, 0])
            cells.append(finals[-1][0])
            outputs.append(_reorder(output, reversed_steps) if direction else output)
        input = torch.cat(outputs, dim=-1)
    final = torch.stack(hidden)
    return input * is_real[:, :, None], (final, torch.stack(cells)) if layer.mode == "LSTM" else final


def _reorder(values: Tensor, steps: Tensor) -> Tensor:
    """Take the steps (N, S) of each sample (N, T, C)."""
    return values.gather(1, steps[:, :, None].expand(-1, -1, values.shape[2]))


def _close_gates(
    layer: nn.RNNBase, input: Tensor, weights: Sequence[Tensor], is_real: Tensor
) -> tuple[Tensor, Sequence[Tensor]]:
    """Let the cells of an LSTM stay as they are in padding.

    A feature that is 1 in padding closes the input gate and opens the forget gate.
    """
    is_padding = (~is_real).to(input.dtype)[:, :, None]
    gates = input.new_tensor([-CLOSED_GATE, CLOSED_GATE, 0, 0])  # in PyTorch's order: input, forget, cell, output
    added = gates.repeat_interleave(layer.hidden_size)[:, None]
    return torch.cat([input, is_padding], dim=2), [torch.cat([weights[0], added], dim=1), *weights[1:]]


def _run_pass(
    layer: nn.RNNBase, input: Tensor, weights: Sequence[Tensor], state: Any, number: int
) -> tuple[Tensor, ...]:
    """Run one direction of one layer; return the output of every step and the state after all of them."""
    states = state if isinstance(state, tuple) else (state,)
    if state is None:
        sizes = (layer.proj_size or layer.hidden_size, layer.hidden_size)
        initial = [input.new_zeros(1, input.shape[0], size) for size in sizes]
    else:
        initial = [each[number : number + 1] for each in states]
    first = (initial[0], initial[1]) if layer.mode == "LSTM" else initial[0]
    found: tuple[Tensor, ...] = _PASSES[layer.mode](input, first, weights, layer.bias, 1, 0.0, False, False, True)
    return found
