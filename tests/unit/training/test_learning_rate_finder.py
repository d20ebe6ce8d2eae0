"""`trainer.tune: lr`: the rate at which the loss falls most steeply is used as if it had been written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import dlspec
from dlspec.jobs.job_setup import keep_found_settings
from dlspec.jobs.run_preparation import Preparation
from dlspec.language.source_map import SourceMap
from dlspec.plots.rate_plots import draw_range_test
from dlspec.training.tuning.learning_rate_finder import SMOOTHING, choose_rate, smooth_losses
from helpers.command_line import QUIET

RUN = (*QUIET, "data=digits", "model=linear", "trainer.epochs=1", "trainer.limit_batches=4", "trainer.progress=none")


def test_losses_are_smoothed_as_by_pandas() -> None:
    losses = np.random.default_rng(0).random(50).tolist()
    assert smooth_losses(losses) == pytest.approx(pd.Series(losses).ewm(alpha=1 - SMOOTHING).mean().tolist())


def test_the_steepest_rate_of_a_falling_loss_is_chosen() -> None:
    """A logistic curve is steepest in its middle; afterwards training diverges."""
    rates = np.geomspace(1e-7, 10, 160)
    losses = 2.3 - 2 / (1 + np.exp(-4 * (np.log10(rates) + 2)))
    losses[150:] += np.arange(10)
    assert choose_rate(rates.tolist(), losses.tolist()) == pytest.approx(1e-2, rel=0.1)


@pytest.mark.parametrize("losses", [[], [1.0] * 5, [1.0] * 160, np.linspace(1, 2, 160).tolist()])
def test_no_rate_is_chosen_if_the_loss_does_not_fall(losses: list[float]) -> None:
    assert choose_rate(np.geomspace(1e-7, 10, 160).tolist(), losses) is None


def test_the_run_is_as_if_the_rate_had_been_written(tmp_path: Path) -> None:
    words = [*RUN, "trainer.tune=lr", "trainer.pictures=true"]
    tuned = Path(str(dlspec.train(words, folder=tmp_path / "tuned").folder))
    spec = yaml.safe_load((tuned / "spec.yaml").read_text())
    rate = spec["optimizer"]["lr"]
    assert 1e-4 < rate < 1 and spec["trainer"]["tune"] is False
    assert f"trainer.tune: lr chose {rate:.3g}"[:24] in (tuned / "log.txt").read_text()
    assert (tuned / "learning_rates.png").read_bytes().startswith(b"\x89PNG")
    written = Path(str(dlspec.train([*RUN, f"optimizer.lr={rate}"], folder=tmp_path / "written").folder))
    assert (written / "metrics.jsonl").read_bytes() == (tuned / "metrics.jsonl").read_bytes()
    assert not (written / "learning_rates.png").exists()
    tree = {"optimizer": {"type": "Adam"}, "trainer": {"tune": "lr"}}
    kept = keep_found_settings(Preparation(tree, lambda: SourceMap({}, {})), tuned).tree
    assert kept["optimizer"]["lr"] == rate and kept["trainer"]["tune"] is False


def test_a_picture_without_a_chosen_rate() -> None:
    page = draw_range_test([1e-7, 1e-6, 1e-5], [1.0, 1.0, 30.0], None)
    assert page.to_png().startswith(b"\x89PNG")
