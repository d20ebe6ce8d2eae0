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
from dlspec.jobs.added_settings import ADDED_SETTINGS, without_added_defaults
from dlspec.jobs.environment import git_commit, package_version
from dlspec.jobs.saved_parts import saved_part
from dlspec.jobs.spec import ReadPart, Spec
from dlspec.language.sections.trainer_keys import MACHINE, WRITING

# What says where and how a run computes, and what it leaves on disk.
_FREE = WRITING | MACHINE | {"device"}
_ELSEWHERE = ("data", "optimizer", "scheduler", "trainer", "seed", "sweep", "imports", "spec_version")


def identity(spec: Spec, given: str = "") -> str:
    """The hash of a spec whose form was checked, its defaults filled in; `given` is the checksum of data from Python.

    Device, threads and what is written beside the results are left out, files' paths are not: two of them may hold
    different data. So are settings that stand at their default and that older versions did not have.
    """
    trainer = spec.trainer.model_dump(mode="json")
    tree = {
        **{key: value for key, value in spec.tree.items() if key not in _ELSEWHERE},
        "data": given or data_key(spec),
        "optimizer": _part(spec.optimizer) | {"groups": _setting(spec, "optimizer", "groups")},
        "scheduler": spec.scheduler and _part(spec.scheduler) | {"interval": spec.interval},
        "trainer": {key: value for key, value in trainer.items() if key not in _FREE},
        "seed": spec.seed,
    }
    return _hash(without_added_defaults(tree, ADDED_SETTINGS))


def shape_key(spec: Spec) -> str:
    """The same for specs whose networks have the same shapes: one of them is checked for all."""
    own = {key: spec.tree.get(key) for key in ("model", "loss", "metrics", "init", "freeze", "weights")}
    return _hash({**own, "data": data_key(spec), "optimizer": spec.optimizer.schema.name})


def data_key(spec: Spec) -> dict[str, Any]:
    """The data as far as the spec says it."""
    return {"type": spec.data.source_name, **spec.data.model_dump(mode="json")}


def _part(read: ReadPart) -> dict[str, Any]:
    return saved_part(read.schema, read.settings)


def _setting(spec: Spec, section: str, key: str) -> Any:
    written = spec.tree.get(section)
    return written.get(key) if isinstance(written, Mapping) else None


def _hash(tree: Mapping[str, Any]) -> str:
    text = json.dumps(tree, sort_keys=True, default=str)  # facts of the data are as they are written
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def data_checksum(data: Dataset) -> str:
    """A CRC over all that the splits hold.

    What lies in memory is read once: windows of a text overlap, and would take a hundred times as much each by itself.
    """
    crc, seen = 0, set()
    for split in (data.train, data.validation, data.test):
        for name, tensor in sorted([*split.tensors.items(), *split.targets.items()]):
            about = (name, str(tensor.dtype), tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
            crc = zlib.crc32(repr(about).encode(), crc)
            if tensor.untyped_storage().data_ptr() not in seen:
                seen.add(tensor.untyped_storage().data_ptr())
                crc = zlib.crc32(_memory(tensor), crc)
    return f"{crc:08x}"


def _memory(tensor: Tensor) -> Any:
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data if storage.nbytes() else b""


def code_version() -> str:
    """What a result follows from beside spec and data: dlspec's and PyTorch's version, and the project's commit."""
    versions = [f"{name} {package_version(name) or '?'}" for name in ("dlspec", "torch")]
    commit = git_commit(Path.cwd())
    git = f"git {commit['commit'][:12]}{' with changes' if commit['changed'] else ''}" if commit else ""
    return ", ".join([*versions, *([git] if git else [])])
