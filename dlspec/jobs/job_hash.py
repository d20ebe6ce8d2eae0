"""By what a sweep recognizes a job: a hash of all that its result follows from, as far as the spec says it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlspec.data.dataset import Dataset
from dlspec.jobs.added_settings import ADDED_SETTINGS, drop_added_defaults
from dlspec.jobs.environment import find_git_commit, find_package_version
from dlspec.jobs.spec import CheckedPart, Spec
from dlspec.jobs.spec_saving import part_to_spec
from dlspec.language.sections.trainer_keys import MACHINE_KEYS, OUTPUT_KEYS

# What says where and how a run computes, and what it leaves on disk.
_UNHASHED_TRAINER_KEYS = OUTPUT_KEYS | MACHINE_KEYS | {"device"}
_KEYS_HASHED_SEPARATELY = ("data", "optimizer", "scheduler", "trainer", "seed", "sweep", "imports", "spec_version")


def compute_job_hash(spec: Spec, data_checksum: str = "") -> str:
    """The hash of a spec whose form was checked, its defaults filled in; `given` is the checksum of data from Python.

    Device, threads and what is written beside the results are left out, files' paths are not: two of them may hold
    different data. So are settings that stand at their default and that older versions did not have.
    """
    trainer = spec.trainer.model_dump(mode="json")
    tree = {
        **{key: value for key, value in spec.tree.items() if key not in _KEYS_HASHED_SEPARATELY},
        "data": data_checksum or describe_data(spec),
        "optimizer": _part_with_defaults(spec.optimizer)
        | {"groups": _get_written_setting(spec, "optimizer", "groups")},
        "scheduler": spec.scheduler and _part_with_defaults(spec.scheduler) | {"interval": spec.interval},
        "trainer": {key: value for key, value in trainer.items() if key not in _UNHASHED_TRAINER_KEYS},
        "seed": spec.seed,
    }
    return _hash_tree(drop_added_defaults(tree, ADDED_SETTINGS))


def compute_shape_key(spec: Spec) -> str:
    """The same for specs whose networks have the same shapes: one of them is checked for all."""
    sections = {key: spec.tree.get(key) for key in ("model", "loss", "metrics", "init", "freeze", "weights")}
    return _hash_tree({**sections, "data": describe_data(spec), "optimizer": spec.optimizer.schema.name})


def describe_data(spec: Spec) -> dict[str, Any]:
    """The data as far as the spec says it."""
    return {"type": spec.data.source_name, **spec.data.model_dump(mode="json")}


def _part_with_defaults(part: CheckedPart) -> dict[str, Any]:
    return part_to_spec(part.schema, part.settings)


def _get_written_setting(spec: Spec, section: str, key: str) -> Any:
    written = spec.tree.get(section)
    return written.get(key) if isinstance(written, Mapping) else None


def _hash_tree(tree: Mapping[str, Any]) -> str:
    text = json.dumps(tree, sort_keys=True, default=str)  # facts of the data are as they are written
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compute_data_checksum(data: Dataset) -> str:
    """A CRC over all that the splits hold.

    What lies in memory is read once: windows of a text overlap, and would take a hundred times as much each by itself.
    """
    crc, seen_pointers = 0, set()
    for split in (data.train, data.validation, data.test):
        for name, tensor in sorted([*split.tensors.items(), *split.targets.items()]):
            description = (name, str(tensor.dtype), tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
            crc = zlib.crc32(repr(description).encode(), crc)
            if tensor.untyped_storage().data_ptr() not in seen_pointers:
                seen_pointers.add(tensor.untyped_storage().data_ptr())
                crc = zlib.crc32(_read_storage_bytes(tensor), crc)
    return f"{crc:08x}"


def _read_storage_bytes(tensor: Tensor) -> Any:
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data if storage.nbytes() else b""


def describe_code_version() -> str:
    """What a result follows from beside spec and data: dlspec's and PyTorch's version, and the project's commit."""
    versions = [f"{name} {find_package_version(name) or '?'}" for name in ("dlspec", "torch")]
    commit = find_git_commit(Path.cwd())
    git = f"git {commit['commit'][:12]}{' with changes' if commit['changed'] else ''}" if commit else ""
    return ", ".join([*versions, *([git] if git else [])])
