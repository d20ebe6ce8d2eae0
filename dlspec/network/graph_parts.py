"""Parts of a network's graph: nodes that follow each other and become a graph of their own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import fx


def extract_part(nodes: Sequence[fx.Node]) -> tuple[list[fx.Node], list[fx.Node], fx.Graph]:
    """Make a graph from some nodes of a graph.

    Args:
        nodes: the nodes, in the order in which they run.

    Returns:
        The nodes that they read, those of them that others read, and a graph that returns the latter as a tuple.
    """
    within = set(nodes)
    inputs = list(dict.fromkeys(each for node in nodes for each in node.all_input_nodes if each not in within))
    outputs = [node for node in nodes if any(user not in within for user in node.users)]
    graph = fx.Graph()
    copied_nodes = {each: graph.placeholder(f"input_{number}") for number, each in enumerate(inputs)}
    for node in nodes:
        copied_nodes[node] = graph.node_copy(node, copied_nodes.__getitem__)
    graph.output(tuple(copied_nodes[each] for each in outputs))
    return inputs, outputs, graph
