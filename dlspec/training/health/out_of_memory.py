"""Out of memory: what to try is said in one line, and what the failed step held is freed."""

from __future__ import annotations

import gc
import logging
import re
import sys
import traceback

from dlspec.errors import TrainingFailed
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.evaluation.scores import Scores
from dlspec.training.state import TrainingState

log = logging.getLogger("dlspec")

# What PyTorch says of a CPU, of CUDA and its libraries, of MPS, and what the C++ library says.
_MEMORY_MESSAGES = re.compile(
    r"out of memory|(can't|not enough|Cannot) (allocate )?memory|_ALLOC_FAILED|std::bad_alloc"
)
_PHASE_NAMES = {"train": "training", "val": "validation", "test": "the test"}


class OutOfMemory(TrainingFailed):
    """There was no memory for a batch of that size."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a machine or a device has no memory left, whoever says so.

    PyTorch has an exception of its own for CUDA alone; elsewhere only the text tells.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(_MEMORY_MESSAGES.search(str(error)))
    )


def make_out_of_memory_error(state: TrainingState, settings: TrainerSpec) -> OutOfMemory:
    """Where it happened, with how many samples a batch, and what to try."""
    where = f"out of memory on {state.device}"
    if not state.batches:
        return OutOfMemory(f"{where} before the first step: the data or the network are too large for it")
    where += f" in {_PHASE_NAMES[state.phase]}, epoch {state.epoch}, with {state.batch_size:,} samples a batch"
    return OutOfMemory(f"{where}; {_suggest_fix(state, settings)}")


def _suggest_fix(state: TrainingState, settings: TrainerSpec) -> str:
    half = state.batch_size // 2
    if not half:
        return "not even one fits: take a smaller network or shorter samples"
    if state.phase != "train":
        return f"try trainer.eval_batch_size={half}"
    if settings.initial_batch_size // 2 < 1:
        return "try trainer.batch_size=1"
    halved = settings.initial_batch_size // 2
    halves = ", or trainer.precision=bf16" if state.device.type == "cuda" and settings.precision in (32, "tf32") else ""
    accumulate = f"with trainer.accumulate={2 * settings.accumulate} for the same updates"
    return f"try trainer.batch_size={halved}, {accumulate}{halves}"


def free_failed_step(error: BaseException, state: TrainingState, scores: Scores, settings: TrainerSpec) -> OutOfMemory:
    """Frees what the failed step held, so that something smaller has room; gives the error to raise instead."""
    log.debug("out of memory: %s", error)
    for parameter in state.network.parameters():
        parameter.grad = None
    scores.reset()
    clear_traceback(error)
    return make_out_of_memory_error(state, settings)


def clear_traceback(error: BaseException) -> None:
    """Frees what the frames hold in which the error was raised, and in which those were that led to it.

    An error that is kept, by a sweep's table or a notebook, keeps its frames, and they a network and its batch.
    """
    current: BaseException | None = error
    while current is not None:
        traceback.clear_frames(current.__traceback__)
        current.__traceback__ = None
        current = current.__cause__ or current.__context__
    free_unused_memory()


def free_unused_memory() -> None:
    """Gives back what nobody refers to any more."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
