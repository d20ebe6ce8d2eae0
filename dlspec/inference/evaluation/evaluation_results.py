"""What an evaluation found: metrics with intervals, groups, thresholds, errors; and its JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dlspec.inference.evaluation.bootstrap import LEVEL, Interval
from dlspec.inference.evaluation.decision_threshold import Threshold
from dlspec.inference.evaluation.evaluation_data import EvaluationData
from dlspec.inference.evaluation.evaluation_pass import BootstrapPlan
from dlspec.inference.evaluation.group_results import Group
from dlspec.inference.loading.loaded_run import LoadedRun

FORMAT = 1


@dataclass(frozen=True)
class ChosenThreshold:
    """The best threshold of a target on validation rows, and what it gives on the evaluated ones."""

    target: str
    positive: str  # the class that it decides about; "" for labels
    threshold: Threshold
    score: float  # F1 of the evaluated rows with this threshold
    default_score: float  # F1 of the evaluated rows with the threshold 0.5

    @property
    def is_worse(self) -> bool:
        """Whether 0.5 is better on the evaluated rows."""
        return self.score < self.default_score

    def to_json(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return {
            **self.threshold.to_json(),
            "evaluated_score": self.score,
            "evaluated_default_score": self.default_score,
        }


@dataclass(frozen=True)
class EvaluationResults:
    """The results of a run on some rows."""

    run: LoadedRun
    data: EvaluationData
    metrics: Mapping[str, Interval]  # by name: the value, and its interval from `low` to `high`
    targets: Mapping[str, Mapping[str, Any]]  # by name, as JSON: confusion, calibration, worst errors
    plan: BootstrapPlan
    rows: int
    by: str | None = None
    groups: Sequence[Group] = ()
    thresholds: Sequence[ChosenThreshold] = ()
    notes: Sequence[str] = ()  # lines for the user
    created: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def checkpoint(self) -> str:
        """The weights that were evaluated: `best` or `last`."""
        return self.run.weights_file.stem

    def to_json(self) -> dict[str, Any]:
        """Convert to the contents of the file in the run's folder."""
        groups = {"column": self.by, "groups": [each.to_json() for each in self.groups]}
        return {
            "format": FORMAT,
            "created": self.created.isoformat(timespec="seconds"),
            "checkpoint": self.checkpoint,
            "epoch": self.run.epoch or None,
            "step": self.run.step or None,
            "data": {"split": self.data.name, "path": self.data.path, "rows": self.rows,
                     "left_out": self.data.left_out},
            "metrics": {name: each.to_json() for name, each in self.metrics.items()},
            "bootstrap": {"resamples": self.plan.resamples, "rows": min(self.rows, self.plan.max_samples),
                          "seed": self.plan.seed, "level": LEVEL},
            "by": None if self.by is None else groups,
            "targets": dict(self.targets),
        }  # fmt: skip
