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
from dlspec.text import first_line, text_table
from dlspec.training.protocols import total_loss
from dlspec.training.runtime.resources import is_large
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.rehearsal import rehearse

Changes = Mapping[str, Any]
Make = Callable[[Changes], Trainer]

TUNED = ("allocator", "threads", "channels_last", "num_workers", "precision", "compile")
"""The settings that may be changed."""
SECONDS = 18.0
"""What all the trying may take, about."""
SECONDS_TO_COMPILE = 10.0
"""With less time left nothing is compiled."""
MOST_LAYERS = 40
"""A network of more is not compiled: that takes some 0.3 s a layer."""
TURNS, FEWEST_STEPS, SECONDS_A_TURN = 4, 2, 0.1
LEAST_GAIN, LEAST_IN_A_TURN = 1.05, 1.0
"""What is less may be chance, and so may be what is not faster in every turn."""
CLEAR_LOSS = 0.8
"""After two turns with so little, or when they have taken `SECONDS_OF_TURNS`, no more are needed."""
SECONDS_OF_TURNS = 2.0
STEPS = 4
"""So many losses are compared."""
MOST_NOISE = 3
ROUNDING = {None: 1e-3, "tf32": 3e-3, "bf16": 1e-2}
"""How far the first losses may differ, as a share, by the precision that is tried; those after an update ten times."""


@dataclass(frozen=True)
class Candidate:
    changes: Changes

    def __str__(self) -> str:
        return ", ".join(f"{key}={str(value).lower()}" for key, value in self.changes.items())

    @property
    def tolerance(self) -> float:
        return ROUNDING[self.changes.get("precision")]


@dataclass(frozen=True)
class Tuned:
    """What was chosen, and the table of what was tried."""

    changes: Changes
    table: str


@dataclass(frozen=True)
class _Tried:
    """A row of the table: samples a second, and how many times as fast as what was kept before."""

    setting: str
    verdict: str = ""
    speed: float | None = None
    times: float | None = None

    @property
    def cells(self) -> tuple[str, str, str, str]:
        speed = "" if self.speed is None else f"{self.speed:,.0f}"
        times = "" if self.times is None else f"{self.times:.2f}"
        return self.setting, speed, times, self.verdict


def _table(tried: Sequence[_Tried]) -> str:
    head = ("setting", "samples/s", "times", "")
    return indent(text_table(head, [each.cells for each in tried], right=("samples/s", "times")), "  ")


class _Contender:
    """A trainer that trains for a while whenever it is its turn."""

    def __init__(self, trainer: Trainer, draws: int = 0) -> None:
        self._trainer = trainer
        self._steps: Iterator[tuple[Tensor, int]] = rehearse(trainer, draws)
        self.losses = self._train(STEPS)

    def _train(self, steps: int) -> list[float]:
        with self._switched():
            return [total_loss(next(self._steps)[0]).item() for _ in range(steps)]

    def _switched(self) -> Any:
        return self._trainer.computing.switched(self._trainer.settings.rows)

    def turn(self) -> list[float]:
        """The seconds a sample of some steps."""
        with self._switched():
            self._step()  # what the other's turn has left in caches, and given back to the system
            until, taken = time.perf_counter() + SECONDS_A_TURN, [self._step() for _ in range(FEWEST_STEPS)]
            while time.perf_counter() < until:
                taken.append(self._step())
            return taken

    def _step(self) -> float:
        started = time.perf_counter()
        loss, rows = next(self._steps)
        loss.sum().item()  # waits for the device
        return (time.perf_counter() - started) / rows


def tune(make: Make, tell: Callable[[str], None] = lambda text: None) -> Tuned:
    """Tries settings of trainers that `make` gives; `tell` is told what is tried next."""
    deadline, tried = time.monotonic() + SECONDS, list[_Tried]()
    chosen: dict[str, Any] = {}
    tell("trainer.tune: as it is")
    trainer = make({})
    try:
        kept = _Contender(trainer)
        first, noise = kept.losses, _noise(make, kept.losses)
        tried.append(_Tried("as it is", speed=1 / median(kept.turn())))
    except Exception as error:  # the run will fail, too, and say so
        return Tuned({}, f"trainer.tune tried nothing: {first_line(error)}")
    for candidate in candidates(trainer):
        tell(f"trainer.tune: {candidate}")
        left = deadline - time.monotonic()
        if left < (SECONDS_TO_COMPILE if candidate.changes.get("compile") in ("model", "step") else 2.0):
            tried.append(_Tried(str(candidate), "no time left"))
            continue
        try:
            other = _Contender(make({**chosen, **candidate.changes}))
        except UserError:
            continue  # the spec has what can't be had with it
        except Exception as error:  # whatever PyTorch says
            tried.append(_Tried(str(candidate), f"can't be had: {first_line(error)}"))
            continue
        if not _are_same(first, other.losses, candidate.tolerance, noise):
            tried.append(_Tried(str(candidate), "computes something else"))
            continue
        times, speed = _compared(kept, other)
        is_faster = median(times) >= LEAST_GAIN and min(times) >= LEAST_IN_A_TURN
        tried.append(_Tried(str(candidate), "kept" if is_faster else "", speed, median(times)))
        if is_faster:
            kept, chosen = other, {**chosen, **candidate.changes}
    where = f"{trainer.state.device}, batches of {trainer.settings.rows}"
    return Tuned(chosen, f"trainer.tune tried on {where}:\n{_table(tried)}")


def candidates(trainer: Trainer) -> list[Candidate]:
    """What may be faster for this network on this machine, and the spec does not say; the cheapest to try first."""
    settings, is_cpu = trainer.settings, trainer.state.device.type == "cpu"
    modules = [each for each in trainer.state.network.modules() if not list(each.children())]
    found: list[dict[str, Any]] = []
    if is_cpu and settings.allocator == "auto" and not is_large(trainer.computing.largest(settings.rows)):
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
        found += [{"compile": each} for each in compiled] if len(modules) <= MOST_LAYERS else []
    return [Candidate(each) for each in found]


def _noise(make: Make, losses: Sequence[float]) -> float:
    """How far losses differ where dropout and its like draw other numbers: compiled code does."""
    others = _Contender(make({}), draws=1).losses
    return max(abs(one - other) for one, other in zip(losses, others, strict=True))


def _are_same(losses: Sequence[float], others: Sequence[float], tolerance: float, noise: float) -> bool:
    allowed = [tolerance, *[10 * tolerance] * (len(losses) - 1)]
    triples = zip(losses, others, allowed, strict=True)
    return all(abs(one - other) <= most * max(abs(one), 1.0) + MOST_NOISE * noise for one, other, most in triples)


def _compared(kept: _Contender, other: _Contender) -> tuple[list[float], float]:
    """How many times as fast the other's usual step is, turn by turn, and its samples a second."""
    times: list[float] = []
    now: list[float] = []
    until = time.monotonic() + SECONDS_OF_TURNS
    for turn in range(TURNS):
        before, taken = kept.turn(), other.turn()
        times.append(median(before) / median(taken))
        now += taken
        if turn and (median(times) < CLEAR_LOSS or time.monotonic() > until):
            break
    return times, 1 / median(now)
