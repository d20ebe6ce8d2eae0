"""Check and build everything that a run needs, and find settings that the spec leaves open (batch size, tuning)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlspec.compat.glibc import return_freed_tensors
from dlspec.jobs.environment import get_nested_value
from dlspec.jobs.job import Job
from dlspec.jobs.parallel_checks import check_parallel_network, check_parallel_settings, check_ranks_agree
from dlspec.jobs.run_preparation import OpenedSpec, Preparation, PreparedRun
from dlspec.jobs.spec import Spec
from dlspec.language.yaml.yaml_files import load_yaml_file
from dlspec.network.build_mode import RUN_MODE, make_divided_mode
from dlspec.network.divided_values import DividedValues
from dlspec.progress_lines import open_status_line
from dlspec.runs.file_names import SPEC_FILE
from dlspec.training.components import Model, Optimization, TrainingData
from dlspec.training.distributed import ProcessGroup, find_process_group, register_process_group
from dlspec.training.health.out_of_memory import free_unused_memory
from dlspec.training.runtime.devices import choose_device
from dlspec.training.trainer import Trainer
from dlspec.training.tuning.batch_size_finder import find_batch_size
from dlspec.training.tuning.learning_rate_finder import FoundLearningRate, find_learning_rate
from dlspec.training.tuning.settings_tuner import TUNED_SETTINGS, tune_settings

_NOT_FOUND: Any = None  # of a process that gets what the first one found


def make_job(preparation: Preparation, *, shows_progress: bool = True, is_of_sweep: bool = False) -> Job:
    """Check and build everything that a run needs, and write nothing; raises UserError if anything is wrong.

    Args:
        preparation: The steps that turn the config into a run.
        shows_progress: Whether the job prints its progress.
        is_of_sweep: Whether it is one of a sweep's jobs.
    """
    if not gc.isenabled():  # a process of the command line: see dlspec.cli.main
        gc.freeze()  # before the network is built, as frozen objects are never freed
        gc.enable()
    with open_status_line(shows_progress and find_process_group().is_writer) as show:
        prepared = _prepare_with_found_settings(preparation, lambda text: show(f"{text} ..."))
    return Job(prepared, _make_trainer(prepared, find_process_group()), shows_progress, is_of_sweep)


def _prepare_with_found_settings(preparation: Preparation, print_status: Callable[[str], None]) -> PreparedRun:
    """Prepare the run; first find the batch size and tune the settings, if the spec asks for that.

    They are tried on other networks. The run's network is then built as if the settings had been written in the spec.
    Of several processes the first one tries them.
    """
    opened, notes = preparation.open(), list[str]()
    check_parallel_settings(opened.spec, find_process_group())
    group = _choose_process_group(opened.spec)
    if opened.spec.trainer.batch_size == "auto":
        found = group.broadcast(
            find_batch_size(_make_trainer(preparation.prepare(opened=opened), ProcessGroup()))
            if group.is_writer
            else _NOT_FOUND
        )
        opened = opened.with_trainer_settings({"batch_size": found.batch_size})
        notes.append(found.explanation)
        free_unused_memory()
    found_rate: FoundLearningRate | None = None
    if opened.spec.trainer.tune == "lr":
        print_status("trainer.tune: learning rates")
        opened, found_rate = _find_learning_rate(preparation, opened, group)
        notes.append(found_rate.explanation)
        free_unused_memory()
    elif opened.spec.trainer.tune:
        opened, tuning_note = _tune_settings(preparation, opened, print_status, group)
        notes.append(tuning_note)
        free_unused_memory()
    values = _begin_dividing(group, opened.spec)
    prepared = preparation.prepare(RUN_MODE if values is None else make_divided_mode(values), opened)
    notes += check_parallel_network(prepared, group)
    check_ranks_agree(prepared, group)
    if values is not None:
        from dlspec.jobs.sharded_setup import shard_run  # imports torch.distributed

        prepared = shard_run(prepared, preparation.trained, group.mesh, values)
    return replace(prepared, notes=(*prepared.notes, *notes), found_rate=found_rate)


def _begin_dividing(group: ProcessGroup, spec: Spec) -> DividedValues | None:
    """Prepare this process to build its part of the network; None if it has the whole network."""
    if not group.is_sharded:
        return None
    if spec.trainer.allocator == "auto":
        return_freed_tensors()
    return DividedValues(group.rank, group.world_size)


def _choose_process_group(spec: Spec) -> ProcessGroup:
    """Return the group that this process has joined; with `fsdp`, one that divides the parameters, from here on."""
    group = find_process_group().undivided
    if group.is_parallel and spec.trainer.parallel == "fsdp":
        from dlspec.training.sharded_rank_group import make_sharded_group  # imports torch.distributed

        group = make_sharded_group(group, choose_device(spec.trainer.device))
    register_process_group(group if group.is_parallel else None)
    return group


def _find_learning_rate(
    preparation: Preparation, opened: OpenedSpec, group: ProcessGroup
) -> tuple[OpenedSpec, FoundLearningRate]:
    """Find a learning rate on another network, and return the spec with it."""
    found: FoundLearningRate = group.broadcast(
        find_learning_rate(_make_trainer(preparation.prepare(opened=opened), ProcessGroup()))
        if group.is_writer
        else _NOT_FOUND
    )
    opened = opened.with_trainer_settings({"tune": False})
    return opened if found.rate is None else opened.with_optimizer_settings({"lr": found.rate}), found


def _tune_settings(
    preparation: Preparation, opened: OpenedSpec, print_status: Callable[[str], None], group: ProcessGroup
) -> tuple[OpenedSpec, str]:
    def make_trainer(changes: Mapping[str, Any]) -> Trainer:
        return _make_trainer(preparation.prepare(opened=opened.with_trainer_settings(changes)), ProcessGroup())

    tuned = group.broadcast(tune_settings(make_trainer, print_status) if group.is_writer else _NOT_FOUND)
    return opened.with_trainer_settings({**tuned.changes, "tune": False}), tuned.table


def keep_found_settings(preparation: Preparation, folder: Path) -> Preparation:
    """Replace `batch_size: auto` and `tune` by the settings that a run chose at its start, to resume it with them."""
    trainer = preparation.tree.get("trainer")
    if not isinstance(trainer, Mapping) or not (trainer.get("batch_size") == "auto" or trainer.get("tune")):
        return preparation
    tree = load_yaml_file(folder / SPEC_FILE).tree
    saved = get_nested_value(tree, "trainer")
    found = ("batch_size", *(("tune", *TUNED_SETTINGS) if trainer.get("tune") else ()))
    kept = {**trainer, **{key: saved[key] for key in found}}
    optimizer = {"optimizer": tree["optimizer"]} if trainer.get("tune") == "lr" else {}
    return replace(preparation, tree={**preparation.tree, **optimizer, "trainer": kept})


def _make_trainer(prepared: PreparedRun, group: ProcessGroup) -> Trainer:
    spec, network = prepared.spec, prepared.network
    model = Model(network.module, prepared.criterion, network.inputs, prepared.make_metrics, prepared.network_copy)
    optimization = Optimization(prepared.optimizer, prepared.schedule, prepared.freezing)
    data = TrainingData(
        prepared.data, spec.seed, network.allows_trimming, network.fewest_steps, network.max_layer_outputs
    )
    return Trainer(model, optimization, data, spec.trainer, group=group)
