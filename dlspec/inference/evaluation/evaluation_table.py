"""An evaluation as text: the metrics with their intervals, the groups, and the threshold to type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dlspec.errors import replace_control_characters, shorten_middle
from dlspec.formatting import format_number, format_table
from dlspec.inference.evaluation.bootstrap import LEVEL, Interval
from dlspec.inference.evaluation.evaluation_results import ChosenThreshold, EvaluationResults
from dlspec.inference.evaluation.group_results import MIN_ROWS, Group
from dlspec.inference.evaluation.new_table import format_predict_command
from dlspec.language.yaml.yaml_files import format_file_path

MAX_CELL = 40  # characters of a group's value
MAX_GROUP_METRICS = 6  # columns of the table of groups
RARE = "*"


def format_evaluation(evaluation: EvaluationResults) -> str:
    """Format the results of an evaluation."""
    return "\n".join(map(replace_control_characters, _iterate_lines(evaluation)))


def _iterate_lines(evaluation: EvaluationResults) -> Iterator[str]:
    yield _describe_subject(evaluation)
    yield ""
    yield from format_metrics(evaluation.metrics).split("\n")
    if evaluation.by is not None:
        yield ""
        yield from _format_groups(evaluation)
    for each in evaluation.thresholds:
        yield ""
        yield from _format_threshold(evaluation, each)


def _describe_subject(evaluation: EvaluationResults) -> str:
    run, data = evaluation.run, evaluation.data
    where = [f"epoch {run.epoch}"] if run.epoch else []
    where += [f"step {run.step:,}"] if run.step else []
    rows = f"{evaluation.rows:,} rows"
    what = f"{data.name} split" if data.name is not None else data.path or "rows given in Python"
    left_out = f", {data.left_out:,} left out" if data.left_out else ""
    weights = f"{evaluation.checkpoint} weights" + (f" ({', '.join(where)})" if where else "")
    return f"{format_file_path(run.folder)}: {weights} on {what}, {rows}{left_out}"


def format_metrics(metrics: Mapping[str, Interval]) -> str:
    """Format metrics, by name, as a table with their intervals."""
    has_intervals = any(each.low is not None for each in metrics.values())
    header = ["metric", "value", *([f"{LEVEL:.0%} interval"] if has_intervals else [])]
    rows = [
        [name, format_number(each.value), *([_format_interval(each)] if has_intervals else [])]
        for name, each in metrics.items()
    ]
    return format_table(header, rows, {"value"})


def _format_interval(interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{format_number(interval.low)} to {format_number(interval.high)}"


def _format_groups(evaluation: EvaluationResults) -> Iterator[str]:
    names = [name for name in evaluation.metrics if not name.startswith("loss_")][:MAX_GROUP_METRICS]
    header = [str(evaluation.by), "rows", *names]
    rows = [_format_group(group, names) for group in evaluation.groups]
    yield from format_table(header, rows, {"rows", *names}).split("\n")
    if any(group.is_rare for group in evaluation.groups):
        yield f"{RARE} fewer than {MIN_ROWS} rows: too few to say much"


def _format_group(group: Group, names: Sequence[str]) -> list[str]:
    value = "(other values)" if group.is_joined else shorten_middle(group.value, MAX_CELL) or "(missing)"
    results = [format_number(group.metrics[name].value) if name in group.metrics else "" for name in names]
    return [f"{value}{f' {RARE}' if group.is_rare else ''}", f"{group.rows:,}", *results]


def _format_threshold(evaluation: EvaluationResults, chosen: ChosenThreshold) -> Iterator[str]:
    threshold = chosen.threshold
    what = f"{chosen.target}: {chosen.positive}" if chosen.positive else f"the labels of {chosen.target}"
    if threshold.value == 0.5:
        yield f"best threshold for {what}: 0.5, the default (F1 {threshold.score:.4f} on validation rows)"
        return
    yield (
        f"best threshold for {what}: {threshold.value:g}, with F1 {threshold.score:.4f} on validation rows in place of "
        f"{threshold.default_score:.4f}, and {chosen.score:.4f} on these in place of {chosen.default_score:.4f}"
    )
    if chosen.is_worse:
        yield "  it is worse on these rows than 0.5, so it may only fit the validation rows: keep 0.5"
        return
    model = f"run={format_file_path(evaluation.run.folder)}"
    yield f"  to use it: {format_predict_command(model, 'FILE.csv', f'threshold={threshold.value:g}')}"
