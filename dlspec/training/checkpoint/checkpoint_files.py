"""Checkpoint files: safetensors with a checksum, written atomically and read without pickle."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dlspec.compat.safetensors import open_tensor_file
from dlspec.errors import UserError, replace_control_characters, shorten_middle
from dlspec.formatting import first_line
from dlspec.runs.file_names import CHECKPOINT_PATTERN, DAMAGED_SUFFIX, format_checkpoint_name, format_shards_names
from dlspec.runs.run_status import rerun_command
from dlspec.training.checkpoint.nested_state import Tensors, unflatten_state
from dlspec.training.checkpoint.shard_files import make_placeholders, read_shard_headers
from dlspec.training.checkpoint.tensor_file import CHECKSUM_KEY, compute_checksum, write_tensors

log = logging.getLogger("dlspec")

CHECKPOINT_FORMAT = 1  # the contents and their names; later versions of dlspec read earlier formats
# The JSON is stored as a tensor: the file's header is limited to 100 MB, and a long run's history may be larger.
STATE_TENSOR = "state"
MAX_STATE_BYTES = 2**28
SHARDS = "shards"  # key of the metadata: the files with tensors that are divided among processes, with their checksums
SHARDS_FOLDER = "shards_folder"  # key of the metadata: the name of their folder
DATA_CHECKSUM = "data_checksum"  # key of the metadata
LINK_REFUSED = "it is a symbolic link, which is not followed"


class DamagedCheckpoint(Exception):
    """A checkpoint can't be used; the message gives the reason."""


@dataclass(frozen=True)
class Snapshot:
    """The state of a run at one step, in memory."""

    step: int
    tree: Any  # for JSON, see nested_state.py; it refers to tensors by name
    tensors: Tensors  # on the CPU; never modified
    spec: Mapping[str, Any] | None = None  # of the run that wrote the file, if it was read from one
    data_checksum: str = ""  # of the data of that run; "" in files of earlier versions
    # The folder with parts of tensors and the checksums of its files; these tensors have no values yet.
    shards: tuple[Path, Mapping[str, str]] | None = None

    @property
    def samples(self) -> dict[str, int]:
        """Number of samples in each split; empty if it can't be read."""
        try:
            samples = self.to_state_dict()["samples"]
            return {str(name): count for name, count in samples.items() if type(count) is int}
        except Exception:
            return {}

    def copy_tensors(self) -> Snapshot:
        """Copy the snapshot with its tensors: a run on the CPU updates the tensors that it loads in place."""
        return replace(self, tensors={name: each.clone() for name, each in self.tensors.items()})

    def to_state_dict(self) -> dict[str, Any]:
        """Return the state with its original types."""
        state: dict[str, Any] = unflatten_state(self.tree, self.tensors)
        return state


def write_checkpoint(folder: Path, snapshot: Snapshot, metadata: Mapping[str, str]) -> Path:
    """Write a snapshot to `folder`, as a file such as step-000000400.safetensors. Never leaves a partial file.

    Args:
        folder: the folder for checkpoints, which must exist.
        snapshot: the state to write.
        metadata: strings for the file's header.

    Returns:
        The file.

    Raises:
        OSError: the file can't be written.
    """
    texts = {**metadata, "format": str(CHECKPOINT_FORMAT), "step": str(snapshot.step)}
    state = torch.frombuffer(bytearray(json.dumps(snapshot.tree).encode()), dtype=torch.uint8)
    tensors = {**snapshot.tensors, STATE_TENSOR: state}
    path = folder / format_checkpoint_name(snapshot.step)
    write_tensors(path, tensors, {**texts, CHECKSUM_KEY: compute_checksum(tensors, texts)})
    return path


def list_checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, the newest last."""
    found = [each for each in folder.iterdir() if CHECKPOINT_PATTERN.fullmatch(each.name)] if folder.is_dir() else []
    return sorted((each for each in found if each.is_file()), key=find_step)


def find_step(path: Path) -> int:
    """Return the step that a checkpoint's name gives; -1 for another name."""
    match = CHECKPOINT_PATTERN.fullmatch(path.name)
    return int(match[1]) if match else -1


def delete_old_checkpoints(folder: Path, count: int) -> None:
    """Delete all but the newest `count` checkpoints."""
    for path in list_checkpoints(folder)[:-count]:
        path.unlink(missing_ok=True)


def read_newest_checkpoint(folder: Path) -> Snapshot | None:
    """Read the newest usable checkpoint, with a warning for each newer one that is damaged. None without checkpoints.

    Raises:
        UserError: all checkpoints are damaged. Training from the start would overwrite the run's results.
    """
    found = list_checkpoints(folder)
    for path in reversed(found):
        try:
            return read_checkpoint(path)
        except DamagedCheckpoint as damaged:
            log.warning("%s can't be used: %s", path, damaged)
    if found:
        fix = f"to start again in a new folder: {rerun_command(folder.parent)}"
        raise UserError(f"no checkpoint in '{folder}' can be used; {fix}")
    return None


def rename_newer_checkpoints(folder: Path, snapshot: Snapshot) -> None:
    """Rename checkpoints newer than `snapshot`: they are damaged, and would be kept as the newest ones."""
    for path in list_checkpoints(folder):
        if find_step(path) > snapshot.step:
            path.replace(path.with_name(path.name + DAMAGED_SUFFIX))


def read_checkpoint(path: Path) -> Snapshot:
    """Read a checkpoint file without running any code from it.

    Raises:
        DamagedCheckpoint: the file is incomplete, modified, or not a checkpoint.
    """
    tensors, metadata = _read_tensors(path)
    stored_checksum = metadata.pop(CHECKSUM_KEY, "")
    if metadata.get("format") != str(CHECKPOINT_FORMAT):
        raise DamagedCheckpoint(
            f"expected checkpoint format {CHECKPOINT_FORMAT}, "
            f"got {replace_control_characters(shorten_middle(metadata.get('format', 'none'), 20))}"
        )
    if stored_checksum != compute_checksum(tensors, metadata):
        raise DamagedCheckpoint("its checksum does not match")
    try:
        state = tensors.pop(STATE_TENSOR)
        if state.dtype != torch.uint8 or state.numel() > MAX_STATE_BYTES:
            raise ValueError
        spec = json.loads(metadata.get("spec", "null"))
        tree = json.loads(state.numpy().tobytes())
        spec = spec if isinstance(spec, dict) else None
        snapshot = Snapshot(int(metadata["step"]), tree, tensors, spec, metadata.get(DATA_CHECKSUM, ""))
    except (ValueError, KeyError, RecursionError):
        raise DamagedCheckpoint("its state can't be read") from None
    if snapshot.step != find_step(path):
        raise DamagedCheckpoint(f"its name does not match its step {snapshot.step}")
    return _add_shards(snapshot, path.parent, metadata) if SHARDS in metadata else snapshot


def find_shards_folder(path: Path) -> Path | None:
    """Return the folder with the divided tensors of a checkpoint file; None without any.

    Raises:
        OSError: the file does not exist, or can't be read now.
        DamagedCheckpoint: it is not a complete safetensors file.
    """
    if path.is_symlink():
        raise DamagedCheckpoint(LINK_REFUSED)
    try:
        with open_tensor_file(path) as file:
            metadata = dict(file.metadata() or {})
    except OSError:
        raise
    except Exception as error:  # from safetensors
        raise DamagedCheckpoint(first_line(error)) from None
    return path.parent / _select_shards_name(metadata, find_step(path)) if SHARDS in metadata else None


def _select_shards_name(metadata: Mapping[str, str], step: int) -> str:
    """Return the name of the folder that the metadata give; checkpoints of earlier versions give none."""
    names = format_shards_names(step)
    return names[1] if metadata.get(SHARDS_FOLDER) == names[1] else names[0]


def _add_shards(snapshot: Snapshot, folder: Path, metadata: Mapping[str, str]) -> Snapshot:
    """Add the tensors that are divided among processes, without their values."""
    shards = folder / _select_shards_name(metadata, snapshot.step)
    try:
        checksums = {str(name): str(each) for name, each in dict(json.loads(metadata[SHARDS])).items()}
        tensors = make_placeholders(read_shard_headers(shards, checksums))
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedCheckpoint(replace_control_characters(shorten_middle(str(error), 200))) from None
    return replace(snapshot, tensors={**snapshot.tensors, **tensors}, shards=(shards, checksums))


def _read_tensors(path: Path) -> tuple[Tensors, dict[str, str]]:
    if path.is_symlink():
        raise DamagedCheckpoint(LINK_REFUSED)
    try:
        with open_tensor_file(path) as file:
            # Copied to aligned memory: tensors in the file are not aligned, and some kernels then round differently.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except Exception as error:  # from safetensors, the system, or PyTorch for an unknown dtype
        reason = first_line(error) or type(error).__name__
        raise DamagedCheckpoint(
            f"it is not a complete safetensors file: {replace_control_characters(shorten_middle(reason, 200))}"
        ) from None
