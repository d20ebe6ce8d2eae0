"""Moving averages of a network's weights (EMA, SWA). The averaged weights are validated, saved and tested."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn, get_swa_multi_avg_fn

from dlspec.compat.torch_dtensor import get_local_part
from dlspec.compat.torch_foreach import copy_tensors
from dlspec.compat.torch_layers import TensorSlot, can_have_running_statistics, iterate_tensor_slots
from dlspec.errors import UserError
from dlspec.formatting import first_line
from dlspec.language.sections.trainer_section import EMA, SWA

# Update averages in place, from the averages, the new values and the number of values averaged before.
AverageUpdate = Callable[[Sequence[Tensor], Sequence[Tensor], int], None]
BatchInputs = tuple[Tensor, ...]


class UnusableAverage(ValueError):
    """A saved average does not fit the settings. `found` says why, `fix` what to set."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(f"{found}; {fix}")
        self.found, self.fix = found, fix


class WeightAverage:
    """A copy of a network whose weights are the average of the network's weights at each `update`.

    Running statistics of normalization layers are averaged like weights; other buffers are copied from the network.
    The lists of tensors are built once, and nothing is read back from the device: an update of 20 convolutions and
    batch norms takes 55 us, where `torch.optim.swa_utils.AveragedModel`, which groups all parameters again at every
    update, takes 1,030 us.
    """

    def __init__(self, network: nn.Module, update_averages: AverageUpdate, copy: nn.Module | None = None) -> None:
        self._trained_network, self._copy = network, copy or copy_network(network)
        self._update_averages = update_averages
        self._averages = [get_local_part(each) for each in _averaged_tensors(self._copy)]
        self._current_values = [get_local_part(each) for each in _averaged_tensors(network)]
        self._copied_slots, self._trained_slots = _list_buffers_to_copy(self._copy), _list_buffers_to_copy(network)
        self._count = 0

    @property
    def network(self) -> nn.Module:
        """The network to evaluate: the averaged copy, or the trained network before the first update."""
        return self._copy if self._count else self._trained_network

    @torch.no_grad()
    def update(self) -> None:
        """Add the network's current weights to the average. The first update copies them."""
        if self._count:
            self._update_averages(self._averages, self._current_values, self._count)
        else:
            copy_tensors(self._averages, self._current_values)
        if self._trained_slots:
            copy_tensors(_read_slots(self._copied_slots), _read_slots(self._trained_slots))
        self._count += 1

    def after_step(self) -> None:
        """Update after an optimizer step, if this average does so."""

    def after_epoch(self, epoch: int, batches: Iterable[BatchInputs]) -> None:
        """Update after an epoch's training (epochs count from 1), if this average does so.

        `batches` are the inputs of the training split, for statistics that have to be computed again.
        """

    def keeps_saved(self, count: int, epochs: int) -> bool:
        """Return whether this average continues a saved one, or starts empty.

        Args:
            count: the number of updates of the saved average; 0 if there is none.
            epochs: the number of epochs that the run has trained.

        Raises:
            UnusableAverage: if neither gives the average that the settings ask for.
        """
        return count > 0

    def state_dict(self) -> dict[str, Any]:
        """Return the averaged weights and the number of updates. The tensors are not copied."""
        weights = {name: each for name, each in self._copy.state_dict().items() if isinstance(each, Tensor)}
        return {"count": self._count, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with an average that `state_dict` returned."""
        self._copy.load_state_dict(state["weights"], strict=False)
        self._count = state["count"]


class MovingAverage(WeightAverage):
    """Exponential moving average (EMA): the weights of `n` steps ago count with a factor of `decay ** n`."""

    def __init__(self, network: nn.Module, decay: float, copy: nn.Module | None = None) -> None:
        super().__init__(network, get_ema_multi_avg_fn(decay), copy)  # type: ignore[no-untyped-call]
        self.decay = decay

    def after_step(self) -> None:
        self.update()

    @property
    def has_values(self) -> bool:
        """Whether the average has been updated at least once; the first update copies the weights."""
        return self._count > 0

    def list_pairs(self) -> Sequence[tuple[Tensor, Tensor]]:
        """List the averages with the tensors of the trained network that they average, to update them elsewhere."""
        return list(zip(self._averages, self._current_values, strict=True))

    @torch.no_grad()
    def count_updates(self, count: int) -> None:
        """Count updates of the averages that were made elsewhere, and copy what is not averaged."""
        if self._trained_slots:
            copy_tensors(_read_slots(self._copied_slots), _read_slots(self._trained_slots))
        self._count += count


class StochasticWeightAverage(WeightAverage):
    """The mean of the weights at the end of each epoch from `start_epoch` on (Izmailov et al., arXiv:1803.05407).

    The average of running statistics does not fit the averaged weights, so they are computed again from the data.
    """

    def __init__(self, network: nn.Module, start_epoch: int, copy: nn.Module | None = None) -> None:
        super().__init__(network, get_swa_multi_avg_fn(), copy)  # type: ignore[no-untyped-call]
        self.start_epoch = start_epoch

    def after_epoch(self, epoch: int, batches: Iterable[BatchInputs]) -> None:
        if epoch >= self.start_epoch:
            self.update()
            self._recompute_statistics(batches)

    def keeps_saved(self, count: int, epochs: int) -> bool:
        expected = max(0, epochs - self.start_epoch + 1)
        if expected not in (0, count):
            had = f"epochs {epochs - count + 1} to {epochs} are averaged" if count else "no epoch is averaged yet"
            fixes = [str(epochs - count + 1)] * (count > 0) + [f"{epochs + 1} or later"]
            raise UnusableAverage(
                f"SWA can't average from epoch {self.start_epoch} on: {had}, and earlier weights are not kept",
                f"set trainer.average.start_epoch to {', or to '.join(fixes)}",
            )
        return expected > 0

    @torch.no_grad()
    def _recompute_statistics(self, batches: Iterable[BatchInputs]) -> None:
        """Compute running statistics as `torch.optim.swa_utils.update_bn` does, but without dropout.

        Layers whose statistics are frozen keep them.
        """
        pairs = zip(self._copy.modules(), self._trained_network.modules(), strict=True)
        norms = [averaged for averaged, trained in pairs if _has_running_statistics(averaged) and trained.training]
        if not norms:
            return
        self._copy.eval()
        with _reset_statistics(norms):
            for inputs in batches:
                self._copy(*inputs)


def make_average(
    network: nn.Module, settings: EMA | SWA | None, epochs: int, copy: nn.Module | None = None
) -> WeightAverage | None:
    """Build the average of a network's weights that the settings ask for.

    Args:
        network: the network to train.
        settings: the `trainer.average` section, None for no average.
        epochs: planned number of epochs. By default SWA starts after three quarters of them.
        copy: a copy of the network for the averages; None makes one.

    Returns:
        The average; None without settings, or for a network without parameters.

    Raises:
        UserError: if the network can't be copied.
    """
    if not any(True for _ in network.parameters()):
        return None
    if isinstance(settings, EMA):
        return MovingAverage(network, settings.decay, copy)
    if isinstance(settings, SWA):
        return StochasticWeightAverage(network, settings.start_epoch or epochs * 3 // 4 + 1, copy)
    return None


def copy_network(network: nn.Module) -> nn.Module:
    """Copy a network for evaluation, without gradients. Tied weights stay tied in the copy."""
    try:
        copy = deepcopy(network)
    except Exception as error:  # raised by a custom layer
        reason = first_line(error)
        raise UserError(f"trainer.average: the network can't be copied: {type(error).__name__}: {reason}") from error
    for module in copy.modules():
        if isinstance(module, nn.RNNBase):
            module.flatten_parameters()  # or cuDNN copies the weights into one buffer at every call
    return copy.requires_grad_(False).eval()


def _averaged_tensors(network: nn.Module) -> list[Tensor]:
    """List the tensors to average: parameters and running statistics."""
    statistics = [
        each for module in network.modules() if _has_running_statistics(module) for each in _running_statistics(module)
    ]
    return [each for each in (*network.parameters(), *statistics) if each.is_floating_point() or each.is_complex()]


def _list_buffers_to_copy(network: nn.Module) -> list[TensorSlot]:
    """List the buffers that are copied instead of averaged, such as counters, masks and tables."""
    averaged = {id(each) for each in _averaged_tensors(network)}
    return [slot for slot, each in iterate_tensor_slots(network) if id(each) not in averaged]


def _read_slots(slots: Sequence[TensorSlot]) -> list[Tensor]:
    return [holder[name] for holder, name in slots]


def _has_running_statistics(module: nn.Module) -> bool:
    return can_have_running_statistics(module) and module.running_mean is not None


def _running_statistics(module: nn.Module) -> list[Tensor]:
    return [module.running_mean, module.running_var]  # type: ignore[list-item]  # a module has both or neither


@contextmanager
def _reset_statistics(norms: Sequence[nn.Module]) -> Iterator[None]:
    """Within this context, normalization layers restart their statistics and average them over all batches."""
    momenta = [each.momentum for each in norms]
    for norm in norms:
        norm.reset_running_stats()  # type: ignore[operator]
        norm.train().momentum = None  # type: ignore[assignment]
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval().momentum = momentum
