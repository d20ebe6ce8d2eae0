"""A run that is resumed with changed settings uses them, or refuses them in words."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.optim import lr_scheduler

import dlspec
from dlspec.errors import SpecError
from dlspec.jobs.spec_saving import part_to_spec
from dlspec.parts.torch.torch_parts import OPTIMIZERS, SCHEDULERS
from dlspec.runs.io import read_json_lines
from helpers.command_line import QUIET

STEPS = 3  # per epoch
RUN = (*QUIET, "data=breast_cancer", "model=linear", "trainer.progress=none", "trainer.test=none",
       f"trainer.limit_batches={STEPS}", "trainer.batch_size=16")  # fmt: skip


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that trains a run once, and gives a copy of its folder each time."""
    made: dict[tuple[str, ...], Path] = {}
    folder = tmp_path_factory.mktemp("runs")

    def call(*words: str, epochs: int = 2) -> Path:
        key = (*words, str(epochs))
        if key not in made:
            made[key] = Path(str(dlspec.train([*RUN, f"trainer.epochs={epochs}", *words], folder=folder).folder))
        return Path(shutil.copytree(made[key], tmp_path_factory.mktemp("copy") / "run"))

    return call


def resume(folder: Path, *words: str, allow: tuple[str, ...] = ()) -> list[Mapping[str, Any]]:
    """Resume a run; return the rows of its results."""
    dlspec.resume(folder, changes=list(words), allow=allow)
    return read_json_lines(folder / "metrics.jsonl")


def read_weights(folder: Path) -> bytes:
    return (folder / "checkpoints/last.safetensors").read_bytes()


def list_lrs(make: Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler], count: int, lr: float) -> list[float]:
    """The learning rates of PyTorch's own scheduler before each of its steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr, momentum=0.9)
    scheduler, lrs = make(optimizer), []
    for _ in range(count):
        lrs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return lrs


def test_a_changed_learning_rate_is_used(start: Callable[..., Path]) -> None:
    folder = start()
    rows = resume(folder, "trainer.epochs=4", "optimizer.lr=1e-9", allow=("optimizer.lr",))
    assert [row["lr"] for row in rows] == [1e-3, 1e-3, 1e-9, 1e-9]
    assert rows[3]["val/loss"] == pytest.approx(rows[1]["val/loss"], abs=1e-5)
    assert yaml.safe_load((folder / "spec.yaml").read_text())["optimizer"]["lr"] == 1e-9


def test_an_interrupted_change_is_not_lost(start: Callable[..., Path]) -> None:
    """spec.yaml has the new value, and the run was resumed with it, but the newest checkpoint has the old one."""
    folder, other = start(), start()
    resume(other, "trainer.epochs=3", "optimizer.lr=0.1", allow=("optimizer.lr",))
    for name in ("spec.yaml", "environment.json"):
        shutil.copy(other / name, folder / name)
    assert resume(folder) == read_json_lines(other / "metrics.jsonl")
    assert read_weights(folder) == read_weights(other)


SCHEDULES: dict[str, tuple[tuple[str, ...], tuple[str, ...], Callable[[torch.optim.Optimizer], Any]]] = {
    "added": ((), ("scheduler=ExponentialLR", "scheduler.gamma=0.5"),
              lambda each: lr_scheduler.ExponentialLR(each, 0.5)),
    "removed": (("scheduler=ExponentialLR", "scheduler.gamma=0.5"), ("scheduler=null",),
                lambda each: lr_scheduler.ConstantLR(each, 1.0)),
    "another one": (("scheduler=ExponentialLR", "scheduler.gamma=0.5"), ("scheduler=StepLR", "scheduler.step_size=1"),
                    lambda each: lr_scheduler.StepLR(each, 1)),
    "another setting": (("scheduler=MultiStepLR", "scheduler.milestones=[1,3]"), ("scheduler.milestones=[1,2]",),
                        lambda each: lr_scheduler.MultiStepLR(each, [1, 2])),
    "longer": (("scheduler=CosineAnnealingLR",), (), lambda each: lr_scheduler.CosineAnnealingLR(each, 4)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_changed_schedule_is_stepped_to_where_the_run_stands(name: str, start: Callable[..., Path]) -> None:
    before, changes, make = SCHEDULES[name]
    rows = resume(start(*before), "trainer.epochs=4", *changes, allow=("scheduler", "trainer.epochs"))
    assert [row["lr"] for row in rows[2:]] == list_lrs(make, 4, 1e-3)[2:]


def test_a_prolonged_one_cycle_goes_on_to_its_new_end(start: Callable[..., Path]) -> None:
    folder = start("scheduler=OneCycleLR", "scheduler.max_lr=0.1")
    rows = resume(folder, "trainer.epochs=4", allow=("trainer.epochs",))
    wanted = list_lrs(lambda each: lr_scheduler.OneCycleLR(each, 0.1, 4 * STEPS), 4 * STEPS, 1e-3)
    assert [row["lr"] for row in rows[2:]] == wanted[2 * STEPS :: STEPS]


def test_the_plateau_is_found_in_the_epochs_before(start: Callable[..., Path]) -> None:
    plateau = ("scheduler=ReduceLROnPlateau", "scheduler.patience=0", "scheduler.threshold=100")
    rows = resume(
        start(*plateau, "scheduler.factor=0.1"), "trainer.epochs=4", "scheduler.factor=0.5", allow=("scheduler",)
    )
    assert [row["lr"] for row in rows] == [1e-3, 1e-4, 2.5e-4, 1.25e-4]  # every epoch is a bad one


def test_a_smaller_batch_makes_the_schedule_longer(start: Callable[..., Path]) -> None:
    """The run has made 6 steps; two epochs of 3 batches with accumulate=3 make 2 more."""
    folder = start("scheduler=CosineAnnealingLR", "scheduler.interval=step")
    rows = resume(folder, "trainer.epochs=4", "trainer.accumulate=3", allow=("trainer",))
    wanted = list_lrs(lambda each: lr_scheduler.CosineAnnealingLR(each, 8), 8, 1e-3)
    assert [row["step"] for row in rows[2:]] == [7, 8]
    assert [row["lr"] for row in rows[2:]] == wanted[6:]


def test_another_optimizer_starts_without_state(start: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    folder = start()
    rows = resume(folder, "trainer.epochs=3", "optimizer=SGD", "optimizer.lr=0.5", allow=("optimizer",))
    assert rows[2]["lr"] == 0.5
    assert "the optimizer was Adam and is now SGD" in caplog.text
    assert "the optimizer was Adam and is now SGD" in (folder / "log.txt").read_text()


def test_groups_may_be_added(start: Callable[..., Path]) -> None:
    """A group with the same settings changes nothing, to the last bit; one with lr=0 keeps its parameters."""
    straight, grouped, still = start(), start(), start()
    group = 'optimizer.groups=[{{match: "*.bias", lr: {}}}]'
    resume(straight, "trainer.epochs=3")
    assert resume(grouped, "trainer.epochs=3", group.format(1e-3), allow=("optimizer",)) == read_json_lines(
        straight / "metrics.jsonl"
    )
    before = dlspec.load(still).state_dict()
    resume(still, "trainer.epochs=3", group.format(0), allow=("optimizer",))
    after = dlspec.load(still).state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == [
        name for name in before if name.endswith("bias")
    ]


def test_swa_starts_by_the_new_length(start: Callable[..., Path]) -> None:
    prolonged = start("trainer.average=SWA")  # averaged epoch 2 of 2
    resume(prolonged, "trainer.epochs=4", allow=("trainer.epochs",))
    straight = start("trainer.average=SWA", epochs=4)
    assert read_weights(prolonged) == read_weights(straight)


def test_another_monitored_result_counts_its_patience_from_now_on(start: Callable[..., Path]) -> None:
    words = ("trainer.epochs=4", "trainer.monitor=val/accuracy", "trainer.patience=2")
    assert len(resume(start(), *words, allow=("trainer",))) >= 4 - 1


REFUSED: dict[str, tuple[tuple[str, ...], tuple[str, ...], str]] = {
    "seed": ((), ("seed=1",), "seed only affects the start of a run"),
    "init": ((), ("init=[{match: '*', ones_: {}}]",), "init only affects the start of a run"),
    "fewer epochs": ((), ("trainer.epochs=1",), "trainer.epochs is 1, but the run is in epoch 2 already"),
    "fewer steps": ((), ("trainer.max_steps=2",), "trainer.max_steps is 2, but the run has made 6 steps already"),
    "averaged too late": ((), ("trainer.epochs=4", "trainer.average={SWA: 2}"), "no epoch is averaged yet"),
    "averaged too early": (("trainer.average={SWA: 1}",), ("trainer.epochs=4", "trainer.average.start_epoch=2"),
                           "set trainer.average.start_epoch to 1, or to 3 or later"),
    "too short a cycle": (("scheduler=OneCycleLR", "scheduler.max_lr=0.1", "scheduler.total_steps=6"),
                          ("trainer.epochs=4",), "OneCycleLR lasts 6 steps, but the run makes 12"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_can_not_take_effect_is_refused(name: str, start: Callable[..., Path]) -> None:
    before, changes, message = REFUSED[name]
    folder = start(*before)
    kept = (folder / "spec.yaml").read_bytes()
    keys = ("seed", "init", "trainer")
    with pytest.raises(SpecError) as error:
        resume(folder, *changes, allow=keys)
    assert message in " ".join(str(error.value).split())
    assert (folder / "spec.yaml").read_bytes() == kept


@pytest.fixture
def cut(dlspec: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A command that is ended by SIGTERM after two batches."""
    from dlspec.jobs import job
    from helpers.interrupted_runs import StopAfterBatches

    def call(*words: str) -> None:
        usual = job.make_default_callbacks
        with monkeypatch.context() as patch:
            patch.setattr(job, "make_default_callbacks", lambda *args: [*usual(*args), StopAfterBatches(2)])
            assert dlspec(*words).code == 143

    return call


def test_what_an_epoch_has_once_can_not_change_within_it(work: Path, dlspec: Any, cut: Callable[..., None]) -> None:
    cut(*RUN, "hydra.run.dir=cut")
    said = dlspec("resume", "run=cut", "trainer.batch_size=8", "metrics=[F1Score]", "resume.allow=[trainer,metrics]")
    assert said.code == 2
    for key in ("trainer.batch_size", "metrics"):
        assert f"{key}   can only change between two epochs, and the newest checkpoint is within epoch 1" in said.err
    assert "finish that epoch first: resume with trainer.epochs=1" in said.err
    assert dlspec("resume", "run=cut", "trainer.epochs=1").code == 0
    said = dlspec("resume", "run=cut", "trainer.epochs=2", "trainer.batch_size=8", "resume.allow=[trainer.batch_size]")
    assert said.code == 0, said.err


def test_an_epoch_is_finished_with_the_length_of_the_run(work: Path, dlspec: Any, cut: Callable[..., None]) -> None:
    cut(*RUN, "scheduler=CosineAnnealingLR", "hydra.run.dir=cut")
    said = dlspec("resume", "run=cut", "trainer.batch_size=8", "resume.allow=[trainer]")
    assert "resume with trainer.epochs=1 'resume.allow=[trainer.epochs]'" in said.err
    assert dlspec("resume", "run=cut", "trainer.epochs=1", "resume.allow=[trainer.epochs]").code == 0


TEXTS = (*QUIET, "data=text_csv", "data.path=texts.csv", "model=text_lstm", "model.params.embedding=2",
         "model.params.hidden_size=2", "trainer.batch_size=16", "trainer.progress=none")  # fmt: skip


def write_texts(work: Path, count: int) -> None:
    rows = (f"word{row % 7} word{row % 3},{'spam' if row % 3 else 'ham'}" for row in range(count))
    (work / "texts.csv").write_text("\n".join(["text,label", *rows, ""]))


def test_a_changed_file_within_the_first_epoch(work: Path, dlspec: Any, cut: Callable[..., None]) -> None:
    write_texts(work, 90)
    cut(*TEXTS, "trainer.epochs=2", "hydra.run.dir=cut")
    write_texts(work, 100)
    said = dlspec("resume", "run=cut", "resume.allow=[data]")
    assert said.code == 2
    assert "put the former data back" in said.err and "start: python -m dlspec run=cut" in said.err
    assert dlspec("run=cut", "hydra.run.dir=again").code == 0
    write_texts(work, 90)
    assert dlspec("resume", "run=cut", "trainer.epochs=1").code == 0
    write_texts(work, 100)
    said = dlspec("resume", "run=cut", "trainer.epochs=2", "resume.allow=[data]")
    assert said.code == 0, said.err


def test_a_changed_file_within_a_later_epoch(work: Path, dlspec: Any, cut: Callable[..., None]) -> None:
    write_texts(work, 90)
    assert dlspec(*TEXTS, "trainer.epochs=1", "hydra.run.dir=cut").code == 0
    before = (work / "cut/metrics.jsonl").read_bytes()
    cut("resume", "run=cut", "trainer.epochs=2")
    write_texts(work, 100)
    assert dlspec("resume", "run=cut").code == 2
    said = dlspec("resume", "run=cut", "resume.allow=[data]")
    [_, newest] = sorted((work / "cut/checkpoints").glob("step-*.safetensors"))
    assert said.code == 2
    assert f"remove cut/checkpoints/{newest.name} and resume with 'resume.allow=[data]'" in said.err
    newest.unlink()
    said = dlspec("resume", "run=cut", "resume.allow=[data]")
    assert said.code == 0, said.err
    assert (work / "cut/metrics.jsonl").read_bytes().startswith(before)
    assert len(read_json_lines(work / "cut/metrics.jsonl")) == 2


@pytest.mark.parametrize("registry", [OPTIMIZERS, SCHEDULERS], ids=["optimizers", "schedulers"])
def test_a_saved_spec_is_saved_the_same_again(registry: Any) -> None:
    for name in registry:
        settings = part_to_spec(registry[name], {})
        again = {key: registry[name].settings[key].read(each) for key, each in settings.items() if key != "type"}
        assert yaml.safe_dump(part_to_spec(registry[name], again)) == yaml.safe_dump(settings), name
