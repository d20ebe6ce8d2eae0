"""Writes safetensors files, whole or not at all.

The library's own writer puts the metadata in another order each time, so that equal runs would leave different files,
and tells a full disk in its own words. The format is a JSON header, its length before it, and the tensors' bytes
(https://huggingface.co/docs/safetensors); the library reads what is written here.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
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


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Puts tensors that lie on the CPU, and texts as metadata, at `path`: a temporary name, synced, then renamed.

    Equal ones give equal bytes. Raises OSError, also where the folder is gone: a disk that is no longer mounted leaves
    an empty folder in its place, and to make folders there would fill another disk. Leaves nothing half-written.
    """
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so each begins where it may
    with open_replacement(path) as file:
        file.write(_encode_header(names, tensors, metadata))
        for name in names:
            file.write(_tensor_bytes(tensors[name]))


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
        raise TypeError(f"{name} is of {tensor.dtype}, which safetensors does not keep")
    return _DTYPE_NAMES[tensor.dtype]


def compute_checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """A CRC over names, types, shapes and bytes of the tensors, and over the texts."""
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
