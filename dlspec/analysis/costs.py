"""What a training step costs, layer by layer: multiply-adds forward, and the memory that is kept for the way back.

The network is run on made-up batches of two sizes: what grows with the rows is a sample's, the rest a batch's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn
from torch.autograd.graph import saved_tensors_hooks

from dlspec.analysis.multiply_adds import multiply_adds
from dlspec.compat.torch_dispatch import observe_operations, same_kernels_on_meta
from dlspec.data.dataset import Dataset
from dlspec.losses.criterion import Criterion
from dlspec.network.builder import Network
from dlspec.network.codegen import LAYER
from dlspec.network.meta_device import Place, Unfit, needs_numbers
from dlspec.network.random_state import kept_random_state
from dlspec.network.tracing import sampling

ROWS = (2, 3)
"""Two sizes of a batch; batch normalisation takes no single row."""
LOSS = "<loss>"
"""The loss's name among the layers."""


@dataclass(frozen=True)
class Cost:
    """A layer's: `multiply_adds` of a sample, the bytes `kept` for each sample, and `fixed` ones for a batch."""

    multiply_adds: int = 0
    kept: int = 0
    fixed: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.multiply_adds + other.multiply_adds, self.kept + other.kept, self.fixed + other.fixed)


FREE = Cost()
Costs = Mapping[str, Cost]
"""By the layers' names, those that cost nothing left out."""


def measured(network: Network, criterion: Criterion, data: Dataset, place: Place) -> Costs:
    """The costs of a network that was built in that place; its batch-norm statistics are not those of before.

    Memory is that of tensors that PyTorch saves for the backward pass, each once and where it is saved first, without
    weights and buffers. A loss that can't be computed there is left out. Raises `Unfit` where the place is none for it.
    """
    try:
        with sampling(), kept_random_state(), place.making():
            small, large = (_measured(network, criterion, data, place, rows) for rows in ROWS)
    except Unfit:
        raise
    except Exception as error:
        if needs_numbers(error):
            raise Unfit("a layer needs numbers") from error
        raise
    return {name: _cost(small, large, name) for name in {*large.multiply_adds, *large.kept}}


def _cost(small: _Meter, large: _Meter, name: str) -> Cost:
    more = large.kept[name] - small.kept[name]
    return Cost(large.multiply_adds[name] - small.multiply_adds[name], more, max(0, small.kept[name] - ROWS[0] * more))


def _measured(network: Network, criterion: Criterion, data: Dataset, place: Place, rows: int) -> _Meter:
    meter = _Meter(network.module, place)
    inputs = [_batch(data.sample(name, 1), rows, place) for name in network.fields]
    with observe_operations(meter.see), saved_tensors_hooks(meter.keep, _never), same_kernels_on_meta():
        output = _pass(network.module, inputs, meter)
        meter.charge(LOSS)
        _compare(criterion, output, data, rows, place)
    return meter


def _batch(sample: Tensor, rows: int, place: Place) -> Tensor:
    return sample.to(place.device).expand(rows, *sample.shape[1:]).clone()


def _compare(criterion: Criterion, output: Any, data: Dataset, rows: int, place: Place) -> None:
    targets = (data.train.compared(name)[:1] for name in criterion.target_names)
    try:
        criterion.to(place.device)(output, tuple(_batch(each, rows, place) for each in targets))
    except Unfit:
        raise
    except Exception:  # it needs numbers, as CTC's does
        return


def _never(kept: Any) -> Tensor:
    raise AssertionError("nothing goes back")


class _Meter:
    """Counts, for whatever runs within it, on the account of the layer that is charged."""

    def __init__(self, module: nn.Module, place: Place) -> None:
        self._layer, self.place = "", place
        self.multiply_adds, self.kept = Counter[str](), Counter[str]()
        weights = [*module.parameters(), *module.buffers()]
        self._seen = {each.untyped_storage() for each in weights}

    def charge(self, layer: str) -> None:
        """From now on all is on this layer's account."""
        self._layer = layer

    def see(self, operation: Any, output: Any, arguments: tuple[Any, ...]) -> None:
        """Counts the multiply-adds of an operation."""
        count = multiply_adds(operation, output, arguments)
        if count:
            self.multiply_adds[self._layer] += count
            if self.multiply_adds.total() > self.place.most_work:
                raise Unfit("much work")

    def keep(self, tensor: Tensor) -> None:
        """Counts a tensor that is saved for the backward pass, where its memory was not counted before."""
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            self._seen.add(storage)  # held, so that no other comes to lie there
            self.kept[self._layer] += storage.nbytes()
            if self.kept.total() > self.place.most_kept:
                raise Unfit("much memory")


def _pass(module: nn.Module, inputs: list[Tensor], meter: _Meter) -> Any:
    if isinstance(module, fx.GraphModule):
        return _Interpreter(module, meter).run(*inputs)
    (value,) = inputs
    for name, child in module.named_children():  # a plain stack
        meter.charge(name)
        value = child(value)
    return value


class _Interpreter(fx.Interpreter):
    """Runs a graph's nodes, each on the account of its layer."""

    def __init__(self, module: fx.GraphModule, meter: _Meter) -> None:
        super().__init__(module)
        self.meter = meter

    def run_node(self, n: fx.Node) -> Any:
        self.meter.charge(n.meta.get(LAYER, ""))
        return super().run_node(n)
