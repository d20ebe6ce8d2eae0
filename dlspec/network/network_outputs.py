"""The outputs of a network: whether each is there and can be one, and the layer whose numbers it holds."""

from __future__ import annotations

from collections.abc import Mapping

from dlspec.errors import Code, KeyPath, suggest
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.problems import Problems
from dlspec.network.built_network import NetworkOutput
from dlspec.network.partial_network import PartialNetwork

# What leaves an end as it is: what stands before is what a loss sees.
PASS_THROUGH_LAYERS = frozenset(
    "Identity Flatten Unflatten Reshape Permute Dropout AlphaDropout FeatureAlphaDropout UnfoldTime".split()
)


def find_outputs(network: PartialNetwork, problems: Problems) -> Mapping[str, OutputRef] | None:
    """The network's outputs by name, None where one is missing or can't be an output."""
    graph = network.graph
    outputs = {name: ref for name, ref in graph.outputs.items() if check_available(network, ref, None, problems)}
    if len(outputs) < len(graph.outputs) or not outputs:
        return None
    return outputs if all(_check_output(network, name, ref, problems) for name, ref in outputs.items()) else None


def check_available(network: PartialNetwork, ref: OutputRef, node: Node | None, problems: Problems) -> bool:
    """Whether a value is known that a node takes, or the network's outputs (None).

    A further output that its layer does not have is a mistake.
    """
    if ref in network.values or ref.node not in network.built_layers:
        return ref in network.values
    names = network.list_further_outputs(ref.node)
    fix = suggest(ref.output, names) if names else "it has one output: write its name alone"
    path = _find_output_path(network.graph, ref) if node is None else _find_input_path(node, ref)
    found = f"{network.built_layers[ref.node].type} has no output '{ref.output}'"
    problems.add(Code.UNKNOWN_OUTPUT, path, found, fix, at_value=True)
    return False


def _find_output_path(graph: Graph, ref: OutputRef) -> KeyPath:
    """Where a value is named among the network's outputs."""
    name = next(name for name, each in graph.outputs.items() if each == ref)
    return graph.output_paths.get(name, ("model", "outputs"))


def _find_input_path(node: Node, ref: OutputRef) -> KeyPath:
    """Where an entry names a value that it takes."""
    if "from" not in node.part.keys:
        return node.problem_path
    path, raw = node.part.path_of("from"), node.part.keys["from"]
    key = next(key for key, each in node.inputs.items() if each == ref)
    return (*path, key) if isinstance(raw, list | dict) else path


def _check_output(network: PartialNetwork, name: str, ref: OutputRef, problems: Problems) -> bool:
    """Whether a value can be a network's output: a layer computes it, and it has a row for each sample."""
    if network.values[ref].has_batch and ref.node != MODEL:
        return True
    what = "a model's input" if ref.node == MODEL else "a Parameter"
    path = network.graph.output_paths.get(name, ("model", "outputs"))
    fix = "let a layer that computes with it be the output"
    problems.add(Code.WRONG_RESULT, path, f"the output '{name}' is {what} as it is", fix, at_value=True)
    return False


def describe_output(network: PartialNetwork, ref: OutputRef) -> NetworkOutput:
    """An output's value, the layer that gives it, and the last one whose numbers these are."""
    value, ref = network.values[ref], network.resolve_alias(ref)
    layer = end = network.built_layers[ref.node]
    while end.type in PASS_THROUGH_LAYERS and network.nodes[ref.node].inputs:
        ref = network.resolve_alias(next(iter(network.nodes[ref.node].inputs.values())))
        if ref.node == MODEL:
            break
        end = network.built_layers[ref.node]
    return NetworkOutput(value, layer, end)
