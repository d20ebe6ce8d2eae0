"""A network's parameters by their names in the state dict and the layers that they belong to."""

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

MAX_UNMATCHED_PATTERNS = 50
"""After so many patterns that pick nothing no more are looked at: each is compared with every name."""


@dataclass(frozen=True)
class NamedParameter:
    """One parameter: its names (several where it is tied or shared) and the types of the layers around it."""

    names: tuple[str, ...]
    parameter: nn.Parameter
    layers: frozenset[str]

    @property
    def name(self) -> str:
        return self.names[0]

    def is_matched_by(self, pattern: ParameterPattern) -> bool:
        """Whether one of its names matches, in a layer of one of the pattern's types, and nothing excepts it."""
        fits = not pattern.layers or not self.layers.isdisjoint(pattern.layers)
        fits &= pattern.dims is None or self.parameter.dim() == pattern.dims
        if not fits or any(fnmatchcase(name, each) for name in self.names for each in pattern.exclude):
            return False
        return any(fnmatchcase(name, pattern.match) for name in self.names)


def list_named_parameters(network: Network) -> list[NamedParameter]:
    """Every parameter once, in the order of the state dict.

    A layer's type is that of the module that owns the parameter, and of each around it: the projections of an
    `Attention` are `Linear` too.
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
    """Each parameter with the first pattern that picks it. A pattern that picks none at all is a mistake."""
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
        found = f"no parameter is named '{pattern.match}'"
        fix = suggest(pattern.match, [each.name for each in parameters]) or "the network has no parameters"
    elif any(each.is_matched_by(ParameterPattern(pattern.path, pattern.match, pattern.layers)) for each in named):
        found, fix = f"no parameter that '{pattern.match}' matches is left by its dims and except", "say less"
    else:
        found = f"no parameter of {' or '.join(pattern.layers)}"
        found += f" is named '{pattern.match}'" if pattern.match != "*" else ""
        kinds = {type for each in parameters for type in each.layers if hasattr(nn, type)} - {"Module", "Sequential"}
        fix = suggest(pattern.layers[0], kinds)
    problems.add(Code.NO_MATCH, pattern.path, found, fix, at_value=True)
