"""Apply layers' rules: check their inputs, infer settings, and find layout and lengths of their outputs.

The rules of PyTorch's layers are in `torch_rules.py`; a layer of dlspec's or a user's class has its own. PyTorch would
often run an input that a rule rejects without an error, but over the wrong dimension.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from dlspec.data.batches.sequence_lengths import change_lengths
from dlspec.errors import Code, Finding, join_with_or
from dlspec.layouts import Layout, LengthChange, Lengths, TensorInfo, roles_from_layout
from dlspec.network.layer_rules.layout_fixes import suggest_layout_fix
from dlspec.network.layer_rules.torch_rules import find_torch_rule
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape, main_input
from dlspec.parts.schema import Schema


def find_rule(schema: Schema) -> Rule:
    """Return the layer's own rule, the rule of PyTorch's layer, or the default rule."""
    own = getattr(schema.build, "rule", None)
    if isinstance(own, Rule):
        return own
    return find_torch_rule(schema.name) if _is_torch_layer(schema) else Rule()


def _is_torch_layer(schema: Schema) -> bool:
    return schema.build is getattr(nn, schema.name, None)


def _is_user_layer(schema: Schema) -> bool:
    return not _is_torch_layer(schema) and not getattr(schema.build, "__module__", "").startswith(
        "dlspec.parts.layers."
    )


# ---- which inputs are accepted -------------------------------------------------------------------------------------


def check_layer_rule(schema: Schema, inputs: Inputs, settings: Settings) -> Finding | None:
    """Check a layer's inputs and settings against its rule.

    Args:
        schema: The layer's schema.
        inputs: Its inputs in the order of `forward`.
        settings: Its settings so far.

    Returns:
        What is wrong and how to fix it, or None where the layer accepts the inputs.
    """
    rule, value, layer = find_rule(schema), inputs[0], _WRITTEN_NAMES.get(schema.name, schema.name)
    if not rule.takes_parameter and not all(each.has_batch for each in inputs):
        return _refuse_parameter(layer, inputs)
    value = main_input(inputs) if rule.takes_parameter else inputs[0]
    if value.layout not in rule.takes and not _has_dimension_setting(layer, value, settings):
        return Finding(
            Code.WRONG_LAYOUT,
            f"{layer} expects {join_with_or(rule.takes)} input, got {value}",
            suggest_layout_fix(layer, rule, value),
        )
    if rule.dims is not None and value.layout == "channels-first" and len(value.shape) != rule.dims + 1:
        matching_layer = re.sub(r"\dd$", f"{len(value.shape) - 1}d", layer)
        fix = f"did you mean '{matching_layer}'?" if matching_layer != layer and hasattr(nn, matching_layer) else ""
        return Finding(
            Code.WRONG_LAYOUT, f"{layer} expects {rule.dims + 1} dimensions without the batch, got {value}", fix
        )
    batch_finding = None if _is_user_layer(schema) else _check_batch_dim(value, settings)
    return batch_finding or rule.refuse(inputs, settings)


def _refuse_parameter(layer: str, inputs: Inputs) -> Finding:
    """Refuse a `Parameter` where a batch is needed, with the formula that repeats it for every sample."""
    dims = next(len(each.shape) for each in inputs if not each.has_batch)
    fix = "combine it with another value by Add, Multiply, Concat or Formula"
    if dims > 0:
        fix += f"; to give it the batch of an output x, write Formula: NAME + zeros_like(x[:{', :1' * dims}])"
    return Finding(
        Code.WRONG_LAYOUT,
        f"{layer} expects an input with a batch dimension, and a Parameter or a Formula of constants has none",
        fix,
    )


# Layers that a container adds, and the name of the container: messages show what the user wrote.
_WRITTEN_NAMES = {"FoldTime": "TimeDistributed", "FoldTimeLike": "TimeDistributed"}


def _has_dimension_setting(layer: str, value: TensorInfo, settings: Settings) -> bool:
    """Whether the settings name the dimension that the layer works on, so that any layout is possible."""
    dimension_settings = {
        "LayerNorm": "normalized_shape",
        "RMSNorm": "normalized_shape",
        "GLU": "dim",
        "CosineSimilarity": "dim",
    }
    return (
        value.layout != "tokens" and layer in dimension_settings and settings.get(dimension_settings[layer]) is not None
    )


def _check_batch_dim(value: TensorInfo, settings: Settings) -> Finding | None:
    """Report a setting that names dimension 0, the batch."""
    for name in ("dim", "start_dim"):
        dim = settings.get(name)
        if isinstance(dim, int) and dim in (0, -1 - len(value.shape)):
            found = f"{name} is {dim}, the batch; samples must not be mixed"
            return Finding(Code.SAMPLES_MIXED, found, "use 1 or more: the dimensions of a sample start at 1")
    return None


# ---- settings that follow from the inputs --------------------------------------------------------------------------


def infer_setting(setting: str, inputs: Inputs) -> Any:
    """Infer a setting from the inputs, such as `in_features`; None where they do not determine it."""
    if setting == "num_embeddings":
        return inputs[0].vocab_size
    if setting in ("kdim", "vdim", "in2_features"):
        return inputs[min(_INPUT_POSITIONS[setting], len(inputs) - 1)].channels if len(inputs) > 1 else None
    value = main_input(inputs)
    return value.shape[-1] if setting == "normalized_shape" and value.shape else value.channels


_INPUT_POSITIONS = {"in2_features": 1, "kdim": 1, "vdim": 2}


def infer_missing_settings(schema: Schema, inputs: Inputs, settings: Settings) -> dict[str, Any]:
    """Choose values for optional settings that were not written and depend on the inputs, such as a Softmax's `dim`.

    Args:
        schema: The layer's schema.
        inputs: Its inputs in the order of `forward`.
        settings: The settings that were written.

    Returns:
        Only the added settings.
    """
    return {name: each for name, each in find_rule(schema).fill(inputs, settings).items() if settings.get(name) is None}


# ---- layout, roles and lengths of an output ------------------------------------------------------------------------


def find_output_layout(schema: Schema, inputs: Inputs, settings: Settings, shape: Shape, output: str = "") -> Layout:
    """Find the layout of a layer's output.

    Args:
        schema: The layer's schema.
        inputs: Its inputs in the order of `forward`.
        settings: All its settings.
        shape: The output's shape, without the batch.
        output: The output's name; '' for the first one.
    """
    return find_rule(schema).gives(inputs, shape, _add_output_setting(settings, output))


def find_output_roles(
    schema: Schema, inputs: Inputs, settings: Settings, shape: Shape, layout: Layout
) -> tuple[str, ...]:
    """Find the roles of an output's dimensions if they differ from those that its layout implies.

    Args:
        schema: The layer's schema.
        inputs: Its inputs in the order of `forward`.
        settings: All its settings.
        shape: The output's shape, without the batch.
        layout: The output's layout.

    Returns:
        One letter per dimension, such as ("C", "C", "S", "S"), or () where the layout implies the roles.
    """
    rule, value = find_rule(schema), main_input(inputs)
    is_like = len(shape) == len(value.shape) and layout == value.layout
    found = rule.roles(inputs, shape, settings) if rule.roles else value.explicit_roles if is_like else ()
    return found if found and found != roles_from_layout(layout, len(shape)) else ()


def find_output_lengths(
    schema: Schema, module: nn.Module, inputs: Inputs, settings: Settings, shape: Shape, output: str = ""
) -> Lengths | None:
    """Find the lengths of the samples in a layer's output.

    They are those of the main input where the layer keeps its steps, or follow from how the layer changes lengths.

    Args:
        schema: The layer's schema.
        module: Its module.
        inputs: Its inputs in the order of `forward`.
        settings: All its settings.
        shape: The output's shape, without the batch.
        output: The output's name; '' for the first one.

    Returns:
        The lengths, `NO_PADDING` where all steps of the output are real though those of an input are not, or None where
        the inputs have none, where the output has no steps, and where padding has been mixed with real steps.
    """
    rule, value, settings = find_rule(schema), main_input(inputs), _add_output_setting(settings, output)
    if rule.lengths is not None:
        return rule.lengths(inputs, shape, settings)
    if value.lengths is None or not can_trim_padding(schema, module, inputs, settings, shape):
        return None
    change = _find_length_change(rule, value, settings)
    if change is not None:
        return value.lengths.after(change)
    after = TensorInfo(shape, rule.gives(inputs, shape, settings))
    return value.lengths if after.time_dim is not None else None


def can_trim_padding(
    schema: Schema, module: nn.Module, inputs: Inputs, settings: Settings, shape: Shape, output: str = ""
) -> bool:
    """Whether a sample's output does not depend on its padding, so that batches may be cut to their longest sample.

    A user's layer declares this with the class attribute `keeps_lengths = True`.

    Args:
        schema: The layer's schema.
        module: Its module.
        inputs: Its inputs in the order of `forward`.
        settings: All its settings.
        shape: The output's shape, without the batch.
        output: The output's name; '' for the first one.
    """
    rule, value, settings = find_rule(schema), main_input(inputs), _add_output_setting(settings, output)
    if rule.changes_length is not None and value.time_dim is not None:
        change = _find_length_change(rule, value, settings)
        after = TensorInfo(shape, rule.gives(inputs, shape, settings))
        return change is not None and change_lengths(_count_steps(value), [change]) == _count_steps(after)
    if getattr(module, "keeps_lengths", False) is not True and not _keeps_lengths(rule, inputs, settings):
        return False
    return rule.lengths is not None or not _changes_step_count(
        value, TensorInfo(shape, rule.gives(inputs, shape, settings))
    )


def _add_output_setting(settings: Settings, output: str) -> Settings:
    return {**settings, "output": output} if output else settings


def find_padding_to_zero(schema: Schema, value: TensorInfo, settings: Settings) -> tuple[Lengths, int] | None:
    """Find the padding of a layer's input that must be set to zero before the layer.

    That is needed before layers that also read the steps after a sample's end, such as a convolution that pads with
    zeros.

    Args:
        schema: The layer's schema.
        value: Its main input.
        settings: All its settings.

    Returns:
        The lengths and the dimension of the steps, or None if nothing must be set to zero.
    """
    if value.lengths is None or value.time_dim is None or not find_rule(schema).reads_past_end(settings):
        return None
    return value.lengths, value.time_dim


def _find_length_change(rule: Rule, value: TensorInfo, settings: Settings) -> LengthChange | None:
    return None if rule.changes_length is None or value.time_dim is None else rule.changes_length(settings)


def _keeps_lengths(rule: Rule, inputs: Inputs, settings: Settings) -> bool:
    if callable(rule.keeps_lengths):
        return rule.keeps_lengths(inputs, settings)
    return rule.keeps_lengths and not (rule.lengths is None and _works_on_steps(settings, main_input(inputs)))


def _works_on_steps(settings: Settings, value: TensorInfo) -> bool:
    """Whether a setting makes the layer work over the time dimension."""
    normalized, dim = settings.get("normalized_shape"), settings.get("dim")
    time, rank = value.time_dim, len(value.shape) + 1
    count = len(normalized) if isinstance(normalized, list) else 1 if normalized is not None else 0
    return time is not None and ((count > 0 and time >= rank - count) or (isinstance(dim, int) and dim % rank == time))


def _changes_step_count(before: TensorInfo, after: TensorInfo) -> bool:
    """Whether the output has another number of steps than the input."""
    if before.time_dim is None:
        return False
    if after.time_dim is None:
        return len(after.shape) > 1 and after.shape[0] != _count_steps(before)
    return _count_steps(before) != _count_steps(after)


def _count_steps(value: TensorInfo) -> int:
    return value.shape[value.time_dim - 1] if value.time_dim is not None else 0
