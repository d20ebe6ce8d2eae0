"""Lines about the memory of a training step: of a process on this machine, and of each of several processes."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dlspec.analysis.costs import LayerCost
from dlspec.analysis.training_memory import MAX_PROCESSES, Parallel, TrainingMemory, TrainingStep
from dlspec.errors import UserError, format_value
from dlspec.formatting import format_bytes
from dlspec.jobs.run_preparation import PreparedRun
from dlspec.jobs.spec import Spec
from dlspec.network.memory_limits import get_memory_bytes
from dlspec.network.sharded_blocks import find_repeated_blocks

MEBIBYTE = 2**20
_POWERS = {letter: power for power, letter in enumerate("kMGT", 1)}


@dataclass(frozen=True)
class TargetMachines:
    """The processes that a network will be trained with; this machine's one by default."""

    world_size: int = 1  # number of processes
    memory_bytes: int | None = None  # that each process has


THIS_MACHINE = TargetMachines()


def parse_target(world: str | None, memory: str | None) -> TargetMachines:
    """Parse the words `world=8` and `memory=80GB`; UserError for other values."""
    return TargetMachines(
        1 if world is None else _parse_world(world), None if memory is None else _parse_memory(memory)
    )


def _parse_world(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_PROCESSES and len(text) < 9):
        raise UserError(f"world must be a number of processes from 1 to {MAX_PROCESSES}, got {format_value(text)}")
    return int(text)


def _parse_memory(text: str) -> int:
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?([kMGT])(i?)B", text)
    if found is None or not float(found[1]):
        raise UserError(f"memory must be the memory of one process such as 80GB or 40GiB, got {format_value(text)}")
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** _POWERS[found[2]])


def format_training_memory(prepared: PreparedRun, cost: LayerCost, target: TargetMachines) -> list[str]:
    """Format what a training step holds in memory.

    Args:
        prepared: the run.
        cost: the sum of the costs of its layers and its loss.
        target: the processes. For more than one, or for a given memory, there are lines for each of them.
    """
    spec = prepared.spec
    step = TrainingStep(
        prepared.network.module,
        prepared.optimizer,
        cost,
        spec.trainer.initial_batch_size,
        spec.trainer.average is not None,
        spec.trainer.checkpoints or spec.trainer.test == "best",
        find_repeated_blocks(spec.graph.container_types),
    )
    memory = step.estimate_memory()
    machine = f" (this machine has {format_size(get_memory_bytes())})" if memory.total > get_memory_bytes() else ""
    head = f"a training step of {step.batch_size} samples: about {format_size(memory.total)}{machine}"
    lines = [head, _format_parts(memory)]
    for parallel in _list_choices(spec, target):
        lines += _format_choice(step, parallel, target)
    return lines


def _list_choices(spec: Spec, target: TargetMachines) -> list[Parallel]:
    """List the ways of training to describe; UserError for a single process where several are wanted."""
    chosen = spec.trainer.parallel
    if chosen == "none" and target.world_size > 1:
        found = f"trainer.parallel=none trains in a single process, got world={target.world_size}"
        raise UserError(f"{found}; leave out one of them")
    if target == THIS_MACHINE:
        return []
    return ["ddp", "fsdp"] if chosen == "auto" else [chosen]


def _format_choice(step: TrainingStep, parallel: Parallel, target: TargetMachines) -> list[str]:
    lines = []
    if target.world_size > 1:
        memory = step.estimate_memory(parallel, target.world_size)
        needed = f"about {format_size(memory.total)}{_judge(memory, target.memory_bytes)}"
        lines = [f"each of {target.world_size} processes with {parallel}: {needed}", _format_parts(memory)]
    if target.memory_bytes is not None:
        lines.append(_format_smallest_world(step, parallel, target.memory_bytes))
    return lines


def _judge(memory: TrainingMemory, memory_bytes: int | None) -> str:
    if memory_bytes is None:
        return ""
    return f", {'fits' if memory.total <= memory_bytes else 'does not fit'} into {format_bytes(memory_bytes)}"


def _format_smallest_world(step: TrainingStep, parallel: Parallel, memory_bytes: int) -> str:
    enough, size = step.find_smallest_world(parallel, memory_bytes), format_bytes(memory_bytes)
    if enough == 1 or parallel == "none":
        return f"one process of {size} is {'enough' if enough else 'not enough'}"
    if enough is None:
        return f"with {parallel}, no number of processes of {size} is enough"
    return f"with {parallel}, {enough} processes of {size} are enough"


def _format_parts(memory: TrainingMemory) -> str:
    parts = [f"{name} {'unknown' if each is None else format_size(each)}" for name, each in memory.parts.items()]
    return f"  {', '.join(parts)}"


def format_size(count: int) -> str:
    """Format bytes: `4.80 KiB`, `3.06 MiB`, `1.20 GiB`."""
    if count < MEBIBYTE / 10:
        return f"{count / 1024:,.2f} KiB"
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / MEBIBYTE:,.2f} MiB"
