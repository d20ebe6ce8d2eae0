"""Check a user's own class when it is registered: what it is, and the names of its constructor's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import Any

from dlspec.errors import UserError, join_with_or
from dlspec.language.entry_merging import FIRST_ENTRY_KEYS, LATER_ENTRY_KEYS, OWN_SETTINGS


class UnsuitableClassError(UserError, TypeError):
    """A class, or another object, that can't be registered as a part."""


def check_own_layer(cls: Any, base: type) -> None:
    """Check a layer, and note which keys of an entry are settings of this layer.

    Raises:
        UnsuitableClassError: it isn't a subclass of `base`, or an argument has the name of an entry's key.
    """
    names = _check_own_class(cls, base, "layer", FIRST_ENTRY_KEYS, "every entry of `layers`")
    OWN_SETTINGS[cls.__name__] = frozenset(LATER_ENTRY_KEYS).intersection(names)


def check_own_loss(cls: Any, base: type, keys: Collection[str]) -> None:
    """Check a loss.

    Args:
        cls: What the user registers.
        base: The class that it must inherit from.
        keys: The keys that a spec may write beside any loss.

    Raises:
        UnsuitableClassError: it isn't a subclass of `base`, or an argument has one of these names.
    """
    _check_own_class(cls, base, "loss", keys, "every loss")


def check_own_class(cls: Any, base: type, kind: str) -> None:
    """Check an optimizer or a scheduler; raise UnsuitableClassError unless it is a subclass of `base`."""
    _check_own_class(cls, base, kind, (), "")


def _check_own_class(cls: Any, base: type, kind: str, keys: Collection[str], owner: str) -> list[str]:
    """Return the names of the constructor's arguments."""
    if not inspect.isclass(cls) or not issubclass(cls, base):
        raise UnsuitableClassError(_describe_wrong_class(cls, base, kind))
    names = [name for name in inspect.signature(cls.__init__).parameters if name != "self"]
    taken = next((name for name in names if name in (*keys, "type")), "")
    if taken:
        found = f"the {kind} '{cls.__name__}' has an argument '{taken}'"
        used = (
            f"'{taken}' is a key of {owner or f'every {kind}'}" if taken != "type" else "'type' names the class itself"
        )
        raise UnsuitableClassError(f"{found}, but in a spec {used}: rename the argument, for example '{taken}_'")
    return names


def _describe_wrong_class(cls: Any, base: type, kind: str) -> str:
    expected = f"{'an' if kind == 'optimizer' else 'a'} {kind} must be a class that inherits from {_format_base(base)}"
    if inspect.isclass(cls):
        return f"{expected}, got {cls.__name__} with {join_with_or([each.__name__ for each in cls.__bases__])} as base"
    what = type(cls).__name__
    if kind in ("layer", "loss") and (inspect.isroutine(cls) or what == "partial"):
        name = getattr(getattr(cls, "func", cls), "__name__", "it")
        fix = f"call {name} in the forward method of such a class"
        fix += ", or write what it computes as a Formula in the spec" if kind == "layer" else ""
    else:
        fix = f"write @dlspec.{kind} above a class"
    return f"{expected}, got an object of type {what}; {fix}"


def _format_base(base: type) -> str:
    shown = {"torch.nn.modules.module": "nn", "torch.optim.optimizer": "torch.optim"}
    return f"{shown.get(base.__module__, base.__module__)}.{base.__name__}"
