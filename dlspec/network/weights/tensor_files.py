"""Read tensors from safetensors files and from PyTorch's files, without running any code in them.

Every failure is a `UserError`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlspec.compat.safetensors import open_tensor_file
from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.runs.file_names import WEIGHTS_FILES

_INDEX_NAMES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WEIGHTS_NAMES = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")
# Keys under which training scripts save the weights beside other things.
_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
_MAX_INDEX_BYTES = 100 * 2**20


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, which `read` loads."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def list_stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """List the tensors at `path` by name, without loading them.

    `path` is a file with weights, the index of multiple files, the folder of a run, or a folder that contains such a
    file, as Hugging Face's do (`model.safetensors`, `pytorch_model.bin.index.json`).
    """
    try:
        if path.is_dir():
            path = _find_weights_file(path)
        if not path.is_file():
            raise UserError(f"no file '{path}'")
    except OSError as error:  # such as a name that is too long, or a folder without permission
        raise UserError(f"can't read '{path}': {error.strerror}") from None
    return _list_from_index(path) if path.name.endswith(".json") else _list_from_file(path)


def _find_weights_file(folder: Path) -> Path:
    """Find the only file with weights in a folder."""
    for name in (*WEIGHTS_FILES, *_INDEX_NAMES, *_WEIGHTS_NAMES):
        if (folder / name).is_file():
            return folder / name
    found = sorted(each for each in folder.iterdir() if each.suffix in _SUFFIXES and each.is_file())
    if not found:
        what = f"no file with weights ({', '.join(_SUFFIXES)}) and no checkpoints of a run"
        raise UserError(f"the folder '{folder}' has {what}")
    if len(found) > 1:
        raise UserError(
            f"the folder '{folder}' has {len(found)} files with weights: name one of them, such as {found[0]}"
        )
    return found[0]


def _list_from_index(path: Path) -> dict[str, StoredTensor]:
    """List the tensors of multiple files; their index names the file of each tensor."""
    if path.stat().st_size > _MAX_INDEX_BYTES:
        raise UserError(f"'{path}' is too large for an index: {path.stat().st_size:,} bytes")
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files_by_tensor = {str(name): str(file) for name, file in names.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"'{path}' is not an index of files with weights: it has no 'weight_map'") from None
    files: dict[str, Mapping[str, StoredTensor]] = {}
    for file in sorted(set(files_by_tensor.values())):
        if Path(file).name != file:
            raise UserError(f"'{path}' names '{file}', which is outside its folder")
        if not (path.parent / file).is_file():
            raise UserError(f"'{path}' names '{file}', but its folder has no such file")
        files[file] = _list_from_file(path.parent / file)
    missing = [name for name, file in files_by_tensor.items() if name not in files[file]]
    if missing:
        raise UserError(f"'{path}' says that '{files_by_tensor[missing[0]]}' contains '{missing[0]}', but it does not")
    return {name: files[file][name] for name, file in files_by_tensor.items()}


def _list_from_file(path: Path) -> dict[str, StoredTensor]:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise UserError(f"can't read '{path}': {error.strerror}") from None
    is_torch = start[:2] == b"PK" or (start[:1] == b"\x80" and start[8:9] != b"{")
    return _list_from_torch(path) if is_torch else _list_from_safetensors(path)


def _list_from_safetensors(path: Path) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError

    try:
        file = open_tensor_file(path)
        names = list(file.keys())
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except UserError as error:
        raise UserError(f"can't read '{path}': {error}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"'{path}' is neither a safetensors file nor a file of torch.save: {_summarize_error(error)}"
        ) from None

    def read(name: str) -> Tensor:
        try:
            tensor: Tensor = file.get_tensor(name)
        except SafetensorError as error:  # of a dtype that PyTorch does not have
            raise UserError(f"can't read '{name}' in '{path}': {_summarize_error(error)}") from None
        return tensor

    return {name: StoredTensor(shape, partial(read, name)) for name, shape in shapes.items()}


def _list_from_torch(path: Path) -> dict[str, StoredTensor]:
    import pickle

    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # a file in PyTorch's old format, which can't be mapped
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        found = f"'{path}' contains more than tensors, and loading it could run code"
        raise UserError(f"{found}: save only its state_dict, or use safetensors") from None
    except Exception as error:  # PyTorch raises many kinds of errors for broken files
        raise UserError(f"'{path}' is not a complete file of torch.save: {_summarize_error(error)}") from None
    tensors = _select_tensors(loaded)
    if not tensors:
        raise UserError(f"'{path}' contains no tensors by name, as a state_dict does")
    return {name: StoredTensor(tuple(each.shape), partial(_return_tensor, each)) for name, each in tensors.items()}


def _select_tensors(loaded: Any) -> dict[str, Tensor]:
    if not isinstance(loaded, Mapping):
        return {}
    inner = next((loaded[key] for key in _STATE_DICT_KEYS if isinstance(loaded.get(key), Mapping)), loaded)
    return {str(name): each for name, each in inner.items() if isinstance(each, Tensor) and _is_readable(each)}


def _is_readable(tensor: Tensor) -> bool:
    """Whether the tensor is dense and has values; tensors on the meta device have none."""
    return tensor.layout == torch.strided and not tensor.is_meta and not tensor.is_nested


def _return_tensor(tensor: Tensor) -> Tensor:
    return tensor


def _summarize_error(error: Exception) -> str:
    return first_line(error, 200) or type(error).__name__
