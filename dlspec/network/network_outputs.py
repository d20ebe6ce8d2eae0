"""Check a network's outputs, and find the layers that compute them."""

from __future__ import annotations

from collections.abc import Mapping

from dlspec.errors import Code, KeyPath, suggest
from dlspec.language.expand.graph import MODEL, Graph, Node
from dlspec.language.parse.deferred import OutputRef
from dlspec.language.problems import Problems
from dlspec.network.built_network import NetworkOutput
from dlspec.network.partial_network import PartialNetwork

# Layers that do not change what their input means to a loss: the loss is checked against the layer before them.
PASS_THROUGH_LAYERS = frozenset(
    "Identity Flatten Unflatten Reshape Permute Dropout AlphaDropout FeatureAlphaDropout UnfoldTime".split()
)


def find_outputs(network: PartialNetwork, problems: Problems) -> Mapping[str, OutputRef] | None:
    """Find the network's outputs by name; None where one is missing or can't be an output."""
    graph = network.graph
    outputs = {
        name: ref for name, ref in graph.outputs.items() if check_output_is_computed(network, ref, None, problems)
    }
    if len(outputs) < len(graph.outputs) or not outputs:
        return None
    return outputs if all(_check_output(network, name, ref, problems) for name, ref in outputs.items()) else None


def check_output_is_computed(network: PartialNetwork, ref: OutputRef, node: Node | None, problems: Problems) -> bool:
    """Whether a value that is used as an input or output has been computed.

    It is missing if its layer could not be built, which is reported already, or has no output of that name.

    Args:
        network: The network so far.
        ref: The value.
        node: The node that uses it, or None for an output of the network.
        problems: Collects unknown output names.
    """
    if ref in network.values or ref.node not in network.built_layers:
        return ref in network.values
    names = network.list_further_outputs(ref.node)
    fix = suggest(ref.output, names) if names else "it has one output: write the layer's name only"
    path = _find_output_path(network.graph, ref) if node is None else _find_input_path(node, ref)
    found = f"{network.built_layers[ref.node].type} has no output '{ref.output}'"
    problems.add(Code.UNKNOWN_OUTPUT, path, found, fix, at_value=True)
    return False


def _find_output_path(graph: Graph, ref: OutputRef) -> KeyPath:
    """Return the path at which a value is written as an output of the model."""
    name = next(name for name, each in graph.outputs.items() if each == ref)
    return graph.output_paths.get(name, ("model", "outputs"))


def _find_input_path(node: Node, ref: OutputRef) -> KeyPath:
    """Return the path at which a node's entry names one of its inputs."""
    if "from" not in node.part.keys:
        return node.problem_path
    path, raw = node.part.path_of("from"), node.part.keys["from"]
    key = next(key for key, each in node.inputs.items() if each == ref)
    return (*path, key) if isinstance(raw, list | dict) else path


def _check_output(network: PartialNetwork, name: str, ref: OutputRef, problems: Problems) -> bool:
    """Whether a value can be an output: a layer must compute it, and it must have a batch dimension."""
    if network.values[ref].has_batch and ref.node != MODEL:
        return True
    what = "an input of the model" if ref.node == MODEL else "a Parameter"
    path = network.graph.output_paths.get(name, ("model", "outputs"))
    fix = "use the output of a layer that computes with it"
    problems.add(Code.WRONG_RESULT, path, f"the output '{name}' is {what}, which no layer computes", fix, at_value=True)
    return False


def describe_output(network: PartialNetwork, ref: OutputRef) -> NetworkOutput:
    """Describe an output: its value, the layer that returns it, and the last layer that computes its values."""
    value, ref = network.values[ref], network.resolve_alias(ref)
    layer = end = network.built_layers[ref.node]
    while end.type in PASS_THROUGH_LAYERS and network.nodes[ref.node].inputs:
        ref = network.resolve_alias(next(iter(network.nodes[ref.node].inputs.values())))
        if ref.node == MODEL:
            break
        end = network.built_layers[ref.node]
    return NetworkOutput(value, layer, end)
