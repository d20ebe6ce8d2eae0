"""A job of a sweep: as it is asked for, checked, sent to the process that trains it, and what comes back."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dlspec.config.composition import Refused
from dlspec.config.hydra_run import HydraJob
from dlspec.jobs.composed_spec import every_mistake
from dlspec.jobs.error_messages import in_full, one_line, told
from dlspec.jobs.identity import identity, shape_key
from dlspec.jobs.preparation import Preparation
from dlspec.sweeps.records.record import Status

Made = tuple[Preparation, HydraJob | None]


@dataclass(frozen=True)
class Draft:
    """A job as it is asked for; `make` gives its preparation, and what Hydra runs it by, if it does.

    `make` raises an error that `told` knows for a wrong one.
    """

    overrides: tuple[str, ...]
    make: Callable[[], Made]


@dataclass(frozen=True)
class SweepJob:
    """A job whose form is right. `parcel` is what its draft made, pickled: as objects ten thousand jobs fill a memory.

    What a run left in its folder is gone on with, unless it is to be trained `anew`. `is_known` says that the sweep had
    the job already when it was started again.
    """

    overrides: tuple[str, ...]
    hash: str
    shape_key: str
    device: str
    parcel: bytes
    number: int = -1
    folder: Path = Path()
    anew: bool = False
    is_known: bool = False

    def made(self) -> Made:
        made: Made = pickle.loads(self.parcel)
        return made


@dataclass(frozen=True)
class Check:
    """A job that is to be built and not trained."""

    job: SweepJob


@dataclass(frozen=True)
class Refusal:
    """A job whose spec is wrong: the reason in a line, and in full."""

    overrides: tuple[str, ...]
    error: str
    text: str

    @property
    def hash(self) -> str:
        """By what a sweep knows it again, as long as it stays wrong."""
        return "refused " + hashlib.sha256("\n".join(self.overrides).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class JobEnd:
    """What came of a job: `error` in a line, `text` all that there is to say of it; `data` is their checksum."""

    status: Status
    error: str = ""
    text: str = ""
    monitored: float | None = None
    data: str = ""


def checked(drafts: Sequence[Draft], given: str, most: int) -> list[SweepJob | Refusal]:
    """The drafts, their form checked, as far as the first `most` that are wrong: finding a mistake's place takes 0.1 s.

    `given` is the checksum of data that come from Python.
    """
    found: list[SweepJob | Refusal] = []
    for draft in drafts:
        found.append(_checked(draft, given))
        most -= isinstance(found[-1], Refusal)
        if not most:
            break
    return found


def _checked(draft: Draft, given: str) -> SweepJob | Refusal:
    try:
        preparing, config = draft.make()
        spec = preparing.read()
    except Refused as refused:
        return refusal(draft.overrides, every_mistake(refused))
    except Exception as error:
        if told(error) is None:
            raise
        return refusal(draft.overrides, error)
    parcel = pickle.dumps((preparing, config))
    return SweepJob(draft.overrides, identity(spec, given), shape_key(spec), spec.trainer.device, parcel)


def refusal(overrides: tuple[str, ...], error: Exception) -> Refusal:
    return Refusal(overrides, one_line(error), in_full(error))
