"""ONNX's recurrent operators for those of `recurrent_operators`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any

from dlspec.inference.export.recurrent_operators import get_traced_operators

# ONNX's operator for each of PyTorch's functions, and PyTorch's number of each gate in ONNX's order.
_OPERATORS: Mapping[str, tuple[str, Sequence[int]]] = {
    "lstm": ("LSTM", (0, 3, 1, 2)),
    "gru": ("GRU", (1, 0, 2)),
    "rnn_tanh": ("RNN", (0,)),
    "rnn_relu": ("RNN", (0,)),
}
Value = Any  # of onnxscript: a value in the graph


def make_translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return for each operator what adds ONNX's operators to a graph."""
    operators = import_module("onnxscript").opset20
    return {each: partial(_translate, operators, name) for name, each in get_traced_operators().items()}


def _translate(
    op: Any, name: str, input: Value, state: Value, weights: Sequence[Value], has_biases: bool,
    num_layers: int, dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Value, ...]:  # fmt: skip
    """Add a layer of ONNX for each layer; the arguments are those of PyTorch's function."""
    operator, gates = _OPERATORS[name]
    states: Sequence[Value] = state if name == "lstm" else [state]
    directions, per_direction = 2 if bidirectional else 1, 4 if has_biases else 2
    size = int(states[0].shape[-1])
    settings = {"hidden_size": size, **_choose_settings(name, directions)}
    steps = op.Transpose(input, perm=[1, 0, 2]) if batch_first else input  # (T, N, C)
    finals: list[Sequence[Value]] = []
    for layer in range(num_layers):
        first = layer * directions
        own = [weights[at * per_direction : (at + 1) * per_direction] for at in range(first, first + directions)]
        initial = [op.Slice(each, [first], [first + directions], [0]) for each in states]
        joined = [_join(op, part, gates, size) for part in zip(*own, strict=True)]
        bias = op.Concat(*joined[2:], axis=1) if has_biases else None
        output, *final = getattr(op, operator)(steps, joined[0], joined[1], bias, None, *initial, **settings)
        steps = op.Reshape(op.Transpose(output, perm=[0, 2, 1, 3]), [0, 0, -1])  # (T, N, directions * H)
        finals.append(final)
    outputs = op.Transpose(steps, perm=[1, 0, 2]) if batch_first else steps
    return (outputs, *(op.Concat(*each, axis=0) for each in zip(*finals, strict=True)))


def _choose_settings(name: str, directions: int) -> dict[str, Any]:
    settings: dict[str, Any] = {"direction": "forward" if directions == 1 else "bidirectional"}
    if name == "gru":
        settings["linear_before_reset"] = 1  # as PyTorch computes it
    if name == "rnn_relu":
        settings["activations"] = ["Relu"] * directions
    return settings


def _join(op: Any, directions: Sequence[Value], gates: Sequence[int], size: int) -> Value:
    """Put the gates of a weight of each direction into ONNX's order: (directions, gates * H, ...)."""
    order = [gate * size + at for gate in gates for at in range(size)]
    return op.Concat(*(op.Unsqueeze(op.Gather(each, order, axis=0), [0]) for each in directions), axis=0)
