"""One layer on its way into a network: its settings completed, its module made, what PyTorch refuses told."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dlspec.errors import Code, Finding, shown, suggest
from dlspec.language.expand.graph import Node
from dlspec.language.expressions.expressions import ExpressionError
from dlspec.language.parse.deferred import Channels, is_deferred, settled
from dlspec.language.problems import Problems
from dlspec.layouts import Value
from dlspec.network.layer import Layer
from dlspec.network.memory_limits import SizeLimit, TooLarge
from dlspec.network.meta_device import Unfit, is_on_meta, needs_numbers, not_deterministic
from dlspec.network.rules.layout_rules import filled, infer
from dlspec.parts.schema import REQUIRED
from dlspec.text import first_line

PARAMETRIZATIONS = ("weight_norm", "spectral_norm", "orthogonal")


@dataclass(frozen=True)
class Arguments:
    """What a layer's `forward` takes: the names of its tensors, how many must come, and how many may (None: any)."""

    names: tuple[str, ...]
    least: int
    most: int | None


@lru_cache(maxsize=500)
def arguments(build: Any) -> Arguments:
    """Of a layer's class; lengths, which dlspec fills in, and options are left out."""
    lengths = getattr(build, "lengths_of", {})
    names: list[str] = []
    least, most = 0, 0
    for name, each in list(inspect.signature(build.forward).parameters.items())[1:]:
        if each.kind is each.VAR_POSITIONAL:
            return Arguments(tuple(names), least, None)
        is_tensor = each.annotation is each.empty or "Tensor" in str(each.annotation)
        if name in lengths or not is_tensor or each.kind in (each.VAR_KEYWORD, each.KEYWORD_ONLY):
            continue
        names.append(name)
        most += 1
        least += each.default is each.empty
    return Arguments(tuple(names), least, most)


def in_order(layer: Layer, values: Mapping[int | str, Value], problems: Problems) -> list[Value] | None:
    """The inputs in the order of `forward`; None where it has no such argument, or takes fewer."""
    takes, path = arguments(layer.schema.build), _from(layer.node)
    if all(isinstance(key, int) for key in values):
        found = list(values.values())
        if takes.most is None or len(found) <= takes.most:
            return found
        wanted = "one input" if takes.most == 1 else f"{takes.most} inputs ({', '.join(takes.names)})"
        fix = "bring them together before it: Concat or Add"
        problems.add(
            Code.INPUT_COUNT, path, f"{layer.type} takes {wanted}, and {len(found)} come in", fix, shown=layer.shown
        )
        return None
    unknown = [str(key) for key in values if key not in takes.names]
    for key in unknown:
        problems.add(
            Code.UNKNOWN_OUTPUT, (*path, key), f"{layer.type} takes no input '{key}'", suggest(key, takes.names)
        )
    if unknown:
        return None
    last = max(takes.names.index(str(key)) for key in values)
    first = next(iter(values.values()))
    return [values.get(name, first) for name in takes.names[: last + 1]]


def are_enough(layer: Layer, values: Mapping[int | str, Value], problems: Problems) -> bool:
    """Whether every argument that must come does."""
    takes = arguments(layer.schema.build)
    missing = [name for at, name in enumerate(takes.names[: takes.least]) if at not in values and name not in values]
    if not missing:
        return True
    found = f"{layer.type} takes {takes.least} inputs ({', '.join(takes.names[: takes.least])}), and {len(values)}"
    found += " comes in" if len(values) == 1 else " come in"
    problems.add(Code.INPUT_COUNT, _from(layer.node), found, "write from: [_, NAME]", shown=layer.shown)
    return False


def _from(node: Node) -> tuple[Any, ...]:
    return node.part.where("from") if "from" in node.part.keys else node.where


# ---- settings ------------------------------------------------------------------------------------------------------


def computed(layer: Layer, channels: Channels, problems: Problems) -> dict[str, Any] | None:
    """The settings with `$in_channels` put in and checked; None where one is wrong."""
    settings, before = dict(layer.settings), len(problems)
    for name in [name for name, value in settings.items() if is_deferred(value)]:
        path = layer.node.part.where(name)
        try:
            value = settled(settings[name], channels)
        except ExpressionError as error:
            problems.add_finding(path, error.finding, at_value=True)
            continue
        try:
            settings[name] = layer.schema.settings[name].read(value)
        except ValueError:
            wanted = layer.schema.settings[name].wanted
            problems.add(
                Code.WRONG_VALUE, path, f"{name} is {shown(value)}, wanted {wanted}", at_value=True, shown=layer.shown
            )
    return settings if len(problems) == before else None


def completed(
    layer: Layer, written: Mapping[str, Any], values: Sequence[Value], problems: Problems
) -> dict[str, Any] | None:
    """The settings with what the inputs decide filled in; what was written must agree with them."""
    settings = {**written, **filled(layer.schema, values, written)}
    for name, setting in layer.schema.settings.items():
        if not setting.is_inferred:
            continue
        known, value = infer(name, values), settings.get(name)
        if value is None and known is not None:
            settings[name] = known
        elif value is None and setting.default is REQUIRED:
            found = f"{layer.type} wants {name}"
            problems.add(
                Code.MISSING_FACT, layer.node.where, found, "these data do not tell it: write it", shown=layer.shown
            )
            return None
        elif value is not None and known is not None and not agrees(name, value, known, values[0]):
            found = f"{name} is {value}, but {values[0]} comes in"
            fix = f"leave it out: it is inferred ({known})"
            problems.add(Code.SHAPE_MISMATCH, layer.node.part.where(name), found, fix, at_value=True, shown=layer.shown)
            return None
    return settings


def agrees(name: str, written: Any, known: Any, value: Value) -> bool:
    """Whether a setting that was written is what the input tells."""
    if name == "normalized_shape" and not isinstance(written, int):
        return tuple(written) == value.shape[-len(written) :]
    if name == "num_embeddings":
        return bool(written >= known)
    return bool(written == known)


# ---- the module ----------------------------------------------------------------------------------------------------


def made(layer: Layer, settings: Mapping[str, Any], limit: SizeLimit) -> nn.Module:
    """The module, its weights drawn; raises what PyTorch raises."""
    name = layer.node.parametrize
    if name == "orthogonal" and is_on_meta():
        raise Unfit("PyTorch looks whether the weight is orthogonal already")
    with limit:
        module: nn.Module = layer.schema.build(**settings, **layer.schema.fixed)
    return module if name is None or not has_weight(module) else getattr(parametrizations, name)(module)


def has_weight(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), Tensor)


def may_parametrize(layer: Layer, module: nn.Module, problems: Problems) -> bool:
    name, path = layer.node.parametrize, layer.node.part.where("parametrize")
    if name is None or has_weight(module):
        return True
    problems.add(Code.NO_WEIGHT, path, f"{layer.type} has no weight", "leave parametrize out", at_value=True)
    return False


def attempt(
    action: Callable[[], Any], layer: Layer, values: Sequence[Value], problems: Problems, note: Callable[[], str]
) -> Any:
    """What PyTorch gives; what it refuses becomes a mistake at the layer's place, with a note below it."""
    try:
        return action()
    except TooLarge as error:
        found = f"{layer.type} is too large: {error}"
        problems.add(Code.TOO_LARGE, layer.node.where, found, "make it smaller", shown=layer.shown, note=note())
    except Unfit:
        raise
    except Exception as error:
        if needs_numbers(error):
            raise Unfit(f"{layer.type} needs numbers") from error
        problems.add_finding(layer.node.where, _refused(layer, values, error), shown=layer.shown, note=note())
    return None


def _refused(layer: Layer, values: Sequence[Value], error: Exception) -> Finding:
    operation = not_deterministic(error)
    if operation:
        fix = "take another layer, or trainer.deterministic=false"
        found = f"{layer.type} has no deterministic way to compute {operation}"
        return Finding(Code.NOT_DETERMINISTIC, found, fix)
    who = "PyTorch" if hasattr(nn, layer.type) else f"{layer.type}'s own code"
    found = f"{layer.type} can't take {' and '.join(str(each) for each in values)}"
    return Finding(Code.LAYER_REFUSED, found, f"{who} says: {_reason(error)}")


def _reason(error: Exception) -> str:
    """The first line of what an error says; its type where that is no plain refusal."""
    text = first_line(error, 200)
    is_plain = isinstance(error, RuntimeError | ValueError | TypeError | AssertionError | IndexError)
    return text if text and is_plain else f"{type(error).__name__}: {text}".removesuffix(": ")
