"""Read the section `loss`: one loss, or multiple losses by name, each with the output and target that it compares.

loss: CrossEntropyLoss
loss:
  main: {type: CrossEntropyLoss, output: logits, target: label}
  kl: {type: Mean, output: kl, factor: 0.1}
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from dlspec.errors import Code, KeyPath, format_value, suggest
from dlspec.language.expressions.expression_parsing import UnknownValue
from dlspec.language.parse.part import Part, parse_part
from dlspec.language.problems import Problems
from dlspec.parts.schema import Schema
from dlspec.parts.torch.torch_parts import LOSSES

LOSS_KEYS = ("output", "target", "factor")
"""Settings that dlspec adds to those of every loss."""

OutputNames = str | tuple[str, ...] | Mapping[str, str]


class Mean(nn.Module):
    """Return the mean of an output that is already a loss, such as a KL divergence. Takes no target."""

    def forward(self, output: Tensor) -> Tensor:
        return output.mean()


LOSSES.register(Mean)


@dataclass(frozen=True)
class LossArguments:
    """The arguments of a loss's `forward` by their role."""

    names: tuple[str, ...]  # all arguments, in order
    outputs: tuple[str, ...]  # those that take the model's outputs
    target: str = ""  # the one that takes the target, or ''


def inspect_loss_arguments(loss: Callable[..., Any]) -> LossArguments:
    """Determine the role of each argument of a loss's `forward` from its name.

    The target is called `target` or `targets`, as in PyTorch; otherwise, of two arguments, the second is the target.
    Arguments ending in `_lengths` take lengths. All others take outputs.
    """
    forward = getattr(loss, "forward", loss)
    names = tuple(each for each in inspect.signature(forward).parameters if each != "self")
    target = next((each for each in names if each in ("target", "targets")), "")
    if not target and len(names) == 2:
        target = names[1]
    outputs = tuple(each for each in names if each != target and not each.endswith("_lengths"))
    return LossArguments(names, outputs, target)


@dataclass(frozen=True)
class LossTerm:
    """One loss as written. A value of None was left out."""

    name: str  # '' for a single loss
    schema: Schema
    settings: Mapping[str, Any] = field(default_factory=dict)
    output: OutputNames | None = None  # names of the model's outputs, in the order of the arguments or by argument
    target: str | float | None = None  # name of a target or field, or a number
    factor: float = 1.0  # the term is multiplied by this before all terms are added
    part: Part | None = None

    @property
    def type(self) -> str:
        """Name of the loss's class."""
        return self.schema.name

    @property
    def path(self) -> KeyPath:
        """Path of the loss in the spec."""
        return ("loss",) if self.part is None else self.part.path

    def where(self, key: str) -> KeyPath:
        """Return the path of one of its settings, or of the loss itself if the setting is not written."""
        return self.path if self.part is None or key not in self.part.settings else self.part.path_of(key)


LossTerms = tuple[LossTerm, ...]


def read_losses(raw: Any, path: KeyPath, problems: Problems, choices: Iterable[str] = ()) -> LossTerms | None:
    """Read all terms of the section `loss`.

    Args:
        raw: The section as written.
        path: Its path in the spec.
        problems: Where everything wrong is reported.
        choices: Names of the files in the config group `loss`, suggested for unknown names.

    Returns:
        The terms, or None if a loss could not be read.
    """
    if not _has_named_losses(raw):
        part = parse_part(raw, path, problems, kind="loss")
        term = None if part is None else read_loss(part, "", problems, choices)
        return None if term is None else (term,)
    entries = {name: each for name, each in raw.items() if each is not None and (name, each) != ("type", "auto")}
    terms = [_read_named_loss(name, each, (*path, name), problems, choices) for name, each in entries.items()]
    found = tuple(each for each in terms if each is not None)
    return found if len(found) == len(terms) else None


BALANCED = "balanced"


def separate_balanced(raw: Any) -> tuple[Any, dict[str, str]]:
    """Separate `weight: balanced` or `pos_weight: balanced` from the losses of a spec.

    Returns:
        The losses without these settings, and the setting of each loss that has one, by the loss's name; the name of a
        single loss, or of `auto`, is ''. The loss `auto` has no other settings, so null in their place is left out.
    """
    if not _has_named_losses(raw):
        single, key = _separate_balanced_setting(raw)
        return single, {"": key} if key else {}
    separated = {name: _separate_balanced_setting(each) for name, each in raw.items()}
    return {name: each for name, (each, _) in separated.items()}, {
        name: key for name, (_, key) in separated.items() if key
    }


def _separate_balanced_setting(raw: Any) -> tuple[Any, str]:
    """Return one loss without the setting that is `balanced`, and the setting's name; '' if there is none."""
    if not isinstance(raw, dict):
        return raw, ""
    if raw.get("type") == "auto":  # a sweep compares `balanced,null`
        raw = {name: each for name, each in raw.items() if name not in ("weight", "pos_weight") or each is not None}
    key = next((each for each in ("weight", "pos_weight") if raw.get(each) == BALANCED), "")
    if key:
        return {name: each for name, each in raw.items() if name != key}, key
    if len(raw) == 1:
        ((name, settings),) = raw.items()
        inner, key = _separate_balanced_setting(settings) if name in LOSSES else (settings, "")
        return {name: inner}, key
    return raw, ""


def _has_named_losses(raw: Any) -> bool:
    """Whether the keys are the user's names for losses. A single named loss must have a loss as its value."""
    if not isinstance(raw, dict) or not raw:
        return False
    names = [name for name in raw if (name, raw[name]) != ("type", "auto")]
    if "type" in names or not names:
        return False
    if len(names) > 1:
        return True
    only = raw[names[0]]
    is_part = isinstance(only, dict) and ("type" in only or any(key in LOSSES for key in only))
    return names[0] not in LOSSES and (is_part or (isinstance(only, str) and only in LOSSES))


def _read_named_loss(name: Any, raw: Any, path: KeyPath, problems: Problems, choices: Iterable[str]) -> LossTerm | None:
    if not isinstance(name, str) or not name.isidentifier():
        fix = "use letters, digits and _, starting with a letter"
        problems.add(Code.INVALID_NAME, path, f"{format_value(name)} is not a valid name for a loss", fix, at_key=True)
        return None
    if name in LOSSES:
        fix = f"give each loss a name of your own: main: {{type: {name}, ...}}"
        problems.add(
            Code.MISSING_NAME,
            path,
            f"{name} is the type of a loss; with multiple losses, each needs a name",
            fix,
            at_key=True,
        )
        return None
    part = parse_part(raw, path, problems, kind="loss")
    return None if part is None else read_loss(part, name, problems, choices)


def read_loss(part: Part, name: str, problems: Problems, choices: Iterable[str] = ()) -> LossTerm | None:
    """Read one loss term.

    Args:
        part: The loss as written.
        name: The user's name for the loss, or '' for a single loss.
        problems: Where everything wrong is reported.
        choices: Names of the files in the config group `loss`, suggested for unknown names.

    Returns:
        The term, or None if the loss is unknown.
    """
    part = replace(part, path=part.path_of_name)
    schema = LOSSES.find(part, problems, extra_names=choices, setting_names=LOSS_KEYS)
    if schema is None:
        return None
    loss_keys = {key: part.settings[key] for key in LOSS_KEYS if key in part.settings and key not in schema.settings}
    own_settings = {key: value for key, value in part.settings.items() if key not in loss_keys}
    settings = schema.read(replace(part, settings=own_settings), problems)
    return LossTerm(
        name,
        schema,
        settings,
        _read_output(loss_keys.get("output"), part, schema, problems),
        _read_target(loss_keys.get("target"), part, schema, problems),
        _read_factor(loss_keys.get("factor", 1.0), part, problems),
        part,
    )


def _read_output(raw: Any, part: Part, schema: Schema, problems: Problems) -> OutputNames | None:
    argument_names = inspect_loss_arguments(schema.build).outputs
    if raw is None or isinstance(raw, str):
        return raw
    if isinstance(raw, list) and raw and all(isinstance(each, str) for each in raw):
        if len(raw) <= len(argument_names):
            return tuple(raw)
        expected = f"{len(argument_names)} ({', '.join(argument_names)})" if len(argument_names) > 1 else "one"
        problems.add(
            Code.INPUT_COUNT,
            part.path_of("output"),
            f"got {len(raw)} outputs, but {schema.name} takes {expected}",
            at_value=True,
        )
        return None
    if isinstance(raw, dict) and raw and all(isinstance(each, str) for each in raw.values()):
        for key in raw.keys() - set(argument_names):
            fix = suggest(str(key), argument_names)
            problems.add(
                Code.UNKNOWN_KEY, (*part.path_of("output"), key), f"{schema.name} has no output argument '{key}'", fix
            )
        return raw
    if not isinstance(raw, UnknownValue):
        by_argument = (
            f", or {{{', '.join(f'{each}: NAME' for each in argument_names)}}}" if len(argument_names) > 1 else ""
        )
        found = f"'output' must be the name of one of the model's outputs{by_argument}, got {format_value(raw)}"
        problems.add(Code.WRONG_VALUE, part.path_of("output"), found, at_value=True)
    return None


def _read_target(raw: Any, part: Part, schema: Schema, problems: Problems) -> str | float | None:
    if raw is None or isinstance(raw, UnknownValue):
        return None
    if not inspect_loss_arguments(schema.build).target:
        found = f"{schema.name} takes no target"
        problems.add(Code.WRONG_TARGET, part.path_of("target"), found, "remove 'target'")
        return None
    if isinstance(raw, str) or _is_number(raw):
        return raw  # type: ignore[no-any-return]  # a string or a number
    found = f"'target' must be the name of a target or field, or a number, got {format_value(raw)}"
    problems.add(Code.WRONG_VALUE, part.path_of("target"), found, at_value=True)
    return None


def _read_factor(raw: Any, part: Part, problems: Problems) -> float:
    if _is_number(raw):
        return float(raw)
    if not isinstance(raw, UnknownValue):
        problems.add(
            Code.WRONG_VALUE,
            part.path_of("factor"),
            f"'factor' must be a number, got {format_value(raw)}",
            at_value=True,
        )
    return 1.0


def _is_number(raw: Any) -> bool:
    return isinstance(raw, int | float) and not isinstance(raw, bool) and math.isfinite(raw)
