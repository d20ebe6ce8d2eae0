"""The contenders: for each name, a function that imports its library and returns the function that trains."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

from turns import Turns
from works import Task

Train = Callable[[Task, Turns], None]

MODES: Mapping[str, tuple[str, ...]] = {
    "dlspec": (),
    "dlspec compile=model": ("trainer.compile=model",),
    "dlspec compile=step": ("trainer.compile=step",),
    "dlspec bf16": ("trainer.precision=bf16",),
    "dlspec tune": ("trainer.tune=true",),
    "dlspec cudagraphs": ("trainer.compile=cudagraphs",),
    "dlspec cudagraphs bf16": ("trainer.compile=cudagraphs", "trainer.precision=bf16"),
}
"""dlspec's modes, with their overrides."""

GPU = ("best replayed", *(name for name in MODES if "cudagraphs" in name))
"""The contenders that need a GPU."""

COMPILING = ("best compiled", "dlspec compile=model", "dlspec compile=step", "Keras tensorflow", "Keras jax")
"""The contenders that compile before their first step."""

ALIKE = ("naive", "best eager", "best compiled", "best replayed", *(name for name in MODES if "bf16" not in name))
"""The contenders that start from the same weights, get the same batches and must reach the same loss."""


def _naive() -> Train:
    from loops import naive

    return naive


def _eager() -> Train:
    from loops import eager

    return eager


def _compiled() -> Train:
    from loops import compiled

    return compiled


def _replayed() -> Train:
    from loops import replayed

    return replayed


def _dlspec(mode: tuple[str, ...]) -> Train:
    from dlspec_run import train

    return partial(train, mode=mode)


def _lightning(is_bare: bool) -> Train:
    import lightning  # noqa: F401  # report a missing library before anything else
    from peers import lightning as train

    return partial(train, is_bare=is_bare)


def _skorch() -> Train:
    import skorch  # noqa: F401
    from peers import skorch as train

    return train


def _keras(backend: str) -> Train:
    os.environ["KERAS_BACKEND"] = backend
    from keras_peers import train

    return train


CONTENDERS: Mapping[str, Callable[[], Train]] = {
    "naive": _naive,
    "best eager": _eager,
    "best compiled": _compiled,
    "best replayed": _replayed,
    **{name: partial(_dlspec, mode) for name, mode in MODES.items()},
    "Lightning": partial(_lightning, False),
    "Lightning bare": partial(_lightning, True),
    "skorch": _skorch,
    **{f"Keras {each}": partial(_keras, each) for each in ("torch", "tensorflow", "jax")},
}
