"""What is checked between a right form and the first step, and what a saved spec makes of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.command_line import QUIET

SHORT = ["model=linear", "trainer.epochs=2", "trainer.limit_batches=2", *QUIET]
SCHEDULERS = {
    "ConstantLR": (),
    "CosineAnnealingLR": (),
    "CosineAnnealingWarmRestarts": ("scheduler.T_0=1",),
    "CyclicLR": ("scheduler.base_lr=1e-4", "scheduler.max_lr=1e-2", "scheduler.cycle_momentum=false"),
    "ExponentialLR": ("scheduler.gamma=0.9",),
    "LinearLR": (),
    "MultiStepLR": ("scheduler.milestones=[1]",),
    "OneCycleLR": ("scheduler.max_lr=1e-2",),
    "PolynomialLR": (),
    "ReduceLROnPlateau": (),
    "StepLR": ("scheduler.step_size=1",),
}


def run_folder(out: str) -> Path:
    return Path(out.strip().splitlines()[-1])


def test_the_table_has_every_scheduler() -> None:
    from dlspec.parts.torch.torch_parts import SCHEDULERS as REGISTRY

    assert set(SCHEDULERS) == set(REGISTRY)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_run_with_a_scheduler_can_be_repeated(name: str, dlspec: Callable) -> None:
    first = dlspec(*SHORT, f"scheduler={name}", *SCHEDULERS[name])
    assert (first.code, first.err) == (0, "")
    again = dlspec(f"run={run_folder(first.out)}")
    assert (again.code, again.err) == (0, "")
    metrics = [(run_folder(each.out) / "metrics.jsonl").read_bytes() for each in (first, again)]
    assert metrics[0] == metrics[1]


def test_a_plateau_is_looked_for_in_the_direction_of_the_monitored_result(dlspec: Callable) -> None:
    plateau = ("scheduler=ReduceLROnPlateau", "scheduler.patience=0", "trainer.monitor=val/accuracy")
    said = dlspec(*SHORT, *plateau, "trainer.epochs=3", "trainer.limit_batches=20")
    assert (said.code, said.err) == (0, "")
    assert "mode: max" in (run_folder(said.out) / "spec.yaml").read_text()
    rows = [json.loads(line) for line in (run_folder(said.out) / "metrics.jsonl").read_text().splitlines()]
    accuracies = [row["val/accuracy"] for row in rows]
    assert accuracies == sorted(set(accuracies))
    assert {row["lr"] for row in rows} == {0.001}


REFUSED = {
    "plateau": (
        ("scheduler=ReduceLROnPlateau", "scheduler.mode=min", "trainer.monitor=val/accuracy"),
        "command line   scheduler.mode   mode is min, but more is better for val/accuracy   leave it out: it is max",
    ),
    "nesterov": (
        ("optimizer=SGD", "optimizer.nesterov=true"),
        "command line   optimizer.nesterov   invalid settings for SGD   PyTorch says: "
        "Nesterov momentum requires a momentum and zero dampening",
    ),
    "device": (
        ("trainer.device=cuda:99",),
        "command line   trainer.device   no device 'cuda:99' on this machine; available: auto, cpu",
    ),
    "metrics": (
        ("metrics=[{FBetaScore: {beta: 1.0}}, {FBetaScore: {beta: 2.0}}]",),
        "command line   metrics.1   FBetaScore is listed twice, and both would report 'fbeta_score'   "
        "remove one: a metric can't be given another name",
    ),
    "numbers": (
        ("metrics=[R2Score]",),
        "command line   metrics   R2Score expects numbers, but 'digit' has classes   "
        "use metrics=auto, which chooses by the target",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str, dlspec: Callable, work: Path) -> None:
    words, text = REFUSED[case]
    said = dlspec(*SHORT, *words)
    assert said.code == 2
    assert said.err.splitlines()[0].startswith(text)
    assert not (work / "runs").exists()


def test_what_pytorch_refuses_in_training_is_one_line(dlspec: Callable, write: Callable) -> None:
    write(
        "layer_of_small_batches.py",
        "import dlspec\nfrom torch import nn\n\n@dlspec.layer\nclass SmallBatches(nn.Module):\n"
        "    def forward(self, x):\n        if len(x) > 2:\n            raise ValueError('at most 2 samples')\n"
        "        return x\n",
    )
    layers = "model.layers=[Flatten, SmallBatches, {Linear: 10}]"
    said = dlspec(*SHORT, "imports=[layer_of_small_batches]", layers)
    assert said.code == 1
    assert said.err.startswith("the training failed: ValueError: at most 2 samples")
    folder = Path(said.err.rpartition("(see ")[2].split("/log.txt")[0])
    assert json.loads((folder / "result.json").read_text())["status"] == "failed"
    assert "Traceback" in (folder / "log.txt").read_text()


def test_the_log_tells_of_the_run(dlspec: Callable) -> None:
    said = dlspec(*SHORT)
    text = (run_folder(said.out) / "log.txt").read_text()
    for words in (
        "training 650 parameters on ",
        "epoch 2 of 2, step 4: train/loss ",
        "the best epoch by val/loss is 2",
    ):
        assert words in text


def test_a_warm_up_before_a_cosine(dlspec: Callable, work: Path) -> None:
    """36 steps: a rise in tenths to the learning rate, then half a cosine over the 27 that are left."""
    words = ("model=mlp", "trainer.epochs=9", "trainer.limit_batches=4", "optimizer.lr=0.01", *QUIET)
    said = dlspec(*words, "scheduler=CosineAnnealingLR", "scheduler.warmup=9", "scheduler.interval=step",
                  "hydra.run.dir=made")  # fmt: skip
    assert (said.code, said.err) == (0, "")
    found = [json.loads(line)["lr"] for line in (work / "made/metrics.jsonl").read_text().splitlines()]
    wanted = [0.01 * (step + 1) / 10 if step < 9 else 0.005 * (1 + math.cos(math.pi * (step - 9) / 27))
              for step in range(0, 36, 4)]  # fmt: skip
    assert found == pytest.approx(wanted, rel=1e-6)
    assert "warmup: 9" in (work / "made/spec.yaml").read_text()
