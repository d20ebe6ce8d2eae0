"""`trainer.activation_checkpointing`: recompute the activations of selected modules in the backward pass.

Each pattern selects blocks, copies of repeated blocks, or layers by their path in the network. All graph nodes below a
selected path become one call of `torch.utils.checkpoint`. The modules and their weights are not copied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from functools import partial
from itertools import accumulate, groupby
from operator import getitem
from typing import Any

from torch import fx, nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint, noop_context_fn

from dlspec.compat.torch_layers import can_have_running_statistics
from dlspec.network.codegen import LAYER_KEY
from dlspec.network.graph_parts import extract_part


def find_checkpointed_layers(network: nn.Module, patterns: Sequence[str]) -> list[str]:
    """List the paths that a pattern (fnmatch) selects, in order, without paths inside another selected path."""
    return list(dict.fromkeys(part for part, _ in _group_nodes(_get_graph(network), patterns) if part))


def checkpoint_activations(network: nn.Module, patterns: Sequence[str]) -> fx.GraphModule:
    """Make a module that shares the network's weights and recomputes selected activations in the backward pass.

    Outputs, gradients, running statistics and dropout masks are equal to those of the network itself.
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
        inputs, outputs, graph = extract_part(nodes)
        root.add_module(f"part_{number}", _CheckpointedModule(fx.GraphModule(network, graph)))
        call = new_graph.call_module(f"part_{number}", tuple(copied_nodes[each] for each in inputs))
        for index, node in enumerate(outputs):
            copied_nodes[node] = new_graph.call_function(getitem, (call, index))
    return fx.GraphModule(root, new_graph, class_name="Recomputing")


def recompute_block(block: nn.Module) -> None:
    """Make a block of a network recompute its activations in the backward pass. Its parameters keep their names."""
    forward, make_contexts = block.forward, _make_context_function(block)

    def recomputing_forward(*inputs: Any) -> Any:
        return checkpoint(forward, *inputs, use_reentrant=False, context_fn=make_contexts)

    block.forward = recomputing_forward


class _CheckpointedModule(nn.Module):
    def __init__(self, submodule: fx.GraphModule) -> None:
        super().__init__()
        self.submodule, self._make_contexts = submodule, _make_context_function(submodule)

    def forward(self, *inputs: Any) -> Any:
        return checkpoint(self.submodule, *inputs, use_reentrant=False, context_fn=self._make_contexts)


def _make_context_function(module: nn.Module) -> Callable[[], tuple[Any, Any]]:
    stateful_modules = [
        each for each in module.modules() if can_have_running_statistics(each) or _is_parametrization(each)
    ]
    return partial(_make_checkpoint_contexts, stateful_modules) if stateful_modules else noop_context_fn


def _make_checkpoint_contexts(
    stateful_modules: Sequence[nn.Module],
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts for the forward pass and for the recomputation."""
    return nullcontext(), _prevent_second_state_update(stateful_modules)


@contextmanager
def _prevent_second_state_update(stateful_modules: Sequence[nn.Module]) -> Iterator[None]:
    """Keep the modules from updating their state a second time: the forward pass has updated it already."""
    before = [
        (each, name, getattr(each, name)) for each in stateful_modules for name in _attributes_that_stop_updates(each)
    ]
    for module, name, _ in before:
        setattr(module, name, _attributes_that_stop_updates(module)[name])
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def _is_parametrization(module: nn.Module) -> bool:
    """Whether a module is a parametrization of PyTorch. Of these only spectral norm has state that training updates."""
    return type(module).__module__ == parametrizations.__name__


def _attributes_that_stop_updates(module: nn.Module) -> Mapping[str, Any]:
    """Return attribute values with which a module updates neither running statistics nor a power iteration."""
    return (
        {"momentum": 0.0, "num_batches_tracked": None} if can_have_running_statistics(module) else {"training": False}
    )


def _get_graph(network: nn.Module) -> fx.Graph:
    """Return the network's graph, with one call for each layer."""
    if isinstance(network, fx.GraphModule):
        return network.graph
    graph = fx.Graph()
    value = graph.placeholder("input")
    for name, _ in network.named_children():  # a network without a generated forward is a sequence of layers
        value = graph.call_module(name, (value,))
        value.meta[LAYER_KEY] = name
    graph.output(value)
    return graph


def _group_nodes(graph: fx.Graph, patterns: Sequence[str]) -> Iterator[tuple[str, list[fx.Node]]]:
    """Yield consecutive nodes together with the selected path that they belong to, '' for none."""
    for part, nodes in groupby(list(graph.nodes), lambda node: _match_node(node, patterns)):
        yield part, list(nodes)


def _match_node(node: fx.Node, patterns: Sequence[str]) -> str:
    """Return the outermost selected path that contains a node, '' for none."""
    if node.op in ("placeholder", "output"):
        return ""
    words = str(node.meta.get(LAYER_KEY, "")).split(".")
    paths = accumulate(words, lambda path, word: f"{path}.{word}")
    return next((path for path in paths if any(fnmatchcase(path, each) for each in patterns)), "")
