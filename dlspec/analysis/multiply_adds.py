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

CountRule = Callable[..., int]
"""Of an operation's output and arguments."""
_aten = torch.ops.aten


def _make_matmul_rule(left_index: int) -> CountRule:
    """Of matrices, the left one being argument `at`: each number of the output is a sum over its last dimension."""

    def count(output: Tensor, *arguments: Any) -> int:
        return output.numel() * int(arguments[left_index].shape[-1])

    return count


def _count_convolution(output: Tensor, input: Tensor, weight: Tensor, *others: Any) -> int:
    """A number of the output takes one filter; transposed, a number of the input does. Filters know their group."""
    transposed = others[4]
    return (input if transposed else output).numel() * weight[0].numel()


def _count_attention(output: Any, query: Tensor, key: Tensor, value: Tensor, *others: Any) -> int:
    """Queries by keys, and weights by values, whether a mask hides some of them or not."""
    batch, heads, steps, size = query.shape
    return int(batch * heads * steps * key.shape[-2] * (size + value.shape[-1]))


def _count_bilinear(output: Tensor, input1: Tensor, weight: Tensor, input2: Tensor, *others: Any) -> int:
    """(N, I), (O, I, J) and (N, J): each weight meets each row, and the sums over I the second input."""
    outputs, _, size = weight.shape
    return int(input1.shape[0] * (weight.numel() + outputs * size))


COUNT_RULES: Mapping[Any, CountRule] = {
    _aten.mm: _make_matmul_rule(0),
    _aten.addmm: _make_matmul_rule(1),
    _aten.bmm: _make_matmul_rule(0),
    _aten.baddbmm: _make_matmul_rule(1),
    _aten.convolution: _count_convolution,
    BILINEAR: _count_bilinear,
    FUSED_ATTENTION: _count_attention,
}


def count_multiply_adds(operation: Any, output: Any, arguments: tuple[Any, ...]) -> int:
    """Of one call of an operation (an overload of `torch.ops.aten`); 0 for all but products."""
    rule = COUNT_RULES.get(operation.overloadpacket)
    return 0 if rule is None else rule(output, *arguments)
