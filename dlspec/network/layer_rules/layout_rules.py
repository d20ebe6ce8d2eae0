"""What a layer can take, what it learns from its inputs, and what becomes of lengths, by its rule.

PyTorch's layers have rows in `torch_layers` beside this file; dlspec's and users' own carry theirs. What a rule refuses
PyTorch would often run in silence, over the wrong dimension.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from dlspec.data.batches.sequence_lengths import apply_windows
from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Lengths, TensorInfo, Window, roles_from_layout
from dlspec.network.layer_rules.layout_fixes import suggest_layout_fix
from dlspec.network.layer_rules.torch_rules import find_torch_rule
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape, main_input
from dlspec.parts.schema import Schema


def find_rule(schema: Schema) -> Rule:
    """The layer's own rule, or PyTorch's row; one that has neither may do anything: its rank tells its layout."""
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


# ---- what is refused -----------------------------------------------------------------------------------------------


def find_refusal(schema: Schema, inputs: Inputs, settings: Settings) -> Finding | None:
    """Why the layer can't take these inputs, and what to write; None where it can."""
    rule, value, layer = find_rule(schema), inputs[0], _WRITTEN_NAMES.get(schema.name, schema.name)
    if not rule.takes_parameter and not all(each.has_batch for each in inputs):
        fix = "bring it in by Add, Multiply, Concat or Formula"
        return Finding(Code.WRONG_LAYOUT, f"{layer} wants values with a batch, and a Parameter has none", fix)
    value = main_input(inputs) if rule.takes_parameter else inputs[0]
    if value.layout not in rule.takes and not _names_dimensions(layer, value, settings):
        return Finding(
            Code.WRONG_LAYOUT,
            f"{layer} wants {' or '.join(rule.takes)}, and {value} comes in",
            suggest_layout_fix(layer, rule, value),
        )
    if rule.dims is not None and value.layout == "channels-first" and len(value.shape) != rule.dims + 1:
        matching_layer = re.sub(r"\dd$", f"{len(value.shape) - 1}d", layer)
        fix = f"did you mean '{matching_layer}'?" if matching_layer != layer and hasattr(nn, matching_layer) else ""
        return Finding(Code.WRONG_LAYOUT, f"{layer} expects {rule.dims + 1} dimensions without the batch, got {value}", fix)
    batch_finding = None if _is_user_layer(schema) else _find_batch_mixing(value, settings)
    return batch_finding or rule.refuse(inputs, settings)


# Layers that a container brings along: a message names what the user wrote.
_WRITTEN_NAMES = {"FoldTime": "TimeDistributed"}


def _names_dimensions(layer: str, value: TensorInfo, settings: Settings) -> bool:
    """Whether its settings say on which dimensions it works, so that any layout will do."""
    dimension_settings = {
        "LayerNorm": "normalized_shape",
        "RMSNorm": "normalized_shape",
        "GLU": "dim",
        "CosineSimilarity": "dim",
    }
    return (
        value.layout != "tokens" and layer in dimension_settings and settings.get(dimension_settings[layer]) is not None
    )


def _find_batch_mixing(value: TensorInfo, settings: Settings) -> Finding | None:
    """Dimension 0 is the batch, which no layer may touch."""
    for name in ("dim", "start_dim"):
        dim = settings.get(name)
        if isinstance(dim, int) and dim in (0, -1 - len(value.shape)):
            found = f"{name} is {dim}: that is the batch, and samples must not mix"
            return Finding(Code.SAMPLES_MIXED, found, "the dimensions of a sample start at 1")
    return None


# ---- what is learned from the inputs -------------------------------------------------------------------------------


def infer_setting(setting: str, inputs: Inputs) -> Any:
    """What an inferred setting is for these inputs; None where they do not tell."""
    if setting == "num_embeddings":
        return inputs[0].vocab_size
    if setting in ("kdim", "vdim", "in2_features"):
        return inputs[min(_INPUT_POSITIONS[setting], len(inputs) - 1)].channels if len(inputs) > 1 else None
    value = main_input(inputs)
    return value.shape[-1] if setting == "normalized_shape" and value.shape else value.channels


_INPUT_POSITIONS = {"in2_features": 1, "kdim": 1, "vdim": 2}


def infer_open_settings(schema: Schema, inputs: Inputs, settings: Settings) -> dict[str, Any]:
    """What the inputs decide of settings that were left open."""
    return {name: each for name, each in find_rule(schema).fill(inputs, settings).items() if settings.get(name) is None}


# ---- what becomes of lengths ---------------------------------------------------------------------------------------


def find_output_layout(schema: Schema, inputs: Inputs, settings: Settings, shape: Shape, output: str = "") -> Layout:
    """The layout of an output of this shape; `output` is its name where it is not the first."""
    return find_rule(schema).gives(inputs, shape, _add_output_setting(settings, output))


def find_output_roles(
    schema: Schema, inputs: Inputs, settings: Settings, shape: Shape, layout: Layout
) -> tuple[str, ...]:
    """The roles of an output's dimensions where its layout does not tell them, else ()."""
    rule, value = find_rule(schema), main_input(inputs)
    is_like = len(shape) == len(value.shape) and layout == value.layout
    found = rule.roles(inputs, shape, settings) if rule.roles else value.explicit_roles if is_like else ()
    return found if found and found != roles_from_layout(layout, len(shape)) else ()


def find_output_lengths(
    schema: Schema, module: nn.Module, inputs: Inputs, settings: Settings, shape: Shape, output: str = ""
) -> Lengths | None:
    """The lengths of an output of this shape: the main input's where its steps stay, or what a window makes of them.

    None where there were none, where no steps are left, and where padding has mixed with steps.
    """
    rule, value, settings = find_rule(schema), main_input(inputs), _add_output_setting(settings, output)
    if rule.lengths is not None:
        return rule.lengths(inputs, shape, settings)
    if value.lengths is None or not can_trim_padding(schema, module, inputs, settings, shape):
        return None
    window = _make_window(rule, value, settings)
    if window is not None:
        return Lengths(value.lengths.field, (*value.lengths.windows, window))
    after = TensorInfo(shape, rule.gives(inputs, shape, settings))
    return value.lengths if after.time_dim is not None else None


def can_trim_padding(
    schema: Schema, module: nn.Module, inputs: Inputs, settings: Settings, shape: Shape, output: str = ""
) -> bool:
    """Whether such an output is what the sample alone gives: batches may then end at their longest sample.

    Its steps are then the sample's, or those of a window, or they ended in one row. A layer of the user's own says so
    itself, by `keeps_lengths = True`.
    """
    rule, value, settings = find_rule(schema), main_input(inputs), _add_output_setting(settings, output)
    if rule.window is not None and value.time_dim is not None:
        window = _make_window(rule, value, settings)
        after = TensorInfo(shape, rule.gives(inputs, shape, settings))
        return window is not None and apply_windows(_count_steps(value), [window]) == _count_steps(after)
    if getattr(module, "keeps_lengths", False) is not True and not _keeps_lengths(rule, inputs, settings):
        return False
    return rule.lengths is not None or not _changes_steps(value, TensorInfo(shape, rule.gives(inputs, shape, settings)))


def _add_output_setting(settings: Settings, output: str) -> Settings:
    return {**settings, "output": output} if output else settings


def _make_window(rule: Rule, value: TensorInfo, settings: Settings) -> Window | None:
    return None if rule.window is None or value.time_dim is None else rule.window(settings)


def _keeps_lengths(rule: Rule, inputs: Inputs, settings: Settings) -> bool:
    if callable(rule.keeps_lengths):
        return rule.keeps_lengths(inputs, settings)
    return rule.keeps_lengths and not (rule.lengths is None and _works_on_steps(settings, main_input(inputs)))


def _works_on_steps(settings: Settings, value: TensorInfo) -> bool:
    """Whether a setting lets it work over the dimension that has the steps."""
    normalized, dim = settings.get("normalized_shape"), settings.get("dim")
    time, rank = value.time_dim, len(value.shape) + 1
    count = len(normalized) if isinstance(normalized, list) else 1 if normalized is not None else 0
    return time is not None and ((count > 0 and time >= rank - count) or (isinstance(dim, int) and dim % rank == time))


def _changes_steps(value: TensorInfo, after: TensorInfo) -> bool:
    """Whether there are steps before and behind, and not as many."""
    if value.time_dim is None:
        return False
    if after.time_dim is None:
        return len(after.shape) > 1 and after.shape[0] != _count_steps(value)
    return _count_steps(value) != _count_steps(after)


def _count_steps(value: TensorInfo) -> int:
    return value.shape[value.time_dim - 1] if value.time_dim is not None else 0
