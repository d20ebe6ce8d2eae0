"""Read what `evaluate` found about a run. Anyone may have written the files: everything in them is checked and cut."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dlspec.errors import format_value, replace_control_characters, replace_in_lines, shorten_middle
from dlspec.report.png_pictures import check_picture_uri
from dlspec.report.records import MAX_NAME_LENGTH, MAX_RESULT_VALUE
from dlspec.runs.file_names import EVALUATIONS_FOLDER, parse_evaluation_name
from dlspec.runs.io import read_json_object
from dlspec.runs.json_values import read_count, read_number

MAX_EVALUATION_BYTES = 20_000_000
MAX_FILES = 10_000  # names that are looked at
MAX_TRIED_FILES = 10  # the newest ones: one that is damaged is passed over
MAX_METRICS = 50
MAX_TARGETS = 20
MAX_CLASSES = 200  # of a confusion matrix
MAX_GROUPS = 200
MAX_BINS = 100  # of a calibration
MAX_POINTS = 1_000  # of a scatter
MAX_ERRORS = 50
MAX_COLUMNS = 20  # of a row that is shown
MAX_TEXT_LENGTH = 2_000
FORMAT = 1
_T = TypeVar("_T")


def read_newest_evaluation(folder: Path) -> dict[str, Any] | None:
    """Read the newest evaluation of a run; None if there is none that can be read."""
    newest_first = sorted(_list_evaluations(folder), key=lambda path: parse_evaluation_name(path.name), reverse=True)
    for path in newest_first[:MAX_TRIED_FILES]:
        written = read_json_object(path, MAX_EVALUATION_BYTES)
        if written is not None and written.get("format") == FORMAT:
            return {"file": _read_name(path.name), **check_evaluation(written)}
    return None


def _list_evaluations(folder: Path) -> list[Path]:
    """List the files of evaluations, whose names start with the time; a folder that is a link is not followed."""
    inside = folder / EVALUATIONS_FOLDER
    if inside.is_symlink() or not inside.is_dir():
        return []
    try:
        with os.scandir(inside) as entries:
            names = [entry.name for entry, _ in zip(entries, range(MAX_FILES), strict=False)]
    except OSError:
        return []
    return [inside / name for name in names if name.endswith(".json") and not name.startswith(".")]


def check_evaluation(written: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known parts of an evaluation, with values of the right types and lengths only."""
    return {
        "created": _read_name(written.get("created")),
        "checkpoint": _read_name(written.get("checkpoint")),
        "epoch": read_count(written.get("epoch")),
        "data": _check_data(_read_mapping(written.get("data"))),
        "metrics": _check_metrics(written.get("metrics")),
        "bootstrap": _check_bootstrap(written.get("bootstrap")),
        "by": _check_groups(written.get("by")),
        "targets": [
            {"name": _read_name(name), **_check_target(_read_mapping(each))}
            for name, each in _limit_items(written.get("targets"), MAX_TARGETS)
        ],
    }


def _check_data(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "split": _read_name(data.get("split")),
        "path": _read_text(data.get("path"), MAX_NAME_LENGTH * 4),
        "rows": read_count(data.get("rows")),
        "left_out": read_count(data.get("left_out")),
    }


def _check_metrics(metrics: object) -> list[dict[str, Any]]:
    found = [
        {"name": _read_name(name)} | {key: _read_bounded(_read_mapping(each).get(key)) for key in _INTERVAL}
        for name, each in _limit_items(metrics, MAX_METRICS)
    ]
    return [each for each in found if each["value"] is not None]


_INTERVAL = ("value", "low", "high")


def _check_bootstrap(bootstrap: object) -> dict[str, Any] | None:
    if not isinstance(bootstrap, dict):
        return None
    counts = {key: read_count(bootstrap.get(key)) for key in ("resamples", "rows")}
    return counts | {"level": read_number(bootstrap.get("level"), 1.0)}


def _check_groups(by: object) -> dict[str, Any] | None:
    if not isinstance(by, dict):
        return None
    groups = _limit_list(by.get("groups"), MAX_GROUPS, _read_mapping)
    return {
        "column": _read_name(by.get("column")),
        "groups": [
            {
                "value": _read_name(each.get("value")),
                "rows": read_count(each.get("rows")),
                "metrics": _check_metrics(each.get("metrics")),
            }
            for each in groups
        ],
        "more": max(0, len(by["groups"]) - MAX_GROUPS) if isinstance(by.get("groups"), list) else 0,
    }


# ---- targets ---------------------------------------------------------------------------------------------------------


def _check_target(target: Mapping[str, Any]) -> dict[str, Any]:
    classes = _limit_list(target.get("classes"), MAX_CLASSES, _read_name)
    return {
        "kind": _read_name(target.get("kind")),
        "classes": classes,
        "confusion": _check_confusion(target.get("confusion"), len(classes)),
        "labels": _check_labels(target.get("labels"), target.get("counts")),
        "calibration": _limit_list(target.get("calibration"), MAX_BINS, _check_bin),
        "threshold": _check_threshold(target.get("threshold")),
        "scatter": [each for each in _limit_list(target.get("scatter"), MAX_POINTS, _check_point) if each],
        "errors": _limit_list(target.get("errors"), MAX_ERRORS, _check_error),
    }


def _check_confusion(matrix: object, classes: int) -> list[list[int]] | None:
    """Return the matrix if it has a row and a column for each class; rows are true classes, columns predictions."""
    if not isinstance(matrix, list) or not 0 < len(matrix) == classes:
        return None
    if any(not isinstance(row, list) or len(row) != classes for row in matrix):
        return None
    return [[read_count(cell) or 0 for cell in row] for row in matrix]


def _check_labels(labels: object, counts: object) -> list[dict[str, Any]]:
    """Return each label with the numbers of its right and wrong predictions."""
    names = _limit_list(labels, MAX_CLASSES, _read_name)
    numbers = _limit_list(counts, MAX_CLASSES, _read_mapping)
    pairs = zip(names, numbers, strict=False)
    return [{"name": name} | {key: read_count(each.get(key)) or 0 for key in _LABEL_COUNTS} for name, each in pairs]


_LABEL_COUNTS = ("true_positive", "false_positive", "false_negative", "true_negative")


def _check_bin(value: object) -> dict[str, Any]:
    written = _read_mapping(value)
    numbers = {key: read_number(written.get(key), 2.0) for key in ("low", "high", "confidence", "accuracy")}
    return numbers | {"rows": read_count(written.get("rows"))}


def _check_threshold(threshold: object) -> dict[str, Any] | None:
    value = read_number(_read_mapping(threshold).get("value"), 2.0)
    if value is None or not isinstance(threshold, dict):
        return None
    scores = {key: read_number(threshold.get(key), 2.0) for key in _THRESHOLD_SCORES}
    return {"value": value, **scores} | {key: _read_name(threshold.get(key)) for key in ("metric", "split")}


_THRESHOLD_SCORES = ("score", "default_score", "evaluated_score", "evaluated_default_score")


def _check_point(point: object) -> list[float] | None:
    numbers = [_read_bounded(each) for each in point] if isinstance(point, list) and len(point) == 2 else []
    return [each for each in numbers if each is not None] if numbers and None not in numbers else None


def _check_error(error: object) -> dict[str, Any]:
    written = _read_mapping(error)
    return {
        "row": read_count(written.get("row")),
        "id": _read_answer(written.get("id")),
        **{key: "" if _is_picture(written.get(key)) else _read_answer(written.get(key)) for key in _ANSWERS},
        "answers": [_check_cell(key, written[key]) for key in _ANSWERS if _is_picture(written.get(key))],
        "probability": read_number(written.get("probability"), 2.0),
        "error": _read_bounded(written.get("error")),
        "input": [_check_cell(name, cell) for name, cell in _limit_items(written.get("input"), MAX_COLUMNS)],
    }


_ANSWERS = ("truth", "prediction")


def _is_picture(value: object) -> bool:
    return isinstance(value, str) and value.startswith("data:image/")


def _check_cell(name: str, cell: object) -> dict[str, Any]:
    """Return a cell as a picture if it is one, else as text."""
    if not _is_picture(cell):
        return {"name": _read_name(name), "text": _read_answer(cell)}
    picture = check_picture_uri(cell)
    shown = {"text": "(a picture that can't be shown)"} if picture is None else {"picture": picture}
    return {"name": _read_name(name), **shown}


# ---- values ----------------------------------------------------------------------------------------------------------


def _read_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _limit_items(value: object, count: int) -> list[tuple[str, Any]]:
    return list(_read_mapping(value).items())[:count]


def _limit_list(value: object, count: int, check: Callable[[Any], _T]) -> list[_T]:
    items: Iterable[Any] = value[:count] if isinstance(value, list) else ()
    return [check(each) for each in items]


def _read_bounded(value: object) -> float | None:
    return read_number(value, MAX_RESULT_VALUE)


def _read_name(value: object) -> str:
    """Return a short text in one line; a number or true and false as text, "" for any other value."""
    if isinstance(value, int | float):  # also bool
        return format_value(value)
    return replace_control_characters(shorten_middle(value, MAX_NAME_LENGTH)) if isinstance(value, str) else ""


def _read_text(value: object, length: int = MAX_TEXT_LENGTH) -> str:
    return replace_in_lines(shorten_middle(value, length)) if isinstance(value, str) else ""


def _read_answer(value: object) -> str:
    """Return a cell, a class or a prediction as text: lists and mappings as YAML, "" for null."""
    if value is None or isinstance(value, str):
        return _read_text(value)
    try:
        return _read_text(format_value(value, MAX_TEXT_LENGTH))
    except RecursionError:
        return ""
