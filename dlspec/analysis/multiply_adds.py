"""How many multiply-adds PyTorch's operations take, by the shapes of what they are given.

As in papers these are the products of convolutions, linear maps, recurrent layers and attention; what works element
by element, and normalisation, pooling and looking up embeddings, counts nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.torch_dispatch import BILINEAR, FUSED_ATTENTION

Rule = Callable[..., int]
"""Of an operation's output and arguments."""
_aten = torch.ops.aten


def _product(at: int) -> Rule:
    """Of matrices, the left one being argument `at`: each number of the output is a sum over its last dimension."""

    def count(output: Tensor, *arguments: Any) -> int:
        return output.numel() * int(arguments[at].shape[-1])

    return count


def _convolution(output: Tensor, input: Tensor, weight: Tensor, *others: Any) -> int:
    """A number of the output takes one filter; transposed, a number of the input does. Filters know their group."""
    transposed = others[4]
    return (input if transposed else output).numel() * weight[0].numel()


def _attention(output: Any, query: Tensor, key: Tensor, value: Tensor, *others: Any) -> int:
    """Queries by keys, and weights by values, whether a mask hides some of them or not."""
    batch, heads, steps, size = query.shape
    return int(batch * heads * steps * key.shape[-2] * (size + value.shape[-1]))


def _bilinear(output: Tensor, one: Tensor, weight: Tensor, other: Tensor, *others: Any) -> int:
    """(N, I), (O, I, J) and (N, J): each weight meets each row, and the sums over I the second input."""
    outputs, _, size = weight.shape
    return int(one.shape[0] * (weight.numel() + outputs * size))


RULES: Mapping[Any, Rule] = {
    _aten.mm: _product(0),
    _aten.addmm: _product(1),
    _aten.bmm: _product(0),
    _aten.baddbmm: _product(1),
    _aten.convolution: _convolution,
    BILINEAR: _bilinear,
    FUSED_ATTENTION: _attention,
}


def multiply_adds(operation: Any, output: Any, arguments: tuple[Any, ...]) -> int:
    """Of one call of an operation (an overload of `torch.ops.aten`); 0 for all but products."""
    rule = RULES.get(operation.overloadpacket)
    return 0 if rule is None else rule(output, *arguments)
