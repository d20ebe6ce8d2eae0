"""The parts of tensors that several processes have, in a folder of safetensors files: one file a process.

PyTorch's `torch.distributed.checkpoint` writes them, with its Hugging Face storage writer: each file says in its header
where its parts begin. (The writer's default format has a pickle.) They are read here, without running any code
from them and by any number of processes.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.safetensors import open_tensor_file
from dlspec.errors import UserError
from dlspec.runs.file_access import is_regular_file

SHARDING_KEY, OFFSETS_KEY = "DCP_SHARDING_INFO", "saved_offsets"  # of PyTorch's files
CHUNK_BYTES = 2**20  # read at a time for a checksum
_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class UnreadableShards(ValueError):
    """The parts of a checkpoint's tensors are incomplete or not what was written; the text says why."""


@dataclass
class ShardedTensor:
    """A tensor whose parts along the first dimension are in several files."""

    dtype: torch.dtype
    row_shape: tuple[int, ...]  # its shape without the first dimension
    parts: dict[int, tuple[Path, int]] = field(default_factory=dict)  # by the first row: the file, the number of rows

    @property
    def rows(self) -> int:
        """The size of the first dimension."""
        return sum(rows for _, rows in self.parts.values())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole tensor."""
        return (self.rows, *self.row_shape)

    def read(self, name: str, start: int, stop: int) -> Tensor:
        """Read rows of the tensor to the CPU.

        Args:
            name: the tensor's name.
            start: the first row.
            stop: the row after the last one.
        """
        found = torch.empty((stop - start, *self.row_shape), dtype=self.dtype)
        for first, (path, rows) in self.parts.items():
            begin, end = max(first, start), min(first + rows, stop)
            if begin < end:
                with open_tensor_file(path) as file:
                    found[begin - start : end - start] = file.get_slice(name)[begin - first : end - first]
        return found


def compute_file_checksum(path: Path) -> str:
    """Compute the CRC of a file."""
    crc = 0
    with path.open("rb") as file:
        while content := file.read(CHUNK_BYTES):
            crc = zlib.crc32(content, crc)
    return f"{crc:08x}"


def read_shard_headers(folder: Path, checksums: Mapping[str, str]) -> dict[str, ShardedTensor]:
    """Check the files in a folder of parts, and find out which tensors they have.

    Args:
        folder: the folder.
        checksums: the CRC of each file by its name, as they were when the checkpoint was written.

    Raises:
        UnreadableShards: a file is missing, incomplete, modified, or a link; or rows of a tensor are missing.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise UnreadableShards(f"the folder {folder.name} is missing or a link")
    tensors: dict[str, ShardedTensor] = {}
    for name, checksum in checksums.items():
        path = folder / name
        if os.sep in name or not is_regular_file(path) or compute_file_checksum(path) != checksum:
            raise UnreadableShards(f"{folder.name}/{Path(name).name} is missing or was changed")
        try:
            _read_header(path, tensors)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, UserError, RecursionError) as error:
            raise UnreadableShards(f"{folder.name}/{name} can't be read: {error}") from None
    for name, tensor in tensors.items():
        _check_rows(name, tensor)
    return tensors


def _read_header(path: Path, tensors: dict[str, ShardedTensor]) -> None:
    with open_tensor_file(path) as file:
        offsets = json.loads((file.metadata() or {})[SHARDING_KEY])
        for name in file.keys():  # noqa: SIM118
            part: Any = file.get_slice(name)
            rows, *row_shape = part.get_shape()
            first, *others = offsets[name][OFFSETS_KEY]
            dtype = _DTYPES[part.get_dtype()]
            tensor = tensors.setdefault(name, ShardedTensor(dtype, tuple(row_shape)))
            if any(others) or (tensor.dtype, tensor.row_shape) != (dtype, tuple(row_shape)) or type(first) is not int:
                raise ValueError(f"{name} does not fit its other parts")
            if rows:
                tensor.parts[first] = (path, rows)


def _check_rows(name: str, tensor: ShardedTensor) -> None:
    """Check that a tensor's parts follow each other without a gap."""
    expected = 0
    for first in sorted(tensor.parts):
        if first != expected:
            raise UnreadableShards(f"rows of {name} are missing")
        expected = first + tensor.parts[first][1]


def make_placeholders(tensors: Mapping[str, ShardedTensor]) -> dict[str, Tensor]:
    """Make a tensor without values for each one that can be read from the files."""
    return {name: torch.empty(each.shape, dtype=each.dtype, device="meta") for name, each in tensors.items()}
