"""Collect the data of `report.html` as JSON: the table, and learning curves with a limited number of points."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import yaml

from dlspec.errors import replace_control_characters, shorten_middle
from dlspec.report.records import RunRecord, read_curves
from dlspec.report.run_table import RunTable, SeedGroup, is_seed_key
from dlspec.runs.file_access import is_regular_file
from dlspec.runs.file_names import RUN_PAGE_FILE

MAX_CURVE_NUMBERS = 1_000_000  # about 7 MB; points of longer curves are skipped
MAX_KEYS = 60
MAX_NETWORKS = 50
MAX_NETWORK_LENGTH = 20_000


def make_table_data(table: RunTable, title: str, into: Path) -> dict[str, Any]:
    """Collect everything that the page shows except the learning curves.

    Args:
        table: the runs
        title: title of the page
        into: the folder of the page, for links to the pages of runs

    Returns:
        The data as JSON.
    """
    networks = _collect_networks(table)
    return {
        "title": title,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "monitor": table.monitor,
        "mode": table.mode,
        "keys": [{"name": key, "is_seed": is_seed_key(key)} for key in table.keys[:MAX_KEYS]],
        "more_keys": max(0, len(table.keys) - MAX_KEYS),
        "results": table.results,
        "runs": [_make_run_data(table, number, into) for number in range(len(table.records))],
        "settings": [_make_setting_data(table, each) for each in table.settings],
        "best": table.best,
        "note": table.note,
        "networks": networks[:MAX_NETWORKS],
        "more_networks": max(0, len(networks) - MAX_NETWORKS),
    }


def _make_run_data(table: RunTable, number: int, into: Path) -> dict[str, Any]:
    record = table.records[number]
    took = {"best_epoch": record.best_epoch, "parameters": record.parameters, "seconds": record.seconds}
    return {
        "name": replace_control_characters(record.name),
        "page": _make_page_link(record, into),
        "status": record.status,
        "values": table.values[number][:MAX_KEYS],
        "results": [_round_to_digits(table.result(number).get(name)) for name in table.results],
        "took": took,
        "error": record.error,
        "rerun": record.rerun,
        "overrides": record.overrides,
    }


def _make_page_link(record: RunRecord, into: Path) -> str | None:
    """Make the relative link to a run's own page; None if it has none.

    The link is escaped and starts with a dot, so that no folder's name can be read as the address of something else.
    """
    if record.folder is None or not is_regular_file(record.folder / RUN_PAGE_FILE):
        return None
    path = Path(os.path.relpath(record.folder, into), RUN_PAGE_FILE)
    return f"./{quote_from_bytes(os.fsencode(path.as_posix()))}"


def _make_setting_data(table: RunTable, setting: SeedGroup) -> dict[str, Any]:
    return {
        "runs": setting.runs,
        "finished": setting.finished,
        "failed": setting.failed,
        "means": [_round_to_digits(setting.means.get(name)) for name in table.results],
        "deviations": [_round_to_digits(setting.deviations.get(name)) for name in table.results],
    }


def _round_to_digits(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _collect_networks(table: RunTable) -> list[dict[str, Any]]:
    """Collect the different models, the largest first."""
    groups: dict[tuple[str, int | None], list[int]] = {}
    for number, record in enumerate(table.records):
        if record.spec.get("model") is not None:
            key = json.dumps(record.spec["model"], default=str), record.parameters
            groups.setdefault(key, []).append(number)
    networks = [_make_network_data(table, numbers) for numbers in groups.values()]
    return sorted(networks, key=lambda each: -(each["parameters"] or 0))


def _make_network_data(table: RunTable, numbers: Sequence[int]) -> dict[str, Any]:
    first = table.records[numbers[0]]
    values = dict(zip(table.keys, table.values[numbers[0]], strict=True))
    params = {key: value for key, value in values.items() if key.startswith("model.params.") and value != ""}
    param_labels = [f"{key.removeprefix('model.params.')}={value}" for key, value in params.items()]
    return {
        "name": " ".join(each for each in (str(values.get("model", _find_model_choice(first))), *param_labels) if each),
        "parameters": first.parameters,
        "runs": numbers,
        "spec": shorten_middle(
            yaml.safe_dump(first.spec["model"], sort_keys=False, allow_unicode=True), MAX_NETWORK_LENGTH
        ),
    }


def _find_model_choice(record: RunRecord) -> str:
    return next((each.removeprefix("model=") for each in record.overrides if each.startswith("model=")), "")


# ---- curves ----------------------------------------------------------------------------------------------------------


def make_curves_data(table: RunTable) -> dict[str, Any]:
    """Collect each run's curves by name; None for a run without curves."""
    curves = [[] if record.folder is None else read_curves(record.folder) for record in table.records]
    step = 1 + sum(len(row) for rows in curves for row in rows) // MAX_CURVE_NUMBERS
    names = dict.fromkeys(name for rows in curves for row in rows[-1:] for name in row)
    return {
        "names": list(names),
        "runs": [_thin_curve(rows, list(rows[-1]), step) if rows else None for rows in curves],
    }


def make_points(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> dict[str, list[float | None]]:
    """Collect the curves of one run by name, with a limited number of points."""
    return _thin_curve(rows, names, 1 + len(rows) * len(names) // MAX_CURVE_NUMBERS)


def _thin_curve(rows: Sequence[Mapping[str, float]], names: Sequence[str], step: int) -> dict[str, list[float | None]]:
    kept = [*rows[:-1:step], *rows[-1:]]
    return {name: [_round_for_page(row.get(name)) for row in kept] for name in names}


def _round_for_page(value: float | None) -> float | int | None:
    short = _round_to_digits(value, 5)
    return int(short) if short is not None and short.is_integer() and abs(short) < 1e5 else short
