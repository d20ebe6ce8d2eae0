"""Checkpoints on disk: one safetensors file each, whole or not at all, with a checksum; read back without pickle."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dlspec.errors import UserError, replace_control_characters, shorten_middle
from dlspec.formatting import first_line
from dlspec.runs.file_names import CHECKPOINT_PATTERN, DAMAGED_SUFFIX, format_checkpoint_name
from dlspec.training.checkpoint.nested_state import Tensors, unflatten_state
from dlspec.training.checkpoint.tensor_file import CHECKSUM_KEY, compute_checksum, write_tensors

log = logging.getLogger("dlspec")

CHECKPOINT_FORMAT = 1
"""What a checkpoint holds and under which names; a later dlspec reads the earlier ones."""
STATE_TENSOR = "state"
"""The JSON lies among the tensors: a header is read whole, and may have 100 MB; a long run's history is as long."""
MAX_STATE_BYTES = 2**28


class DamagedCheckpoint(Exception):
    """A checkpoint that can't be used; the text says why."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment: `tree` is for JSON (see `packing`), `tensors` lie on the CPU and change no more."""

    step: int
    tree: Any
    tensors: Tensors

    @property
    def samples(self) -> dict[str, int]:
        """How many samples each split had; empty where that can't be read."""
        try:
            samples = self.to_state_dict()["samples"]
            return {str(name): count for name, count in samples.items() if type(count) is int}
        except Exception:
            return {}

    def copy_tensors(self) -> Snapshot:
        """One with tensors of its own: a run on the CPU goes on with those that it is given."""
        return replace(self, tensors={name: each.clone() for name, each in self.tensors.items()})

    def to_state_dict(self) -> dict[str, Any]:
        """The state in its own types."""
        state: dict[str, Any] = unflatten_state(self.tree, self.tensors)
        return state


def write_checkpoint(folder: Path, snapshot: Snapshot, metadata: Mapping[str, str]) -> Path:
    """Puts the snapshot at `folder/step-000000400.safetensors`; raises OSError, and leaves nothing half-written."""
    texts = {**metadata, "format": str(CHECKPOINT_FORMAT), "step": str(snapshot.step)}
    state = torch.frombuffer(bytearray(json.dumps(snapshot.tree).encode()), dtype=torch.uint8)
    tensors = {**snapshot.tensors, STATE_TENSOR: state}
    path = folder / format_checkpoint_name(snapshot.step)
    write_tensors(path, tensors, {**texts, CHECKSUM_KEY: compute_checksum(tensors, texts)})
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest last."""
    found = [each for each in folder.iterdir() if CHECKPOINT_PATTERN.fullmatch(each.name)] if folder.is_dir() else []
    return sorted((each for each in found if each.is_file()), key=_step_from_name)


def _step_from_name(path: Path) -> int:
    match = CHECKPOINT_PATTERN.fullmatch(path.name)
    return int(match[1]) if match else -1


def delete_old_checkpoints(folder: Path, count: int) -> None:
    """Deletes all but the newest `count` checkpoints."""
    for path in list_checkpoints(folder)[:-count]:
        path.unlink(missing_ok=True)


def read_newest_checkpoint(folder: Path) -> Snapshot | None:
    """The newest checkpoint that is whole; each that is not is told. None without any; UserError where none is whole.

    Then to begin again would overwrite what the run has reached.
    """
    found = list_checkpoints(folder)
    for path in reversed(found):
        try:
            return read_checkpoint(path)
        except DamagedCheckpoint as damaged:
            log.warning("%s can't be used: %s", path, damaged)
    if found:
        fix = f"to begin again, in a new folder: python -m dlspec run={folder.parent}"
        raise UserError(f"no checkpoint in '{folder}' can be used; {fix}")
    return None


def set_aside_after(folder: Path, snapshot: Snapshot) -> None:
    """Renames the checkpoints behind `snapshot`, which can't be used: else they would count as the newest that stay."""
    for path in list_checkpoints(folder):
        if _step_from_name(path) > snapshot.step:
            path.replace(path.with_name(path.name + DAMAGED_SUFFIX))


def read_checkpoint(path: Path) -> Snapshot:
    """The snapshot in a file; raises `Damaged` where it is torn, changed or no checkpoint. Nothing in it is run."""
    tensors, metadata = _read_tensors(path)
    stored_checksum = metadata.pop(CHECKSUM_KEY, "")
    if metadata.get("format") != str(CHECKPOINT_FORMAT):
        raise DamagedCheckpoint(
            f"its format is {replace_control_characters(shorten_middle(metadata.get('format', 'none'), 20))}, and this dlspec reads {CHECKPOINT_FORMAT}"
        )
    if stored_checksum != compute_checksum(tensors, metadata):
        raise DamagedCheckpoint("its checksum is another")
    try:
        state = tensors.pop(STATE_TENSOR)
        if state.dtype != torch.uint8 or state.numel() > MAX_STATE_BYTES:
            raise ValueError
        snapshot = Snapshot(int(metadata["step"]), json.loads(state.numpy().tobytes()), tensors)
    except (ValueError, KeyError, RecursionError):
        raise DamagedCheckpoint("its state can't be read") from None
    if snapshot.step != _step_from_name(path):
        raise DamagedCheckpoint(f"it is of step {snapshot.step}")
    return snapshot


def _read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    from safetensors import safe_open

    if path.is_symlink():
        raise DamagedCheckpoint("it is a link, and may lead anywhere")
    try:
        with safe_open(path, framework="pt") as file:
            # Copied: in the file they begin anywhere, and some kernels round otherwise where memory is not aligned.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except Exception as error:  # the library's own, the system's, PyTorch's for a type that it does not have
        reason = first_line(error) or type(error).__name__
        raise DamagedCheckpoint(f"no whole file: {replace_control_characters(shorten_middle(reason, 200))}") from None
