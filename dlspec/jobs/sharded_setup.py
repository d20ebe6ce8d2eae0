"""Divide a run's network among its processes (`trainer.parallel: fsdp`), and build what refers to its parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from dlspec.formatting import format_bytes
from dlspec.jobs.optimizer_setup import build_optimizer, build_schedule, freeze_parameters
from dlspec.jobs.run_preparation import PreparedRun
from dlspec.language.problems import raise_problems
from dlspec.language.source_map import SourceMap
from dlspec.network.divided_values import DividedValues
from dlspec.network.sharded_blocks import find_repeated_blocks, group_blocks
from dlspec.optim.schedule import TrainedLength
from dlspec.optim.weight_averages import copy_network
from dlspec.training.sharded_rank_group import fill_network, shard_network
from dlspec.training.step.activation_checkpointing import find_checkpointed_layers, recompute_block
from dlspec.training.step.precision import Precision


def shard_run(prepared: PreparedRun, trained: TrainedLength, mesh: DeviceMesh, values: DividedValues) -> PreparedRun:
    """Divide the parameters of a run's network among all processes.

    Args:
        prepared: the run, with a network on the meta device.
        trained: what was trained before the run was resumed.
        mesh: the processes.
        values: this process's part of the network's values.

    Returns:
        The run with another network, optimizer and schedule, and with a second network if weights are averaged.
    """
    spec, problems = prepared.spec, prepared.spec.problems.make_empty_copy()
    device = torch.device(mesh.device_type)
    whole = prepared.network.module.to(Precision(spec.trainer.precision, device).weights_dtype)
    module, blocks = group_blocks(whole, find_repeated_blocks(spec.graph.container_types))
    copy = None if spec.trainer.average is None else copy_network(module)
    for name in find_checkpointed_layers(module, spec.trainer.activation_checkpointing):
        recompute_block(module.get_submodule(name))
    notes = _describe_shards(module, blocks)
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    parts = {name: values.tensors[each] for name, each in named}
    values.tensors.clear()
    for each in [module] if copy is None else [module, copy]:
        shard_network(each, blocks, mesh, is_bfloat16=spec.trainer.precision == "bf16")
        fill_network(each, {} if each is copy else parts, device)
    network = replace(prepared.network, module=module)
    freezing = freeze_parameters(network, spec.freeze, problems)
    optimizer = build_optimizer(spec, network, freezing, problems)
    schedule = build_schedule(spec, optimizer, prepared.data, trained, problems)
    raise_problems(problems, SourceMap)
    return replace(
        prepared,
        network=network,
        optimizer=optimizer,
        schedule=schedule,
        freezing=freezing,
        network_copy=copy,
        notes=(*prepared.notes, *notes),
    )


def _describe_shards(module: nn.Module, blocks: Sequence[str]) -> list[str]:
    """Describe what a process gathers at a time."""
    sizes = {each: _count_bytes(module.get_submodule(each)) for each in blocks}
    rest = _count_bytes(module) - sum(sizes.values())
    parts = [f"{len(blocks)} blocks of at most {format_bytes(max(sizes.values()))}"] if blocks else []
    parts += [f"{'everything else' if blocks else 'the whole network'} ({format_bytes(rest)})"]
    return [f"fsdp: each process has a part of all parameters, and gathers at a time one of: {', '.join(parts)}"]


def _count_bytes(module: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in module.parameters())
