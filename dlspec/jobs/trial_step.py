"""Try a training step before a run starts, where its settings are known to fail with some layers.

Such settings are a batch of one sample, which batch normalization refuses, and half precision, which some layers do not
have on some devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlspec.data.dataset import Dataset
from dlspec.errors import Code
from dlspec.formatting import first_line
from dlspec.jobs.spec import Spec
from dlspec.language.problems import Problems
from dlspec.losses.criterion import Criterion
from dlspec.network.built_network import Network
from dlspec.network.module_state import find_device, preserve_buffers
from dlspec.network.random_state import preserve_random_state
from dlspec.training.step.precision import Precision

HALF_PRECISIONS = (16, "bf16")
TRIAL_SAMPLES = 2  # batch normalization needs two


def try_training_step(spec: Spec, data: Dataset, network: Network, criterion: Criterion, problems: Problems) -> None:
    """Compute one loss and its gradients, and report a setting with which that fails.

    The network's buffers and the random generators are restored afterwards.

    Args:
        spec: The spec, with the batch size and the precision.
        data: The data, whose first samples are used.
        network: The network, on the device of the run; on the meta device nothing is tried.
        criterion: All loss terms.
        problems: Gets the problem.
    """
    trainer, device = spec.trainer, find_device(network.module)
    if device.type == "meta" or len(data.train) < TRIAL_SAMPLES:
        return
    step = _TrialStep(data, network, criterion)
    if trainer.precision in HALF_PRECISIONS:
        failure = step.find_failure(TRIAL_SAMPLES, trainer.precision, device)
        if failure is None:
            return
        has_bfloat16 = trainer.precision == 16 and step.find_failure(TRIAL_SAMPLES, "bf16", device) is None
        setting, found = "precision", f"can't compute in precision {trainer.precision} on {device.type}"
        fix = "use bf16 or 32" if has_bfloat16 else "use 32"
    elif trainer.initial_batch_size == 1:
        failure = step.find_failure(1, 32, device)
        setting, found = "batch_size", "can't be trained on batches of one sample"
        fix = "use 2 or more, or LayerNorm or GroupNorm, which need one sample"
    else:
        return
    if failure is not None and step.find_failure(TRIAL_SAMPLES, 32, device) is None:
        found, fix = f"{failure.layer} {found}", f"PyTorch says: {failure.reason}; {fix}"
        problems.add(Code.UNSUPPORTED, ("trainer", setting), found, fix, at_value=True)


@dataclass(frozen=True)
class _Failure:
    """A layer that could not be computed, and PyTorch's reason."""

    layer: str
    reason: str


@dataclass(frozen=True)
class _TrialStep:
    """A training step on the first samples of the data."""

    data: Dataset
    network: Network
    criterion: Criterion

    def find_failure(self, samples: int, precision: Any, device: torch.device) -> _Failure | None:
        """Compute a loss and its gradients; None if that works."""
        layers: list[str] = []
        module = self.network.module
        forward = Precision(precision, device).wrap_forward(module)
        samples_of = self.data.train.get_loss_target
        targets = tuple(samples_of(name)[:samples].to(device) for name in self.criterion.target_names)
        with (
            preserve_random_state(device),
            preserve_buffers(module.buffers()),
            _record_layers(self.network, layers.append),
        ):
            try:
                self.criterion.to(device)
                loss: Tensor = self.criterion(forward(*self._make_inputs(samples, device)), targets)
                loss.sum().backward()  # type: ignore[no-untyped-call]
            except (RuntimeError, ValueError) as error:
                return _Failure(layers[-1] if layers else "the network", first_line(error))
            finally:
                module.zero_grad(set_to_none=True)
        return None

    def _make_inputs(self, samples: int, device: torch.device) -> list[Tensor]:
        return [self.data.sample(name, samples).to(device) for name in self.network.field_inputs]


@contextmanager
def _record_layers(network: Network, note: Callable[[str], None]) -> Iterator[None]:
    """Call `note` with the type and name of each layer before it is computed, within the `with` block."""
    hooks = [
        each.module.register_forward_pre_hook(lambda *_, shown=f"{each.type} '{each.name}'": note(shown))
        for each in network.layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
