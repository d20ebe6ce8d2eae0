"""`trainer.activation_checkpointing`: parts of a network keep no activations, and are computed again on the way back.

A part is whatever is called at a path of the network that a pattern matches: a block, a copy of a repeated one, a
layer. Its nodes in the network's graph become one call of `torch.utils.checkpoint`; the modules stay the network's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from functools import partial
from itertools import accumulate, groupby
from operator import getitem
from typing import Any

from torch import fx, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint, noop_context_fn

from dlspec.compat.torch_layers import is_running_norm
from dlspec.network.codegen import LAYER_KEY


def find_checkpointed_layers(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The paths that a pattern (fnmatch) matches, in order; of one within another the outer one alone."""
    return list(dict.fromkeys(part for part, _ in _group_nodes(_get_graph(network), patterns) if part))


def checkpoint_activations(network: nn.Module, patterns: Sequence[str]) -> fx.GraphModule:
    """The same `forward` with the parts' activations computed anew when gradients are; weights are the network's.

    Outputs, gradients, running statistics and what dropout leaves out are those of the network itself.
    """
    old_graph, new_graph = _get_graph(network), fx.Graph()
    root = nn.Module()
    root.network = network
    copied_nodes: dict[fx.Node, fx.Node] = {}
    for number, (part, nodes) in enumerate(_group_nodes(old_graph, patterns)):
        if not part:
            for node in nodes:
                copied_nodes[node] = new_graph.node_copy(node, copied_nodes.__getitem__)
                if node.op in ("call_module", "get_attr"):
                    copied_nodes[node].target = f"network.{node.target}"
            continue
        inputs, outputs, submodule = _extract_submodule(network, nodes)
        root.add_module(f"part_{number}", _CheckpointedModule(submodule))
        call = new_graph.call_module(f"part_{number}", tuple(copied_nodes[each] for each in inputs))
        for index, node in enumerate(outputs):
            copied_nodes[node] = new_graph.call_function(getitem, (call, index))
    return fx.GraphModule(root, new_graph, class_name="Recomputing")


class _CheckpointedModule(nn.Module):
    def __init__(self, submodule: fx.GraphModule) -> None:
        super().__init__()
        self.piece = submodule
        stateful_modules = [each for each in submodule.modules() if is_running_norm(each) or _is_parametrization(each)]
        self._make_contexts = (
            partial(_make_checkpoint_contexts, stateful_modules) if stateful_modules else noop_context_fn
        )

    def forward(self, *inputs: Any) -> Any:
        return checkpoint(self.piece, *inputs, use_reentrant=False, context_fn=self._make_contexts)


def _make_checkpoint_contexts(
    stateful_modules: Sequence[nn.Module],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the first time and the second one."""
    return nullcontext(), _keep_state_unchanged(stateful_modules)


@contextmanager
def _keep_state_unchanged(stateful_modules: Sequence[nn.Module]) -> Iterator[None]:
    """Within it they compute as in training, and leave the state that the first time has moved."""
    before = [(each, name, getattr(each, name)) for each in stateful_modules for name in _frozen_attributes(each)]
    for module, name, _ in before:
        setattr(module, name, _frozen_attributes(module)[name])
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _is_parametrization(module: nn.Module) -> bool:
    """Whether it is one of PyTorch's own, of which spectral norm alone changes itself in training."""
    return type(module).__module__ == parametrizations.__name__


def _frozen_attributes(module: nn.Module) -> Mapping[str, Any]:
    """The attributes with which it moves nothing: running statistics, their count, a power iteration."""
    return {"momentum": 0.0, "num_batches_tracked": None} if is_running_norm(module) else {"training": False}


def _get_graph(network: nn.Module) -> fx.Graph:
    """What a network computes, a call a layer."""
    if isinstance(network, fx.GraphModule):
        return network.graph
    graph = fx.Graph()
    value = graph.placeholder("input")
    for name, _ in network.named_children():  # a plain stack
        value = graph.call_module(name, (value,))
        value.meta[LAYER_KEY] = name
    graph.output(value)
    return graph


def _group_nodes(graph: fx.Graph, patterns: Sequence[str]) -> Iterator[tuple[str, list[fx.Node]]]:
    """The graph's nodes in a row that belong to one part, and those that belong to none, as ''."""
    for part, nodes in groupby(list(graph.nodes), lambda node: _match_node(node, patterns)):
        yield part, list(nodes)


def _match_node(node: fx.Node, patterns: Sequence[str]) -> str:
    """The outermost path around a node that matches."""
    if node.op in ("placeholder", "output"):
        return ""
    words = str(node.meta.get(LAYER_KEY, "")).split(".")
    paths = accumulate(words, lambda path, word: f"{path}.{word}")
    return next((path for path in paths if any(fnmatchcase(path, each) for each in patterns)), "")


def _extract_submodule(
    network: nn.Module, nodes: Sequence[fx.Node]
) -> tuple[list[fx.Node], list[fx.Node], fx.GraphModule]:
    """What a part takes from others, what of it others take, and the part itself, which gives those in a tuple."""
    within = set(nodes)
    inputs = list(dict.fromkeys(each for node in nodes for each in node.all_input_nodes if each not in within))
    outputs = [node for node in nodes if any(user not in within for user in node.users)]
    graph = fx.Graph()
    copied_nodes = {each: graph.placeholder(f"input_{number}") for number, each in enumerate(inputs)}
    for node in nodes:
        copied_nodes[node] = graph.node_copy(node, copied_nodes.__getitem__)
    graph.output(tuple(copied_nodes[each] for each in outputs))
    return inputs, outputs, fx.GraphModule(network, graph)
