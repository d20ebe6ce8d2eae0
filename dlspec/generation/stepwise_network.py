"""A network that computes one more step of a sequence from what its layers kept of the steps before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg

from dlspec.generation.layer_steps import Step, find_step
from dlspec.network.codegen import LAYER_KEY
from dlspec.parts.layers.kept_steps import select_rows

# How much an output may differ from that of the whole sequence, as a share of the largest one: rounding.
TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}


@dataclass(frozen=True)
class _PlannedNode:
    node: fx.Node
    is_dynamic: bool  # whether it grows with the sequence; else it is computed once
    has_batch: bool  # whether it is computed from the data, not from a Parameter alone
    step: Step | None = None  # of a dynamic layer


class StepwiseNetwork:
    """Plans how a network computes the next steps of one of its inputs.

    Args:
        network: the network, in eval mode
        inputs: the names of its inputs, in order
        growing: the input that grows step by step. Its lengths are unknown: every step is real
    """

    def __init__(self, network: nn.Module, inputs: Sequence[str], growing: str) -> None:
        self.network = _make_graph_module(network)
        self.inputs, self.growing = tuple(inputs), growing
        self.problem = ""  # why a layer can't compute one more step; "" if all can
        self._plan = self._make_plan()

    def _make_plan(self) -> list[_PlannedNode]:
        placeholders = [each for each in self.network.graph.nodes if each.op == "placeholder"]
        names = dict(zip(placeholders, self.inputs, strict=True))
        dynamic, batched = {node for node, name in names.items() if name == self.growing}, set(names)
        plan: list[_PlannedNode] = []
        for node in self.network.graph.nodes:
            for group in (dynamic, batched):
                group |= {node} if group.intersection(node.all_input_nodes) else set()
            is_layer = node.op == "call_module" and node in dynamic
            step = self._find_step(node, dynamic) if is_layer else None
            plan.append(_PlannedNode(node, node in dynamic, node in batched, step))
        return plan

    def _find_step(self, node: fx.Node, dynamic: set[fx.Node]) -> Step | None:
        layer = self.network.get_submodule(str(node.target))
        growing = tuple(at for at, each in enumerate(node.args) if isinstance(each, fx.Node) and each in dynamic)
        found = find_step(layer, growing, len(node.args))
        if isinstance(found, str):
            name = node.meta.get(LAYER_KEY) or node.target
            self.problem = self.problem or f"layer '{name}' ({type(layer).__name__}) {found}"
            return None
        return found

    def start(self, others: Mapping[str, Tensor]) -> StepwiseCall:
        """Begin a sequence.

        Args:
            others: the other inputs by name, which are whole from the beginning
        """
        return StepwiseCall(self, self._plan, others)


class StepwiseCall:
    """A sequence that grows step by step, with what the layers kept of it.

    Args:
        planned: the network
        plan: its nodes in order
        others: the inputs that do not grow
    """

    def __init__(self, planned: StepwiseNetwork, plan: Sequence[_PlannedNode], others: Mapping[str, Tensor]) -> None:
        self._planned, self._others = planned, others
        self._growing_plan = [each for each in plan if each.is_dynamic or each.node.op == "output"]
        self._batched = {each.node for each in plan if each.has_batch}
        self._states: dict[fx.Node, Any] = {}
        self._fixed: dict[fx.Node, Any] = {}
        names = iter(planned.inputs)
        for each in plan:
            if each.node.op == "placeholder":
                name = next(names)
                is_growing = name in (planned.growing, f"{planned.growing}_lengths")
                self._fixed[each.node] = None if is_growing else others[name]
            elif not each.is_dynamic and each.node.op != "output":
                self._fixed[each.node] = _run_node(planned.network, each.node, self._fixed)

    def advance(self, new: Tensor) -> Any:
        """Compute the network's output for the next steps (N, S) of the growing input."""
        values = dict(self._fixed)
        for each in self._growing_plan:
            node = each.node
            if node.op == "placeholder":
                values[node] = new
            elif node.op == "output":
                return map_arg(node.args[0], lambda at: values[at])
            elif each.step is not None:
                arguments = [values[at] if isinstance(at, fx.Node) else at for at in node.args]
                named = {key: values[at] for key, at in node.kwargs.items()
                         if isinstance(at, fx.Node) and values.get(at) is not None}  # fmt: skip
                values[node], self._states[node] = each.step(self._states.get(node), *arguments, **named)
            else:
                values[node] = _run_node(self._planned.network, node, values)
        raise AssertionError("a graph ends with its output")

    def select(self, rows: Tensor) -> None:
        """Go on with some rows (int64) of the batch, which may repeat."""
        self._states = {node: select_rows(state, rows) for node, state in self._states.items()}
        self._fixed = {node: select_rows(value, rows) if node in self._batched else value
                       for node, value in self._fixed.items()}  # fmt: skip


def _run_node(network: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """Run one node of the graph, whose inputs are known."""
    target: Any = node.target
    if node.op == "get_attr":
        path, _, name = str(target).rpartition(".")
        return getattr(network.get_submodule(path), name)
    arguments = map_arg(node.args, lambda each: values[each])
    named = map_arg(node.kwargs, lambda each: values[each])
    if node.op == "call_module":
        return network.get_submodule(str(target))(*arguments, **named)
    if node.op == "call_method":
        return getattr(arguments[0], target)(*arguments[1:], **named)
    return target(*arguments, **named)


def _make_graph_module(network: nn.Module) -> fx.GraphModule:
    """Return the network as a graph; a plain stack of layers becomes one."""
    if isinstance(network, fx.GraphModule):
        return network
    graph = fx.Graph()
    value = graph.placeholder("input")
    for name, _ in network.named_children():
        value = graph.call_module(name, (value,))
    graph.output(value)
    return fx.GraphModule(network, graph)


def find_difference(whole: Tensor, parts: Tensor) -> str:
    """Return how far the output of steps is from that of the whole sequence; "" if they agree up to rounding."""
    if whole.shape != parts.shape:
        return f"the steps give {tuple(parts.shape)} numbers, the whole sequence {tuple(whole.shape)}"
    difference = (whole - parts).abs().max().item()
    tolerance = TOLERANCES.get(whole.dtype, 1e-3) * max(1.0, whole.abs().max().item())
    return "" if difference <= tolerance else f"the steps differ by {difference:.2g} from the whole sequence"
