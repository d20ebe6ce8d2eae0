"""Out of memory: free what the failed step allocated, and suggest a fix on one line."""

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

# Messages of PyTorch for CPU, CUDA with its libraries, and MPS, and of the C++ library.
_MEMORY_MESSAGES = re.compile(
    r"out of memory|(can't|not enough|Cannot) (allocate )?memory|_ALLOC_FAILED|std::bad_alloc"
)
_PHASE_NAMES = {"train": "training", "val": "validation", "test": "the test"}


class OutOfMemory(TrainingFailed):
    """Not enough memory for a batch of this size."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that the machine or a device ran out of memory.

    PyTorch has an exception class for this only for CUDA; elsewhere only the message shows it.
    """
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and bool(_MEMORY_MESSAGES.search(str(error)))
    )


def make_out_of_memory_error(state: TrainingState, settings: TrainerSpec) -> OutOfMemory:
    """Make an error with the device, the phase, the batch size and a fix."""
    where = f"out of memory on {state.device}"
    if not state.batches:
        return OutOfMemory(f"{where} before the first step: the data or the network are too large")
    where += f" in {_PHASE_NAMES[state.phase]}, epoch {state.epoch}, with batch size {state.batch_size:,}"
    return OutOfMemory(f"{where}; {_suggest_fix(state, settings)}")


def _suggest_fix(state: TrainingState, settings: TrainerSpec) -> str:
    half = state.batch_size // 2
    if not half:
        return "a single sample does not fit: use a smaller network or shorter samples"
    if state.phase != "train":
        return f"try trainer.eval_batch_size={half}"
    if settings.initial_batch_size // 2 < 1:
        return "try trainer.batch_size=1"
    halved = settings.initial_batch_size // 2
    halves = ", or trainer.precision=bf16" if state.device.type == "cuda" and settings.precision in (32, "tf32") else ""
    accumulate = f"with trainer.accumulate={2 * settings.accumulate} for equal updates"
    return f"try trainer.batch_size={halved}, {accumulate}{halves}"


def free_failed_step(error: BaseException, state: TrainingState, scores: Scores, settings: TrainerSpec) -> OutOfMemory:
    """Free the memory of a failed step, so that something smaller can run.

    Args:
        error: what the step raised; its traceback is cleared.
        state: the state of the run; the network's gradients are removed.
        scores: the scores of the pass, which are reset.
        settings: the `trainer` section.

    Returns:
        The error to raise instead.
    """
    log.debug("out of memory: %s", error)
    for parameter in state.network.parameters():
        parameter.grad = None
    scores.reset()
    clear_traceback(error)
    return make_out_of_memory_error(state, settings)


def clear_traceback(error: BaseException) -> None:
    """Free the local variables of all frames in the tracebacks of an error and its causes.

    A stored error, in a sweep's table or a notebook, would otherwise keep the network and the batch in memory.
    """
    current: BaseException | None = error
    while current is not None:
        traceback.clear_frames(current.__traceback__)
        current.__traceback__ = None
        current = current.__cause__ or current.__context__
    free_unused_memory()


def free_unused_memory() -> None:
    """Collect garbage, and release PyTorch's cached GPU memory."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
