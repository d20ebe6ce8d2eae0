"""Fingerprint of a job: a hash of everything in its spec that determines its result. A sweep matches jobs by it."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlspec.data.dataset import Dataset, Target
from dlspec.data.lazy_array import LazyArray
from dlspec.jobs.added_settings import ADDED_SETTINGS, drop_added_defaults
from dlspec.jobs.environment import find_git_commit, find_package_version
from dlspec.jobs.spec import CheckedPart, Spec
from dlspec.jobs.spec_saving import part_to_spec
from dlspec.language.sections.trainer_keys import MACHINE_KEYS, OUTPUT_KEYS, STACKED_TRAINER_KEYS

# Where a run computes and what it writes: none of this determines its result.
_UNHASHED_TRAINER_KEYS = OUTPUT_KEYS | MACHINE_KEYS | {"device"}
_KEYS_HASHED_SEPARATELY = ("data", "optimizer", "scheduler", "trainer", "seed", "sweep", "imports", "spec_version")


def compute_job_hash(spec: Spec, data_checksum: str = "") -> str:
    """Hash a checked spec with its defaults; `data_checksum` is the checksum of data that were given in Python.

    The hash ignores the device, the threads and what is written besides the results, and the defaults of settings that
    older versions did not have. It includes the paths of data files, as different files may contain different data.
    """
    trainer = spec.trainer.model_dump(mode="json")
    tree = {
        **{key: value for key, value in spec.tree.items() if key not in _KEYS_HASHED_SEPARATELY},
        "data": data_checksum or describe_data(spec),
        "optimizer": _part_with_defaults(spec.optimizer)
        | {"groups": _get_written_setting(spec, "optimizer", "groups")},
        "scheduler": spec.scheduler and _part_with_defaults(spec.scheduler) | _get_step_settings(spec),
        "trainer": {key: value for key, value in trainer.items() if key not in _UNHASHED_TRAINER_KEYS},
        "seed": spec.seed,
    }
    return _hash_tree(drop_added_defaults(tree, ADDED_SETTINGS))


def _get_step_settings(spec: Spec) -> dict[str, Any]:
    # Without a warm-up the hash is that of version 0.1.0, which left the warm-up out.
    return {"interval": spec.interval, **({"warmup": spec.warmup} if spec.warmup else {})}


def compute_shape_key(spec: Spec) -> str:
    """Hash what determines a network's shapes. Of all jobs with the same hash, only one is built to check shapes."""
    sections = {key: spec.tree.get(key) for key in ("model", "loss", "metrics", "init", "freeze", "weights")}
    return _hash_tree({**sections, "data": describe_data(spec), "optimizer": spec.optimizer.schema.name})


def compute_stack_key(spec: Spec) -> str:
    """Hash everything but the seed and the numbers that may leave shapes alone; jobs with equal hashes may be stacked.

    Whether they really can be is seen when their networks are built.
    """
    trainer = spec.trainer.model_dump(mode="json")
    sections = {key: spec.tree.get(key) for key in ("model", "loss", "init", "freeze", "optimizer", "scheduler")}
    tree = {key: _drop_fractions(each) for key, each in sections.items()}
    kept = {key: trainer[key] for key in STACKED_TRAINER_KEYS}
    return _hash_tree({**tree, "data": describe_data(spec), "trainer": kept})


def _drop_fractions(value: Any) -> Any:
    """Replace numbers that are fractions, 0 or 1: settings of shapes are whole numbers, and larger."""
    if isinstance(value, Mapping):
        return {key: _drop_fractions(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_drop_fractions(each) for each in value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return "number" if is_number and (isinstance(value, float) or value in (0, 1)) else value


def compute_data_key(spec: Spec) -> str:
    """Hash what determines which data a job reads."""
    return _hash_tree(describe_data(spec))


def describe_data(spec: Spec) -> dict[str, Any]:
    """Return the data source's name and settings that decide which data it reads, with defaults."""
    settings = spec.data.model_dump(mode="json", exclude=set(spec.data.reading_keys))
    return {"type": spec.data.source_name, **settings}


def _part_with_defaults(part: CheckedPart) -> dict[str, Any]:
    return part_to_spec(part.schema, part.settings)


def _get_written_setting(spec: Spec, section: str, key: str) -> Any:
    written = spec.tree.get(section)
    return written.get(key) if isinstance(written, Mapping) else None


def _hash_tree(tree: Mapping[str, Any]) -> str:
    text = json.dumps(tree, sort_keys=True, default=str)  # `str` turns unknown facts back into what was written
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def compute_data_checksum(data: Dataset) -> str:
    """Compute a CRC of all splits.

    Memory that several tensors share is read once: windows of a text overlap, so reading each would take a hundred
    times as long.
    """
    crc, seen_pointers = 0, set()
    for split in (data.train, data.validation, data.test):
        for name, tensor in sorted([*split.tensors.items(), *split.targets.items()], key=itemgetter(0)):
            if isinstance(tensor, LazyArray):
                crc = zlib.crc32(_hash_lazy_array(name, tensor), crc)
                continue
            description = (name, str(tensor.dtype), tuple(tensor.shape), tensor.stride(), tensor.storage_offset())
            crc = zlib.crc32(repr(description).encode(), crc)
            if tensor.untyped_storage().data_ptr() not in seen_pointers:
                seen_pointers.add(tensor.untyped_storage().data_ptr())
                crc = zlib.crc32(_read_storage_bytes(tensor), crc)
    return f"{crc:08x}"


# What `Dataset.preprocessing` says about how kinds of columns were chosen: they are written out when a run is resumed.
_EXPLANATIONS = ("inferred", "left_out", "prepared_by")


def compute_content_checksum(data: Dataset, data_checksum: str | None = None) -> str:
    """Compute a checksum of all splits and of what their numbers mean: names of classes and labels, vocabularies.

    Args:
        data: The data.
        data_checksum: The result of `compute_data_checksum`, if it is known: it reads all samples.
    """
    meanings = {
        "targets": [(each.name, each.kind, each.classes, each.labels, _write_scale(each)) for each in data.targets],
        "preprocessing": {key: each for key, each in data.preprocessing.items() if key not in _EXPLANATIONS},
    }
    checksum = data_checksum or compute_data_checksum(data)
    return f"{checksum}-{zlib.crc32(json.dumps(meanings, sort_keys=True).encode()):08x}"


def _write_scale(target: Target) -> Any:
    return None if target.scale is None else target.scale.to_json()


def _hash_lazy_array(name: str, array: LazyArray) -> bytes:
    """Hash what the files of a lazy array contain."""
    digest = hashlib.sha256(repr((name, str(array.dtype), tuple(array.shape))).encode())
    array.update_hash(digest)
    return digest.digest()


def _read_storage_bytes(tensor: Tensor) -> Any:
    storage = tensor.untyped_storage()
    return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().data if storage.nbytes() else b""


def describe_code_version() -> str:
    """Describe the versions of dlspec and PyTorch, and the Git commit of the working directory."""
    versions = [f"{name} {find_package_version(name) or '?'}" for name in ("dlspec", "torch")]
    commit = find_git_commit(Path.cwd())
    git = f"git {commit['commit'][:12]}{' with changes' if commit['changed'] else ''}" if commit else ""
    return ", ".join([*versions, *([git] if git else [])])
