"""What `report.html` shows, as JSON: the table, and the curves thinned out to what a page can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import yaml

from dlspec.errors import cut, printable
from dlspec.report.grouping import Setting, Table, is_seed
from dlspec.report.records import Record, read_curves

MOST_NUMBERS = 1_000_000
"""So many numbers of curves are on a page, about 7 MB; longer curves lose points in between."""
MOST_KEYS = 60
MOST_NETWORKS = 50
LONGEST_NETWORK = 20_000


def table_data(table: Table, title: str) -> dict[str, Any]:
    networks = _networks(table)
    return {
        "title": title,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        "monitor": table.monitor,
        "mode": table.mode,
        "keys": [{"name": key, "is_seed": is_seed(key)} for key in table.keys[:MOST_KEYS]],
        "more_keys": max(0, len(table.keys) - MOST_KEYS),
        "results": table.results,
        "runs": [_run(table, number) for number in range(len(table.records))],
        "settings": [_setting(table, each) for each in table.settings],
        "best": table.best,
        "note": table.note,
        "networks": networks[:MOST_NETWORKS],
        "more_networks": max(0, len(networks) - MOST_NETWORKS),
    }


def _run(table: Table, number: int) -> dict[str, Any]:
    record = table.records[number]
    took = {"best_epoch": record.best_epoch, "parameters": record.parameters, "seconds": record.seconds}
    return {
        "name": printable(record.name),
        "status": record.status,
        "values": table.values[number][:MOST_KEYS],
        "results": [_short(table.result(number).get(name)) for name in table.results],
        "took": took,
        "error": record.error,
        "rerun": record.rerun,
        "overrides": record.overrides,
    }


def _setting(table: Table, setting: Setting) -> dict[str, Any]:
    return {
        "runs": setting.runs,
        "finished": setting.finished,
        "failed": setting.failed,
        "means": [_short(setting.means.get(name)) for name in table.results],
        "deviations": [_short(setting.deviations.get(name)) for name in table.results],
    }


def _short(value: float | None, digits: int = 6) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _networks(table: Table) -> list[dict[str, Any]]:
    """The different models, the largest first."""
    groups: dict[tuple[str, int | None], list[int]] = {}
    for number, record in enumerate(table.records):
        if record.spec.get("model") is not None:
            key = json.dumps(record.spec["model"], default=str), record.parameters
            groups.setdefault(key, []).append(number)
    networks = [_network(table, numbers) for numbers in groups.values()]
    return sorted(networks, key=lambda each: -(each["parameters"] or 0))


def _network(table: Table, numbers: Sequence[int]) -> dict[str, Any]:
    first = table.records[numbers[0]]
    values = dict(zip(table.keys, table.values[numbers[0]], strict=True))
    params = {key: value for key, value in values.items() if key.startswith("model.params.") and value != ""}
    words = [f"{key.removeprefix('model.params.')}={value}" for key, value in params.items()]
    return {
        "name": " ".join(each for each in (str(values.get("model", _choice(first))), *words) if each),
        "parameters": first.parameters,
        "runs": numbers,
        "spec": cut(yaml.safe_dump(first.spec["model"], sort_keys=False, allow_unicode=True), LONGEST_NETWORK),
    }


def _choice(record: Record) -> str:
    return next((each.removeprefix("model=") for each in record.overrides if each.startswith("model=")), "")


# ---- curves ----------------------------------------------------------------------------------------------------------


def curves_data(table: Table) -> dict[str, Any]:
    """Each run's curves by their names, None for a run without any."""
    curves = [[] if record.folder is None else read_curves(record.folder) for record in table.records]
    step = 1 + sum(len(row) for rows in curves for row in rows) // MOST_NUMBERS
    names = dict.fromkeys(name for rows in curves for row in rows[-1:] for name in row)
    return {"names": list(names), "runs": [_curve(rows, step) for rows in curves]}


def _curve(rows: Sequence[Mapping[str, float]], step: int) -> dict[str, list[float | None]] | None:
    kept = [*rows[:-1:step], *rows[-1:]]
    return {name: [_round(row.get(name)) for row in kept] for name in rows[-1]} if rows else None


def _round(value: float | None) -> float | int | None:
    short = _short(value, 5)
    return int(short) if short is not None and short.is_integer() and abs(short) < 1e5 else short
