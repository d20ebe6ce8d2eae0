"""Checkpoints on disk: one safetensors file each, whole or not at all, with a checksum; read back without pickle."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlspec.training.packing import Tensors, unpack
from dlspec.training.tensor_file import CHECKSUM, checksum, write_tensors

log = logging.getLogger("dlspec")

FORMAT = 1
"""What a checkpoint holds and under which names; a later dlspec reads the earlier ones."""
NAME = re.compile(r"step-(\d{9})\.safetensors")


class Damaged(Exception):
    """A checkpoint that can't be used; the text says why."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment: `tree` is for JSON (see `packing`), `tensors` lie on the CPU and change no more."""

    step: int
    tree: Any
    tensors: Tensors

    def unpacked(self) -> dict[str, Any]:
        """The state in its own types."""
        state: dict[str, Any] = unpack(self.tree, self.tensors)
        return state


def write_checkpoint(folder: Path, snapshot: Snapshot, metadata: Mapping[str, str]) -> Path:
    """Puts the snapshot at `folder/step-000000400.safetensors`; raises OSError, and leaves nothing half-written."""
    texts = {**metadata, "format": str(FORMAT), "step": str(snapshot.step), "state": json.dumps(snapshot.tree)}
    path = folder / f"step-{snapshot.step:09d}.safetensors"
    write_tensors(path, snapshot.tensors, {**texts, CHECKSUM: checksum(snapshot.tensors, texts)})
    return path


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest last."""
    found = [each for each in folder.iterdir() if NAME.fullmatch(each.name)] if folder.is_dir() else []
    return sorted(each for each in found if each.is_file())


def keep_newest(folder: Path, count: int) -> None:
    """Deletes all but the newest `count` checkpoints, and what a killed writer left."""
    for path in checkpoints_in(folder)[:-count]:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Deletes the half-written files of a process that was killed; nobody else may write there."""
    for path in folder.glob(".*.safetensors.*") if folder.is_dir() else ():
        path.unlink(missing_ok=True)


def newest_checkpoint(folder: Path) -> tuple[Path, Snapshot] | None:
    """The newest checkpoint that is whole; each that is not is told, and the one before it taken. None without any."""
    for path in reversed(checkpoints_in(folder)):
        try:
            return path, read_checkpoint(path)
        except Damaged as damaged:
            log.warning("%s can't be used: %s; taking the one before it", path, damaged)
    return None


def read_checkpoint(path: Path) -> Snapshot:
    """The snapshot in a file; raises `Damaged` where it is torn, changed or no checkpoint. Nothing in it is run."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            texts = dict(file.metadata() or {})
            # Copied: in the file they begin anywhere, and some kernels round otherwise where memory is not aligned.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged(f"no whole file: {str(error).splitlines()[0]}") from None
    written = texts.pop(CHECKSUM, "")
    if texts.get("format") != str(FORMAT):
        raise Damaged(f"its format is {texts.get('format', 'none')}, and this dlspec reads {FORMAT}")
    if written != checksum(tensors, texts):
        raise Damaged("its checksum is another")
    try:
        return Snapshot(int(texts["step"]), json.loads(texts["state"]), tensors)
    except (ValueError, KeyError, RecursionError):
        raise Damaged("its state can't be read") from None
