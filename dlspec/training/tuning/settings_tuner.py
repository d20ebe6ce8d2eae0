"""`trainer.tune`: settings are tried on the real network and data, and the fastest that compute the same are kept.

One after the other is set beside what was kept before. Both train in turn, so that what else the machine does slows
down both alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from textwrap import indent
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.errors import UserError
from dlspec.formatting import first_line, format_table
from dlspec.training.criterion_interface import total_loss
from dlspec.training.runtime.resources import is_large_tensor
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.trial_training import iterate_training_steps

Changes = Mapping[str, Any]
TrainerMaker = Callable[[Changes], Trainer]

TUNED_SETTINGS = ("allocator", "threads", "channels_last", "num_workers", "precision", "compile")
"""The settings that may be changed."""
MAX_TUNING_SECONDS = 18.0
"""What all the trying may take, about."""
MIN_SECONDS_TO_COMPILE = 10.0
"""With less time left nothing is compiled."""
MAX_COMPILED_LAYERS = 40
"""A network of more is not compiled: that takes some 0.3 s a layer."""
MAX_TURNS, MIN_STEPS_PER_TURN, SECONDS_PER_TURN = 4, 2, 0.1
MIN_SPEEDUP, MIN_SPEEDUP_PER_TURN = 1.05, 1.0
"""What is less may be chance, and so may be what is not faster in every turn."""
CLEARLY_SLOWER = 0.8
"""After two turns with so little, or when they have taken `MAX_SECONDS_OF_TURNS`, no more are needed."""
MAX_SECONDS_OF_TURNS = 2.0
NUM_COMPARED_LOSSES = 4
"""So many losses are compared."""
MAX_NOISE_FACTOR = 3
LOSS_TOLERANCES = {None: 1e-3, "tf32": 3e-3, "bf16": 1e-2}
"""How far the first losses may differ, as a share, by the precision that is tried; those after an update ten times."""


@dataclass(frozen=True)
class TuningCandidate:
    changes: Changes

    def __str__(self) -> str:
        return ", ".join(f"{key}={str(value).lower()}" for key, value in self.changes.items())

    @property
    def tolerance(self) -> float:
        return LOSS_TOLERANCES[self.changes.get("precision")]


@dataclass(frozen=True)
class TuningResult:
    """What was chosen, and the table of what was tried."""

    changes: Changes
    table: str


@dataclass(frozen=True)
class _TableRow:
    """A row of the table: samples a second, and how many times as fast as what was kept before."""

    setting: str
    verdict: str = ""
    speed: float | None = None
    speedup: float | None = None

    @property
    def cells(self) -> tuple[str, str, str, str]:
        speed = "" if self.speed is None else f"{self.speed:,.0f}"
        times = "" if self.speedup is None else f"{self.speedup:.2f}"
        return self.setting, speed, times, self.verdict


def _format_table(rows: Sequence[_TableRow]) -> str:
    head = ("setting", "samples/s", "times", "")
    return indent(format_table(head, [each.cells for each in rows], right_aligned=("samples/s", "times")), "  ")


class _TimedTrainer:
    """A trainer that trains for a while whenever it is its turn."""

    def __init__(self, trainer: Trainer, seed_offset: int = 0) -> None:
        self._trainer = trainer
        self._steps: Iterator[tuple[Tensor, int]] = iterate_training_steps(trainer, seed_offset)
        self.losses = self._compute_losses(NUM_COMPARED_LOSSES)

    def _compute_losses(self, steps: int) -> list[float]:
        with self._apply_settings():
            return [total_loss(next(self._steps)[0]).item() for _ in range(steps)]

    def _apply_settings(self) -> Any:
        return self._trainer.backend.apply_settings(self._trainer.settings.initial_batch_size)

    def time_turn(self) -> list[float]:
        """The seconds a sample of some steps."""
        with self._apply_settings():
            self._time_step()  # what the other's turn has left in caches, and given back to the system
            until, step_seconds = (
                time.perf_counter() + SECONDS_PER_TURN,
                [self._time_step() for _ in range(MIN_STEPS_PER_TURN)],
            )
            while time.perf_counter() < until:
                step_seconds.append(self._time_step())
            return step_seconds

    def _time_step(self) -> float:
        started = time.perf_counter()
        loss, num_samples = next(self._steps)
        loss.sum().item()  # waits for the device
        return (time.perf_counter() - started) / num_samples


def tune_settings(make_trainer: TrainerMaker, print_line: Callable[[str], None] = lambda text: None) -> TuningResult:
    """Tries settings of trainers that `make` gives; `tell` is told what is tried next."""
    deadline, table_rows = time.monotonic() + MAX_TUNING_SECONDS, list[_TableRow]()
    chosen: dict[str, Any] = {}
    print_line("trainer.tune: as it is")
    trainer = make_trainer({})
    try:
        fastest = _TimedTrainer(trainer)
        first_losses, noise = fastest.losses, _measure_loss_noise(make_trainer, fastest.losses)
        table_rows.append(_TableRow("as it is", speed=1 / median(fastest.time_turn())))
    except Exception as error:  # the run will fail, too, and say so
        return TuningResult({}, f"trainer.tune tried nothing: {first_line(error)}")
    for candidate in list_candidates(trainer):
        print_line(f"trainer.tune: {candidate}")
        seconds_left = deadline - time.monotonic()
        if seconds_left < (MIN_SECONDS_TO_COMPILE if candidate.changes.get("compile") in ("model", "step") else 2.0):
            table_rows.append(_TableRow(str(candidate), "no time left"))
            continue
        try:
            other = _TimedTrainer(make_trainer({**chosen, **candidate.changes}))
        except UserError:
            continue  # the spec has what can't be had with it
        except Exception as error:  # whatever PyTorch says
            table_rows.append(_TableRow(str(candidate), f"can't be had: {first_line(error)}"))
            continue
        if not _have_same_losses(first_losses, other.losses, candidate.tolerance, noise):
            table_rows.append(_TableRow(str(candidate), "computes something else"))
            continue
        speedups, speed = _compare_speed(fastest, other)
        is_faster = median(speedups) >= MIN_SPEEDUP and min(speedups) >= MIN_SPEEDUP_PER_TURN
        table_rows.append(_TableRow(str(candidate), "kept" if is_faster else "", speed, median(speedups)))
        if is_faster:
            fastest, chosen = other, {**chosen, **candidate.changes}
    where = f"{trainer.state.device}, batches of {trainer.settings.initial_batch_size}"
    return TuningResult(chosen, f"trainer.tune tried on {where}:\n{_format_table(table_rows)}")


def list_candidates(trainer: Trainer) -> list[TuningCandidate]:
    """What may be faster for this network on this machine, and the spec does not say; the cheapest to try first."""
    settings, is_cpu = trainer.settings, trainer.state.device.type == "cpu"
    modules = [each for each in trainer.state.network.modules() if not list(each.children())]
    found: list[dict[str, Any]] = []
    if (
        is_cpu
        and settings.allocator == "auto"
        and not is_large_tensor(trainer.backend.largest_tensor_bytes(settings.initial_batch_size))
    ):
        found.append({"allocator": "keep"})
    if is_cpu and settings.threads is None and torch.get_num_threads() > 1:
        found.append({"threads": 1})
    # On a CPU it was slower wherever it was measured.
    if not is_cpu and not settings.channels_last and any(isinstance(each, nn.Conv2d | nn.Conv3d) for each in modules):
        found.append({"channels_last": True})
    if settings.num_workers == 0:
        found.append({"num_workers": 1})
    if settings.tune == "precision" and settings.precision == 32:
        found += [{"precision": each} for each in (("bf16",) if is_cpu else ("tf32", "bf16"))]
    if settings.compile == "none":
        found += [] if is_cpu else [{"compile": "cudagraphs"}]
        compiled = ("step",) if is_cpu else ("model", "step")
        found += [{"compile": each} for each in compiled] if len(modules) <= MAX_COMPILED_LAYERS else []
    return [TuningCandidate(each) for each in found]


def _measure_loss_noise(make_trainer: TrainerMaker, losses: Sequence[float]) -> float:
    """How far losses differ where dropout and its like draw other numbers: compiled code does."""
    others = _TimedTrainer(make_trainer({}), seed_offset=1).losses
    return max(abs(one - other) for one, other in zip(losses, others, strict=True))


def _have_same_losses(losses: Sequence[float], others: Sequence[float], tolerance: float, noise: float) -> bool:
    tolerances = [tolerance, *[10 * tolerance] * (len(losses) - 1)]
    triples = zip(losses, others, tolerances, strict=True)
    return all(abs(one - other) <= most * max(abs(one), 1.0) + MAX_NOISE_FACTOR * noise for one, other, most in triples)


def _compare_speed(fastest: _TimedTrainer, other: _TimedTrainer) -> tuple[list[float], float]:
    """How many times as fast the other's usual step is, turn by turn, and its samples a second."""
    speedups: list[float] = []
    all_step_seconds: list[float] = []
    until = time.monotonic() + MAX_SECONDS_OF_TURNS
    for turn in range(MAX_TURNS):
        before, step_seconds = fastest.time_turn(), other.time_turn()
        speedups.append(median(before) / median(step_seconds))
        all_step_seconds += step_seconds
        if turn and (median(speedups) < CLEARLY_SLOWER or time.monotonic() > until):
            break
    return speedups, 1 / median(all_step_seconds)
