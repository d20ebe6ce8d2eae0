"""Take snapshots of named parts with `state_dict`, and load them back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from dlspec.errors import TrainingFailed, shorten_middle
from dlspec.formatting import first_line
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.nested_state import Tensors, flatten_state


class StateMismatch(Exception):
    """A saved state that belongs to something else. The text says all that differs."""


class Stateful(Protocol):
    """An object whose state a checkpoint contains: a network, an optimizer, a schedule."""

    def state_dict(self) -> Any:
        """Return the state as numbers, strings, tensors, lists and mappings, see nested_state.py."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Load what `state_dict` returned. May raise any exception for something else."""


CheckpointParts = Mapping[str, Stateful]


class _AbsentPart:
    """Placeholder for a part that a run does not have."""

    def state_dict(self) -> None: ...

    def load_state_dict(self, state: Any, /) -> None: ...


ABSENT_PART: Stateful = _AbsentPart()


def take_snapshot(step: int, parts: CheckpointParts) -> Snapshot:
    """Take a snapshot of all parts in order, with copies of their tensors on the CPU."""
    tensors: Tensors = {}
    states = {name: part.state_dict() for name, part in parts.items()}
    tree = [[name, flatten_state(state, tensors, name)] for name, state in states.items()]
    return Snapshot(step, {"dict": tree}, tensors)


def load_snapshot(snapshot: Snapshot, parts: CheckpointParts, optional: Collection[str] = ()) -> None:
    """Load the state of each part from a snapshot, in order.

    Args:
        snapshot: the snapshot to load.
        parts: the parts by name.
        optional: names of parts that may be missing in the snapshot.

    Raises:
        TrainingFailed: the snapshot does not fit the run, for example another network or optimizer.
    """
    try:
        states = snapshot.to_state_dict()
        for name, part in parts.items():
            if name in states or name not in optional:
                part.load_state_dict(states[name])
    except Exception as error:  # PyTorch raises many types for wrong state
        if isinstance(error, StateMismatch):
            raise TrainingFailed(f"the checkpoint of step {snapshot.step} does not fit this run: {error}") from None
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            reason = first_line(f"{type(error).__name__}: {error}")
        raise TrainingFailed(
            f"the checkpoint of step {snapshot.step} does not fit this run: {shorten_middle(reason)}"
        ) from error
