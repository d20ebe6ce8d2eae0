"""How each kind of layer computes the outputs of all members of a stack.

Layers with a rule compute all members in one operation, with the same bits as each member alone: a batched matrix
product computes each matrix as a single product does. All other layers are called once for each member.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.compat.torch_layers import has_hooks
from dlspec.training.stacking.member_generators import MemberGenerators
from dlspec.training.stacking.member_values import MemberValues
from dlspec.training.stacking.stacked_tensors import give_own_memory, stack_in_place

# From the inputs of all members to their outputs.
StackedLayer = Callable[[MemberValues], MemberValues]

# Layers without weights that compute each number by itself.
ELEMENTWISE = (
    nn.CELU, nn.ELU, nn.GELU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh, nn.Identity, nn.LeakyReLU,
    nn.LogSigmoid, nn.Mish, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU, nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign,
    nn.Tanh, nn.Tanhshrink,
)  # fmt: skip
# Layers that draw no random numbers, so that they can be called without a member's generator.
DETERMINISTIC = (
    *ELEMENTWISE, nn.Linear, nn.Flatten, nn.Unflatten, nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.Softmax,
    nn.LogSoftmax, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.MaxPool1d,
    nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
)  # fmt: skip


class StackedParameter:
    """A parameter of all members as one tensor (members, ...). Those of the members become views of it.

    Args:
        parameters: the parameter of each member, with equal shapes.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters: Sequence[nn.Parameter] = list(parameters)
        self.find()

    def find(self) -> None:
        """Find the weights of all members in memory, and move them if they do not follow each other."""
        self.tensor = stack_in_place(self.parameters).requires_grad_(self.parameters[0].requires_grad)

    def release(self) -> None:
        """Give each member a tensor of its own again."""
        for each in self.parameters:
            give_own_memory(each)


class BatchedLinear(torch.autograd.Function):
    """Products of batches (members, N, in) with weights (members, out, in), plus bias (members, out).

    Autograd's own gradient of the weights would be transposed in memory, and fused optimizers do not look at strides.
    """

    @staticmethod
    def forward(rows: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
        """Compute (members, N, out).

        Args:
            rows: (members, N, in).
            weights: (members, out, in).
            bias: (members, out), or None.
        """
        factors = weights.transpose(1, 2)
        return torch.bmm(rows, factors) if bias is None else torch.baddbmm(bias.unsqueeze(1), rows, factors)

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        """Keep what the gradients need.

        Args:
            context: where it is kept.
            inputs: those of `forward`.
            output: not needed.
        """
        context.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        """Compute the gradients of rows, weights and bias, as `nn.Linear` does."""
        (gradient,), (rows, weights) = gradients, context.saved_tensors
        needs_rows, needs_weights, needs_bias = context.needs_input_grad
        return (
            torch.bmm(gradient, weights) if needs_rows else None,
            torch.bmm(gradient.transpose(1, 2), rows) if needs_weights else None,
            gradient.sum(1) if needs_bias else None,
        )


class StackedLinear:
    """`nn.Linear` of all members in one batched matrix product, for inputs (N, in_features).

    Sequences are computed one member after the other: how PyTorch rounds the sums over their steps depends on how the
    output and its gradient lie in memory.
    """

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        self.weight = StackedParameter([each.get_parameter("weight") for each in layers])
        biases = [each.bias for each in layers if isinstance(each.bias, nn.Parameter)]
        self.bias = StackedParameter(biases) if biases else None
        self.parameters = [self.weight, *([] if self.bias is None else [self.bias])]
        self._layers = layers
        self.is_batched = self.is_called_for_each = False  # how it was computed so far

    def __call__(self, values: MemberValues) -> MemberValues:
        if values.count_dimensions() != 2:
            self.is_called_for_each = True
            return MemberValues(each=[layer(each) for layer, each in zip(self._layers, values.split(), strict=True)])
        self.is_batched = True
        bias = None if self.bias is None else self.bias.tensor
        output = BatchedLinear.apply(values.stack(), self.weight.tensor, bias)  # type: ignore[no-untyped-call]
        return MemberValues(output)


class StackedDropout:
    """`nn.Dropout` of all members, with rates of their own and the masks that their own runs would draw."""

    def __init__(self, layers: Sequence[nn.Dropout], generators: MemberGenerators) -> None:
        self._layers, self._generators = layers, generators
        self._each = LayerOfEachMember(layers, generators)
        # The shape of a member's input and its type, by the number of samples. Only of inputs in one tensor.
        self.inputs: dict[int, tuple[torch.Size, torch.dtype]] = {}

    def get_rates(self) -> list[float]:
        """Return the rate of each member."""
        return [each.p if each.training else 0.0 for each in self._layers]

    def __call__(self, values: MemberValues) -> MemberValues:
        rates = self.get_rates()
        if not values.can_stack():
            return self._each(values) if any(rates) else values
        given = values.stack()
        self.inputs[given.shape[1]] = given.shape[1:], given.dtype
        if not any(rates):
            return values
        masks = torch.empty_like(given)
        for index, rate in enumerate(rates):
            draw_mask(masks[index], rate, self._generators[index])
        return MemberValues(given * masks)


def draw_mask(mask: Tensor, rate: float, generator: torch.Generator) -> None:
    """Draw a mask of dropout in place, as PyTorch does.

    Args:
        mask: what is drawn; its numbers are divided by the share of those that are kept.
        rate: the share of zeros.
        generator: what draws.
    """
    if rate in (0.0, 1.0):  # PyTorch draws nothing for these
        mask.fill_(1 - rate)
    else:
        mask.bernoulli_(1 - rate, generator=generator).div_(1 - rate)


class LayerOfEachMember:
    """A layer that is called once for each member, with the member's random numbers where it may draw some."""

    def __init__(self, layers: Sequence[Callable[..., Any]], generators: MemberGenerators) -> None:
        self._layers = layers
        self._generators = None if type(layers[0]) in DETERMINISTIC else generators

    def __call__(self, *values: MemberValues, **named: MemberValues) -> MemberValues:
        outputs = []
        for index, layer in enumerate(self._layers):
            arguments = [each.split()[index] for each in values]
            options = {name: each.split()[index] for name, each in named.items()}
            if self._generators is None:
                outputs.append(layer(*arguments, **options))
            else:
                with self._generators.use(index):
                    outputs.append(layer(*arguments, **options))
        return MemberValues(each=outputs)


def is_stacked_linear(layer: nn.Module, uses: Mapping[int, int]) -> bool:
    """Whether a layer's weights can be stacked: a plain linear layer whose weights no other layer has.

    Args:
        layer: the layer.
        uses: how many layers have each parameter, by its `id`.
    """
    return (
        type(layer) is nn.Linear
        and not has_hooks(layer)
        and all(isinstance(each, nn.Parameter) and uses[id(each)] == 1 for each in layer.parameters(recurse=False))
        and isinstance(getattr(layer, "weight", None), nn.Parameter)
    )


def make_stacked_layer(layers: Sequence[nn.Module], generators: MemberGenerators) -> StackedLayer | None:
    """Make the rule of a layer without weights; None for layers that are called once for each member.

    Args:
        layers: the layer of each member.
        generators: the random numbers of each member.
    """
    first = layers[0]
    if any(map(has_hooks, layers)):
        return None
    if type(first) in ELEMENTWISE and _have_equal_settings(layers):
        return lambda values: MemberValues(first(values.stack())) if values.can_stack() else _call_each(first, values)
    if type(first) is nn.Flatten and (first.start_dim, first.end_dim) == (1, -1) and _have_equal_settings(layers):
        return lambda values: MemberValues(values.stack().flatten(2))
    if type(first) is nn.Dropout and not any(isinstance(each, nn.Dropout) and each.inplace for each in layers):
        return StackedDropout([each for each in layers if isinstance(each, nn.Dropout)], generators)
    return None


def _call_each(layer: nn.Module, values: MemberValues) -> MemberValues:
    return MemberValues(each=[layer(each) for each in values.split()])


def _have_equal_settings(layers: Iterable[nn.Module]) -> bool:
    texts = {each.extra_repr() for each in layers}
    return len(texts) == 1


def call_for_each(
    function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any], members: int
) -> MemberValues:
    """Call a function once for each member.

    Args:
        function: the function.
        arguments: its arguments; `MemberValues` inside of them, at any depth, are those of the member.
        options: its named arguments, with the same rule.
        members: the number of members.
    """
    if function in _ELEMENTWISE_FUNCTIONS and not options:
        stacked = [_stack_argument(each) for each in arguments]
        if all(each is not None for each in stacked) and len({_get_shape(each) for each in stacked} - {None}) == 1:
            return MemberValues(function(*stacked))
    return MemberValues(
        each=[function(*_select(arguments, index), **_select(options, index)) for index in range(members)]
    )


# Functions of the code between layers that compute each number by itself, for inputs of one shape.
_ELEMENTWISE_FUNCTIONS: frozenset[Any] = frozenset(
    {operator.add, operator.sub, operator.mul, torch.add, torch.mul, torch.sub, torch.relu}
)


def _stack_argument(argument: Any) -> Any:
    if isinstance(argument, MemberValues):
        return argument.stack() if argument.can_stack() else None
    return argument if isinstance(argument, int | float) else None


def _get_shape(argument: Any) -> Any:
    return argument.shape if isinstance(argument, Tensor) else None


def _select(value: Any, member: int) -> Any:
    if isinstance(value, MemberValues):
        return value.split()[member]
    if isinstance(value, Mapping):
        return {key: _select(each, member) for key, each in value.items()}
    if isinstance(value, slice):
        return slice(_select(value.start, member), _select(value.stop, member), _select(value.step, member))
    if isinstance(value, list | tuple):
        return type(value)(_select(each, member) for each in value)
    return value
