"""What several processes that train together can't do, and whether they are the same."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch

from dlspec.compat.torch_layers import is_batch_norm
from dlspec.errors import Code, Problem, SpecError, UserError
from dlspec.jobs.environment import find_package_version
from dlspec.jobs.resumed_settings import flatten_tree
from dlspec.jobs.run_preparation import PreparedRun
from dlspec.jobs.sharding_checks import check_sharded_network, find_sharding_problems
from dlspec.jobs.spec import Spec
from dlspec.optim.optimizer import needs_closure
from dlspec.training.components import count_samples
from dlspec.training.distributed import ProcessGroup, count_started_processes

START = "torchrun --nproc-per-node 2 -m dlspec ..."


def check_parallel_settings(spec: Spec, group: ProcessGroup) -> None:
    """Raise SpecError for settings that don't go with the number of processes, or not together with several."""
    problems = list(_find_start_problems(spec, group))
    problems += _find_setting_problems(spec) if group.is_parallel else []
    problems += find_sharding_problems(spec) if group.is_parallel and spec.trainer.parallel == "fsdp" else []
    if problems:
        raise SpecError(problems)


def _find_start_problems(spec: Spec, group: ProcessGroup) -> Iterator[Problem]:
    parallel = spec.trainer.parallel
    if parallel == "none" and group.is_parallel:
        found = f"none trains in a single process, and torchrun has started {group.world_size}"
        fix = "leave out torchrun, or write trainer.parallel=ddp"
        yield Problem(Code.CONFLICT, "trainer.parallel", found, fix)
    is_alone = count_started_processes() == 1 and not torch.distributed.is_torchelastic_launched()
    if parallel in ("ddp", "fsdp") and is_alone:
        found = f"{parallel} needs processes that torchrun has started: {START}"
        yield Problem(Code.CONFLICT, "trainer.parallel", found, "or write trainer.parallel=none")


def _find_setting_problems(spec: Spec) -> Iterator[Problem]:
    trainer = spec.trainer
    if trainer.compile in ("step", "cudagraphs"):
        found = f"{trainer.compile} makes one step of everything, and gradients of several processes are added up in it"
        yield Problem(Code.CONFLICT, "trainer.compile", found, "use trainer.compile=model or none")
    if trainer.on_nan == "restore":
        found = "restore goes back to the start of the epoch, which several processes can't yet do together"
        yield Problem(Code.CONFLICT, "trainer.on_nan", found, "use trainer.on_nan=skip or stop")


def check_parallel_network(prepared: PreparedRun, group: ProcessGroup) -> list[str]:
    """Check a network and its optimizer for several processes.

    Returns:
        Lines for the user about layers that compute something else than in one process.

    Raises:
        SpecError: If they can't be trained by several processes.
    """
    if not group.is_parallel:
        return []
    if group.is_sharded:
        check_sharded_network(prepared)
    modules, optimizer = list(prepared.network.module.modules()), prepared.optimizer
    if optimizer is not None and needs_closure(optimizer):
        found = f"{type(optimizer).__name__} computes the loss several times in a step, which one process decides alone"
        raise SpecError([Problem(Code.CONFLICT, "optimizer", found, "use another optimizer, or one process")])
    if any(getattr(each, "sparse", False) is True for each in modules):
        found = "an Embedding has sparse gradients, which several processes can't add up"
        raise SpecError([Problem(Code.CONFLICT, "model", found, "leave out sparse, or use one process")])
    if not any(is_batch_norm(each) for each in modules):
        return []
    _check_samples_for_batch_norm(prepared, group)
    size = -(-prepared.spec.trainer.initial_batch_size // group.world_size)
    return [
        f"batch normalization uses the {size} samples of each process, not the whole batch; its running statistics are "
        "averaged"
    ]


def _check_samples_for_batch_norm(prepared: PreparedRun, group: ProcessGroup) -> None:
    smallest = min(prepared.spec.trainer.initial_batch_size, len(prepared.data.train))
    if smallest < 2 * group.world_size:
        found = (
            f"batch normalization needs two samples in each of {group.world_size} processes, got batches of {smallest}"
        )
        fix = f"use at least {2 * group.world_size}, or LayerNorm or GroupNorm"
        raise SpecError([Problem(Code.CONFLICT, "trainer.batch_size", found, fix)])


def check_ranks_agree(prepared: PreparedRun, group: ProcessGroup) -> None:
    """Raise UserError if a process has another version of a library, another spec or other data than the first one."""
    if not group.is_parallel:
        return
    first, *others = group.gather(_describe_process(prepared))
    for rank, other in enumerate(others, 1):
        for name in {**first, **other}:
            if first.get(name) != other.get(name):
                shown = f"rank {rank} has {name} {other.get(name)}, and rank 0 has {first.get(name)}"
                raise UserError(f"{shown}; all processes need the same files, versions and settings")


def _describe_process(prepared: PreparedRun) -> dict[str, str]:
    versions = {name: find_package_version(name) or "" for name in ("dlspec", "torch", "numpy", "torchmetrics")}
    settings = {key: json.dumps(value) for key, value in flatten_tree(prepared.resolved)}
    samples = {f"samples in the {name} split": str(size) for name, size in count_samples(prepared.data).items()}
    return {**versions, **settings, **samples}
