"""Write safetensors files atomically.

The library's writer orders metadata randomly, so that equal runs would write different files, and does not raise
OSError for a full disk. The format is the length of a JSON header, the header, and the tensors' bytes
(https://huggingface.co/docs/safetensors); the library can read the files.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlspec.runs.io import open_replacement

CHECKSUM_KEY = "checksum"
_DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2", torch.complex64: "C64",
}  # fmt: skip


def write_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> None:
    """Write tensors and metadata to a file: first under a temporary name, then synced and renamed.

    Equal tensors and metadata give equal bytes. The folder is not created if it is missing: an unmounted disk leaves an
    empty folder, and creating folders there would fill another disk.

    Args:
        path: the file to write.
        tensors: tensors on the CPU, by name.
        metadata: strings for the header.
        gather: makes a tensor whole just before it is written, if it is divided among processes.

    Raises:
        OSError: the file can't be written, or its folder does not exist. No partial file is left.
    """
    names = sort_names(tensors)
    with open_replacement(path) as file:
        file.write(_encode_header(names, tensors, metadata))
        for name in names:
            file.write(_tensor_bytes(gather(tensors[name])))


def sort_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Sort the names of tensors as they are written: the largest numbers first, so that each tensor is aligned."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def _encode_header(names: list[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    start = 0
    for name in names:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _dtype_name(name, tensor), "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _dtype_name(name: str, tensor: Tensor) -> str:
    if tensor.dtype not in _DTYPE_NAMES:
        raise TypeError(f"{name} has dtype {tensor.dtype}, which safetensors does not support")
    return _DTYPE_NAMES[tensor.dtype]


def compute_checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Compute a CRC of the tensors' names, dtypes, shapes and bytes, and of the metadata."""
    crc = zlib.crc32(json.dumps(sorted(metadata.items())).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(_tensor_bytes(tensor), crc)
    return f"{crc:08x}"


def _tensor_bytes(tensor: Tensor) -> memoryview:
    if not tensor.numel():
        return memoryview(b"")
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
