"""`trainer.tune`: try settings on the real network and data, and keep the fastest ones that compute the same.

Each candidate is compared with the best settings so far. Both train alternately, so that other processes on the machine
slow down both equally.
"""

from __future__ import annotations

import math
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
MAX_TUNING_SECONDS = 18.0  # for all candidates, approximately
MIN_SECONDS_TO_COMPILE = 10.0  # with less time left nothing is compiled
MIN_RUN_SECONDS_TO_COMPILE = 60.0  # of training: compiling takes 10 to 40 s, and saves up to three quarters of it
MAX_COMPILED_LAYERS = 40  # larger networks are not compiled, since that takes about 0.3 s for each layer
MAX_TURNS, MIN_STEPS_PER_TURN, SECONDS_PER_TURN = 4, 2, 0.1
MIN_SPEEDUP, MIN_SPEEDUP_PER_TURN = 1.05, 1.0  # of the median turn and of every turn; less may be chance
CLEARLY_SLOWER = 0.8  # a candidate with less speedup after two turns gets no further turns
MAX_SECONDS_OF_TURNS = 2.0  # for each candidate
NUM_COMPARED_LOSSES = 4
MAX_NOISE_FACTOR = 3  # the losses may also differ by this many times the effect of another seed
# Allowed relative difference of the first loss, by the precision to try. Ten times as much for losses after an update.
LOSS_TOLERANCES = {None: 1e-3, "tf32": 3e-3, "bf16": 1e-2}


@dataclass(frozen=True)
class TuningCandidate:
    """Changes of settings to try."""

    changes: Changes

    def __str__(self) -> str:
        return ", ".join(f"{key}={str(value).lower()}" for key, value in self.changes.items())

    @property
    def is_compiled(self) -> bool:
        """Whether trying them takes the time of a compilation."""
        return self.changes.get("compile") in ("model", "step")

    @property
    def loss_tolerance(self) -> float:
        """Allowed relative difference of the first loss."""
        return LOSS_TOLERANCES[self.changes.get("precision")]


@dataclass(frozen=True)
class TuningResult:
    """The chosen settings."""

    changes: Changes
    table: str  # all candidates with their speed, for printing


@dataclass(frozen=True)
class _TableRow:
    """A row of the table."""

    setting: str
    verdict: str = ""
    speed: float | None = None  # samples per second
    speedup: float | None = None  # compared with the best settings before

    @property
    def cells(self) -> tuple[str, str, str, str]:
        speed = "" if self.speed is None else f"{self.speed:,.0f}"
        times = "" if self.speedup is None else f"{self.speedup:.2f}"
        return self.setting, speed, times, self.verdict


def _format_table(rows: Sequence[_TableRow]) -> str:
    head = ("setting", "samples/s", "times", "")
    return indent(format_table(head, [each.cells for each in rows], right_aligned=("samples/s", "times")), "  ")


class _TimedTrainer:
    """A trainer that trains for a short time in each turn, to compare speeds."""

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
        """Train for one turn, and return the seconds per sample of each step."""
        with self._apply_settings():
            self._time_step()  # warm-up: the other trainer has changed caches and freed memory
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
    """Try settings one after another, and keep each one that makes training faster.

    Args:
        make_trainer: makes a new trainer with changed settings.
        print_line: called with a line about each candidate before it is tried.
    """
    deadline, table_rows = time.monotonic() + MAX_TUNING_SECONDS, list[_TableRow]()
    chosen: dict[str, Any] = {}
    print_line("trainer.tune: unchanged settings")
    trainer = make_trainer({})
    try:
        fastest = _TimedTrainer(trainer)
        first_losses, noise = fastest.losses, _measure_loss_noise(make_trainer, fastest.losses)
        seconds_per_sample = median(fastest.time_turn())
        table_rows.append(_TableRow("unchanged", speed=1 / seconds_per_sample))
    except Exception as error:  # the run will fail, too, and report it
        return TuningResult({}, f"trainer.tune: training failed, nothing was tried: {first_line(error)}")
    for candidate in list_candidates(trainer):
        if candidate.is_compiled and count_samples(trainer) * seconds_per_sample < MIN_RUN_SECONDS_TO_COMPILE:
            table_rows.append(_TableRow(str(candidate), "the run is too short"))
            continue
        print_line(f"trainer.tune: {candidate}")
        seconds_left = deadline - time.monotonic()
        if seconds_left < (MIN_SECONDS_TO_COMPILE if candidate.is_compiled else 2.0):
            table_rows.append(_TableRow(str(candidate), "no time left"))
            continue
        try:
            other = _TimedTrainer(make_trainer({**chosen, **candidate.changes}))
        except UserError:
            continue  # the settings do not fit the spec
        except Exception as error:  # PyTorch raises many types
            table_rows.append(_TableRow(str(candidate), f"failed: {first_line(error)}"))
            continue
        if not _have_same_losses(first_losses, other.losses, candidate.loss_tolerance, noise):
            table_rows.append(_TableRow(str(candidate), "different losses"))
            continue
        speedups, speed = _compare_speed(fastest, other)
        is_faster = median(speedups) >= MIN_SPEEDUP and min(speedups) >= MIN_SPEEDUP_PER_TURN
        table_rows.append(_TableRow(str(candidate), "kept" if is_faster else "", speed, median(speedups)))
        if is_faster:
            fastest, chosen = other, {**chosen, **candidate.changes}
    where = f"{trainer.state.device}, batches of {trainer.settings.initial_batch_size}"
    return TuningResult(chosen, f"trainer.tune tried on {where}:\n{_format_table(table_rows)}")


def list_candidates(trainer: Trainer) -> list[TuningCandidate]:
    """List changes that may be faster for this network and machine, without settings that the spec fixes.

    Those that are quickest to try come first.
    """
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
    # On a CPU channels_last was slower in all measurements.
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


def count_samples(trainer: Trainer) -> float:
    """Count the samples on which the whole run trains."""
    settings, train = trainer.settings, trainer.batches.make_training_batches()
    steps = min(len(train) / settings.accumulate * settings.epochs, settings.max_steps or math.inf)
    return steps * settings.accumulate * settings.initial_batch_size


def _measure_loss_noise(make_trainer: TrainerMaker, losses: Sequence[float]) -> float:
    """Measure how much losses differ with other random numbers, for dropout: compiled code draws others, too."""
    others = _TimedTrainer(make_trainer({}), seed_offset=1).losses
    return max(abs(one - other) for one, other in zip(losses, others, strict=True))


def _have_same_losses(losses: Sequence[float], others: Sequence[float], tolerance: float, noise: float) -> bool:
    tolerances = [tolerance, *[10 * tolerance] * (len(losses) - 1)]
    triples = zip(losses, others, tolerances, strict=True)
    return all(
        abs(one - other) <= max_difference * max(abs(one), 1.0) + MAX_NOISE_FACTOR * noise
        for one, other, max_difference in triples
    )


def _compare_speed(fastest: _TimedTrainer, other: _TimedTrainer) -> tuple[list[float], float]:
    """Let two trainers train alternately. Return the other's speedup in each turn, and its samples per second."""
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
