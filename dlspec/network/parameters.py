"""Select a network's parameters by their names in the state dict and the types of their layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from dlspec.errors import Code, suggest
from dlspec.language.expand.entry_inputs import PARAMETER
from dlspec.language.parse.pattern import ParameterPattern
from dlspec.language.problems import Problems
from dlspec.network.built_network import Network

MAX_UNMATCHED_PATTERNS = 50  # then matching stops: each pattern is compared with every name, which takes time


@dataclass(frozen=True)
class NamedParameter:
    """One parameter with its names and layers."""

    # Its names in the state dict: more than one if it is tied or shared.
    names: tuple[str, ...]
    parameter: nn.Parameter
    # The types of the modules that contain it, with their base classes.
    layers: frozenset[str]

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    def is_matched_by(self, pattern: ParameterPattern) -> bool:
        """Whether name, layer and dimensions match the pattern, and its `except` matches none of the names."""
        fits = not pattern.layers or not self.layers.isdisjoint(pattern.layers)
        fits &= pattern.dims is None or self.parameter.dim() == pattern.dims
        if not fits or any(fnmatchcase(name, each) for name in self.names for each in pattern.exclude):
            return False
        return any(fnmatchcase(name, pattern.match) for name in self.names)


def list_named_parameters(network: Network) -> list[NamedParameter]:
    """List every parameter once, in the order of the state dict.

    The types of all modules around a parameter count as its layers: the projections in an `Attention` match `Linear`
    and `Attention`.
    """
    parameter_layers = {each.name for each in network.layers if each.type == PARAMETER}
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in network.module.named_parameters(remove_duplicate=False):
        names.setdefault(parameter, []).append(name)
    return [
        NamedParameter(
            tuple(each),
            parameter,
            frozenset(type for name in each for type in _iterate_layer_types(network.module, name, parameter_layers)),
        )
        for parameter, each in names.items()
    ]


def _iterate_layer_types(module: nn.Module, name: str, parameter_layers: set[str]) -> Iterator[str]:
    if name in parameter_layers:
        yield PARAMETER
    for word in name.split(".")[:-1]:
        module = module.get_submodule(word)
        yield from (cls.__name__ for cls in type(module).__mro__)  # a parametrized Linear is a subclass of Linear


def match_patterns(
    parameters: Sequence[NamedParameter], patterns: Sequence[ParameterPattern], problems: Problems
) -> list[tuple[NamedParameter, ParameterPattern | None]]:
    """Find the first pattern that matches each parameter.

    Args:
        parameters: The network's parameters.
        patterns: The patterns in order.
        problems: Collects patterns that match no parameter.

    Returns:
        Each parameter with its pattern, or with None where no pattern matches.
    """
    first_patterns: dict[str, ParameterPattern] = {}
    unmatched_count = 0
    for pattern in patterns:
        matched = [each for each in parameters if each.is_matched_by(pattern)]
        for each in matched:
            first_patterns.setdefault(each.name, pattern)
        if not matched:
            _report_unmatched(pattern, parameters, problems)
            unmatched_count += 1
        if unmatched_count == MAX_UNMATCHED_PATTERNS:
            break
    return [(each, first_patterns.get(each.name)) for each in parameters]


def _report_unmatched(pattern: ParameterPattern, parameters: Sequence[NamedParameter], problems: Problems) -> None:
    named = [each for each in parameters if each.is_matched_by(ParameterPattern(pattern.path, pattern.match))]
    if not named:
        found = f"no parameter matches '{pattern.match}'"
        fix = suggest(pattern.match, [each.name for each in parameters]) or "the network has no parameters"
    elif any(each.is_matched_by(ParameterPattern(pattern.path, pattern.match, pattern.layers)) for each in named):
        found, fix = f"'dims' and 'except' leave no parameter that '{pattern.match}' matches", "leave one of them out"
    else:
        found = f"no {' or '.join(pattern.layers)} has a parameter"
        found += f" that matches '{pattern.match}'" if pattern.match != "*" else ""
        kinds = {type for each in parameters for type in each.layers if hasattr(nn, type)} - {"Module", "Sequential"}
        fix = suggest(pattern.layers[0], kinds)
    problems.add(Code.NO_MATCH, pattern.path, found, fix, at_value=True)
