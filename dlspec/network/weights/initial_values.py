"""Initialize a network's parameters as the spec's `init` says."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from dlspec.errors import Code
from dlspec.formatting import first_line
from dlspec.language.problems import Problems
from dlspec.network.built_network import Network
from dlspec.network.divided_values import DividedValues
from dlspec.network.parameters import NamedParameter, list_named_parameters, match_patterns
from dlspec.parts.specs.parameters_spec import Initialization


def initialize_weights(
    network: Network, inits: Sequence[Initialization], problems: Problems, values: DividedValues | None = None
) -> None:
    """Initialize the parameters that match a pattern, in the order of the state dict.

    On the meta device this only checks whether each initializer accepts the parameter's shape.

    Where multiple patterns match a parameter, the last one counts. An embedding's row for padding stays zero.

    Args:
        network: The network; its parameters are changed in place.
        inits: The patterns with their initializers.
        problems: Collects patterns that match nothing and initializers that PyTorch rejects.
        values: The values of a network on the meta device, if it is divided among processes.
    """
    last_first = [each.pattern for each in reversed(inits)]
    by_pattern = {each.pattern.path: each for each in inits}
    for named, pattern in match_patterns(list_named_parameters(network), last_first, problems):
        if pattern is not None:
            _initialize_parameter(named, by_pattern[pattern.path], values, problems)
    for module in network.module.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.padding_idx is not None and inits:
            if values is not None:
                values.zero_row(module.weight, module.padding_idx)
                continue
            with torch.no_grad():
                module.weight[module.padding_idx].zero_()


def _initialize_parameter(
    named: NamedParameter, init: Initialization, values: DividedValues | None, problems: Problems
) -> None:
    name, parameter = named.name, named.parameter
    try:
        if values is None:
            init.schema.build(parameter, **init.settings)
        else:
            values.initialize(parameter, lambda whole: init.schema.build(whole, **init.settings))
    except (ValueError, RuntimeError) as error:
        found = f"{init.schema.name} can't initialize {name} of shape {tuple(parameter.shape)}"
        reason = first_line(error)
        fewer = 'add match: "*.weight"' if init.pattern.match == "*" and parameter.dim() < 2 else "match fewer names"
        fix = f"PyTorch says: {reason}; {fewer}"
        problems.add(Code.LAYER_REFUSED, init.pattern.path, found, fix, at_value=True)
