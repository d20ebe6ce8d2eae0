"""What a run leaves on disk, and what happens where it can't."""

from __future__ import annotations

import json
import logging
import math
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from torch import nn

from dlspec.compat.tensorboard import encode_header, encode_scalars
from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.runs.file_names import (
    BEST_FILE,
    CHECKPOINTS_FOLDER,
    CURVES_FILE,
    LAST_FILE,
    METRICS_FILE,
    PREDICTIONS_FILE,
    TIMING_FILE,
)
from dlspec.runs.io import read_json_lines, read_json_object
from dlspec.runs.log_file import CAN_WAIT, add_log_file
from dlspec.training.callbacks import checkpoints, log_files
from dlspec.training.callbacks.callback import Callback, EarlyStopping
from dlspec.training.callbacks.checkpoints import CheckpointSaver, copy_weights
from dlspec.training.callbacks.curves import Curves, draw_curves, list_panels
from dlspec.training.callbacks.default_callbacks import make_default_callbacks
from dlspec.training.callbacks.log_files import MetricsFile, TensorBoard, TextLog, encode_json_line
from dlspec.training.callbacks.progress import Progress
from dlspec.training.checkpoint.tensor_file import write_tensors
from dlspec.training.metric_monitor import MetricMonitor
from dlspec.training.state import TrainingState
from helpers.toy_training import make_dataset, make_network, make_trainer
from helpers.weights_files import read_weights


def run(folder: Path, seed: int = 0, **settings: Any) -> dict[str, Any]:
    """A run with everything on but the bar; gives what its result.json holds."""
    folder.mkdir()
    settings = {"progress": "none", "epochs": 3, **settings}
    net = nn.Sequential(make_network(), nn.Dropout(0.2))
    callbacks = make_default_callbacks(TrainerSpec(**settings), folder, {"spec": "{}"})
    make_trainer(net, settings=settings, callbacks=callbacks, seed=seed).run()
    result = read_json_object(folder / "result.json")
    assert result is not None
    return result


def test_equal_runs_leave_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(tmp_path / name, seed)
    first, again, other = ((tmp_path / name / METRICS_FILE).read_bytes() for name in "abc")
    assert first == again
    assert first != other
    rows = read_json_lines(tmp_path / "a" / METRICS_FILE)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert list(rows[0]) == ["epoch", "step", "train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"]
    assert [row["step"] for row in rows] == [3, 6, 9]


def test_a_run_folder_is_complete(tmp_path: Path) -> None:
    result = run(tmp_path / "run")
    names = {each.name for each in (tmp_path / "run").iterdir() if "tfevents" not in each.name}
    assert names == {
        METRICS_FILE,
        TIMING_FILE,
        CHECKPOINTS_FOLDER,
        CURVES_FILE,
        PREDICTIONS_FILE,
        "result.json",
        "status.json",
    }
    for name in (CURVES_FILE, PREDICTIONS_FILE):
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")
    assert result["status"] == "finished"
    assert result["epochs"] == 3
    assert result["test"].keys() == {"test/loss", "test/accuracy"}
    assert result["best"]["val/loss"] == result["monitored"]
    assert result["timing"]["samples_per_second"] > 0
    assert read_json_lines(tmp_path / "run" / TIMING_FILE)[0].keys() == {
        "epoch",
        "step",
        "seconds",
        "train_seconds",
        "samples",
        "samples_per_second",
    }


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    run(tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    rows = read_json_lines(tmp_path / "run" / METRICS_FILE)
    assert set(events.Tags()["scalars"]) == {*rows[0], "test/loss", "test/accuracy"} - {"epoch", "step"}
    for name in ("train/loss", "val/accuracy", "lr"):
        scalars = events.Scalars(name)
        assert [each.step for each in scalars] == [3, 6, 9]
        assert [each.value for each in scalars] == pytest.approx([row[name] for row in rows])
    assert [each.step for each in events.Scalars("test/loss")] == [9]


def test_checkpoints_hold_the_weights(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    settings = {"epochs": 3, "monitor": "train/loss", "mode": "max", "test": "last"}  # the first epoch is the best
    kept = _Kept()
    training = make_trainer(net, settings=settings, callbacks=[CheckpointSaver(tmp_path, {"spec": "x"}), kept])
    training.fit()
    for name, epoch in ((BEST_FILE, 1), (LAST_FILE, 3)):
        weights, metadata = read_weights(tmp_path / name)
        assert weights.keys() == net.state_dict().keys()
        assert all(torch.equal(weights[key], kept.weights[epoch - 1][key]) for key in weights)
        assert (metadata["epoch"], metadata["step"], metadata["monitor"]) == (str(epoch), str(3 * epoch), "train/loss")
        assert json.loads(metadata["results"]) == training.state.history[epoch - 1]
    assert read_weights(tmp_path / BEST_FILE)[1]["spec"] == "x"
    steps = {"step-000000003.safetensors", "step-000000009.safetensors"}
    assert {each.name for each in tmp_path.iterdir()} == {BEST_FILE, LAST_FILE} | steps


class _Kept(Callback):
    """Every epoch's weights."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_epoch_end(self, state: TrainingState) -> None:
        self.weights.append(copy_weights(state.network))


@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_the_best_weights_are_tested_whether_written_yet_or_not(tmp_path: Path, seconds: float) -> None:
    """An hour between writes: the first epoch's is written, later ones wait in memory and are written at the end."""
    net, kept = make_network(), _Kept()
    settings = {"epochs": 4, "monitor": "train/loss", "mode": "min"}
    best = CheckpointSaver(tmp_path, seconds=seconds)

    class Spoil(Callback):
        def on_epoch_end(self, state: TrainingState) -> None:
            state.monitor.is_best = state.epoch == 3
            state.monitor.epoch = min(state.epoch, 3)

    training = make_trainer(net, settings=settings, callbacks=[Spoil(), best, kept])
    training.run()
    weights, metadata = read_weights(tmp_path / BEST_FILE)
    assert metadata["epoch"] == "3"
    for each in (weights, dict(net.state_dict())):
        assert all(torch.equal(each[key], kept.weights[2][key]) for key in each)


def test_tied_weights_are_written_twice_and_load(tmp_path: Path) -> None:
    net = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    net["b"].weight = net["a"].weight
    write_tensors(tmp_path / LAST_FILE, copy_weights(net), {"format": "pt"})
    weights, metadata = read_weights(tmp_path / LAST_FILE)
    assert torch.equal(weights["a.weight"], weights["b.weight"])
    assert metadata == {"format": "pt"}
    net.load_state_dict(weights)


def test_what_can_not_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = tmp_path / "gone"
    callbacks = [
        MetricsFile(gone),
        TensorBoard(gone),
        Curves(gone),
    ]
    result = make_trainer(settings={"epochs": 3}, callbacks=callbacks).run()
    assert result.status == "finished"
    assert result.test
    told = [each.message for each in caplog.records]
    assert len(told) == 3
    assert told[0].startswith(f"can't write {gone}/events.out.tfevents")
    assert told[1] == f"can't write {gone / METRICS_FILE}: No such file or directory"
    assert told[2] == f"can't write {gone / CURVES_FILE}: No such file or directory"


def test_an_interrupted_run_keeps_what_it_has(tmp_path: Path) -> None:
    class Interrupt(Callback):
        def on_step_end(self, state: TrainingState) -> None:
            if state.step == 7:
                raise KeyboardInterrupt

    (tmp_path / "interrupted").mkdir()
    callbacks = make_default_callbacks(TrainerSpec(progress="none"), tmp_path / "interrupted")
    with pytest.raises(KeyboardInterrupt):
        make_trainer(settings={"epochs": 9}, callbacks=[*callbacks, Interrupt()]).run()
    result = read_json_object(tmp_path / "interrupted/result.json")
    assert result is not None
    assert (result["status"], result["epochs"], result["steps"]) == ("interrupted", 2, 7)
    assert read_weights(tmp_path / "interrupted" / CHECKPOINTS_FOLDER / BEST_FILE)[1]["epoch"] == "2"
    assert (tmp_path / "interrupted" / CURVES_FILE).exists()


@pytest.mark.parametrize(("sharing_runs", "written"), [(1, [0, 1, 1, 1, 1, 4, 4]), (4, [0, 1, 1, 1, 1, 1, 1])])
def test_lines_of_short_epochs_are_written_together(
    sharing_runs: int,
    written: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = SimpleNamespace(seconds=0.0, monotonic=lambda: clock.seconds)
    monkeypatch.setattr(log_files, "time", clock)
    caplog.set_level(logging.INFO, "dlspec")
    seen = []

    class Look(Callback):
        """Looks at the files after each step, then sets the clock to the end of an epoch."""

        def on_step_end(self, state: TrainingState) -> None:
            log_lines = [line for line in (tmp_path / "log.txt").read_text().splitlines() if "INFO epoch" in line]
            rows = read_json_lines(tmp_path / METRICS_FILE)
            assert len(log_lines) == len(rows)
            if state.batch == 1 and state.phase == "train":
                seen.append(len(rows))
            clock.seconds = {2: 0.01, 3: 0.02, 4: 0.09, 5: 0.3}.get(state.epoch, 0.0)

    handler = add_log_file(tmp_path)
    try:
        callbacks = [TextLog(), MetricsFile(tmp_path), Look()]
        trainer = make_trainer(settings={"epochs": 7, "test": "none"}, callbacks=callbacks)
        trainer.state.sharing_runs = sharing_runs
        trainer.fit()
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert seen == written
    assert [row["epoch"] for row in read_json_lines(tmp_path / METRICS_FILE)] == [1, 2, 3, 4, 5, 6, 7]
    assert (tmp_path / "log.txt").read_text().count("INFO epoch") == 7


def test_lines_that_wait_are_written_before_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    handler, logger = add_log_file(tmp_path), logging.getLogger("a_module_of_the_users")
    caplog.set_level(logging.INFO, logger.name)
    for number in range(3):
        logger.info("epoch %d", number, extra=CAN_WAIT)
    assert not (tmp_path / "log.txt").exists()
    logger.warning("odd")
    logging.getLogger().removeHandler(handler)
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.partition(" INFO ")[2] or line.partition(" WARNING ")[2] for line in lines] == [
        "epoch 0",
        "epoch 1",
        "epoch 2",
        "odd",
    ]


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    data = make_dataset()
    data.train.tensors["image"][:] = math.nan
    with pytest.raises(TrainingFailed):
        make_trainer(data=data, callbacks=make_default_callbacks(TrainerSpec(progress="none"), tmp_path)).run()
    result = read_json_object(tmp_path / "result.json")
    assert result is not None
    assert result["status"] == "failed"
    assert result["error"].startswith("train/loss became nan in epoch 1 at step 1, ")
    assert result["monitored"] is None


def test_lines_are_json_whatever_the_numbers() -> None:
    assert encode_json_line({"a": math.nan, "b": 1.5, "c": math.inf}) == b'{"a": null, "b": 1.5, "c": null}\n'


def test_curves_have_a_panel_for_each_result_and_mark_the_best() -> None:
    history = [
        {"train/loss": 1 / epoch, "val/loss": 2 / epoch, "val/f1": epoch / 9, "lr": 0.1} for epoch in range(1, 5)
    ]
    monitor = MetricMonitor("val/loss", "min")
    monitor.update(0.5, 4)
    assert list_panels(history) == ["loss", "f1"]
    texts = draw_curves(history, monitor).texts
    loss, f1 = texts[: texts.index("f1")], texts[texts.index("f1") :]
    assert {"loss", "epoch", "training", "validation", "best, epoch 4: 0.5000"} <= set(loss)
    assert {"f1", "epoch", "validation", "best, epoch 4: 0.4444"} <= set(f1)
    assert "training" not in f1


def test_no_curve_of_one_epoch(tmp_path: Path) -> None:
    make_trainer(settings={"epochs": 1}, callbacks=[Curves(tmp_path)]).run()
    assert not (tmp_path / CURVES_FILE).exists()


def test_standard_callbacks_follow_the_settings(tmp_path: Path) -> None:
    def kinds(folder: Path | None = None, **settings: Any) -> set[str]:
        return {type(each).__name__ for each in make_default_callbacks(TrainerSpec(**settings), folder)}

    files = {"TextLog", "MetricsFile", "TimingFile", "ResultFile", "StatusFile"}
    assert kinds() == {Progress.__name__}
    assert kinds(progress="none", patience=2) == {EarlyStopping.__name__}
    assert kinds(tmp_path, progress="none", checkpoints=False, tensorboard=False, curves=False, pictures=False) == files
    more = {"Curves", "PredictionPlots", "CheckpointSaver", "TensorBoard"}
    assert kinds(tmp_path, progress="none") == files | more


@pytest.mark.parametrize(
    ("settings", "sharing_runs", "epochs"),
    [
        ({}, 1, [1, 2, 3, 4]),
        ({}, 10**9, [1, 4]),  # a stack in which checkpoints would take too much of the time
        ({"saves_first_epoch": False, "seconds": 60.0}, 1, [4]),  # a job of a sweep
        ({"saves_first_epoch": False}, 1, [1, 2, 3, 4]),
        ({"saves_first_epoch": False}, 10**12, [4]),  # of a stack whose jobs would all be saved for the first time
    ],
)
def test_when_checkpoints_are_saved(
    settings: dict[str, Any], sharing_runs: int, epochs: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(checkpoints, "write_checkpoint", lambda _, snapshot, metadata: saved.append(snapshot.step))
    monkeypatch.setattr(checkpoints, "MAX_TIME_FRACTION", 1e6)  # a single run has time for all of them
    saver = CheckpointSaver(tmp_path / "checkpoints", **{"seconds": 0.0, **settings})
    monkeypatch.setattr(saver._writer, "start", saver._writer.run_and_wait)
    training = make_trainer(settings={"epochs": 4}, callbacks=[saver])
    training.state.sharing_runs = sharing_runs
    training.run()
    assert saved == [training.state.step // 4 * epoch for epoch in epochs]


def test_log_lines_say_nothing_in_a_quiet_run(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dlspec"):
        make_trainer().run()
    assert caplog.records == []


@pytest.mark.parametrize("step", [0, 1, 127, 128, 40_000_000_000])
def test_events_are_those_of_tensorboard_itself(step: int) -> None:
    def wanted(**fields: Any) -> bytes:
        RecordWriter(record := BytesIO()).write(Event(wall_time=1e9 + 0.5, **fields).SerializeToString())
        return record.getvalue()

    results = {"val/loss": 0.1, "train/größe": -0.0, "a" * 200: float("nan"), "large": 1e300, "least": float("-inf")}
    values = [Summary.Value(tag=name, simple_value=value) for name, value in results.items()]
    assert encode_scalars(results, step, 1e9 + 0.5) == wanted(step=step, summary=Summary(value=values))
    assert encode_header(1e9 + 0.5) == wanted(file_version="brain.Event:2")
