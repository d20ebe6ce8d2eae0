"""Checkpoints of processes that each have a part of the parameters.

`step-000000400.shards/` has safetensors files of each process; `step-000000400.safetensors`, an ordinary checkpoint
file, has everything else and names the folder. It is written last, so a checkpoint is complete when it exists.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from dlspec.compat.torch_dtensor import get_local_part, is_sharded
from dlspec.errors import TrainingFailed
from dlspec.formatting import first_line
from dlspec.network.divided_values import find_own_rows
from dlspec.runs.file_names import SHARDS_PATTERN, format_checkpoint_name, format_shards_names
from dlspec.runs.io import find_default_mode, sync_folder
from dlspec.training.checkpoint.checkpoint_files import (
    SHARDS,
    SHARDS_FOLDER,
    DamagedCheckpoint,
    Snapshot,
    find_shards_folder,
    find_step,
    list_checkpoints,
    write_checkpoint,
)
from dlspec.training.checkpoint.shard_files import compute_file_checksum, read_shard_headers
from dlspec.training.checkpoint.tensor_file import sort_names, write_tensors
from dlspec.training.distributed import FailedElsewhere, ProcessGroup

T = TypeVar("T")

PARAMETER_PARTS = ("network", "average", "callback")  # parts of a checkpoint that have a tensor for each parameter
MIN_FILE_BYTES = 2**26  # of a process's parts: small tensors share a file
MAX_FILES = 16  # of a process


def write_sharded_checkpoint(
    folder: Path, snapshot: Snapshot, metadata: Mapping[str, str], group: ProcessGroup
) -> None:
    """Write a snapshot of all processes. All of them must call this, and continue when it is complete.

    Args:
        folder: the folder for checkpoints.
        snapshot: this process's snapshot. The first process's has everything that is not divided.
        metadata: strings for the header of the checkpoint file.
        group: the processes.

    Raises:
        TrainingFailed: this process could not write its file. Earlier checkpoints are complete.
        FailedElsewhere: another process could not.
    """
    parts = _copy_tied({name: each for name, each in snapshot.tensors.items() if is_sharded(each)})
    whole = {name: each for name, each in snapshot.tensors.items() if name not in parts}
    prefix = f".{format_shards_names(snapshot.step)[0]}."
    temporary = _call_on_first(group, lambda: Path(tempfile.mkdtemp(dir=folder, prefix=prefix)))
    _save(parts, temporary, group.rank)
    own = [each for number, each in enumerate(sorted(temporary.iterdir())) if number % group.world_size == group.rank]
    checksums = {each.name: compute_file_checksum(each) for each in own}
    merged = {name: each for one in group.gather(checksums) for name, each in one.items()}

    def finish() -> None:
        name = place_shards(temporary, folder, snapshot.step)
        texts = {**metadata, SHARDS: json.dumps(merged), SHARDS_FOLDER: name}
        write_checkpoint(folder, replace(snapshot, tensors=whole), texts)

    _call_on_first(group, finish)


def place_shards(temporary: Path, folder: Path, step: int) -> str:
    """Rename a folder of divided tensors, so that no checkpoint is lost: one of the same step keeps its own until then.

    Args:
        temporary: the folder, complete.
        folder: the folder for checkpoints.
        step: the step of the checkpoint.

    Returns:
        The new name.
    """
    used: Path | None = None
    with suppress(FileNotFoundError, DamagedCheckpoint):
        used = find_shards_folder(folder / format_checkpoint_name(step))
    path = next(folder / name for name in format_shards_names(step) if folder / name != used)
    shutil.rmtree(path, ignore_errors=True)  # of a process that was killed before it wrote the file
    sync_folder(temporary)
    temporary.chmod(find_default_mode(0o777))  # mkdtemp makes folders that only their owner can read
    temporary.replace(path)
    sync_folder(folder)
    return path.name


def _copy_tied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory with an earlier one, as those of tied weights do: safetensors refuses that."""
    found: dict[str, Tensor] = {}
    pointers: set[int] = set()
    for name, each in tensors.items():
        pointer = get_local_part(each).untyped_storage().data_ptr()
        found[name] = each.clone() if pointer in pointers else each
        pointers.add(pointer)
    return found


def _save(parts: Mapping[str, Tensor], folder: Path, own_rank: int) -> None:
    writer = HuggingFaceStorageWriter(str(folder), _assign_files(parts), save_distributed=True)
    try:
        save(dict(parts), storage_writer=writer)
    except CheckpointException as error:
        rank = min(error.failures)
        reason = error.failures[rank][0]
        raise _make_failure(first_line(reason) or type(reason).__name__, rank, own_rank) from None


def _assign_files(parts: Mapping[str, Tensor]) -> dict[str, int]:
    """Number the files of each process, and return the number of each tensor's file: of neighbours, the same one.

    PyTorch copies the contents of a file twice before it writes them.
    """
    sizes = [get_local_part(each).nbytes for each in parts.values()]
    limit = max(MIN_FILE_BYTES, -(-sum(sizes) // MAX_FILES))
    return {name: 1 + start // limit for name, start in zip(parts, accumulate(sizes, initial=0), strict=False)}


def _call_on_first(group: ProcessGroup, action: Callable[[], T]) -> T:
    """Return what an action returns in the first process; if it fails there, all processes fail."""
    result: tuple[Any, str] = (None, "")
    if group.is_writer:
        try:
            result = (action(), "")
        except OSError as error:
            result = (None, f"{error.filename}: {error.strerror or error}")
    value, failure = group.broadcast(result)
    if failure:
        raise _make_failure(failure, 0, group.rank)
    found: T = value
    return found


def _make_failure(reason: str, rank: int, own_rank: int) -> TrainingFailed:
    """Make the error of this process for a checkpoint that one of the processes can't write."""
    found = f"can't write the checkpoint: {reason}; earlier checkpoints are complete"
    return TrainingFailed(found) if rank == own_rank else FailedElsewhere(f"rank {rank}: {found}")


def remove_unused_shards(folder: Path) -> None:
    """Delete folders of parts that belong to no checkpoint file: it was deleted, or could not be written."""
    used: set[Path | None] = set()
    for each in list_checkpoints(folder):
        try:
            used.add(find_shards_folder(each))
        except (OSError, DamagedCheckpoint):  # perhaps it can be read later
            used.update(folder / name for name in format_shards_names(find_step(each)))
    for path in folder.iterdir() if folder.is_dir() else ():
        if SHARDS_PATTERN.fullmatch(path.name) and not path.is_symlink() and path not in used:
            shutil.rmtree(path, ignore_errors=True)


def load_parts(snapshot: Snapshot, mesh: DeviceMesh | None, parameters: Collection[str]) -> Snapshot:
    """Give this process its parts of a snapshot's tensors, whether or not they were divided when it was written.

    Args:
        snapshot: a snapshot. If its tensors are in a folder of parts, they have no values yet.
        mesh: the processes that divide the tensors; None reads whole tensors.
        parameters: the names of the network's parameters.

    Returns:
        The snapshot with values.
    """
    tensors = dict(snapshot.tensors)
    if snapshot.shards is not None:
        for name, tensor in read_shard_headers(*snapshot.shards).items():
            rows = (0, tensor.rows) if mesh is None else find_own_rows(tensor.rows, mesh.get_local_rank(), mesh.size())
            own = tensor.read(name, *rows)
            tensors[name] = own if mesh is None else _make_divided(own, tensor.shape, mesh)
    elif mesh is not None:
        for name, each in tensors.items():
            if _is_divided(name, each, parameters) and not is_sharded(each):
                start, stop = find_own_rows(each.shape[0], mesh.get_local_rank(), mesh.size())
                tensors[name] = _make_divided(each[start:stop].clone(), each.shape, mesh)
    return replace(snapshot, tensors=tensors, shards=None)


def _is_divided(name: str, tensor: Tensor, parameters: Collection[str]) -> bool:
    """Whether processes divide a tensor of a checkpoint: a parameter, its average or the optimizer's state of it."""
    part, _, rest = name.partition(".")
    if part == "optimizer":
        return tensor.dim() > 0  # else it counts steps
    return part in PARAMETER_PARTS and any(f".{rest}".endswith(f".{each}") for each in parameters)


def _make_divided(own: Tensor, shape: Sequence[int], mesh: DeviceMesh) -> DTensor:
    """Make a tensor of a shape of which this process has some rows."""
    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(
        own.to(mesh.device_type), mesh, [Shard(0)], run_check=False, shape=torch.Size(shape), stride=stride
    )


def write_gathered_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], group: ProcessGroup
) -> None:
    """Write whole tensors, which are divided among processes, to one file. No process ever has more than one of them.

    All processes must call this. Only the first writes.

    Args:
        path: the file.
        tensors: the tensors by name, of which this process has its part.
        metadata: strings for the file's header.
        group: the processes.
    """
    if group.is_writer:
        write_tensors(path, tensors, metadata, gather=gather_tensor)
        return
    for name in sort_names(tensors):
        gather_tensor(tensors[name])


def gather_tensor(tensor: Tensor) -> Tensor:
    """Return the whole tensor on the CPU; if it is divided, all processes must call this."""
    return tensor.full_tensor().cpu() if isinstance(tensor, DTensor) else tensor
