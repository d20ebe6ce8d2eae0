"""The networks of all members of a stack as one: it computes the outputs and the gradients of all members."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from dlspec.training.stacking.member_generators import MemberGenerators
from dlspec.training.stacking.member_values import MemberValues
from dlspec.training.stacking.stacked_layers import (
    DETERMINISTIC,
    LayerOfEachMember,
    StackedLinear,
    StackedParameter,
    call_for_each,
    is_stacked_linear,
    make_stacked_layer,
)


class StackedNetwork:
    """Computes the networks of all members at once.

    The parameters of the members stay where they are, as `nn.Parameter`s of their networks; those of layers that are
    computed at once become views of one tensor. So each network can be used by itself at any time.

    Args:
        networks: the network of each member; they differ only in weights and in numbers such as rates of dropout.
        generators: the random numbers of each member.
    """

    def __init__(self, networks: Sequence[nn.Module], generators: MemberGenerators) -> None:
        self.networks, self.generators = networks, generators
        self._linears: list[StackedLinear] = []
        self._uses = _count_uses(networks[0])
        self.layers: dict[str, Callable[..., MemberValues]] = {}  # by the name in the network
        self._make_layers()
        stacked = {id(each) for linear in self._linears for one in linear.parameters for each in one.parameters}
        # Of layers that are called once for each member.
        self._single = [
            each
            for network in networks
            for each in network.parameters()
            if each.requires_grad and id(each) not in stacked
        ]

    @cached_property
    def draws_numbers(self) -> bool:
        """Whether some layer may draw random numbers."""
        layers = [network.get_submodule(name) for network in self.networks for name in self.layers]
        return not all(type(each) in DETERMINISTIC or (type(each) is nn.Dropout and not each.p) for each in layers)

    def _make_layers(self) -> None:
        """Make the rule of each layer that is called."""
        for name in count_calls(self.networks[0]):
            layers = [network.get_submodule(name) for network in self.networks]
            self.layers[name] = self._make_layer(layers)

    def _make_layer(self, layers: Sequence[nn.Module]) -> Callable[..., MemberValues]:
        if is_stacked_linear(layers[0], self._uses):
            linear = StackedLinear([each for each in layers if isinstance(each, nn.Linear)])
            self._linears.append(linear)
            return linear
        return make_stacked_layer(layers, self.generators) or LayerOfEachMember(layers, self.generators)

    def __call__(self, inputs: Sequence[MemberValues]) -> MemberValues:
        """Compute the outputs from the inputs of the networks."""
        first = self.networks[0]
        if isinstance(first, nn.Sequential):
            (values,) = inputs
            for name, _ in first.named_children():
                values = self.layers[name](values)
            return values
        assert isinstance(first, fx.GraphModule)  # dlspec builds nothing else
        return _StackedInterpreter(self.layers, self.networks, first.graph).run(inputs)

    def compute_gradients(self, total: Tensor) -> None:
        """Store the gradients of the sum of all members' losses in the parameters, as `backward` does."""
        stacked, single = self._list_parameters()
        tensors = [each.tensor for each in stacked]
        gradients = torch.autograd.grad(total, [*tensors, *single], allow_unused=True)
        for each, gradient in zip(single, gradients[len(tensors) :], strict=True):
            each.grad = gradient if gradient is None or _has_layout(gradient, each) else _copy_layout(gradient, each)
        for parameter, gradient in zip(stacked, gradients, strict=False):
            parts = [None] * len(self.networks) if gradient is None else gradient.unbind()
            for each, part in zip(parameter.parameters, parts, strict=True):
                each.grad = part

    def _list_parameters(self) -> tuple[list[StackedParameter], list[nn.Parameter]]:
        """List the trained parameters that were used as one tensor, and those that were used by each member.

        Raises:
            ValueError: if a layer was used in both ways.
        """
        if any(each.is_batched and each.is_called_for_each for each in self._linears):
            raise ValueError("a linear layer is called with sequences and without")
        stacked = [one for each in self._linears if not each.is_called_for_each for one in each.parameters]
        alone = [one for each in self._linears if each.is_called_for_each for one in each.parameters]
        single = [each for one in alone for each in one.parameters if each.requires_grad]
        return [each for each in stacked if each.tensor.requires_grad], [*self._single, *single]

    def find_weights(self) -> None:
        """Find the weights in memory again: they may have moved since the network was made or last used."""
        for linear in self._linears:
            for each in linear.parameters:
                each.find()

    def release(self) -> None:
        """Give each member weights of its own again."""
        for linear in self._linears:
            for each in linear.parameters:
                each.release()


class _StackedInterpreter:
    """Runs the code of a network with the values of all members."""

    def __init__(
        self, layers: Mapping[str, Callable[..., MemberValues]], networks: Sequence[nn.Module], graph: fx.Graph
    ) -> None:
        self._layers, self._networks, self._graph = layers, networks, graph

    def run(self, inputs: Sequence[MemberValues]) -> MemberValues:
        values: dict[fx.Node, Any] = {}
        remaining = iter(inputs)
        for node in self._graph.nodes:
            if node.op == "output":
                output = fx.node.map_arg(node.args[0], values.get)
                if isinstance(output, MemberValues):
                    return output
                return call_for_each(_return_value, (output,), {}, self._count)
            values[node] = self._run_node(node, values, remaining)
        raise AssertionError("a graph ends with an output")

    @property
    def _count(self) -> int:
        return len(self._networks)

    def _run_node(self, node: fx.Node, values: Mapping[fx.Node, Any], inputs: Any) -> Any:
        if node.op == "placeholder":
            return next(inputs, node.args[0] if node.args else None)
        if node.op == "get_attr":
            return MemberValues(each=[_get_attribute(each, str(node.target)) for each in self._networks])
        arguments = fx.node.map_arg(node.args, values.get)
        options = fx.node.map_arg(node.kwargs, values.get)
        if node.op == "call_module":
            return self._call_layer(str(node.target), arguments, options)
        if node.op == "call_method":
            return call_for_each(partial(_call_method, str(node.target)), arguments, options, self._count)
        assert callable(node.target)
        return call_for_each(node.target, arguments, options, self._count)

    def _call_layer(self, name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> MemberValues:
        """Call a layer; the lengths of a batch without any are None for all members."""
        count = len(self._networks)
        values = [_to_member_values(each, count) for each in arguments]
        named = {key: _to_member_values(each, count) for key, each in options.items()}
        return self._layers[name](*values, **named)


def _has_layout(gradient: Tensor, parameter: nn.Parameter) -> bool:
    """Whether a gradient lies in memory as its parameter does: fused optimizers do not look at strides."""
    return gradient.stride() == parameter.stride()


def _copy_layout(gradient: Tensor, parameter: nn.Parameter) -> Tensor:
    return torch.empty_like(parameter, requires_grad=False).copy_(gradient)


def _to_member_values(value: Any, count: int) -> MemberValues:
    return value if isinstance(value, MemberValues) else MemberValues(each=[value] * count)


def _return_value(value: Any) -> Any:
    return value


def _call_method(name: str, value: Any, *arguments: Any, **options: Any) -> Any:
    return getattr(value, name)(*arguments, **options)


def _get_attribute(network: nn.Module, path: str) -> Any:
    owner, _, name = path.rpartition(".")
    return getattr(network.get_submodule(owner), name)


def count_calls(network: nn.Module) -> Counter[str]:
    """Count how often a network calls each of its layers, by name."""
    if isinstance(network, nn.Sequential):
        return Counter(name for name, _ in network.named_children())
    calls = network.graph.nodes if isinstance(network, fx.GraphModule) else ()
    return Counter(str(each.target) for each in calls if each.op == "call_module")


def _count_uses(network: nn.Module) -> Counter[int]:
    """Count the places at which a network has each parameter, by its `id`."""
    modules = network.named_modules(remove_duplicate=False)
    return Counter(id(each) for _, module in modules for each in module.parameters(recurse=False))
