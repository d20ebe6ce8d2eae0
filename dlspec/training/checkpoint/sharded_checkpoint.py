"""Checkpoints of processes that each have a part of the parameters.

`step-000000400.shards/` has a safetensors file of each process; `step-000000400.safetensors`, an ordinary checkpoint
file, has everything else. It is written last, so a checkpoint is complete when it exists.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
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
from dlspec.runs.file_names import SHARDS_PATTERN, format_checkpoint_name, format_shards_name
from dlspec.runs.io import find_default_mode, sync_folder
from dlspec.training.checkpoint.checkpoint_files import SHARDS, Snapshot, write_checkpoint
from dlspec.training.checkpoint.shard_files import compute_file_checksum, read_shard_headers
from dlspec.training.checkpoint.tensor_file import sort_names, write_tensors
from dlspec.training.distributed import ProcessGroup

T = TypeVar("T")

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
        TrainingFailed: a process could not write its file. Earlier checkpoints are complete.
    """
    parts = _copy_tied({name: each for name, each in snapshot.tensors.items() if is_sharded(each)})
    whole = {name: each for name, each in snapshot.tensors.items() if name not in parts}
    path = folder / format_shards_name(snapshot.step)
    temporary = _call_on_first(group, lambda: Path(tempfile.mkdtemp(dir=folder, prefix=f".{path.name}.")))
    _save(parts, temporary)
    own = [each for number, each in enumerate(sorted(temporary.iterdir())) if number % group.world_size == group.rank]
    checksums = {each.name: compute_file_checksum(each) for each in own}
    merged = {name: each for one in group.gather(checksums) for name, each in one.items()}

    def finish() -> None:
        shutil.rmtree(path, ignore_errors=True)  # of a process that was killed before it wrote the file
        sync_folder(temporary)
        temporary.chmod(find_default_mode(0o777))  # mkdtemp makes folders that only their owner can read
        temporary.replace(path)
        sync_folder(folder)
        write_checkpoint(folder, replace(snapshot, tensors=whole), {**metadata, SHARDS: json.dumps(merged)})

    _call_on_first(group, finish)


def _copy_tied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors that share memory with an earlier one, as those of tied weights do: safetensors refuses that."""
    found: dict[str, Tensor] = {}
    pointers: set[int] = set()
    for name, each in tensors.items():
        pointer = get_local_part(each).untyped_storage().data_ptr()
        found[name] = each.clone() if pointer in pointers else each
        pointers.add(pointer)
    return found


def _save(parts: Mapping[str, Tensor], folder: Path) -> None:
    writer = HuggingFaceStorageWriter(str(folder), _assign_files(parts), save_distributed=True)
    try:
        save(dict(parts), storage_writer=writer)
    except CheckpointException as error:
        rank, (reason, _) = next(iter(error.failures.items()))
        found = f"rank {rank} can't write the checkpoint: {first_line(reason) or type(reason).__name__}"
        raise TrainingFailed(f"{found}; earlier checkpoints are complete") from None


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
            result = (None, f"{error.filename}: {error.strerror or error}; earlier checkpoints are complete")
    value, failure = group.broadcast(result)
    if failure:
        raise TrainingFailed(f"can't write the checkpoint {failure}")
    found: T = value
    return found


def remove_unused_shards(folder: Path) -> None:
    """Delete folders of parts whose checkpoint file does not exist: it was deleted, or a process was killed."""
    for path in folder.iterdir() if folder.is_dir() else ():
        match = SHARDS_PATTERN.fullmatch(path.name)
        if match and not path.is_symlink() and not (folder / format_checkpoint_name(int(match[1]))).exists():
            shutil.rmtree(path, ignore_errors=True)


def load_parts(snapshot: Snapshot, mesh: DeviceMesh | None) -> Snapshot:
    """Read this process's parts of a snapshot's tensors.

    Args:
        snapshot: a snapshot whose divided tensors have no values yet.
        mesh: the processes that divide the tensors; None reads whole tensors.

    Returns:
        The snapshot with values.
    """
    if snapshot.shards is None:
        return snapshot
    found = read_shard_headers(*snapshot.shards)
    tensors = dict(snapshot.tensors)
    for name, tensor in found.items():
        if mesh is None:
            tensors[name] = tensor.read(name, 0, tensor.rows)
            continue
        own = tensor.read(name, *find_own_rows(tensor.rows, mesh.get_local_rank(), mesh.size()))
        stride = torch.empty(tensor.shape, device="meta").stride()
        tensors[name] = DTensor.from_local(
            own.to(mesh.device_type), mesh, [Shard(0)], run_check=False, shape=torch.Size(tensor.shape), stride=stride
        )
    return replace(snapshot, tensors=tensors, shards=None)


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
