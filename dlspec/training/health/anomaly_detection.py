"""`trainer.debug=anomaly`: stop a step at the first nan gradient, with PyTorch's traceback of the forward pass."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

import torch
from torch import Tensor

from dlspec.training.health.nan_checks import NotFiniteGradient, Step

log = logging.getLogger("dlspec")

_NAN_MESSAGE = re.compile(r"Function '(\w+)' returned nan values")


def is_nan_gradient(error: RuntimeError) -> bool:
    """Whether PyTorch's anomaly detection raised this error, a RuntimeError that differs only in its message."""
    return _NAN_MESSAGE.match(str(error)) is not None


def detect_anomalies(step: Step) -> Step:
    """Wrap a step in anomaly detection: it raises `NotFiniteGradient` and logs PyTorch's traceback of the forward."""

    def checked_step(inputs: Any, targets: Any) -> tuple[Any, Tensor]:
        with warnings.catch_warnings(record=True) as caught_warnings:
            warnings.simplefilter("always")
            try:
                with torch.autograd.set_detect_anomaly(True):
                    result = step(inputs, targets)
            except RuntimeError as error:
                if not is_nan_gradient(error):
                    raise
                log.debug("%s", "\n".join([str(error), *(str(each.message) for each in caught_warnings)]))
                raise NotFiniteGradient from None
        for each in caught_warnings:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        return result

    return checked_step
