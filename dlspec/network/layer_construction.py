"""Construct one layer: order its inputs, complete its settings, make its module, and report what PyTorch rejects."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dlspec.errors import Code, Finding, format_value, suggest
from dlspec.formatting import first_line
from dlspec.language.expand.graph import Node
from dlspec.language.expressions.expression_parsing import ExpressionError
from dlspec.language.parse.deferred import ChannelLookup, compute_deferred, is_deferred
from dlspec.language.problems import Problems
from dlspec.layouts import TensorInfo
from dlspec.network.build_mode import BuildModeError, find_nondeterministic_operation, is_meta_tensor_error, is_on_meta
from dlspec.network.layer import Layer
from dlspec.network.layer_rules.layout_fixes import RESHAPE_FIX
from dlspec.network.layer_rules.layout_rules import infer_missing_settings, infer_setting
from dlspec.network.memory_limits import NetworkTooLarge, SizeLimit
from dlspec.parts.schema import REQUIRED

PARAMETRIZATIONS = ("weight_norm", "spectral_norm", "orthogonal")


@dataclass(frozen=True)
class ForwardArguments:
    """The tensor arguments of a layer's `forward`."""

    names: tuple[str, ...]
    min_count: int
    max_count: int | None  # None: any number


@lru_cache(maxsize=500)
def inspect_forward(layer_class: Any) -> ForwardArguments:
    """Find the tensor arguments of a layer class's `forward`, except options and the lengths that dlspec passes."""
    lengths = getattr(layer_class, "lengths_of", {})
    names: list[str] = []
    min_count, max_count = 0, 0
    for name, each in list(inspect.signature(layer_class.forward).parameters.items())[1:]:
        if each.kind is each.VAR_POSITIONAL:
            return ForwardArguments(tuple(names), min_count, None)
        is_tensor = each.annotation is each.empty or "Tensor" in str(each.annotation)
        if name in lengths or not is_tensor or each.kind in (each.VAR_KEYWORD, each.KEYWORD_ONLY):
            continue
        names.append(name)
        max_count += 1
        min_count += each.default is each.empty
    return ForwardArguments(tuple(names), min_count, max_count)


def order_inputs(layer: Layer, values: Mapping[int | str, TensorInfo], problems: Problems) -> list[TensorInfo] | None:
    """Put a layer's inputs in the order of its `forward`.

    Args:
        layer: The layer.
        values: Its inputs by position or argument name.
        problems: Collects unknown arguments and surplus inputs.

    Returns:
        The inputs in order, or None where a problem was found. If an argument is left out
        although a later one is given, it gets the first input.
    """
    forward_arguments, path = inspect_forward(layer.schema.build), _find_path_of_inputs(layer.node)
    if all(isinstance(key, int) for key in values):
        found = list(values.values())
        if forward_arguments.max_count is None or len(found) <= forward_arguments.max_count:
            return found
        expected = (
            "one input"
            if forward_arguments.max_count == 1
            else f"{forward_arguments.max_count} inputs ({', '.join(forward_arguments.names)})"
        )
        fix = "combine them before it, with Concat or Add"
        problems.add(
            Code.INPUT_COUNT, path, f"{layer.type} expects {expected}, got {len(found)}", fix, shown=layer.shown
        )
        return None
    unknown = [str(key) for key in values if key not in forward_arguments.names]
    for key in unknown:
        problems.add(
            Code.UNKNOWN_OUTPUT,
            (*path, key),
            f"{layer.type} has no input '{key}'",
            suggest(key, forward_arguments.names),
        )
    if unknown:
        return None
    last = max(forward_arguments.names.index(str(key)) for key in values)
    first = next(iter(values.values()))
    return [values.get(name, first) for name in forward_arguments.names[: last + 1]]


def has_required_inputs(layer: Layer, values: Mapping[int | str, TensorInfo], problems: Problems) -> bool:
    """Whether every argument of `forward` without a default has an input.

    Args:
        layer: The layer.
        values: Its inputs by position or argument name.
        problems: Collects the problem if one is missing.
    """
    forward_arguments = inspect_forward(layer.schema.build)
    missing = [
        name
        for at, name in enumerate(forward_arguments.names[: forward_arguments.min_count])
        if at not in values and name not in values
    ]
    if not missing:
        return True
    required_names = ", ".join(forward_arguments.names[: forward_arguments.min_count])
    found = f"{layer.type} expects {forward_arguments.min_count} inputs ({required_names}), got {len(values)}"
    problems.add(Code.INPUT_COUNT, _find_path_of_inputs(layer.node), found, "write from: [_, NAME]", shown=layer.shown)
    return False


def _find_path_of_inputs(node: Node) -> tuple[Any, ...]:
    return node.part.path_of("from") if "from" in node.part.keys else node.problem_path


# ---- settings ------------------------------------------------------------------------------------------------------


def compute_settings(layer: Layer, channels: ChannelLookup, problems: Problems) -> dict[str, Any] | None:
    """Compute the settings that use the size of an input, such as `$(2 * in_channels)`.

    Args:
        layer: The layer with its settings.
        channels: Looks up the number of channels of a layer's output.
        problems: Collects values that the layer's schema does not allow.

    Returns:
        All settings, or None where a problem was found.
    """
    settings, problem_count = dict(layer.settings), len(problems)
    for name in [name for name, value in settings.items() if is_deferred(value)]:
        path = layer.node.part.path_of(name)
        try:
            value = compute_deferred(settings[name], channels)
        except ExpressionError as error:
            problems.add_finding(path, error.finding, at_value=True)
            continue
        try:
            settings[name] = layer.schema.settings[name].read(value)
        except ValueError:
            expected = layer.schema.settings[name].wanted
            problems.add(
                Code.WRONG_VALUE,
                path,
                f"{name} must be {expected}, got {format_value(value)}",
                at_value=True,
                shown=layer.shown,
            )
    return settings if len(problems) == problem_count else None


def complete_settings(
    layer: Layer, written: Mapping[str, Any], values: Sequence[TensorInfo], problems: Problems
) -> dict[str, Any] | None:
    """Add the settings that the inputs decide, such as `in_features`, and check the written ones against the inputs.

    Args:
        layer: The layer.
        written: Its settings so far.
        values: Its inputs in the order of `forward`.
        problems: Collects settings that disagree with the inputs, and missing ones that the inputs do not decide.

    Returns:
        All settings, or None where a problem was found.
    """
    settings = {**written, **infer_missing_settings(layer.schema, values, written)}
    for name, setting in layer.schema.settings.items():
        if not setting.is_inferred:
            continue
        inferred, value = infer_setting(name, values), settings.get(name)
        if value is None and inferred is not None:
            settings[name] = inferred
        elif value is None and setting.default is REQUIRED:
            found = f"{layer.type} requires {name}"
            problems.add(
                Code.MISSING_FACT,
                layer.node.problem_path,
                found,
                "write it: the data do not determine it",
                shown=layer.shown,
            )
            return None
        elif value is not None and inferred is not None and not setting_fits_input(name, value, inferred, values[0]):
            is_vocabulary = name == "num_embeddings"
            given = f"has a vocabulary of {inferred}" if is_vocabulary else f"is {values[0]}"
            found = f"{name} is {value}, but the input {given}"
            fix = f"leave it out: it is inferred ({inferred})"
            problems.add(
                Code.SHAPE_MISMATCH, layer.node.part.path_of(name), found, fix, at_value=True, shown=layer.shown
            )
            return None
    return settings


def setting_fits_input(name: str, written: Any, inferred: Any, first_input: TensorInfo) -> bool:
    """Whether a written setting is compatible with the input.

    Args:
        name: The setting.
        written: Its written value.
        inferred: The value that follows from the inputs.
        first_input: The first input.
    """
    if name == "normalized_shape" and not isinstance(written, int):
        return tuple(written) == first_input.shape[-len(written) :]
    if name == "num_embeddings":
        return bool(written >= inferred)
    return bool(written == inferred)


# ---- the module ----------------------------------------------------------------------------------------------------


def make_module(layer: Layer, settings: Mapping[str, Any], limit: SizeLimit) -> nn.Module:
    """Make the layer's module with initialized weights.

    Args:
        layer: The layer.
        settings: All its settings.
        limit: The limit on the size of the network's weights; the module is counted in it.

    Returns:
        The module, with the parametrization of its `parametrize` setting if it has a weight.

    Raises:
        BuildModeError: If the parametrization needs values and the module is on the meta device.
        Exception: Whatever the module's constructor raises.
    """
    name = layer.node.parametrize
    if name == "orthogonal" and is_on_meta():
        raise BuildModeError("PyTorch checks whether the weight is already orthogonal")
    with limit:
        module: nn.Module = layer.schema.build(**settings, **layer.schema.fixed)
    return module if name is None or not has_weight(module) else getattr(parametrizations, name)(module)


def has_weight(module: nn.Module) -> bool:
    """Whether the module has a tensor named `weight`."""
    return isinstance(getattr(module, "weight", None), Tensor)


def check_parametrization(layer: Layer, module: nn.Module, problems: Problems) -> bool:
    """Whether the module has the weight that `parametrize` needs.

    Args:
        layer: The layer.
        module: Its module.
        problems: Collects the problem if the weight is missing.
    """
    name, path = layer.node.parametrize, layer.node.part.path_of("parametrize")
    if name is None or has_weight(module):
        return True
    problems.add(Code.NO_WEIGHT, path, f"{layer.type} has no weight", "leave parametrize out", at_value=True)
    return False


def try_or_report(
    action: Callable[[], Any], layer: Layer, values: Sequence[TensorInfo], problems: Problems, note: Callable[[], str]
) -> Any:
    """Run an action, and report an exception as a problem of the layer.

    Args:
        action: Makes or calls the layer's module.
        layer: The layer.
        values: Its inputs, which the message shows.
        problems: Collects the problem.
        note: Makes the line below the message: the shapes that lead to the layer.

    Returns:
        What `action` returns, or None where it failed.

    Raises:
        BuildModeError: If the action can't be done in the network's build mode.
    """
    try:
        return action()
    except NetworkTooLarge as error:
        found = f"{layer.type} is too large: {error}"
        problems.add(
            Code.TOO_LARGE, layer.node.problem_path, found, "make the layer smaller", shown=layer.shown, note=note()
        )
    except BuildModeError:
        raise
    except Exception as error:
        if is_meta_tensor_error(error):
            raise BuildModeError(f"{layer.type} needs real values") from error
        problems.add_finding(
            layer.node.problem_path, _explain_error(layer, values, error), shown=layer.shown, note=note()
        )
    return None


def _explain_error(layer: Layer, values: Sequence[TensorInfo], error: Exception) -> Finding:
    operation = find_nondeterministic_operation(error)
    if operation:
        fix = "use another layer, or set trainer.deterministic=false"
        found = f"{layer.type} has no deterministic algorithm for {operation}"
        return Finding(Code.NOT_DETERMINISTIC, found, fix)
    who = "PyTorch" if hasattr(nn, layer.type) else f"{layer.type}'s own code"
    found = f"{layer.type} fails for the input {' and '.join(str(each) for each in values)}"
    fix = f"; {RESHAPE_FIX}" if any(not each.shape for each in values if each.has_batch) else ""
    return Finding(Code.LAYER_REFUSED, found, f"{who} says: {_summarize_error(error)}{fix}")


def _summarize_error(error: Exception) -> str:
    """Return the first line of an error's text, with its type unless PyTorch raises it for wrong arguments."""
    text = first_line(error, 200)
    is_plain = isinstance(error, RuntimeError | ValueError | TypeError | AssertionError | IndexError)
    return text if text and is_plain else f"{type(error).__name__}: {text}".removesuffix(": ")
