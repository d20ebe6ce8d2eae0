"""Which blocks of a network are sharded each by itself, and a network in which they are modules of their own.

With `trainer.parallel: fsdp`, a process gathers the parameters of one such block at a time. A network's generated
`forward` calls layers, not blocks, so the blocks are put together first: `group_blocks`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from operator import getitem
from typing import Any

from torch import Tensor, fx, nn

from dlspec.language.parse.entry import CONTAINERS
from dlspec.network.codegen import LAYER_KEY
from dlspec.network.graph_parts import extract_part


def find_repeated_blocks(container_types: Mapping[str, str]) -> list[str]:
    """Find the copies of repeated blocks, such as `blocks.0` and `blocks.1`.

    Of blocks inside blocks, the outer ones are found, unless an outer one itself repeats a block: a stage of a residual
    network is divided into its blocks.

    Args:
        container_types: the types of blocks and containers by the start of their layers' names, as `Graph` has them.

    Returns:
        The start of the names of each copy's layers, in order.
    """
    copies: dict[tuple[str, str], list[str]] = {}
    for name, type in container_types.items():
        parent, _, last = name.rpartition(".")
        if last.isdigit():
            copies.setdefault((parent, type), []).append(name)
    repeated = [(name, type) for (_, type), names in copies.items() if len(names) > 1 for name in names]
    found = [
        name
        for name, _ in repeated
        if not any(is_inside(other, name) and type not in CONTAINERS for other, type in repeated)
    ]
    outer = [name for name in found if not any(is_inside(name, other) for other in found)]
    return [name for name in container_types if name in outer]


def is_inside(name: str, block: str) -> bool:
    """Whether a layer's name is that of a layer inside a block."""
    return name.startswith(f"{block}.")


def group_blocks(network: nn.Module, blocks: Sequence[str]) -> tuple[nn.Module, list[str]]:
    """Make a module that shares a network's layers, and calls each block as a module of its own.

    Names and order of parameters and buffers stay the same. A block is left as it is where its layers are not called
    one after the other, or use a module or a parameter of the rest of the network.

    Args:
        network: the network. Without blocks it is returned itself.
        blocks: the start of the names of each block's layers, from `find_repeated_blocks`.

    Returns:
        The module, and the blocks that it calls.
    """
    if not isinstance(network, fx.GraphModule):
        return network, []
    runs = [
        (block, list(nodes))
        for block, nodes in groupby(list(network.graph.nodes), lambda node: _find_block(node, blocks))
    ]
    counts = [block for block, _ in runs]
    separate = [each for each in blocks if counts.count(each) == 1 and _is_separate(network, each, dict(runs)[each])]
    if not separate:
        return network, []
    graph, root = fx.Graph(), nn.Module()
    copied: dict[fx.Node, fx.Node] = {}
    for block, nodes in runs:
        if block in separate:
            _add_block(network, block, nodes, graph, root, copied)
        else:
            _copy_nodes(network, nodes, graph, root, copied)
    grouped = fx.GraphModule(root, graph, class_name="Network")
    _sort_modules(grouped, network)
    return grouped, separate


def _find_block(node: fx.Node, blocks: Iterable[str]) -> str:
    name = str(node.meta.get(LAYER_KEY, ""))
    is_layer = node.op not in ("placeholder", "output")
    return next((each for each in blocks if is_layer and is_inside(name, each)), "")


def _is_separate(network: nn.Module, block: str, nodes: Sequence[fx.Node]) -> bool:
    """Whether the nodes of a block use its own modules and parameters alone, and no other node uses these."""
    used = [str(node.target) for node in nodes if node.op in ("call_module", "get_attr")]
    own = {id(each) for each in network.get_submodule(block).parameters()} if used else set()
    others = {id(each) for name, each in network.named_parameters(remove_duplicate=False) if not is_inside(name, block)}
    return bool(own) and all(is_inside(each, block) for each in used) and own.isdisjoint(others)


def _add_block(
    network: fx.GraphModule,
    block: str,
    nodes: Sequence[fx.Node],
    graph: fx.Graph,
    root: nn.Module,
    copied: dict[fx.Node, fx.Node],
) -> None:
    """Add a module for a block, and its call."""
    inputs, outputs, part = extract_part(nodes)
    for node in part.nodes:
        if node.op in ("call_module", "get_attr"):
            node.target = str(node.target).removeprefix(f"{block}.")
    _register(root, block, fx.GraphModule(network.get_submodule(block), part, class_name="Block"))
    call = graph.call_module(block, tuple(copied[each] for each in inputs))
    call.meta[LAYER_KEY] = block
    for index, node in enumerate(outputs):
        copied[node] = graph.call_function(getitem, (call, index))
        copied[node].meta[LAYER_KEY] = block


def _copy_nodes(
    network: fx.GraphModule, nodes: Sequence[fx.Node], graph: fx.Graph, root: nn.Module, copied: dict[fx.Node, fx.Node]
) -> None:
    for node in nodes:
        copied[node] = graph.node_copy(node, copied.__getitem__)
        if node.op in ("call_module", "get_attr"):
            name = str(node.target)
            parent, _, last = name.rpartition(".")
            _register(root, name, getattr(network.get_submodule(parent), last))


def _register(root: nn.Module, name: str, value: Any) -> None:
    """Register a module, a parameter or a buffer at its path, with empty modules in between."""
    *parents, last = name.split(".")
    for each in parents:
        if each not in dict(root.named_children()):
            root.add_module(each, nn.Module())
        root = root.get_submodule(each)
    if isinstance(value, nn.Parameter):
        root.register_parameter(last, value)
    elif isinstance(value, Tensor):
        root.register_buffer(last, value)
    else:
        root.add_module(last, value)


def _sort_modules(module: nn.Module, model: nn.Module) -> None:
    """Put the modules inside a module, which fx sorts by depth, into the order of another one with the same names."""
    for name in [each for each, _ in model.named_children() if each in dict(module.named_children())]:
        child = module.get_submodule(name)
        delattr(module, name)
        module.add_module(name, child)
        if child is not model.get_submodule(name):
            _sort_modules(child, model.get_submodule(name))
