"""`Parameter`: a learnable tensor as a layer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.errors import Code, Finding, format_value, suggest
from dlspec.parts.layers.rule import Inputs, Rule, Settings

# Functions of torch.nn.init that fill tensors of any shape; xavier needs two dimensions.
_INIT_NAMES = (
    "zeros_",
    "ones_",
    "constant_",
    "uniform_",
    "normal_",
    "trunc_normal_",
    "xavier_uniform_",
    "xavier_normal_",
)
DEFAULT_STD = 0.02


def _list_init_functions() -> dict[str, tuple[Callable[..., Any], tuple[str, ...]]]:
    functions = {name: getattr(nn.init, name) for name in _INIT_NAMES}
    hidden = ("tensor", "generator")
    return {
        name: (each, tuple(key for key in inspect.signature(each).parameters if key not in hidden))
        for name, each in functions.items()
    }


INIT_FUNCTIONS = _list_init_functions()


def _read_init(init: Any) -> tuple[str, Mapping[str, Any]]:
    """Split `zeros_`, `{normal_: {std: 0.02}}` or `{type: normal_, std: 0.02}` into function name and settings."""
    if isinstance(init, str):
        return init, {"std": DEFAULT_STD} if init == "normal_" else {}
    if "type" in init:
        return str(init["type"]), {key: each for key, each in init.items() if key != "type"}
    name, settings = next(iter(init.items()))
    return str(name), settings if isinstance(settings, dict) else {}


def _check_init_setting(inputs: Inputs, settings: Settings) -> Finding | None:
    init = settings.get("init", "normal_")
    if not init or (isinstance(init, dict) and "type" not in init and len(init) != 1):
        return Finding(
            Code.WRONG_VALUE,
            f"'init' must be a function of torch.nn.init, got {format_value(init)}",
            "write its name, such as zeros_, or {normal_: {std: 0.02}}",
        )
    name, init_settings = _read_init(init)
    if name not in INIT_FUNCTIONS:
        return Finding(Code.UNKNOWN_INIT, f"unknown init '{name}'", suggest(name, INIT_FUNCTIONS))
    setting_names = INIT_FUNCTIONS[name][1]
    wrong = [key for key in init_settings if key not in setting_names]
    if wrong:
        return Finding(
            Code.UNKNOWN_SETTING,
            f"{name} has no setting '{wrong[0]}'",
            suggest(wrong[0], setting_names) or "it has no settings",
        )
    bad = [key for key, each in init_settings.items() if isinstance(each, bool) or not isinstance(each, int | float)]
    if bad:
        return Finding(Code.WRONG_VALUE, f"'{bad[0]}' must be a number, got {format_value(init_settings[bad[0]])}")
    if name == "constant_" and "val" not in init_settings:
        return Finding(Code.MISSING_VALUE, "constant_ requires val", "write {constant_: {val: 0.5}}")
    if name.startswith("xavier") and len(settings["shape"]) < 2:
        return Finding(
            Code.CONFLICT,
            f"{name} requires at least two dimensions, but shape is {settings['shape']}",
            "use normal_ or uniform_",
        )
    return None


class Parameter(nn.Module):
    """A learnable tensor of the given `shape`, without a batch: a class token, a scale, learned queries.

    It takes no input; other layers refer to it by its name, which is also its key in the state dict. `init` is a
    function of `torch.nn.init`, by default `{normal_: {std: 0.02}}`.
    """

    rule = Rule(check=_check_init_setting)
    weight: Tensor

    def __init__(self, shape: list[int], init: str | dict[str, Any] = "normal_") -> None:
        super().__init__()
        name, settings = _read_init(init)
        self.weight = nn.Parameter(torch.empty(shape))
        INIT_FUNCTIONS[name][0](self.weight, **settings)

    def forward(self) -> Tensor:
        return self.weight

    def extra_repr(self) -> str:
        return f"{list(self.weight.shape)}"
