"""Bootstrap intervals, compared with scipy's and with scikit-learn's metrics on resampled rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from sklearn.metrics import f1_score, roc_auc_score
from torchmetrics import R2Score
from torchmetrics.classification import BinaryAUROC, BinaryF1Score, MulticlassAccuracy, MulticlassF1Score

from dlspec.inference.evaluation.bootstrap import Resampled, choose_samples, count_draws, draw_resamples, make_intervals
from dlspec.inference.evaluation.metric_resampling import (
    KeptPredictions,
    KeptSamples,
    SummedStatistics,
    make_metric_samples,
)

GENERATOR = np.random.default_rng(0)


def test_the_interval_of_a_mean_is_that_of_scipy() -> None:
    values = GENERATOR.normal(5, 2, 400)
    draws = draw_resamples(len(values), 1000, seed=0)
    means = count_draws(draws, len(values)) @ values / len(values)
    interval = make_intervals({"mean": float(values.mean())}, {"mean": Resampled(means, values.mean())})["mean"]
    expected = bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=1).confidence_interval
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.03)


def test_the_interval_of_f1_is_that_of_scikit_learn_on_the_same_resamples() -> None:
    truth = GENERATOR.integers(0, 2, 300)
    probabilities = np.clip(truth * 0.3 + GENERATOR.random(300) * 0.7, 0, 1)
    kept = KeptPredictions({"f1_score": BinaryF1Score(), "auroc": BinaryAUROC()})
    for part in (slice(0, 100), slice(100, 300)):
        tensors = torch.from_numpy(probabilities[part]), torch.from_numpy(truth[part])
        kept.add(tensors, np.ones(len(tensors[1]), np.int64))
    draws = draw_resamples(300, 50, seed=3)
    expected = [f1_score(truth[rows], probabilities[rows] > 0.5) for rows in draws]
    found = kept.resample([np.arange(300), *draws])["f1_score"]
    assert found.own == pytest.approx(f1_score(truth, probabilities > 0.5), abs=1e-6)
    assert found.results == pytest.approx(expected, abs=1e-6)
    resampled = {"f1_score": Resampled(found.results, 0.5)}
    interval = make_intervals({"f1_score": 0.5}, resampled)["f1_score"]
    assert (interval.low, interval.high) == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=1e-6)


@pytest.mark.parametrize("metric", [MulticlassAccuracy(4, average="micro"), MulticlassF1Score(4, average="macro")])
def test_summed_statistics_of_steps_equal_the_metric_of_all_steps(metric: torch.nn.Module) -> None:
    rows = np.array([3, 0, 5, 1, 7])
    probabilities, truth = torch.rand(16, 4), torch.randint(0, 4, (16,))
    samples = SummedStatistics({"metric": metric})
    samples.add((probabilities[:8], truth[:8]), rows[:3])
    samples.add((probabilities[8:], truth[8:]), rows[3:])
    draws = draw_resamples(len(rows), 20, seed=0)
    ends = np.cumsum(rows)
    results = samples.resample([np.arange(len(rows)), *draws])["metric"].results
    for draw, found in zip(draws, results, strict=True):
        steps = np.concatenate([np.arange(ends[each] - rows[each], ends[each]) for each in draw])
        metric.reset()
        metric.update(probabilities[steps], truth[steps])
        assert found == pytest.approx(float(metric.compute()), abs=1e-6)


def make_steps(samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of each sample, and probabilities and truth of all rows; a sample is easy or hard as a whole."""
    rows = GENERATOR.integers(0, 9, samples)
    shifts = np.repeat(GENERATOR.normal(0.25, 0.2, samples), rows)
    truth = GENERATOR.integers(0, 2, rows.sum())
    return rows, np.clip(GENERATOR.random(rows.sum()) * 0.7 + truth * shifts, 0, 1), truth


def test_the_area_under_a_curve_of_steps_is_that_of_scikit_learn_on_whole_samples() -> None:
    rows, probabilities, truth = make_steps(40)
    samples = make_metric_samples({"auroc": BinaryAUROC(), "f1_score": BinaryF1Score()}, 40, has_one_row=False)
    ends = np.cumsum(rows)
    for first, last in ((0, 15), (15, 40)):
        part = slice(ends[first - 1] if first else 0, ends[last - 1])
        samples.add((torch.from_numpy(probabilities[part]), torch.from_numpy(truth[part])), rows[first:last])
    draws = draw_resamples(40, 20, seed=0)
    found = samples.resample([np.arange(40), *draws])
    assert found.keys() == {"auroc", "f1_score"} and found["auroc"].share == 1
    assert found["auroc"].own == pytest.approx(roc_auc_score(truth, probabilities), abs=1e-6)
    for draw, auroc, f1 in zip(draws, found["auroc"].results, found["f1_score"].results, strict=True):
        steps = np.concatenate([np.arange(ends[each] - rows[each], ends[each]) for each in draw])
        assert auroc == pytest.approx(roc_auc_score(truth[steps], probabilities[steps]), abs=1e-6)
        assert f1 == pytest.approx(f1_score(truth[steps], probabilities[steps] > 0.5), abs=1e-6)


def test_of_many_steps_evenly_chosen_samples_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlspec.inference.evaluation.metric_resampling.MAX_KEPT_NUMBERS", 1_000)
    rows, probabilities, truth = make_steps(800)
    samples = KeptSamples({"auroc": BinaryAUROC()})
    samples.add((torch.from_numpy(probabilities), torch.from_numpy(truth)), rows)
    draws = [np.arange(800), *draw_resamples(800, 200, seed=0)]
    found = samples.resample(draws)["auroc"]
    ends = np.cumsum(rows)
    steps = np.concatenate([np.arange(ends[each] - rows[each], ends[each]) for each in range(0, 800, 8)])
    assert found.share == 1 / 8
    assert found.own == pytest.approx(roc_auc_score(truth[steps], probabilities[steps]), abs=1e-6)
    everything = KeptSamples({"auroc": BinaryAUROC()})
    monkeypatch.setattr("dlspec.inference.evaluation.metric_resampling.MAX_KEPT_NUMBERS", 10**6)
    everything.add((torch.from_numpy(probabilities), torch.from_numpy(truth)), rows)
    value = roc_auc_score(truth, probabilities)
    few, many = (make_intervals({"auroc": value}, {"auroc": each})["auroc"]
                 for each in (found, everything.resample(draws)["auroc"]))  # fmt: skip
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None
    assert few.high - few.low == pytest.approx(many.high - many.low, rel=0.35)
    assert few.low < value < few.high


def test_a_few_samples_with_steps_have_no_interval() -> None:
    samples = make_metric_samples({"auroc": BinaryAUROC()}, 2, has_one_row=False)
    samples.add((torch.rand(4), torch.tensor([0, 1, 1, 0])), np.array([2, 2]))
    assert samples.resample(draw_resamples(2, 5, seed=0)) == {}
    found = make_intervals({"auroc": 0.5}, {})
    assert found["auroc"].to_json() == {"value": 0.5, "low": None, "high": None}


def test_a_metric_that_is_not_defined_has_no_interval() -> None:
    kept = KeptPredictions({"r2_score": R2Score()})
    kept.add((torch.ones(1), torch.ones(1)), np.ones(1, np.int64))
    results = kept.resample(draw_resamples(1, 3, seed=0))["r2_score"]
    assert np.isnan(results.results).all() and np.isnan(results.own)
    assert make_intervals({"r2_score": 0.0}, {"r2_score": replace(results, own=0.0)})["r2_score"].low is None


def test_samples_are_drawn_by_seed_and_in_order() -> None:
    chosen = choose_samples(1000, 10, seed=1)
    assert len(set(chosen.tolist())) == 10 and sorted(chosen.tolist()) == chosen.tolist()
    assert chosen.tolist() == choose_samples(1000, 10, seed=1).tolist() != choose_samples(1000, 10, seed=2).tolist()
    assert choose_samples(3, 10, seed=1).tolist() == [0, 1, 2]


def test_the_interval_of_some_samples_is_moved_and_narrowed_to_that_of_all() -> None:
    values = GENERATOR.exponential(1, 2000)
    drawn = values[choose_samples(len(values), 500, seed=0)]
    means = count_draws(draw_resamples(500, 500, seed=0), 500) @ drawn / 500
    found = make_intervals({"mean": values.mean()}, {"mean": Resampled(means, drawn.mean())}, 500 / 2000)["mean"]
    expected = bootstrap((values,), np.mean, n_resamples=500, method="percentile", rng=1).confidence_interval
    assert found.low is not None and found.high is not None
    assert found.low < values.mean() < found.high
    assert (found.low, found.high) == pytest.approx(expected, abs=0.015)
