"""Check before training whether a loss fits the network's last layer, its output shape, and the target."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dlspec.data.dataset import Dataset, Target
from dlspec.data.lazy_array import read_rows_to_check
from dlspec.errors import Code, join_with_or
from dlspec.language.problems import Problems
from dlspec.language.spec_versions import PADDING
from dlspec.layouts import TensorInfo, format_shape
from dlspec.losses.class_weight_checks import check_class_weights
from dlspec.losses.loss_matching import LossMatch
from dlspec.losses.loss_rules import SOFTMAX_LAYERS
from dlspec.losses.mixed_targets import explain_unmixed, list_mixings
from dlspec.losses.sample_weights import explain_unweighted


def check_match(match: LossMatch, data: Dataset, problems: Problems) -> bool:
    """Whether a loss fits its outputs and its target.

    Args:
        match: The loss with its outputs and its target.
        data: The data with the target.
        problems: Collects the first problem that is found.
    """
    problem_count = len(problems)
    checks = (
        _check_sample_weights,
        _check_mixing,
        _check_target,
        _check_target_values,
        _check_last_layers,
        _check_single_output,
        _check_output_shape,
        check_class_weights,
        _check_equal_shapes,
        _check_known_lengths,
    )
    for check in checks:
        check(match, data, problems)
        if len(problems) > problem_count:
            return False
    return True


def _check_known_lengths(match: LossMatch, data: Dataset, problems: Problems) -> None:
    """Check that a loss over steps knows which of them are padding, if the data has any."""
    target, value, loss = match.target, match.main.value, match.term.type
    has_own = isinstance(target, Target) and target.shape and target.lengths and loss != "CTCLoss"
    if has_own and target is not None and value.hides_steps:
        problems.refuse_changed_rule(PADDING, match.term.path)
    if has_own or (isinstance(target, Target) and not target.shape):
        return
    if value.hides_steps:
        found = f"{loss} needs the steps of {value} to leave padding out, and they are in no time dimension"
        fix = "use an output (T, C), one step after the other: keep the channels with keepdim: true"
        problems.add(Code.LENGTHS_LOST, match.term.path, found, fix)
    if not value.lengths_lost_at:
        return
    found = f"{loss} needs each sample's length, which is unknown after layer '{value.lengths_lost_at}'"
    fix = "if the steps of that layer are those of another output, write lengths_of: NAME in it; otherwise replace it"
    problems.add(Code.LENGTHS_LOST, match.term.path, found, fix)


def _check_sample_weights(match: LossMatch, data: Dataset, problems: Problems) -> None:
    """Report a loss that can't count samples by their weights."""
    if isinstance(match.target, Target) and match.target.weights:
        found = explain_unweighted(match)
        if found:
            fix = f"use a loss of PyTorch such as CrossEntropyLoss or MSELoss, or {data.name} without weights"
            problems.add(Code.UNSUPPORTED, match.term.path, found, fix)


def _check_mixing(match: LossMatch, data: Dataset, problems: Problems) -> None:
    """Report a target of mixed samples that the loss can't compare."""
    for mixing in list_mixings(data):
        found = explain_unmixed(match, mixing.name)
        if found:
            is_class = match.rule.classes and isinstance(match.target, Target) and not match.target.shape
            fix = f"use CrossEntropyLoss, or remove {mixing.name}" if is_class else f"remove {mixing.name}"
            problems.add(Code.UNSUPPORTED, mixing.part.path, found, fix)


def _check_target(match: LossMatch, data: Dataset, problems: Problems) -> None:
    rule, loss, target, path = match.rule, match.term.type, match.target, match.term.where("target")
    if not isinstance(target, Target):
        return
    is_no_class = rule.numbers == "none" or (rule.numbers == "probabilities" and not _may_be_probabilities(target))
    if target.kind == "numbers" and is_no_class:
        fix = "use BCEWithLogitsLoss" if target.labels else "use MSELoss, L1Loss, SmoothL1Loss or HuberLoss"
        problems.add(
            Code.WRONG_TARGET, path, f"{loss} expects classes, but '{target.name}' {_describe_target(target)}", fix
        )
    elif target.kind == "classes" and not (rule.classes and not rule.counts):
        expected = "counts" if rule.counts else "numbers"
        fix = f"write {target.unscaled_setting}, or use CrossEntropyLoss" if target.unscaled_setting else ""
        found = f"{loss} expects {expected}, but '{target.name}' has classes"
        problems.add(Code.WRONG_TARGET, path, found, fix or "use CrossEntropyLoss")
    elif target.kind == "classes" and rule.numbers == "signs" and len(target.classes) != 2:
        found = f"{loss} expects two classes, but '{target.name}' has {len(target.classes)}"
        problems.add(Code.WRONG_TARGET, path, found, "use a target of two classes, or of the numbers -1 and 1")
    elif rule.counts and target.scale is not None:
        found = f"{loss} expects counts, but '{target.name}' is standardized"
        fix = f"write {target.unscaled_setting}, or use MSELoss" if target.unscaled_setting else "use MSELoss"
        problems.add(Code.WRONG_TARGET, path, found, fix)


def _check_target_values(match: LossMatch, data: Dataset, problems: Problems) -> None:
    """Check the target's values for losses that expect 0 to 1, or -1 and 1, but accept others without an error."""
    target, expected, loss = match.target, match.rule.numbers, match.term.type
    if isinstance(target, int | float):
        _check_constant_target(match, target, problems)
    elif data.is_described:
        return  # checked before the run was trained
    elif target is not None and target.kind == "numbers" and expected == "probabilities":
        _check_probabilities(match, target, data, problems)
    elif target is not None and target.kind == "numbers" and expected in ("unit", "signs"):
        values = read_rows_to_check(data.train.get_loss_target(target.name))
        if _has_allowed_values(values, expected):
            return
        numbers, fix = _EXPECTED_NUMBERS[expected]
        found_range = f"'{target.name}' ranges from {values.min().item():g} to {values.max().item():g}"
        problems.add(Code.WRONG_TARGET, match.term.where("target"), f"{loss} expects {numbers}, but {found_range}", fix)


def _may_be_probabilities(target: Target) -> bool:
    """Whether the numbers of a target can be the probabilities of at least two classes."""
    return bool(target.shape) and target.shape[0] > 1 and not target.labels and target.scale is None


MAX_SUM_ERROR = 1e-3  # of the probabilities of a sample


def _check_probabilities(match: LossMatch, target: Target, data: Dataset, problems: Problems) -> None:
    """Check that each sample's numbers, (K) or (K, ...), are the probabilities of K classes."""
    values, path = read_rows_to_check(data.train.get_loss_target(target.name)), match.term.where("target")
    fix = "use MSELoss, or BCEWithLogitsLoss if a sample may have several classes"
    sums = values.sum(1)
    if values.min() < 0 or (sums - 1).abs().max() > MAX_SUM_ERROR:
        found = f"those of '{target.name}' sum to {sums.min().item():g} to {sums.max().item():g}"
        found = f"its smallest number is {values.min().item():g}" if values.min() < 0 else found
        expected = f"{match.term.type} expects classes, or probabilities that sum to 1"
        problems.add(Code.WRONG_TARGET, path, f"{expected}, but {found}", fix)
    elif match.main.value.layout not in ("features", "channels-first"):
        found = f"{match.term.type} expects the probabilities of classes in dimension 1"
        fix = "use a target of classes, or an output that is channels-first: Permute: [0, 2, 1] after the last layer"
        problems.add(Code.WRONG_LAYOUT, path, f"{found}, but the output is {match.main.value}", fix)


_EXPECTED_NUMBERS = {
    "unit": ("numbers from 0 to 1", "use MSELoss, L1Loss, SmoothL1Loss or HuberLoss"),
    "signs": ("-1 or 1", "use two classes, or the numbers -1 and 1"),
}


def _check_constant_target(match: LossMatch, number: float, problems: Problems) -> None:
    loss, expected, channels = match.term.type, match.rule.numbers, match.main.value.channels
    path, given = match.term.where("target"), f"target is {number:g}"
    if match.rule.takes_class_numbers and number not in range(channels):
        problems.add(
            Code.WRONG_TARGET,
            path,
            f"{loss} expects a class number, but {given}",
            f"write 0 to {channels - 1}",
            at_value=True,
        )
    elif expected in _EXPECTED_NUMBERS and not _has_allowed_values(torch.tensor(float(number)), expected):
        problems.add(
            Code.WRONG_TARGET,
            path,
            f"{loss} expects {_EXPECTED_NUMBERS[expected][0]}, but {given}",
            _EXPECTED_NUMBERS[expected][1],
            at_value=True,
        )


def _has_allowed_values(values: Tensor, expected: str) -> bool:
    is_allowed = (values.abs() == 1) if expected == "signs" else (values >= 0) & (values <= 1)
    return bool(is_allowed.all())


def _check_last_layers(match: LossMatch, data: Dataset, problems: Problems) -> None:
    rule, loss, end = match.rule, match.term.type, match.main.end
    if end.type in rule.refused_last_layers:
        problems.add(Code.WRONG_END, end.path, f"{_with_article(end.type)} must not come before {loss}", rule.fix)
    elif rule.required_last_layers and end.type not in rule.required_last_layers:
        expected = join_with_or(rule.required_last_layers)
        problems.add(
            Code.WRONG_END, end.path, f"{loss} expects the network to end with {expected}, got {end.type}", rule.fix
        )
    for argument, (refused, fix) in (rule.refused_by_argument or {}).items():
        other = match.outputs[argument].end
        if other.type in refused:
            problems.add(
                Code.WRONG_END, other.path, f"{_with_article(other.type)} must not come before {loss}'s {argument}", fix
            )


def _check_single_output(match: LossMatch, data: Dataset, problems: Problems) -> None:
    end = match.main.end
    if end.type in SOFTMAX_LAYERS and match.main.value.channels == 1:
        problems.add(
            Code.WRONG_END,
            end.path,
            f"{_with_article(end.type)} over one output always gives the same value",
            "end with a Sigmoid, or use 2 outputs",
        )


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _check_output_shape(match: LossMatch, data: Dataset, problems: Problems) -> None:
    """Compare the shapes of output and target. PyTorch would broadcast some that differ, without an error."""
    if match.term.type == "CTCLoss":
        _check_ctc(match, problems)
    elif match.rule.size == "one" and match.main.value.shape != (1,):
        _report_shape_mismatch(match, "(1)", "end with Linear: 1", problems)
    elif match.rule.size == "any" and isinstance(match.target, Target) and len(match.main.value.shape) != 1:
        _report_shape_mismatch(
            match, "one vector per sample", f"end with {_flatten(match.main.value)} and Linear", problems
        )
    elif match.rule.size == "target" and isinstance(match.target, Target):
        _check_target_shape(match, match.target, data, problems)


def _check_target_shape(match: LossMatch, target: Target, data: Dataset, problems: Problems) -> None:
    value, expected = match.main.value, _list_expected_shapes(match, target)
    if value.shape in expected or (target.kind == "numbers" and value.shape == _add_channels(target.shape, 1, value)):
        return
    fix = _suggest_shape_fix(expected[0], target, value)
    fix += _suggest_data_reference(expected, target, data) if len(value.shape) == 1 else ""
    _report_shape_mismatch(match, " or ".join(map(format_shape, expected)), fix, problems)


def _list_expected_shapes(match: LossMatch, target: Target) -> list[tuple[int, ...]]:
    """List the output shapes that fit the target, in the output's layout."""
    if target.kind == "numbers":
        return [target.shape or (1,)]
    return [
        _add_channels(target.shape, count, match.main.value) for count in list_expected_output_counts(match, target)
    ]


def _add_channels(steps: tuple[int, ...], num_channels: int, output_info: TensorInfo) -> tuple[int, ...]:
    """Add the channels to a shape of steps or pixels, first or last as in the output's layout."""
    return (num_channels, *steps) if output_info.layout == "channels-first" else (*steps, num_channels)


def list_expected_output_counts(match: LossMatch, target: Target) -> list[int]:
    """List how many channels an output may have for a target of classes."""
    count = len(target.classes)
    return [1, 2] if count == 2 and not match.rule.takes_class_numbers else [count]


def _flatten(value: TensorInfo) -> str:
    """Return the layer that makes a vector of a value; one number per sample has no dimension to flatten."""
    return "Flatten" if value.shape else "Reshape: [1]"


def _suggest_shape_fix(expected: tuple[int, ...], target: Target, value: TensorInfo) -> str:
    if len(expected) == 1:
        if value.layout == "sequence":
            return "reduce the steps to one vector before the last Linear: Mean, Select: -1, or output: last in an LSTM"
        if len(value.shape) == 1:
            return f"end with Linear: {expected[0]}"
        return f"end with {_flatten(value)} and Linear: {expected[0]}"
    is_channels_first = value.layout == "channels-first"
    if len(value.shape) == len(expected) and (
        value.shape[1:] == expected[1:] if is_channels_first else value.shape[:-1] == expected[:-1]
    ):
        conv = f"Conv{len(expected) - 1}d: {{out_channels: {expected[0]}, kernel_size: 1}}"
        return f"end with {conv if is_channels_first else f'Linear: {expected[-1]}'}"
    if math.prod(value.shape) == math.prod(expected):
        return f"end with Reshape: [{', '.join(map(str, expected))}]"
    return f"'{target.name}' has shape {format_shape(target.shape)}: the network must output as many steps"


def _suggest_data_reference(expected: list[tuple[int, ...]], target: Target, data: Dataset) -> str:
    """Suggest a reference to the number of outputs, which also fits other data."""
    if len(expected[0]) > 1 or (target.num_outputs,) not in expected or target not in data.targets:
        return ""
    return f", or Linear: ${{data.{'' if len(data.targets) == 1 else f'{target.name}.'}num_outputs}}"


def _check_ctc(match: LossMatch, problems: Problems) -> None:
    target, value = match.target, match.main.value
    if not isinstance(target, Target) or len(target.shape) != 1:
        problems.add(
            Code.WRONG_TARGET,
            match.term.where("target"),
            "CTCLoss expects a sequence of classes for each sample",
            "use integers (N, S) as the target",
        )
    elif value.layout != "sequence" or value.channels != len(target.classes):
        _report_shape_mismatch(
            match, f"a sequence (T, {len(target.classes)})", f"end with Linear: {len(target.classes)}", problems
        )


def _check_equal_shapes(match: LossMatch, data: Dataset, problems: Problems) -> None:
    """Check that all outputs of a loss have the same shape."""
    first, *others = match.outputs.items()
    for argument, each in others:
        if each.value.shape != first[1].value.shape:
            both = f"{first[0]} is {first[1].value} and {argument} is {each.value}"
            problems.add(
                Code.SHAPE_MISMATCH,
                match.term.where("output"),
                f"{match.term.type} expects outputs of the same shape, but {both}",
            )
            return


def _report_shape_mismatch(match: LossMatch, expected: str, fix: str, problems: Problems) -> None:
    found = f"the network outputs {match.main.value}, but {match.term.type} expects {expected}"
    target_contents = (
        f": '{match.target.name}' {_describe_target(match.target)}" if isinstance(match.target, Target) else ""
    )
    problems.add(Code.SHAPE_MISMATCH, match.main.end.path, found + target_contents, fix)


def _describe_target(target: Target) -> str:
    """Describe a target, as the end of a sentence."""
    each = {0: "", 1: " per step"}.get(len(target.shape), " per pixel")
    if target.labels:
        return f"has {len(target.labels)} labels"
    if target.classes:
        return f"has {len(target.classes)} classes{each}"
    if len(target.shape) > 1:
        return f"has numbers of shape {format_shape(target.shape)}"
    return f"has {target.shape[0]} numbers" if target.shape and target.shape != (1,) else "is a number"
