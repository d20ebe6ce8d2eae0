"""The tables and the figure of the results of throughput.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from measuring import Spread, spread, table

NAIVE, BEST = "naive", "best eager"
ON_GPU = "fraction of the roofline"
Found = Mapping[str, Any]
Cell = Callable[[str, str], str]


def tables(found: Found) -> str:
    """Format the results as Markdown tables: a row per contender, a column per workload."""
    parts = [found["about"]]
    for title, cell in _cells(found).items():
        if title == ON_GPU and not any(_floor(found, work) for work in found["works"]):
            continue
        header = [title, *(each["title"] for each in found["works"].values())]
        rows = [[name, *(_or_nothing(found, cell, work, name) for work in found["works"])] for name in _names(found)]
        parts.append(table(header, rows))
    parts += [f"left out: {reason} ({', '.join(works)})" for reason, works in found["left out"].items()]
    parts += [
        f"{name}, {work['title']}: {turns[-1]['note']}"
        for work in found["works"].values()
        for name, turns in work["turns"].items()
        if turns and turns[-1]["note"]
    ]
    return "\n\n".join(parts)


def _cells(found: Found) -> Mapping[str, Cell]:
    """For each table, the function that formats the cell of a workload and a contender."""
    return {
        "times naive": lambda work, name: f"{_ratio(found, work, name, NAIVE):.2f}",
        "times best eager": lambda work, name: f"{_ratio(found, work, name, BEST):.2f}",
        "the same in CPU time": lambda work, name: f"{_ratio(found, work, name, BEST, 'cpu'):.2f}",
        ON_GPU: lambda work, name: f"{_speed(found, work, name).middle * _floor(found, work):.0%}",
        "samples/s": lambda work, name: f"{_speed(found, work, name):,.0f}",
        "seconds to compile, cold": lambda work, name: _compile_seconds(found, work, name, "cold"),
        "seconds to compile, warm": lambda work, name: _compile_seconds(found, work, name, "warm"),
        "peak MiB": lambda work, name: f"{max(_column(found, work, name, 'peak')) / 2**20:,.0f}",
        "loss": lambda work, name: f"{_column(found, work, name, 'loss')[-1]:.4f}",
    }


def _or_nothing(found: Found, cell: Cell, work: str, name: str) -> str:
    """Format a cell; '' if the contender, or the one that it is compared with, was left out of this workload."""
    try:
        return cell(work, name)
    except KeyError:
        return ""


def _names(found: Found) -> list[str]:
    return list(dict.fromkeys(name for work in found["works"].values() for name in work["turns"]))


def _column(found: Found, work: str, name: str, key: str) -> list[float]:
    return [turn[key] for turn in found["works"][work]["turns"][name]]


def _speed(found: Found, work: str, name: str) -> Spread:
    samples = found["works"][work]["samples"]
    return spread([samples / each for each in _column(found, work, name, "seconds")])


def _compile_seconds(found: Found, work: str, name: str, kind: str) -> str:
    """Format what a contender's first turn took beyond its others; '' if it does not compile."""
    first = found["works"][work].get(kind, {}).get(name, 0.0)
    if not first or name not in found["works"][work]["cold"]:
        return ""
    return f"{first - spread(_column(found, work, name, 'seconds')).middle:.1f}"


def _floor(found: Found, work: str) -> float:
    """The least seconds per sample according to the best eager loop's kernels; 0 if they were not measured."""
    return max((turn.get("floor", 0.0) for turn in found["works"][work]["turns"].get(BEST, [])), default=0.0)


def _ratio(found: Found, work: str, name: str, base: str, key: str = "seconds") -> Spread:
    """The speed relative to `base`, round by round."""
    pairs = zip(_column(found, work, base, key), _column(found, work, name, key), strict=False)
    return spread([theirs / mine for theirs, mine in pairs])


COLORS = {
    "naive": "#9ca3af",
    "best eager": "#4b5563",
    "best compiled": "#111827",
    "dlspec": "#1d4ed8",
    "dlspec compile=model": "#60a5fa",
    "dlspec compile=step": "#3b82f6",
    "dlspec bf16": "#bfdbfe",
    "dlspec tune": "#1e3a8a",
    "best replayed": "#1f2937",
    "dlspec cudagraphs": "#2563eb",
    "dlspec cudagraphs bf16": "#93c5fd",
    "Lightning": "#c2410c",
    "Lightning bare": "#fb923c",
    "skorch": "#eab308",
    "Keras torch": "#15803d",
    "Keras tensorflow": "#4ade80",
    "Keras jax": "#a3e635",
}


def draw(found: Found, file: Path) -> None:
    """Draw a chart per workload: each contender's speed relative to the naive loop, with quartiles as lines."""
    from matplotlib.figure import Figure

    works = [work for work in found["works"] if NAIVE in found["works"][work]["turns"]]
    if not works:
        return
    names, columns = _names(found), min(len(works), 4)
    rows = -(-len(works) // columns)
    figure = Figure(figsize=(1.6 + 2.6 * columns, 0.7 + (0.7 + 0.2 * len(names)) * rows), layout="constrained")
    charts = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes in charts:
        axes.set_visible(False)
    for axes, work in zip(charts, works, strict=False):
        _chart(axes, found, work, names)
    figure.suptitle("Training speed, times that of the naive PyTorch loop", fontsize=11)
    figure.savefig(file, dpi=110)


def _chart(axes: Any, found: Found, work: str, names: Sequence[str]) -> None:
    axes.set_visible(True)
    axes.set_title(found["works"][work]["title"], fontsize=10)
    there = [(place, name) for place, name in enumerate(names) if name in found["works"][work]["turns"]]
    for place, name in there:
        times = _ratio(found, work, name, NAIVE)
        axes.barh(place, times.middle, color=COLORS.get(name, "#3b82f6"), height=0.75)
        axes.plot([times.low, times.high], [place, place], color="black", linewidth=0.8)
        axes.text(max(times.middle, times.high), place, f" {times.middle:.2f}", va="center", fontsize=7)
    axes.axvline(1, color="#9ca3af", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.18)
    axes.tick_params(axis="x", labelsize=7)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
