"""Every setting of every scheduler and optimizer, changed when a run is resumed: as PyTorch's with the new setting.

The run made two epochs, and makes two more with the change. At its end, the optimizer's groups must be those of a plain
PyTorch optimizer and scheduler that had the new settings from the start.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from torch.optim import lr_scheduler

import dlspec
from dlspec.errors import SpecError
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.parts.torch.torch_parts import OPTIMIZERS, SCHEDULERS
from dlspec.runs.io import read_json_lines
from dlspec.training.checkpoint.checkpoint_files import read_newest_checkpoint
from helpers.command_line import QUIET

STEPS, FIRST, EPOCHS = 3, 2, 4  # steps per epoch, epochs before the change, all epochs
RUN = (*QUIET, "data=breast_cancer", "model=linear", "trainer.progress=none", "trainer.test=none",
       f"trainer.limit_batches={STEPS}", "trainer.batch_size=16", "trainer.keep_checkpoints=1")  # fmt: skip
SGD = ("optimizer=SGD", "optimizer.lr=0.01", "optimizer.momentum=0.9")
ALLOWED = ("optimizer", "scheduler", "trainer.epochs")

CYCLE = {"base_lr": 0.001, "max_lr": 0.01, "step_size_up": 4, "step_size_down": 4}
ONE_CYCLE = {"max_lr": 0.1, "total_steps": 20}
PLATEAU = {"patience": 0, "threshold": 1.0, "factor": 0.5}  # no epoch is better by so much
# The settings of a run, and for each setting another value, with what else the run has for it.
SCHEDULER_CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "StepLR": ({"step_size": 1, "gamma": 0.5}, {"step_size": 3, "gamma": 0.25}),
    "MultiStepLR": ({"milestones": [1, 3], "gamma": 0.5}, {"milestones": [1, 2, 3], "gamma": 0.25}),
    "ConstantLR": ({"factor": 0.5, "total_iters": 3}, {"factor": 0.25, "total_iters": 5}),
    "LinearLR": (
        {"start_factor": 0.5, "end_factor": 1.0, "total_iters": 5},
        {"start_factor": 0.25, "end_factor": 0.8, "total_iters": 4},
    ),
    "ExponentialLR": ({"gamma": 0.5}, {"gamma": 0.7}),
    "PolynomialLR": ({"total_iters": 6, "power": 1.0}, {"total_iters": 8, "power": 2.0}),
    "CosineAnnealingLR": ({"T_max": 5}, {"T_max": 7, "eta_min": 0.001}),
    "CosineAnnealingWarmRestarts": ({"T_0": 3}, {"T_0": 2, "T_mult": 2, "eta_min": 0.001}),
    "ReduceLROnPlateau": (
        PLATEAU,
        {"mode": "max", "factor": 0.25, "patience": 1, "threshold": 1e-4, "threshold_mode": "abs", "cooldown": 1,
         "min_lr": 0.004, "eps": 0.004},
    ),
    "CyclicLR": (
        CYCLE,
        {"base_lr": 0.002, "max_lr": 0.02, "step_size_up": 3, "step_size_down": 3, "mode": "triangular2",
         "gamma": 0.9, "scale_mode": "iterations", "cycle_momentum": False, "base_momentum": 0.7, "max_momentum": 0.95},
    ),
    "OneCycleLR": (
        ONE_CYCLE,
        {"max_lr": 0.2, "total_steps": 15, "epochs": 6, "steps_per_epoch": 5, "pct_start": 0.5,
         "anneal_strategy": "linear", "cycle_momentum": False, "base_momentum": 0.7, "max_momentum": 0.9,
         "div_factor": 10.0, "final_div_factor": 2.0, "three_phase": True},
    ),
}  # fmt: skip
OTHER_BASES: dict[tuple[str, str], dict[str, Any]] = {
    ("CyclicLR", "gamma"): {**CYCLE, "mode": "exp_range"},
    **{
        ("OneCycleLR", key): {"max_lr": 0.1, "epochs": 5, "steps_per_epoch": 4} for key in ("epochs", "steps_per_epoch")
    },
}
# PyTorch itself ignores scale_mode without a function.
WITHOUT_EFFECT = {("CyclicLR", "scale_mode")}
# Contradicts the monitored result, so every run refuses it.
REFUSED = {("ReduceLROnPlateau", "mode")}
STEPPED = ("CyclicLR", "OneCycleLR")
SCHEDULER_CASES = [(name, key) for name, (_, changes) in SCHEDULER_CHANGES.items() for key in changes]
EXTRA_CASES = [(name, key) for name in SCHEDULER_CHANGES if name not in STEPPED for key in ("interval", "warmup")]
EXTRA_CASES.remove(("ReduceLROnPlateau", "interval"))  # always refused


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that trains a run once, and gives a copy of its folder each time."""
    made: dict[Any, Path] = {}
    folder = tmp_path_factory.mktemp("runs")

    def call(spec: Iterable[str] | Mapping[str, Any]) -> Path:
        key = repr(spec)
        if key not in made:
            written = dict(spec) if isinstance(spec, Mapping) else [*RUN, f"trainer.epochs={FIRST}", *spec]
            made[key] = Path(str(dlspec.train(written, folder=folder).folder))
        return Path(shutil.copytree(made[key], tmp_path_factory.mktemp("copy") / "run"))

    return call


def write_words(part: str, settings: Mapping[str, Any]) -> list[str]:
    return [f"{part}.{key}={yaml.safe_dump(each, default_flow_style=True, width=999).splitlines()[0]}"
            for key, each in settings.items()]  # fmt: skip


def resume(folder: Path, *words: str) -> list[Mapping[str, Any]]:
    dlspec.resume(folder, changes=[f"trainer.epochs={EPOCHS}", *words], allow=ALLOWED)
    return read_json_lines(folder / "metrics.jsonl")


def read_group(folder: Path) -> dict[str, Any]:
    """The settings of the optimizer's only group at the end of a run."""
    snapshot = read_newest_checkpoint(folder / "checkpoints")
    assert snapshot is not None
    [group] = snapshot.to_state_dict()["optimizer"]["param_groups"]
    return plain_group(group)


def plain_group(group: Mapping[str, Any]) -> dict[str, Any]:
    left_out = ("params", "fused")  # which kernel dlspec chooses is none of the scheduler's business
    return {key: list(each) if isinstance(each, tuple) else each for key, each in group.items() if key not in left_out}


def compute_plain(name: str, settings: Mapping[str, Any], results: list[float]) -> tuple[list[float], dict[str, Any]]:
    """The learning rate at the start of each epoch and the group at the end, by PyTorch alone."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.01, momentum=0.9)
    warmup = settings.get("warmup", 0)
    own = {key: each for key, each in settings.items() if key not in ("interval", "warmup")}
    scheduler = getattr(lr_scheduler, name)(optimizer, **own)
    counts_steps = name in STEPPED or settings.get("interval") == "step"
    lrs = []
    for epoch, result in enumerate(results):
        for step in range(epoch * STEPS, (epoch + 1) * STEPS):
            if step == epoch * STEPS:
                lrs.append(optimizer.param_groups[0]["lr"] * min(1, (step + 1) / (warmup + 1)))
            optimizer.step()
            if counts_steps:
                scheduler.step()
        if not counts_steps:
            scheduler.step(*([result] if name == "ReduceLROnPlateau" else []))
    optimizer.param_groups[0]["lr"] *= min(1, (len(results) * STEPS + 1) / (warmup + 1))
    return lrs, plain_group(optimizer.param_groups[0])


def check_scheduler(name: str, key: str, start: Callable[..., Path]) -> None:
    base, changes = SCHEDULER_CHANGES[name]
    base = OTHER_BASES.get((name, key), base)
    value = {"interval": "step", "warmup": 20}.get(key) or changes[key]
    folder = start([*SGD, f"scheduler={name}", *write_words("scheduler", base)])
    before = (folder / "spec.yaml").read_bytes()
    if (name, key) in REFUSED:
        with pytest.raises(SpecError):
            resume(folder, *write_words("scheduler", {key: value}))
        assert (folder / "spec.yaml").read_bytes() == before
        return
    rows = resume(folder, *write_words("scheduler", {key: value}))
    results = [row["val/loss"] for row in rows]
    lrs, group = compute_plain(name, {**base, key: value}, results)
    assert [row["lr"] for row in rows[FIRST:]] == lrs[FIRST:]
    assert read_group(folder) == group
    assert yaml.safe_load((folder / "spec.yaml").read_text())["scheduler"][key] == value
    unchanged, unchanged_group = compute_plain(name, base, results)
    differs = (unchanged[FIRST:], unchanged_group) != (lrs[FIRST:], group)
    assert differs == ((name, key) not in WITHOUT_EFFECT)


@pytest.mark.soak
@pytest.mark.parametrize(("name", "key"), SCHEDULER_CASES + EXTRA_CASES)
def test_every_changed_setting_of_a_scheduler_is_used(name: str, key: str, start: Callable[..., Path]) -> None:
    check_scheduler(name, key, start)


@pytest.mark.parametrize(
    ("name", "key"), [("CyclicLR", "cycle_momentum"), ("ReduceLROnPlateau", "cooldown"), ("StepLR", "warmup")]
)
def test_some_changed_settings_of_schedulers(name: str, key: str, start: Callable[..., Path]) -> None:
    check_scheduler(name, key, start)


def test_every_setting_of_a_scheduler_is_changed() -> None:
    names = {each for each in SCHEDULERS if SCHEDULERS[each].build.__module__.startswith("torch.")}
    assert {(name, key) for name in names for key in SCHEDULERS[name].settings} == set(SCHEDULER_CASES)


# ---- optimizers ------------------------------------------------------------------------------------------------------

# Other values of the settings for which half of the default is none that is allowed.
OTHER_VALUES: dict[str, Any] = {
    "momentum": 0.3, "dampening": 0.1, "weight_decay": 0.02, "lr_decay": 0.1, "lambd": 0.01, "eps": 1e-3, "t0": 2.0,
    "etas": [0.4, 1.5], "step_sizes": [1e-3, 0.1], "line_search_fn": "strong_wolfe", "max_iter": 3, "max_eval": 2,
    "history_size": 2, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 3, "beta2_decay": -0.5, "foreach": True,
    "ns_coefficients": [3.0, -4.0, 2.0], "initial_accumulator_value": 0.5, "d": 2.0, "fused": False,
    "betas": [0.8, 0.95],
}  # fmt: skip
OPTIMIZER_BASES: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}}
PLACES: dict[str, tuple[str, ...]] = {"Muon": ("freeze=['*.bias']",)}  # Muon trains matrices only
# PyTorch would fail in the first step on a CPU, so every run refuses them.
REFUSED_SETTINGS = {"capturable", "differentiable"}
OPTIMIZER_CASES = [(name, key) for name in OPTIMIZERS for key in OPTIMIZERS[name].settings]


def choose_value(name: str, key: str) -> Any:
    default = OPTIMIZERS[name].settings[key].default
    if key in OTHER_VALUES and not (name == "Adafactor" and key == "eps"):
        return OTHER_VALUES[key]
    if name == "Adafactor" and key == "eps":
        return [1e-4, 1e-2]
    return not default if isinstance(default, bool) else default / 2


@pytest.fixture
def sparse_spec(tmp_path: Path) -> dict[str, Any]:
    """A network whose only parameters are those of a sparse embedding, as SparseAdam needs it."""
    rows = (f"word{row % 7} word{row % 3},{'abc'[row % 3]}" for row in range(120))
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows, ""]))
    quiet = dict.fromkeys(("curves", "pictures", "tensorboard"), False)
    return {
        "layers": [{"Embedding": {"embedding_dim": 3, "sparse": True}}, {"Mean": 1}],
        "data": {"type": "text_csv", "path": str(tmp_path / "texts.csv")},
        "optimizer": {"type": "SparseAdam"},
        "trainer": {"epochs": FIRST, "limit_batches": STEPS, "batch_size": 16, "test": "none", "progress": "none",
                    "keep_checkpoints": 1, **quiet},
    }  # fmt: skip


def check_optimizer(name: str, key: str, spec: Any, start: Callable[..., Path]) -> None:
    base, value = OPTIMIZER_BASES.get(name, {}), choose_value(name, key)
    words = [*PLACES.get(name, ()), f"optimizer={name}", *write_words("optimizer", base)]
    folder = start(spec if name == "SparseAdam" else words)
    if key in REFUSED_SETTINGS:
        before = (folder / "spec.yaml").read_bytes()
        with pytest.raises(SpecError):
            resume(folder, *write_words("optimizer", {key: value}))
        assert (folder / "spec.yaml").read_bytes() == before
        return
    rows = resume(folder, *write_words("optimizer", {key: value}))
    parameter = nn.Parameter(torch.zeros(2, 2))
    plain = getattr(torch.optim, name)([parameter], **{**base, key: tuple(value) if isinstance(value, list) else value})
    assert read_group(folder) == plain_group(plain.param_groups[0])
    assert [row["lr"] for row in rows[FIRST:]] == [plain.param_groups[0]["lr"]] * (EPOCHS - FIRST)
    assert yaml.safe_load((folder / "spec.yaml").read_text())["optimizer"][key] == value


@pytest.mark.soak
@pytest.mark.parametrize(("name", "key"), OPTIMIZER_CASES)
def test_every_changed_setting_of_an_optimizer_is_used(
    name: str, key: str, sparse_spec: dict[str, Any], start: Callable[..., Path]
) -> None:
    check_optimizer(name, key, sparse_spec, start)


@pytest.mark.parametrize(("name", "key"), [("AdamW", "betas"), ("RMSprop", "centered"), ("Adam", "capturable")])
def test_some_changed_settings_of_optimizers(name: str, key: str, start: Callable[..., Path]) -> None:
    check_optimizer(name, key, {}, start)


# ---- the trainer -----------------------------------------------------------------------------------------------------

Rows = list[Mapping[str, Any]]


def list_steps(rows: Rows) -> list[Any]:
    return [row["step"] for row in rows]


def equals(rows: Rows, straight: Rows) -> bool:
    return rows == straight


def equals_up_to_rounding(rows: Rows, straight: Rows) -> bool:
    return all(row["val/loss"] == pytest.approx(other["val/loss"], rel=1e-3)
               for row, other in zip(rows, straight, strict=True))  # fmt: skip


def stands_still(rows: Rows, straight: Rows) -> bool:
    return rows[3]["val/loss"] == pytest.approx(rows[1]["val/loss"], rel=1e-6)


# By setting another value, and what must be true of the rows of the resumed run and those of one without the change.
TRAINER_CHANGES: dict[str, tuple[Any, Callable[[Rows, Rows], bool]]] = {
    "epochs": (5, lambda rows, straight: rows[:4] == straight and len(rows) == 5),
    "max_steps": (8, lambda rows, straight: list_steps(rows) == [3, 6, 8]),
    "limit_batches": (2, lambda rows, straight: list_steps(rows) == [3, 6, 8, 10]),
    "batch_size": (8, lambda rows, straight: rows[:2] == straight[:2] and rows[2:] != straight[2:]),
    "sampling": ("balanced", lambda rows, straight: rows[:2] == straight[:2] and rows[2:] != straight[2:]),
    "accumulate": (3, lambda rows, straight: list_steps(rows) == [3, 6, 7, 8]),
    "eval_batch_size": (30, equals_up_to_rounding),
    "device": ("cpu", equals),
    "precision": (64, equals_up_to_rounding),
    "threads": (1, equals_up_to_rounding),
    "allocator": ("keep", equals),
    "channels_last": (True, equals_up_to_rounding),
    "activation_checkpointing": (["1"], equals),
    "num_workers": (1, equals),
    "deterministic": (True, equals_up_to_rounding),
    "clip_grad_norm": (1e-9, stands_still),
    "clip_grad_value": (1e-9, stands_still),
    "on_nan": ("skip", lambda rows, straight: list_steps(rows) == list_steps(straight)),
    "debug": ("anomaly", equals),
    "average": (
        {"EMA": {"decay": 0.5}},
        lambda rows, straight: (
            [row["train/loss"] for row in rows] == [row["train/loss"] for row in straight]
            and rows[3]["val/loss"] != straight[3]["val/loss"]
        ),
    ),
    "monitor": ("val/accuracy", equals),
    "mode": ("max", equals),
    "patience": (1, equals),
    "test": ("last", equals),
    "checkpoints": (False, equals),
    "checkpoint_steps": (1, equals),
    "checkpoint_minutes": (1.0, equals),
    "keep_checkpoints": (3, equals),
    "tensorboard": (True, equals),
    "curves": (True, equals),
    "pictures": (True, equals),
    "progress": ("lines", equals),
}
# They take long; tests of their own compare them with runs that have them from the start.
SLOW_TRAINER_SETTINGS = {"compile", "steps_per_call", "tune"}  # steps_per_call needs compile=step
SLOW_STEPS = ("optimizer=SGD", "optimizer.lr=0.01")


@pytest.mark.soak
@pytest.mark.parametrize("key", TRAINER_CHANGES)
def test_every_changed_setting_of_the_trainer_is_used(key: str, start: Callable[..., Path]) -> None:
    value, holds = TRAINER_CHANGES[key]
    straight = resume(start(SLOW_STEPS))
    folder = start(SLOW_STEPS)
    changes = [f"trainer.epochs={EPOCHS}", *write_words("trainer", {key: value})]
    dlspec.resume(folder, changes=changes, allow=["trainer"])
    assert holds(read_json_lines(folder / "metrics.jsonl"), straight)
    weights = load_file(folder / "checkpoints/last.safetensors") if key != "checkpoints" else {}
    assert {each.dtype for each in weights.values()} <= {torch.float64 if key == "precision" else torch.float32}
    saved = yaml.safe_load((folder / "spec.yaml").read_text())["trainer"][key]
    assert saved == ({"type": "EMA", "decay": 0.5} if key == "average" else value)


def test_every_setting_of_the_trainer_is_changed() -> None:
    assert TrainerSpec.model_fields.keys() == TRAINER_CHANGES.keys() | SLOW_TRAINER_SETTINGS
