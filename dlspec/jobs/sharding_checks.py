"""What processes that divide the parameters among them (`trainer.parallel: fsdp`) can't do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.nn.utils import parametrize
from torch.optim import ASGD, NAdam, Optimizer, RAdam, RMSprop
from torch.optim.adadelta import Adadelta
from torch.optim.adagrad import Adagrad
from torch.optim.adam import Adam
from torch.optim.adamax import Adamax
from torch.optim.adamw import AdamW
from torch.optim.sgd import SGD

from dlspec.errors import Code, Problem, SpecError
from dlspec.jobs.run_preparation import PreparedRun
from dlspec.jobs.spec import Spec
from dlspec.network.sharded_blocks import find_repeated_blocks
from dlspec.training.step.activation_checkpointing import find_checkpointed_layers

# Optimizers that update each number of a parameter by itself, so that a process can update its part.
ELEMENTWISE_OPTIMIZERS: tuple[type[Optimizer], ...] = (
    SGD, Adam, AdamW, NAdam, RAdam, Adamax, RMSprop, Adagrad, Adadelta, ASGD,
)  # fmt: skip
OTHER = "or trainer.parallel=ddp"
# Settings that can't be used: the values that are allowed, why the others are not, and what to write.
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str, str]] = {
    "compile": (("none",), "can't yet be used with parameters that are divided", "use trainer.compile=none"),
    "precision": ((32, 64, "tf32", "bf16"), "scales gradients, which each process sees only in part",
                  "use trainer.precision=bf16"),
    "batch_size": ((), "is tried out by one process, which has only a part of the network", "write a number"),
    "tune": ((False,), "is tried out by one process, which has only a part of the network", "use trainer.tune=false"),
    "channels_last": ((False,), "needs whole weights", "use trainer.channels_last=false"),
    "debug": ((None,), "needs a process that computes a batch alone", "use trainer.debug=null"),
    "pictures": ((False, "auto"), "are drawn by one process, which has only a part of the network",
                 "use trainer.pictures=false"),
}  # fmt: skip


def find_sharding_problems(spec: Spec) -> Iterator[Problem]:
    """Find settings of the trainer that don't go with parameters that are divided among processes."""
    for name, (allowed, reason, fix) in _REFUSED.items():
        value = getattr(spec.trainer, name)
        is_allowed = isinstance(value, int) if name == "batch_size" else value in allowed
        if not is_allowed and (name != "compile" or value == "model"):  # the others are refused for ddp, too
            found = f"{name}: {str(value).lower()} {reason}"
            yield Problem(Code.CONFLICT, f"trainer.{name}", found, f"{fix}, {OTHER}")


def check_sharded_network(prepared: PreparedRun) -> None:
    """Raise SpecError for a network or an optimizer whose parameters can't be divided among processes."""
    problems = list(_find_network_problems(prepared))
    optimizer = prepared.optimizer
    if optimizer is not None and type(optimizer) not in ELEMENTWISE_OPTIMIZERS:
        found = f"{type(optimizer).__name__} may need whole parameters, and each process has only a part of them"
        problems.append(Problem(Code.CONFLICT, "optimizer", found, f"use AdamW or SGD, {OTHER}"))
    if problems:
        raise SpecError(problems)


def _find_network_problems(prepared: PreparedRun) -> Iterator[Problem]:
    module = prepared.network.module
    named = list(module.named_parameters())
    if not named:
        yield Problem(Code.CONFLICT, "model", "the network has no parameters to divide", "use trainer.parallel=ddp")
    for name, parameter in named:
        if not parameter.dim():
            found = f"'{name}' is a single number, which can't be divided among processes"
            yield Problem(Code.CONFLICT, "model", found, f"give it the shape [1], {OTHER}")
    parametrized = [name for name, each in module.named_modules() if parametrize.is_parametrized(each)]
    if parametrized:
        found = f"'{parametrized[0]}' computes its weight from others (parametrize), which need to be whole"
        yield Problem(Code.CONFLICT, "model", found, f"leave out parametrize, {OTHER}")
    yield from _find_checkpointing_problems(prepared, module)


def _find_checkpointing_problems(prepared: PreparedRun, module: nn.Module) -> Iterator[Problem]:
    """Find patterns of `activation_checkpointing` that select something else than whole blocks."""
    blocks = find_repeated_blocks(prepared.spec.graph.container_types)
    patterns = prepared.spec.trainer.activation_checkpointing
    others = [each for each in find_checkpointed_layers(module, patterns) if each not in blocks]
    if others:
        found = f"selects '{others[0]}', and fsdp recomputes whole repeated blocks"
        fix = f"select some of {', '.join(blocks[:3])}" if blocks else "leave it out"
        yield Problem(Code.CONFLICT, "trainer.activation_checkpointing", found, f"{fix}, {OTHER}")
