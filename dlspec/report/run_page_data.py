"""Collect what the page of one run shows, as JSON: results, spec, network, pictures, environment, commands."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from dlspec.errors import format_value, replace_control_characters, replace_in_lines, shorten_middle
from dlspec.formatting import format_count, format_duration, format_number
from dlspec.language.yaml.yaml_files import format_file_path
from dlspec.limits import get_limit
from dlspec.report.evaluations import read_newest_evaluation
from dlspec.report.network_description import NetworkDescription
from dlspec.report.page_data import make_points
from dlspec.report.png_pictures import read_picture
from dlspec.report.records import RunRecord, read_curves
from dlspec.report.run_commands import list_run_commands, make_command
from dlspec.runs.file_names import CURVES_FILE, ENVIRONMENT_FILE, SAMPLES_FILE, SPEC_FILE
from dlspec.runs.io import read_json_object, read_small_file
from dlspec.runs.job_result import read_result

MAX_PICTURES = 20
MAX_SAMPLES_BYTES = 1_000_000
MAX_TEXT_LENGTH = 200_000  # of the spec and of samples.txt, in characters
MAX_ENVIRONMENT_ROWS = 200
MAX_HEADLINES = 6


def make_run_data(record: RunRecord, network: NetworkDescription) -> dict[str, Any]:
    """Collect everything that the page of a run shows except its learning curves.

    Args:
        record: the run, from `read_record`
        network: its network, or why that is unknown

    Returns:
        The data as JSON.
    """
    folder = record.folder
    assert folder is not None  # only a sweep's job that was refused has none
    evaluation = read_newest_evaluation(folder)
    return {
        "title": format_file_path(folder),
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "status": record.status,
        "error": replace_in_lines(record.error),
        "monitor": record.monitor,
        "best_epoch": record.best_epoch,
        "headlines": _choose_headlines(record, evaluation),
        "facts": list(_list_facts(record)),
        "evaluation": evaluation,
        "threshold_command": make_command("predict", record, "input=FILE output=predictions.csv threshold="),
        "evaluate_command": make_command("evaluate", record),
        "report_command": make_command("report", record),
        "network": network.to_json(),
        "pictures": list(_list_pictures(folder)),
        "samples": _read_text(folder / SAMPLES_FILE, MAX_SAMPLES_BYTES),
        "spec": _read_text(folder / SPEC_FILE, get_limit("file_bytes")),
        "environment": list(_list_environment(folder))[:MAX_ENVIRONMENT_ROWS],
        "commands": list_run_commands(record),
    }


def make_run_curves(folder: Path) -> dict[str, Any]:
    """Collect the run's learning curves by name, with a limited number of points."""
    rows = read_curves(folder)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {"names": names, "curves": make_points(rows, names)}


# ---- results ---------------------------------------------------------------------------------------------------------


def _choose_headlines(record: RunRecord, evaluation: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Choose the results at the top: those of the newest evaluation with their intervals, or else those of the run."""
    metrics = [] if evaluation is None else evaluation["metrics"]
    if not metrics:
        test = {name: value for name, value in record.results.items() if name.startswith("test/")}
        best = {name: value for name, value in record.results.items() if name.startswith("val/")}
        metrics = [{"name": name, "value": each, "low": None, "high": None} for name, each in (test or best).items()]
    monitored = record.monitor.rpartition("/")[2]
    return sorted(metrics, key=lambda each: _rank_headline(each["name"], monitored))[:MAX_HEADLINES]


def _rank_headline(name: str, monitored: str) -> int:
    """Rank a metric: the monitored one first, unless it is a loss, of which few people know what is good."""
    last = name.rpartition("/")[2]
    return 2 if last == "loss" else int(last != monitored)


def _list_facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield what else is known about the training, each with its label."""
    assert record.folder is not None
    result = read_result(record.folder)
    model = next((each.removeprefix("model=") for each in record.overrides if each.startswith("model=")), "")
    data = record.spec.get("data")
    if model:
        yield "model", model
    if isinstance(data, dict) and isinstance(data.get("type"), str):
        yield "data", shorten_middle(data["type"], 80)
    if record.parameters is not None:
        yield "parameters", f"{record.parameters:,}"
    if record.monitored is not None:
        epoch = "" if record.best_epoch is None else f" in epoch {record.best_epoch:,}"
        yield f"best {record.monitor}", f"{format_number(record.monitored)}{epoch}"
    if result is not None and result.epochs is not None:
        counts = ((result.epochs, "epoch"), (result.steps or 0, "step"))
        yield "trained", ", ".join(f"{number:,} {word}{'s' if number != 1 else ''}" for number, word in counts)
    if record.seconds is not None:
        yield "time", format_duration(record.seconds)
    if result is not None and result.timing.get("samples_per_second"):
        yield "speed", f"{format_count(result.timing['samples_per_second'])} samples a second"
    if result is not None and result.stop_reason:
        yield "stopped", shorten_middle(replace_control_characters(result.stop_reason), 200)


# ---- files -----------------------------------------------------------------------------------------------------------


def _read_text(path: Path, max_bytes: int) -> str:
    text = (read_small_file(path, max_bytes) or b"").decode(errors="replace")
    return replace_in_lines(shorten_middle(text, MAX_TEXT_LENGTH))


def _list_pictures(folder: Path) -> Iterator[dict[str, str]]:
    """Yield the pictures that training drew, those of its predictions first."""
    paths = [*sorted(folder.glob("predictions*.png"))[: MAX_PICTURES - 1], folder / CURVES_FILE]
    for path in paths:
        uri = read_picture(path)
        if uri is not None:
            yield {"name": replace_control_characters(shorten_middle(path.name, 80)), "uri": uri}


def _list_environment(folder: Path) -> Iterator[tuple[str, str]]:
    environment = read_json_object(folder / ENVIRONMENT_FILE) or {}
    for name, value in environment.items():
        inside = value.items() if isinstance(value, dict) else [("", value)]
        for key, each in inside:
            label = f"{name} {key}".strip() if name != "packages" else key
            yield replace_control_characters(shorten_middle(label, 80)), _format_fact(name, each)


def _format_fact(name: str, value: object) -> str:
    if value is None or value == []:
        return ""
    if name == "command" and isinstance(value, list):
        return replace_control_characters(shorten_middle(shlex.join(map(str, value)), 2_000))
    try:
        return replace_control_characters(value if isinstance(value, str) else format_value(value, 500))[:2_000]
    except RecursionError:
        return ""
