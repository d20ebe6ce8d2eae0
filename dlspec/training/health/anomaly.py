"""`trainer.debug=anomaly`: the first gradient of nan ends a step, and PyTorch says where in the code it was made."""

from __future__ import annotations

import logging
import re
import warnings
from typing import Any

import torch
from torch import Tensor

from dlspec.training.health.finite import BadGradient, Step

log = logging.getLogger("dlspec")

_FOUND = re.compile(r"Function '(\w+)' returned nan values")


def is_nan_gradient(error: RuntimeError) -> bool:
    """Whether PyTorch's anomaly detection raised it: a plain RuntimeError, which only its text tells apart."""
    return _FOUND.match(str(error)) is not None


def detecting(step: Step) -> Step:
    """The step, which raises `BadGradient`; PyTorch's traceback of the forward pass goes to the log."""

    def detected(inputs: Any, targets: Any) -> tuple[Any, Tensor]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                with torch.autograd.set_detect_anomaly(True):
                    given = step(inputs, targets)
            except RuntimeError as error:
                if not is_nan_gradient(error):
                    raise
                log.debug("%s", "\n".join([str(error), *(str(each.message) for each in told)]))
                raise BadGradient from None
        for each in told:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        return given

    return detected
