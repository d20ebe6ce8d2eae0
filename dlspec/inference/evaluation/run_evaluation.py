"""Evaluate a finished run: its loss and metrics with intervals, its worst errors, and the best threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dlspec.data.dataset import Split
from dlspec.data.lazy_array import read_rows
from dlspec.data.split_indices import SplitName
from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.inference.evaluation.bootstrap import DEFAULT_RESAMPLES, MAX_SAMPLES, check_resamples
from dlspec.inference.evaluation.decision_threshold import DEFAULT_THRESHOLD, choose_threshold
from dlspec.inference.evaluation.error_inputs import InputDescriber
from dlspec.inference.evaluation.evaluation_data import (
    EvaluationData,
    find_group_cells,
)
from dlspec.inference.evaluation.evaluation_pass import BootstrapPlan, Evaluator, ReportBatch, evaluate_samples
from dlspec.inference.evaluation.evaluation_results import ChosenThreshold, EvaluationResults
from dlspec.inference.evaluation.evaluation_table import format_evaluation
from dlspec.inference.evaluation.group_results import Group, describe_one_sided_groups, evaluate_groups
from dlspec.inference.evaluation.positives_collector import PositivesCollector
from dlspec.inference.evaluation.target_results import ResultsCollector, list_errors
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.inference.loading.own_data import OpenedData, open_own_data

MAX_GROUP_SAMPLES = 2_000  # of a group, for its intervals: there may be 50 groups


class Evaluation(EvaluationResults):
    """The results of a run on some rows. `print` shows them as a table, `to_json()` returns all of them."""

    def __str__(self) -> str:
        """Format the results as a table."""
        return format_evaluation(self)

    def __repr__(self) -> str:
        """Format the results as a table, which is what a notebook should show."""
        return str(self)


def evaluate_run(
    run: LoadedRun,
    data: EvaluationData | None = None,
    *,
    opened: OpenedData | None = None,
    split: SplitName = "test",
    by: str | None = None,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
    report_batch: ReportBatch = lambda done, total: None,
) -> Evaluation:
    """Evaluate a run on a split of its own data, or on new data.

    Args:
        run: the run, with its network
        data: new data; None for a split of the run's own
        opened: the run's own data, if they are open already
        split: which split of the run's own data
        by: a column of the rows whose values the results are divided by
        resamples: how many resamples each bootstrap interval is computed from; 0 for no intervals
        seed: seed of the resamples
        report_batch: called after each batch, to show progress

    Raises:
        UserError: if the run's data can't be opened, the split or column is unknown, or `resamples` is out of range.
    """
    check_resamples(resamples)
    if data is None:
        opened = opened or open_own_data(run)
        chosen = opened.select(split, run.data)
        data = EvaluationData(chosen.split, chosen.name, table=chosen.table)
    evaluator = make_evaluator(run, report_batch, is_limited=data.name is not None)
    data, limit_note = _limit_samples(evaluator, data)
    cells = None if by is None else find_group_cells(data, run.data, by)
    plan = BootstrapPlan(resamples, seed, MAX_SAMPLES)
    results, positives = ResultsCollector(evaluator, len(data.split)), PositivesCollector(evaluator)
    metrics = evaluate_samples(evaluator, data.split, plan, [results, positives])
    thresholds, threshold_note = _choose_thresholds(run, evaluator, opened, positives)
    return Evaluation(
        run, data, metrics, _describe_targets(run, data, results, thresholds), plan, len(data.split), by,
        () if cells is None else _evaluate_groups(evaluator, data.split, cells, plan), thresholds,
        (*data.notes, *limit_note, *threshold_note, *_note_groups(run, data, by, cells)),
    )  # fmt: skip


def make_evaluator(
    run: LoadedRun, report_batch: ReportBatch = lambda done, total: None, *, is_limited: bool = False
) -> Evaluator:
    """Make what evaluates samples with the network of a run.

    Args:
        run: the run
        report_batch: called after each batch
        is_limited: whether the run's `trainer.limit_batches` limits the samples, as in training
    """
    limit = run.spec.trainer.limit_batches if is_limited else None
    settings = run.settings.model_copy(update={"limit_batches": limit})
    return Evaluator(run.model, run.make_training_data(run.data), settings, run.backend, report_batch=report_batch)


def _limit_samples(evaluator: Evaluator, data: EvaluationData) -> tuple[EvaluationData, tuple[str, ...]]:
    """Keep the samples that training evaluates if `trainer.limit_batches` is set."""
    count = evaluator.make_batches().make_evaluation_batches(data.split).samples
    total = len(data.split)
    if count == total:
        return data, ()
    first = np.arange(count)
    table = None if data.table is None else data.table.take(first)
    note = f"trainer.limit_batches of the run keeps {count:,} of {total:,} rows"
    return replace(data, split=data.split.take(slice(count)), table=table), (note,)


def _evaluate_groups(evaluator: Evaluator, split: Split, cells: NDArray[Any], plan: BootstrapPlan) -> tuple[Group, ...]:
    plan = replace(plan, max_samples=MAX_GROUP_SAMPLES)
    return tuple(
        evaluate_groups(cells, lambda rows: evaluate_samples(evaluator, split.take(torch.from_numpy(rows)), plan))
    )


def _note_groups(run: LoadedRun, data: EvaluationData, by: str | None, cells: NDArray[Any] | None) -> Iterator[str]:
    if by is None or cells is None:
        return iter(())
    truth = {name: read_rows(each).cpu().numpy() for name, each in data.split.targets.items()}
    return describe_one_sided_groups(by, cells, run.data.targets, truth)


def _choose_thresholds(
    run: LoadedRun, evaluator: Evaluator, opened: OpenedData | None, positives: PositivesCollector
) -> tuple[tuple[ChosenThreshold, ...], tuple[str, ...]]:
    """Choose a threshold for each target of two classes or labels on the validation split of the run's own data."""
    evaluated = positives.collect()
    if not evaluated:
        return (), ()
    try:
        opened = opened or open_own_data(run)
        validation = opened.select("validation", run.data).split
    except UserError as error:
        return (), (f"no threshold is proposed, as that takes the run's own validation rows: {first_line(error)}",)
    collector = PositivesCollector(evaluator)
    evaluator.run(validation, [collector])
    found = []
    for name, each in collector.collect().items():
        threshold = choose_threshold(each)
        if threshold is not None:
            score, default_score = map(evaluated[name].compute_f1, (threshold.value, DEFAULT_THRESHOLD))
            found.append(ChosenThreshold(name, _name_positive(run, name), threshold, score, default_score))
    return tuple(found), ()


def _name_positive(run: LoadedRun, name: str) -> str:
    target = run.data.get_loss_target(name)
    return target.classes[1] if target is not None and len(target.classes) == 2 else ""


def _describe_targets(
    run: LoadedRun, data: EvaluationData, results: ResultsCollector, thresholds: Sequence[ChosenThreshold]
) -> dict[str, dict[str, Any]]:
    describer = InputDescriber(run.data, data.split, data.table, run.preparation)
    chosen = {each.target: each.to_json() for each in thresholds}
    return {
        name: {
            **found.to_json(),
            **({"threshold": chosen[name]} if name in chosen else {}),
            "errors": list_errors(found.errors, describer.describe),
        }
        for name, found in results.results.items()
    }
