"""The best and the last weights: in memory, or as safetensors files that are never half written."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dlspec.run_folder import write_bytes
from dlspec.training.callbacks import Callback
from dlspec.training.state import State

log = logging.getLogger("dlspec")

BEST = "best.safetensors"
LAST = "last.safetensors"
SECONDS_BETWEEN_WRITES = 5.0

Weights = dict[str, Tensor]


class KeepsBest(Callback):
    """A callback that has the best epoch's weights ready for the final test."""

    def best_weights(self) -> Weights | None:
        """The state dict of the best epoch so far, on the CPU; None before the first."""
        raise NotImplementedError


class BestWeights(KeepsBest):
    """Keeps a copy of the best epoch's weights in memory."""

    def __init__(self) -> None:
        self._weights: Weights | None = None

    def on_epoch_end(self, state: State) -> None:
        if state.monitor.is_best:
            self._weights = copied_weights(state.evaluated)

    def best_weights(self) -> Weights | None:
        return self._weights


class _Checkpoint(Callback):
    """Writes weights to `path` at most once in `seconds`, and what is still unwritten when the run ends.

    Epochs of a small network take milliseconds; a file and its sync after each would take longer than they do. What
    can't be written is told once and the run goes on.
    """

    def __init__(self, path: Path, metadata: Mapping[str, str] | None, seconds: float) -> None:
        self.path = path
        self._metadata = dict(metadata or {})
        self._seconds = seconds
        self._written = -float("inf")
        self._waiting: tuple[Weights, dict[str, str]] | None = None
        self._warned = False

    def _offer(self, state: State) -> None:
        self._waiting = (copied_weights(state.evaluated), self._metadata | _position(state))
        if time.monotonic() - self._written >= self._seconds:
            self._write()

    def _write(self) -> None:
        if self._waiting is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_weights(self.path, *self._waiting)
        except OSError as error:
            if not self._warned:
                log.warning("can't write the checkpoint %s: %s", self.path, error.strerror or error)
            self._warned = True
            return
        self._written, self._waiting = time.monotonic(), None

    def close(self, state: State) -> None:
        self._write()


class BestCheckpoint(_Checkpoint, KeepsBest):
    """Writes the best epoch's weights to `folder/best.safetensors`. `metadata` is written beside them."""

    def __init__(
        self, folder: Path, metadata: Mapping[str, str] | None = None, seconds: float = SECONDS_BETWEEN_WRITES
    ) -> None:
        super().__init__(folder / BEST, metadata, seconds)

    def on_epoch_end(self, state: State) -> None:
        if state.monitor.is_best:
            self._offer(state)

    def best_weights(self) -> Weights | None:
        if self._waiting is not None:
            return self._waiting[0]
        return read_weights(self.path)[0] if self.path.exists() else None


class LastCheckpoint(_Checkpoint):
    """Writes the newest finished epoch's weights to `folder/last.safetensors`."""

    def __init__(
        self, folder: Path, metadata: Mapping[str, str] | None = None, seconds: float = SECONDS_BETWEEN_WRITES
    ) -> None:
        super().__init__(folder / LAST, metadata, seconds)

    def on_epoch_end(self, state: State) -> None:
        self._offer(state)


def copied_weights(network: nn.Module) -> Weights:
    """The state dict as tensors of their own on the CPU; tied weights become equal copies, which any reader loads."""
    return {
        name: value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
        if isinstance(value, Tensor)
    }


def write_weights(path: Path, weights: Weights, metadata: Mapping[str, str]) -> None:
    """One safetensors file, whole or not at all."""
    from safetensors.torch import save

    write_bytes(path, save(weights, {"format": "pt", **metadata}))


def read_weights(path: Path) -> tuple[Weights, dict[str, str]]:
    """The weights of a safetensors file, on the CPU, and its metadata."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118


def _position(state: State) -> dict[str, str]:
    """Where the run stood, in strings: safetensors keeps nothing else."""
    return {
        "epoch": str(state.epoch),
        "step": str(state.step),
        "monitor": state.monitor.name,
        "results": json.dumps(state.results),
    }
