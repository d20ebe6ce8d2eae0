"""The costs of a training step, layer by layer: forward multiply-adds, and memory saved for the backward pass.

The network is run on a batch of 2 and on a batch of 3 samples. The difference of their costs is the cost of one sample;
the rest is the cost of a batch, whatever its size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
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

BATCH_SIZES = (2, 3)  # not 1: batch normalization needs two samples
LOSS_NAME = "<loss>"  # names the loss in the costs by layer


@dataclass(frozen=True)
class LayerCost:
    """The costs of one layer in a training step."""

    multiply_adds: int = 0  # of the forward pass, per sample
    saved_bytes: int = 0  # for the backward pass, per sample
    saved_bytes_per_batch: int = 0  # for the backward pass, whatever the batch size
    # Of the largest result of one operation, per sample. A step needs this memory even if nothing is saved.
    largest_output_bytes: int = field(default=0, compare=False)

    def __add__(self, other: LayerCost) -> LayerCost:
        return LayerCost(
            self.multiply_adds + other.multiply_adds,
            self.saved_bytes + other.saved_bytes,
            self.saved_bytes_per_batch + other.saved_bytes_per_batch,
            max(self.largest_output_bytes, other.largest_output_bytes),
        )


NO_COST = LayerCost()
LayerCosts = Mapping[str, LayerCost]  # by layer name, without layers that cost nothing


def measure_costs(network: Network, criterion: Criterion, data: Dataset, build_mode: BuildMode) -> LayerCosts:
    """Measure the costs of a network's layers by running it. This changes its batch-norm statistics.

    Memory is that of the tensors that PyTorch saves for the backward pass, without parameters and buffers. A tensor
    that multiple layers save counts for the first one. A loss that can't be computed on the device is left out.

    Args:
        network: the network, built in `build_mode`.
        criterion: all loss terms of the spec.
        data: the dataset, for the shapes of inputs and targets.
        build_mode: the device to run on, and the most work and memory allowed there.

    Returns:
        The costs by layer name; the loss is named `<loss>`.

    Raises:
        BuildModeError: if the device is unsuitable: the costs exceed its limits, or a layer reads the numbers in a
            tensor on the meta device.
    """
    try:
        with ignore_build_warnings(), preserve_random_state(), build_mode.default_device():
            small, large = (_measure_batch(network, criterion, data, build_mode, rows) for rows in BATCH_SIZES)
    except BuildModeError:
        raise
    except Exception as error:
        if is_meta_tensor_error(error):
            raise BuildModeError(
                "a layer reads the numbers in a tensor, but tensors on the meta device have none"
            ) from error
        raise
    names = {*large.multiply_adds, *large.saved_bytes, *large.output_bytes}
    costs = {name: _cost_per_sample(small, large, name) for name in names}
    return {name: cost for name, cost in costs.items() if cost != NO_COST or cost.largest_output_bytes}


def _cost_per_sample(small_batch: _CostMeter, large_batch: _CostMeter, name: str) -> LayerCost:
    bytes_per_sample = large_batch.saved_bytes[name] - small_batch.saved_bytes[name]
    return LayerCost(
        large_batch.multiply_adds[name] - small_batch.multiply_adds[name],
        bytes_per_sample,
        max(0, small_batch.saved_bytes[name] - BATCH_SIZES[0] * bytes_per_sample),
        max(0, large_batch.output_bytes[name] - small_batch.output_bytes[name]),
    )


def _measure_batch(
    network: Network, criterion: Criterion, data: Dataset, build_mode: BuildMode, batch_size: int
) -> _CostMeter:
    meter = _CostMeter(network.module, build_mode)
    inputs = [_make_batch(data.sample(name, 1), batch_size, build_mode) for name in network.field_inputs]
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
    except Exception:  # the loss reads values, which meta tensors lack, as CTC's does
        return


def _forbid_backward(kept: Any) -> Tensor:
    raise AssertionError("costs are measured without a backward pass")


class _CostMeter:
    """Counts multiply-adds and saved bytes for the current layer, which `set_layer` names."""

    def __init__(self, module: nn.Module, build_mode: BuildMode) -> None:
        self._layer, self.build_mode = "", build_mode
        self.multiply_adds, self.saved_bytes, self.output_bytes = Counter[str](), Counter[str](), Counter[str]()
        weights = [*module.parameters(), *module.buffers()]
        self._weights = frozenset(each.untyped_storage() for each in weights)
        self._seen = set(self._weights)

    def set_layer(self, layer: str) -> None:
        """Count everything from now on for this layer."""
        self._layer = layer

    def count_operation(self, operation: Any, output: Any, arguments: tuple[Any, ...]) -> None:
        """Count an operation's multiply-adds, and the memory of what it returns."""
        self._count_output(output)
        count = count_multiply_adds(operation, output, arguments)
        if count:
            self.multiply_adds[self._layer] += count
            if self.multiply_adds.total() > self.build_mode.max_multiply_adds:
                raise BuildModeError("too many multiply-adds")

    def _count_output(self, output: Any) -> None:
        tensors = output if isinstance(output, list | tuple) else (output,)
        storages = [each.untyped_storage() for each in tensors if isinstance(each, Tensor)]
        size = sum(each.nbytes() for each in storages if each not in self._weights)  # views of weights take no memory
        self.output_bytes[self._layer] = max(self.output_bytes[self._layer], size)
        if size > self.build_mode.max_kept_bytes:
            raise BuildModeError("too much memory")

    def count_saved_tensor(self, tensor: Tensor) -> None:
        """Count a tensor that is saved for the backward pass, unless its memory was counted before."""
        storage = tensor.untyped_storage()
        if storage not in self._seen:
            self._seen.add(storage)  # keeps the memory alive, so that no later tensor reuses it
            self.saved_bytes[self._layer] += storage.nbytes()
            if self.saved_bytes.total() > self.build_mode.max_kept_bytes:
                raise BuildModeError("too much memory")


def _run_layers(module: nn.Module, inputs: list[Tensor], meter: _CostMeter) -> Any:
    if isinstance(module, fx.GraphModule):
        return _MeteredInterpreter(module, meter).run(*inputs)
    (value,) = inputs
    for name, child in module.named_children():  # a plain sequence of layers
        meter.set_layer(name)
        value = child(value)
    return value


class _MeteredInterpreter(fx.Interpreter):
    """Runs a graph's nodes, and counts the costs of each one for its layer."""

    def __init__(self, module: fx.GraphModule, meter: _CostMeter) -> None:
        super().__init__(module)
        self.meter = meter

    def run_node(self, n: fx.Node) -> Any:
        self.meter.set_layer(n.meta.get(LAYER_KEY, ""))
        return super().run_node(n)
