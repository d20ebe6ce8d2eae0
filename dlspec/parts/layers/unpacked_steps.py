"""Recurrent layers over sequences of several lengths without packing, for exported files.

The backward direction runs over each sample reversed within its length. The results are those of packing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def is_exporting() -> bool:
    """Whether PyTorch traces a network for an exported file."""
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())


def run_without_packing(layer: nn.RNNBase, input: Tensor, state: Any, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run a recurrent layer in eval mode over samples of several lengths.

    Args:
        layer: PyTorch's layer, batch first
        input: the steps, (N, T, C)
        state: the initial state as PyTorch takes it: (num_layers * directions, N, H), of an LSTM a pair; None for zeros
        lengths: real steps of each sample, (N,), at least 1

    Returns:
        The output of every step (N, T, H), zero in padding, and the last hidden state of each layer and direction,
        (num_layers * directions, N, H).
    """
    is_real = make_step_mask(lengths, input.shape[1])
    steps = torch.arange(input.shape[1], device=input.device)
    reversed_steps = torch.where(is_real, lengths[:, None] - 1 - steps, steps)  # (N, T)
    directions, finals = 2 if layer.bidirectional else 1, []
    for number in range(layer.num_layers):
        outputs = []
        for direction in range(directions):
            given = _reorder(input, reversed_steps) if direction else input
            output = _run_pass(layer, given, state, number * directions + direction)
            finals.append(_reorder(output, (lengths - 1)[:, None])[:, 0])
            outputs.append(_reorder(output, reversed_steps) if direction else output)
        input = torch.cat(outputs, dim=-1)
    return input * is_real[:, :, None], torch.stack(finals)


def _reorder(values: Tensor, steps: Tensor) -> Tensor:
    """Take the steps (N, S) of each sample (N, T, C)."""
    return values.gather(1, steps[:, :, None].expand(-1, -1, values.shape[2]))


def _run_pass(layer: nn.RNNBase, input: Tensor, state: Any, number: int) -> Tensor:
    """Run one direction of one layer, and return the output of every step."""
    weights = layer.all_weights[number]
    states = state if isinstance(state, tuple) else (state,)
    if state is None:
        sizes = (layer.proj_size or layer.hidden_size, layer.hidden_size)
        initial = [input.new_zeros(1, input.shape[0], size) for size in sizes]
    else:
        initial = [each[number : number + 1] for each in states]
    first = (initial[0], initial[1]) if layer.mode == "LSTM" else initial[0]
    output: Tensor = _PASSES[layer.mode](input, first, weights, layer.bias, 1, 0.0, False, False, True)[0]
    return output
