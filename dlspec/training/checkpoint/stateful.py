"""What a checkpoint is made of: parts by their names, each of which gives its state and takes it back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Protocol

from pydantic import ValidationError

from dlspec.errors import TrainingFailed, shorten_middle
from dlspec.formatting import first_line
from dlspec.training.checkpoint.checkpoint_files import Snapshot
from dlspec.training.checkpoint.nested_state import Tensors, flatten_state


class Stateful(Protocol):
    """Anything with a state that a checkpoint can keep: a network, an optimizer's wrapper, a schedule."""

    def state_dict(self) -> Any:
        """The state in numbers, texts, tensors, lists and mappings, see `packing`."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Takes what `state_dict` gave back; raises whatever it likes for what it did not give."""


CheckpointParts = Mapping[str, Stateful]


class _AbsentPart:
    """Stands for a part that a run does not have."""

    def state_dict(self) -> None: ...

    def load_state_dict(self, state: Any, /) -> None: ...


ABSENT_PART: Stateful = _AbsentPart()


def take_snapshot(step: int, parts: CheckpointParts) -> Snapshot:
    """The state of all parts at this moment, in their order. Its tensors are copies on the CPU."""
    tensors: Tensors = {}
    states = {name: part.state_dict() for name, part in parts.items()}
    tree = [[name, flatten_state(state, tensors, name)] for name, state in states.items()]
    return Snapshot(step, {"dict": tree}, tensors)


def load_snapshot(snapshot: Snapshot, parts: CheckpointParts, optional: Collection[str] = ()) -> None:
    """Gives each part its state back, in their order; those in `optional` may be missing in the snapshot.

    Raises TrainingFailed where the snapshot is another network's, optimizer's or no run's.
    """
    try:
        states = snapshot.to_state_dict()
        for name, part in parts.items():
            if name in states or name not in optional:
                part.load_state_dict(states[name])
    except Exception as error:  # whatever PyTorch says of a stranger's numbers
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        else:
            reason = first_line(f"{type(error).__name__}: {error}")
        raise TrainingFailed(
            f"the checkpoint of step {snapshot.step} does not fit this run: {shorten_middle(reason)}"
        ) from error
