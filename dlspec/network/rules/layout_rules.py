"""What a layer can take, what it learns from its inputs, and what becomes of lengths, by its rule.

PyTorch's layers have rows in `torch_layers` beside this file; dlspec's and users' own carry theirs. What a rule refuses
PyTorch would often run in silence, over the wrong dimension.
"""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from dlspec.data.batches.trimming import mapped
from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Lengths, Value, Window, roles
from dlspec.network.rules.remedies import remedy
from dlspec.network.rules.torch_rules import torch_rule
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape, main
from dlspec.parts.schema import Schema


def rule_for(schema: Schema) -> Rule:
    """The layer's own rule, or PyTorch's row; one that has neither may do anything: its rank tells its layout."""
    own = getattr(schema.build, "rule", None)
    if isinstance(own, Rule):
        return own
    return torch_rule(schema.name) if _is_pytorchs(schema) else Rule()


def _is_pytorchs(schema: Schema) -> bool:
    return schema.build is getattr(nn, schema.name, None)


def _is_users(schema: Schema) -> bool:
    return not _is_pytorchs(schema) and not getattr(schema.build, "__module__", "").startswith("dlspec.parts.layers.")


# ---- what is refused -----------------------------------------------------------------------------------------------


def refusal(schema: Schema, inputs: Inputs, settings: Settings) -> Finding | None:
    """Why the layer can't take these inputs, and what to write; None where it can."""
    rule, value, layer = rule_for(schema), inputs[0], _WRITTEN_AS.get(schema.name, schema.name)
    if not rule.takes_parameter and not all(each.has_batch for each in inputs):
        fix = "bring it in by Add, Multiply, Concat or Formula"
        return Finding(Code.WRONG_LAYOUT, f"{layer} wants values with a batch, and a Parameter has none", fix)
    value = main(inputs) if rule.takes_parameter else inputs[0]
    if value.layout not in rule.takes and not _says_where(layer, value, settings):
        return Finding(
            Code.WRONG_LAYOUT,
            f"{layer} wants {' or '.join(rule.takes)}, and {value} comes in",
            remedy(layer, rule, value),
        )
    if rule.dims is not None and value.layout == "channels-first" and len(value.shape) != rule.dims + 1:
        right = re.sub(r"\dd$", f"{len(value.shape) - 1}d", layer)
        fix = f"did you mean '{right}'?" if right != layer and hasattr(nn, right) else ""
        return Finding(Code.WRONG_LAYOUT, f"{layer} wants channels and {rule.dims} more, and {value} comes in", fix)
    mixing = None if _is_users(schema) else _mixing(value, settings)
    return mixing or rule.refuse(inputs, settings)


# Layers that a container brings along: a message names what the user wrote.
_WRITTEN_AS = {"FoldTime": "TimeDistributed"}


def _says_where(layer: str, value: Value, settings: Settings) -> bool:
    """Whether its settings say on which dimensions it works, so that any layout will do."""
    says = {"LayerNorm": "normalized_shape", "RMSNorm": "normalized_shape", "GLU": "dim", "CosineSimilarity": "dim"}
    return value.layout != "tokens" and layer in says and settings.get(says[layer]) is not None


def _mixing(value: Value, settings: Settings) -> Finding | None:
    """Dimension 0 is the batch, which no layer may touch."""
    for name in ("dim", "start_dim"):
        dim = settings.get(name)
        if isinstance(dim, int) and dim in (0, -1 - len(value.shape)):
            found = f"{name} is {dim}: that is the batch, and samples must not mix"
            return Finding(Code.SAMPLES_MIXED, found, "the dimensions of a sample start at 1")
    return None


# ---- what is learned from the inputs -------------------------------------------------------------------------------


def infer(setting: str, inputs: Inputs) -> Any:
    """What an inferred setting is for these inputs; None where they do not tell."""
    if setting == "num_embeddings":
        return inputs[0].vocab_size
    if setting in ("kdim", "vdim", "in2_features"):
        return inputs[min(_SOURCES[setting], len(inputs) - 1)].channels if len(inputs) > 1 else None
    value = main(inputs)
    return value.shape[-1] if setting == "normalized_shape" and value.shape else value.channels


_SOURCES = {"in2_features": 1, "kdim": 1, "vdim": 2}


def filled(schema: Schema, inputs: Inputs, settings: Settings) -> dict[str, Any]:
    """What the inputs decide of settings that were left open."""
    return {name: each for name, each in rule_for(schema).fill(inputs, settings).items() if settings.get(name) is None}


# ---- what becomes of lengths ---------------------------------------------------------------------------------------


def layout_after(schema: Schema, inputs: Inputs, settings: Settings, shape: Shape, output: str = "") -> Layout:
    """The layout of an output of this shape; `output` is its name where it is not the first."""
    return rule_for(schema).gives(inputs, shape, _of_output(settings, output))


def roles_after(schema: Schema, inputs: Inputs, settings: Settings, shape: Shape, layout: Layout) -> tuple[str, ...]:
    """The roles of an output's dimensions where its layout does not tell them, else ()."""
    rule, value = rule_for(schema), main(inputs)
    is_like = len(shape) == len(value.shape) and layout == value.layout
    found = rule.roles(inputs, shape, settings) if rule.roles else value.own_roles if is_like else ()
    return found if found and found != roles(layout, len(shape)) else ()


def lengths_after(
    schema: Schema, module: nn.Module, inputs: Inputs, settings: Settings, shape: Shape, output: str = ""
) -> Lengths | None:
    """The lengths of an output of this shape: the main input's where its steps stay, or what a window makes of them.

    None where there were none, where no steps are left, and where padding has mixed with steps.
    """
    rule, value, settings = rule_for(schema), main(inputs), _of_output(settings, output)
    if rule.lengths is not None:
        return rule.lengths(inputs, shape, settings)
    if value.lengths is None or not takes_any_length(schema, module, inputs, settings, shape):
        return None
    window = _window(rule, value, settings)
    if window is not None:
        return Lengths(value.lengths.field, (*value.lengths.windows, window))
    after = Value(shape, rule.gives(inputs, shape, settings))
    return value.lengths if after.time_dim is not None else None


def takes_any_length(
    schema: Schema, module: nn.Module, inputs: Inputs, settings: Settings, shape: Shape, output: str = ""
) -> bool:
    """Whether such an output is what the sample alone gives: batches may then end at their longest sample.

    Its steps are then the sample's, or those of a window, or they ended in one row. A layer of the user's own says so
    itself, by `keeps_lengths = True`.
    """
    rule, value, settings = rule_for(schema), main(inputs), _of_output(settings, output)
    if rule.window is not None and value.time_dim is not None:
        window = _window(rule, value, settings)
        after = Value(shape, rule.gives(inputs, shape, settings))
        return window is not None and mapped(_steps(value), [window]) == _steps(after)
    if getattr(module, "keeps_lengths", False) is not True and not _keeps(rule, inputs, settings):
        return False
    return rule.lengths is not None or not _changes_steps(value, Value(shape, rule.gives(inputs, shape, settings)))


def _of_output(settings: Settings, output: str) -> Settings:
    return {**settings, "output": output} if output else settings


def _window(rule: Rule, value: Value, settings: Settings) -> Window | None:
    return None if rule.window is None or value.time_dim is None else rule.window(settings)


def _keeps(rule: Rule, inputs: Inputs, settings: Settings) -> bool:
    if callable(rule.keeps_lengths):
        return rule.keeps_lengths(inputs, settings)
    return rule.keeps_lengths and not (rule.lengths is None and _works_on_steps(settings, main(inputs)))


def _works_on_steps(settings: Settings, value: Value) -> bool:
    """Whether a setting lets it work over the dimension that has the steps."""
    normalized, dim = settings.get("normalized_shape"), settings.get("dim")
    time, rank = value.time_dim, len(value.shape) + 1
    count = len(normalized) if isinstance(normalized, list) else 1 if normalized is not None else 0
    return time is not None and ((count > 0 and time >= rank - count) or (isinstance(dim, int) and dim % rank == time))


def _changes_steps(value: Value, after: Value) -> bool:
    """Whether there are steps before and behind, and not as many."""
    if value.time_dim is None:
        return False
    if after.time_dim is None:
        return len(after.shape) > 1 and after.shape[0] != _steps(value)
    return _steps(value) != _steps(after)


def _steps(value: Value) -> int:
    return value.shape[value.time_dim - 1] if value.time_dim is not None else 0
