"""Functions shared by the benchmarks: pinning to one core, medians with their spread, Markdown tables."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from math import comb
from pathlib import Path
from statistics import median, quantiles

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Spread:
    """The median of multiple values and an interval around it (quartiles, or a confidence interval)."""

    low: float
    middle: float
    high: float

    def __format__(self, form: str) -> str:
        return f"{self.middle:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """Return the median and quartiles. Of a single value, all three are that value."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    low, _, high = quantiles(values, n=4, method="inclusive")
    return Spread(low, median(values), high)


def median_interval(values: Sequence[float]) -> Spread:
    """Return the median and its 95 % confidence interval, from order statistics, so for any distribution."""
    ordered, count = sorted(values), len(values)
    outside, tail = 0, 0.5**count
    while tail <= 0.025:
        outside += 1
        tail += comb(count, outside) * 0.5**count
    outside = max(outside - 1, 0)
    return Spread(ordered[outside], median(ordered), ordered[-1 - outside])


def pin() -> str:
    """Pin this process and its children to the last core it may use. Returns a description for the output."""
    if not hasattr(os, "sched_setaffinity"):
        return "not pinned"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return f"pinned to core {core}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table. The first column is text, the others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine(*packages: str) -> str:
    """Describe in one line what results depend on: processor, cores, load, versions and the date."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    python = f"Python {platform.python_version()}"
    day = datetime.now(tz=UTC).date().isoformat()
    return f"{_processor()}, {os.cpu_count()} cores ({load} at the start), {python}, {versions}; {day}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )
