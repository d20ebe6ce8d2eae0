"""Count the multiply-adds of PyTorch's operations from the shapes of their arguments.

As in papers, only the products of convolutions, linear maps, recurrent layers and attention count. Elementwise
operations, normalization, pooling and embedding lookups count as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.torch_dispatch import BILINEAR, FUSED_ATTENTION

CountRule = Callable[..., int]  # multiply-adds from an operation's output and arguments
_aten = torch.ops.aten


def _make_matmul_rule(left_index: int) -> CountRule:
    """Make a rule for a matrix product. `left_index` is the index of the argument that is the left matrix.

    The product sums over the left matrix's last dimension.
    """

    def count(output: Tensor, *arguments: Any) -> int:
        return output.numel() * int(arguments[left_index].shape[-1])

    return count


def _count_convolution(output: Tensor, input: Tensor, weight: Tensor, *others: Any) -> int:
    """Count the weights of one filter for each output element, or for each input element if transposed.

    A filter, `weight[0]`, has only the channels of one group.
    """
    transposed = others[4]
    return (input if transposed else output).numel() * weight[0].numel()


def _count_attention(output: Any, query: Tensor, key: Tensor, value: Tensor, *others: Any) -> int:
    """Count the products of queries with keys and of attention weights with values, including masked ones."""
    batch, heads, steps, size = query.shape
    return int(batch * heads * steps * key.shape[-2] * (size + value.shape[-1]))


def _count_bilinear(output: Tensor, input1: Tensor, weight: Tensor, input2: Tensor, *others: Any) -> int:
    """Count a bilinear layer: inputs (N, I) and (N, J), weight (O, I, J), contracted over I first, then over J."""
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
    """Count the multiply-adds of one call of an operation.

    Args:
        operation: an overload of an operation in `torch.ops.aten`.
        output: the operation's output.
        arguments: its positional arguments.

    Returns:
        The number of multiply-adds; 0 for operations that are not in `COUNT_RULES`.
    """
    rule = COUNT_RULES.get(operation.overloadpacket)
    return 0 if rule is None else rule(output, *arguments)
