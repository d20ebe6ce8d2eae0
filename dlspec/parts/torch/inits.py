"""Initialization of weights: the functions of `torch.nn.init` under their own names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from dlspec.parts.registry import Registry
from dlspec.parts.schema import Schema
from dlspec.parts.schema_derivation import SchemaOptions, derive_schema
from dlspec.parts.setting_constraints import find_constraint

_INIT_NAMES = (
    "uniform_ normal_ trunc_normal_ constant_ ones_ zeros_ eye_ dirac_ xavier_uniform_ xavier_normal_ "
    "kaiming_uniform_ kaiming_normal_ orthogonal_ sparse_"
)
_SUGGESTIONS = {
    "zeros": "zeros_",
    "ones": "ones_",
    "glorot_uniform": "xavier_uniform_",
    "glorot_normal": "xavier_normal_",
    "he_uniform": "kaiming_uniform_",
    "he_normal": "kaiming_normal_",
    "truncated_normal": "trunc_normal_",
    "random_normal": "normal_",
    "random_uniform": "uniform_",
}


def _derive_init(function: Callable[..., Any]) -> Schema:
    return derive_schema(function, "init", SchemaOptions(find_constraint, frozenset({"tensor", "generator"})), function)


INITS = Registry(
    "init", (getattr(nn.init, name) for name in _INIT_NAMES.split()), _derive_init, suggestions=_SUGGESTIONS
)
