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

from dlspec.analysis.multiply_adds import count_multiply_adds
from dlspec.compat.torch_dispatch import observe_operations, use_cpu_kernels_on_meta
from dlspec.data.dataset import Dataset
from dlspec.losses.criterion import Criterion
from dlspec.network.build_mode import BuildMode, BuildModeError, is_meta_tensor_error
from dlspec.network.builder import Network
from dlspec.network.codegen import LAYER_KEY
from dlspec.network.random_state import preserve_random_state
from dlspec.network.tracing import ignore_build_warnings

BATCH_SIZES = (2, 3)
"""Two sizes of a batch; batch normalisation takes no single row."""
LOSS_NAME = "<loss>"
"""The loss's name among the layers."""


@dataclass(frozen=True)
class LayerCost:
    """A layer's: `count_multiply_adds` of a sample, the bytes `kept` for each sample, and `fixed` ones for a batch."""

    multiply_adds: int = 0
    saved_bytes: int = 0
    saved_bytes_per_batch: int = 0

    def __add__(self, other: LayerCost) -> LayerCost:
        return LayerCost(
            self.multiply_adds + other.multiply_adds,
            self.saved_bytes + other.saved_bytes,
            self.saved_bytes_per_batch + other.saved_bytes_per_batch,
        )


NO_COST = LayerCost()
LayerCosts = Mapping[str, LayerCost]
"""By the layers' names, those that cost nothing left out."""


def measure_costs(network: Network, criterion: Criterion, data: Dataset, build_mode: BuildMode) -> LayerCosts:
    """The costs of a network that was built in that place; its batch-norm statistics are not those of before.

    Memory is that of tensors that PyTorch saves for the backward pass, each once and where it is saved first, without
    weights and buffers. A loss that can't be computed there is left out. Raises `Unfit` where the place is none for it.
    """
    try:
        with ignore_build_warnings(), preserve_random_state(), build_mode.default_device():
            small, large = (_measure_batch(network, criterion, data, build_mode, rows) for rows in BATCH_SIZES)
    except BuildModeError:
        raise
    except Exception as error:
        if is_meta_tensor_error(error):
            raise BuildModeError("a layer needs numbers") from error
        raise
    return {name: _cost_per_sample(small, large, name) for name in {*large.multiply_adds, *large.saved_bytes}}


def _cost_per_sample(small: _CostMeter, large: _CostMeter, name: str) -> LayerCost:
    bytes_per_sample = large.saved_bytes[name] - small.saved_bytes[name]
    return LayerCost(
        large.multiply_adds[name] - small.multiply_adds[name],
        bytes_per_sample,
        max(0, small.saved_bytes[name] - BATCH_SIZES[0] * bytes_per_sample),
    )


def _measure_batch(
    network: Network, criterion: Criterion, data: Dataset, build_mode: BuildMode, batch_size: int
) -> _CostMeter:
    meter = _CostMeter(network.module, build_mode)
    inputs = [_make_batch(data.sample(name, 1), batch_size, build_mode) for name in network.fields]
    with (
        observe_operations(meter.count_operation),
        saved_tensors_hooks(meter.count_saved_tensor, _forbid_backward),
        use_cpu_kernels_on_meta(),
    ):
        output = _run_layers(network.module, inputs, meter)
        meter.set_layer(LOSS_NAME)
        _compute_loss(criterion, output, data, batch_size, build_mode)
    return meter


def _make_batch(sample: Tensor, batch_size: int, build_mode: BuildMode) -> Tensor:
    return sample.to(build_mode.device).expand(batch_size, *sample.shape[1:]).clone()


def _compute_loss(criterion: Criterion, output: Any, data: Dataset, batch_size: int, build_mode: BuildMode) -> None:
    targets = (data.train.get_loss_target(name)[:1] for name in criterion.target_names)
    try:
        criterion.to(build_mode.device)(output, tuple(_make_batch(each, batch_size, build_mode) for each in targets))
    except BuildModeError:
        raise
    except Exception:  # it needs numbers, as CTC's does
        return


def _forbid_backward(kept: Any) -> Tensor:
    raise AssertionError("nothing goes back")


class _CostMeter:
    """Counts, for whatever runs within it, on the account of the layer that is charged."""

    def __init__(self, module: nn.Module, build_mode: BuildMode) -> None:
        self._layer, self.build_mode = "", build_mode
        self.multiply_adds, self.saved_bytes = Counter[str](), Counter[str]()
        weights = [*module.parameters(), *module.buffers()]
        self._seen = {each.untyped_storage() for each in weights}

    def set_layer(self, layer: str) -> None:
        """From now on all is on this layer's account."""
        self._layer = layer

    def count_operation(self, operation: Any, output: Any, arguments: tuple[Any, ...]) -> None:
        """Counts the multiply-adds of an operation."""
        count = count_multiply_adds(operation, output, arguments)
        if count:
            self.multiply_adds[self._layer] += count
            if self.multiply_adds.total() > self.build_mode.max_multiply_adds:
                raise BuildModeError("much work")

    def count_saved_tensor(self, tensor: Tensor) -> None:
        """Counts a tensor that is saved for the backward pass, where its memory was not counted before."""
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            self._seen.add(storage)  # held, so that no other comes to lie there
            self.saved_bytes[self._layer] += storage.nbytes()
            if self.saved_bytes.total() > self.build_mode.max_kept_bytes:
                raise BuildModeError("much memory")


def _run_layers(module: nn.Module, inputs: list[Tensor], meter: _CostMeter) -> Any:
    if isinstance(module, fx.GraphModule):
        return _MeteredInterpreter(module, meter).run(*inputs)
    (value,) = inputs
    for name, child in module.named_children():  # a plain stack
        meter.set_layer(name)
        value = child(value)
    return value


class _MeteredInterpreter(fx.Interpreter):
    """Runs a graph's nodes, each on the account of its layer."""

    def __init__(self, module: fx.GraphModule, meter: _CostMeter) -> None:
        super().__init__(module)
        self.meter = meter

    def run_node(self, n: fx.Node) -> Any:
        self.meter.set_layer(n.meta.get(LAYER_KEY, ""))
        return super().run_node(n)
