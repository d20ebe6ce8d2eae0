"""Implement `tie`: a layer uses the weight of another one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from dlspec.errors import Code, suggest
from dlspec.language.problems import Problems
from dlspec.network.layer import Layer, LayerCall
from dlspec.network.layer_construction import has_weight

CallsByPath = Mapping[tuple[str, ...], LayerCall]
"""The calls that made a module, by the module's path in the state dict."""


def tie_weight(layer: Layer, module: nn.Module, calls: CallsByPath, problems: Problems) -> bool:
    """Give a module the weight that its layer's `tie` names, if there is one.

    Args:
        layer: The layer.
        module: Its module.
        calls: The layers built so far.
        problems: Collects the problem if a weight is missing or the shapes differ.

    Returns:
        False where a problem was found.
    """
    paths = layer.node.tie
    if not paths:
        return True
    path = layer.node.part.path_of("tie")
    own, other = module.weight if has_weight(module) else None, _find_weight(paths, calls)
    if own is None:
        problems.add(Code.NO_WEIGHT, path, f"{layer.type} has no weight", "remove 'tie'", at_value=True)
    elif other is None:
        names = {".".join(each) for each, call in calls.items() if has_weight(call.module)}
        fix = suggest(paths[-1], names) or "name a layer above that has a weight"
        problems.add(Code.NO_WEIGHT, path, f"no layer above has a weight named '{paths[-1]}'", fix, at_value=True)
    elif own.shape != other.shape:
        found = f"its weight has shape {tuple(own.shape)}, but that of '{paths[-1]}' has {tuple(other.shape)}"  # type: ignore[arg-type]
        problems.add(Code.SHAPE_MISMATCH, path, found, "give both the same shape", at_value=True)
    else:
        module.weight = other
        return True
    return False


def _find_weight(paths: Sequence[str], calls: CallsByPath) -> Tensor | None:
    """Return the weight at the first of these state dict paths that has one."""
    for words in (path.removesuffix(".weight").split(".") for path in paths):
        for length in range(len(words), 0, -1):
            if tuple(words[:length]) not in calls:
                continue
            module = calls[tuple(words[:length])].module
            weight = getattr(_find_submodule(module, words[length:]), "weight", None)
            if isinstance(weight, nn.Parameter):
                return weight
    return None


def _find_submodule(module: nn.Module, words: Sequence[str]) -> nn.Module | None:
    try:
        return module.get_submodule(".".join(words))
    except AttributeError:
        return None
