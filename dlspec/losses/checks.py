"""What the spec alone can see of a loss: an end, a target or a shape that it does not fit, before anything runs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code
from dlspec.language.problems import Problems
from dlspec.layouts import Value, format_shape
from dlspec.losses.matching import Match
from dlspec.losses.rules import OVER_CLASSES


def fits(match: Match, data: Dataset, problems: Problems) -> bool:
    """Whether the loss can compare what it is given; else the first reason why not is a mistake."""
    before = len(problems)
    checks = (_check_target, _check_values, _check_ends, _check_one_class, _check_shape, _check_alike)
    for check in checks:
        check(match, data, problems)
        if len(problems) > before:
            return False
    return True


def _check_target(match: Match, data: Dataset, problems: Problems) -> None:
    rule, loss, target, path = match.rule, match.term.type, match.target, match.term.where("target")
    if not isinstance(target, Target):
        return
    if target.kind == "numbers" and rule.numbers == "none":
        fix = "take MSELoss, L1Loss, SmoothL1Loss or HuberLoss"
        problems.add(Code.WRONG_TARGET, path, f"{loss} wants classes, and '{target.name}' {_is(target)}", fix)
    elif target.kind == "classes" and not (rule.classes and not rule.counts):
        wanted = "counts" if rule.counts else "numbers"
        problems.add(
            Code.WRONG_TARGET, path, f"{loss} wants {wanted}, and '{target.name}' has classes", "take CrossEntropyLoss"
        )
    elif target.kind == "classes" and rule.numbers == "signs" and len(target.classes) != 2:
        found = f"{loss} wants yes or no, and '{target.name}' has {len(target.classes)} classes"
        problems.add(Code.WRONG_TARGET, path, found, "give a target of two classes, or of the numbers -1 and 1")
    elif rule.counts and target.scale is not None:
        found = f"{loss} wants counts, and '{target.name}' is standardised"
        problems.add(Code.WRONG_TARGET, path, found, "take data.standardize_target=false, or MSELoss")


def _check_values(match: Match, data: Dataset, problems: Problems) -> None:
    """Some losses compare with numbers from 0 to 1, or with -1 and 1, and run in silence with others."""
    target, wanted, loss = match.target, match.rule.numbers, match.term.type
    if isinstance(target, int | float):
        _check_constant(match, target, problems)
    elif target is not None and target.kind == "numbers" and wanted in ("unit", "signs"):
        values = data.train.compared(target.name)
        if _is_right(values, wanted):
            return
        numbers, fix = _WANTED[wanted]
        held = f"'{target.name}' holds {values.min().item():g} to {values.max().item():g}"
        problems.add(Code.WRONG_TARGET, match.term.where("target"), f"{loss} wants {numbers}, and {held}", fix)


_WANTED = {
    "unit": ("numbers from 0 to 1", "take MSELoss, L1Loss, SmoothL1Loss or HuberLoss"),
    "signs": ("-1 or 1", "give classes, or -1 and 1"),
}


def _check_constant(match: Match, number: float, problems: Problems) -> None:
    loss, wanted, channels = match.term.type, match.rule.numbers, match.main.value.channels
    path, given = match.term.where("target"), f"target is {number:g}"
    if match.rule.takes_class_numbers and number not in range(channels):
        problems.add(
            Code.WRONG_TARGET, path, f"{loss} wants a class, and {given}", f"write 0 to {channels - 1}", at_value=True
        )
    elif wanted in _WANTED and not _is_right(torch.tensor(float(number)), wanted):
        problems.add(
            Code.WRONG_TARGET,
            path,
            f"{loss} wants {_WANTED[wanted][0]}, and {given}",
            _WANTED[wanted][1],
            at_value=True,
        )


def _is_right(values: Tensor, wanted: str) -> bool:
    right = (values.abs() == 1) if wanted == "signs" else (values >= 0) & (values <= 1)
    return bool(right.all())


def _check_ends(match: Match, data: Dataset, problems: Problems) -> None:
    rule, loss, end = match.rule, match.term.type, match.main.end
    if end.type in rule.refused_ends:
        problems.add(Code.WRONG_END, end.path, f"{_a(end.type)} before {loss}", rule.fix)
    elif rule.wanted_ends and end.type not in rule.wanted_ends:
        wanted = " or ".join(rule.wanted_ends)
        problems.add(
            Code.WRONG_END, end.path, f"{loss} wants {wanted} at the end, and {end.type} stands there", rule.fix
        )
    for argument, (refused, fix) in (rule.beside or {}).items():
        other = match.outputs[argument].end
        if other.type in refused:
            problems.add(Code.WRONG_END, other.path, f"{_a(other.type)} before {loss}'s {argument}", fix)


def _check_one_class(match: Match, data: Dataset, problems: Problems) -> None:
    end = match.main.end
    if end.type in OVER_CLASSES and match.main.value.channels == 1:
        problems.add(
            Code.WRONG_END,
            end.path,
            f"{_a(end.type)} over one output always gives the same",
            "end with a Sigmoid, or 2 outputs",
        )


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _check_shape(match: Match, data: Dataset, problems: Problems) -> None:
    """The output against the target: where PyTorch would broadcast the one to the other, nothing would fail."""
    if match.term.type == "CTCLoss":
        _check_ctc(match, problems)
    elif match.rule.size == "one" and match.main.value.shape != (1,):
        _tell(match, "(1)", "end with Linear: 1", problems)
    elif match.rule.size == "any" and isinstance(match.target, Target) and len(match.main.value.shape) != 1:
        _tell(match, "one vector a sample", "end with Flatten and Linear", problems)
    elif match.rule.size == "target" and isinstance(match.target, Target):
        _check_against(match, match.target, data, problems)


def _check_against(match: Match, target: Target, data: Dataset, problems: Problems) -> None:
    value, wanted = match.main.value, _wanted_shapes(match, target)
    if value.shape in wanted or (target.kind == "numbers" and value.shape == _with_channels(target.shape, 1, value)):
        return
    fix = _shape_fix(wanted[0], target, value)
    fix += _general(wanted, target, data) if len(value.shape) == 1 else ""
    _tell(match, " or ".join(map(format_shape, wanted)), fix, problems)


def _wanted_shapes(match: Match, target: Target) -> list[tuple[int, ...]]:
    """The shapes that fit, in the output's own layout."""
    if target.kind == "numbers":
        return [target.shape or (1,)]
    return [_with_channels(target.shape, count, match.main.value) for count in wanted_outputs(match, target)]


def _with_channels(steps: tuple[int, ...], count: int, value: Value) -> tuple[int, ...]:
    """A value a step (a pixel) and channel, with the channels where the layout has them."""
    return (count, *steps) if value.layout == "channels-first" else (*steps, count)


def wanted_outputs(match: Match, target: Target) -> list[int]:
    """How many outputs a loss takes for a target of classes."""
    count = len(target.classes)
    return [1, 2] if count == 2 and not match.rule.takes_class_numbers else [count]


def _shape_fix(wanted: tuple[int, ...], target: Target, value: Value) -> str:
    if len(wanted) == 1:
        if value.layout == "sequence":
            return "make one row of the steps before the last Linear: Mean, Select: -1 or an LSTM's output: last"
        return f"end with Linear: {wanted[0]}" if len(value.shape) == 1 else "end with Flatten and Linear"
    first = value.layout == "channels-first"
    if len(value.shape) == len(wanted) and (
        value.shape[1:] == wanted[1:] if first else value.shape[:-1] == wanted[:-1]
    ):
        conv = f"Conv{len(wanted) - 1}d: {{out_channels: {wanted[0]}, kernel_size: 1}}"
        return f"end with {conv if first else f'Linear: {wanted[-1]}'}"
    if math.prod(value.shape) == math.prod(wanted):
        return f"end with Reshape: [{', '.join(map(str, wanted))}]"
    return f"'{target.name}' has shape {format_shape(target.shape)}: the network must keep as many steps"


def _general(wanted: list[tuple[int, ...]], target: Target, data: Dataset) -> str:
    """The reference that stays right for other data, where the target tells the number."""
    if len(wanted[0]) > 1 or (target.num_outputs,) not in wanted or target not in data.targets:
        return ""
    return f", or Linear: ${{data.{'' if len(data.targets) == 1 else f'{target.name}.'}num_outputs}}"


def _check_ctc(match: Match, problems: Problems) -> None:
    target, value = match.target, match.main.value
    if not isinstance(target, Target) or len(target.shape) != 1:
        problems.add(
            Code.WRONG_TARGET,
            match.term.where("target"),
            "CTCLoss wants a row of classes a sample",
            "give integers (N, S)",
        )
    elif value.layout != "sequence" or value.channels != len(target.classes):
        _tell(match, f"a sequence (T, {len(target.classes)})", f"end with Linear: {len(target.classes)}", problems)


def _check_alike(match: Match, data: Dataset, problems: Problems) -> None:
    """Several outputs of one loss have one shape."""
    first, *others = match.outputs.items()
    for argument, each in others:
        if each.value.shape != first[1].value.shape:
            both = f"{first[0]} is {first[1].value} and {argument} {each.value}"
            problems.add(
                Code.SHAPE_MISMATCH,
                match.term.where("output"),
                f"{match.term.type} wants outputs of one shape, and {both}",
            )
            return


def _tell(match: Match, wanted: str, fix: str, problems: Problems) -> None:
    found = f"the network gives {match.main.value}, and {match.term.type} wants {wanted}"
    held = f": '{match.target.name}' {_is(match.target)}" if isinstance(match.target, Target) else ""
    problems.add(Code.SHAPE_MISMATCH, match.main.end.path, found + held, fix)


def _is(target: Target) -> str:
    """What a target holds, as the end of a sentence."""
    each = {0: "", 1: " a step"}.get(len(target.shape), " a pixel")
    if target.classes:
        return f"has {len(target.classes)} classes{each}"
    if len(target.shape) > 1:
        return f"holds numbers of shape {format_shape(target.shape)}"
    return f"holds {target.shape[0]} numbers" if target.shape and target.shape != (1,) else "is a number"
