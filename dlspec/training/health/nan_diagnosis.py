"""Find why a batch's loss or gradients are not finite: the data, a weight, the loss, or the first bad layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from dlspec.data.batches.prefetching import Batch
from dlspec.data.batches.tensor_tree import iterate_tensors
from dlspec.errors import Code, Finding
from dlspec.network.codegen import LAYER_KEY, TYPE_KEY
from dlspec.network.module_state import preserve_buffers
from dlspec.training.criterion_interface import CriterionProtocol, total_loss
from dlspec.training.health.nan_checks import NotFinite, NotFiniteGradient, find_non_finite
from dlspec.training.runtime.randomness import preserve_generators

SMALLER_STEPS_FIX = "a smaller learning rate or trainer.clip_grad_norm may help"
INFINITE_SLOPE_FIX = "the gradient of a root, norm or logarithm is infinite at 0: add a small number to its input"
ForwardMaker = Callable[[Callable[..., Any]], Callable[..., Any]]
Weights = Iterable[tuple[str, Tensor]]
FIX_SAMPLE = "fix that sample"


def make_nan_finding(found: str, fix: str = SMALLER_STEPS_FIX) -> Finding:
    """Make a finding about the source of the first value that is not finite."""
    return Finding(Code.NOT_FINITE, found, fix)


@dataclass(frozen=True)
class NamedLayer:
    """A layer by its name in the state dict, '' for the whole network."""

    name: str
    type: str

    def is_within(self, other: NamedLayer) -> bool:
        """Whether this layer is a submodule of another one."""
        return not other.name or self.name.startswith(f"{other.name}.")

    def __str__(self) -> str:
        return f"layer '{self.name}' ({self.type})" if self.name else f"the network ({self.type})"


@dataclass(frozen=True)
class BatchNames:
    """The names of a batch's tensors and samples, for messages."""

    inputs: Sequence[str]
    targets: Sequence[str]
    sample: Callable[[int], str]  # from a row of the batch to "sample 3 of the training split"


@dataclass(frozen=True)
class DiagnosedPass:
    """What is needed to pass a batch through the network to its loss once more."""

    network: nn.Module  # in the mode, training or evaluation, in which it failed
    criterion: CriterionProtocol
    batch: Batch
    make_forward: ForwardMaker  # wraps a `forward` so that it computes in the run's precision
    names: BatchNames


def find_cause(error: NotFinite, diagnosed_pass: DiagnosedPass) -> Finding:
    """Pass the batch through the network once more and find the cause of an error. Leaves all state unchanged."""
    find = _find_gradient_cause if isinstance(error, NotFiniteGradient) else _find_loss_cause
    return find(diagnosed_pass, error.rewind)


@torch.no_grad()
def _find_loss_cause(diagnosed_pass: DiagnosedPass, rewind: Callable[[], None]) -> Finding:
    network, names, (inputs, targets) = diagnosed_pass.network, diagnosed_pass.names, diagnosed_pass.batch
    fix = f"{FIX_SAMPLE}, or leave such batches out: trainer.on_nan=skip" if network.training else FIX_SAMPLE
    finding = _check_batch_tensors("input", names.inputs, inputs, names.sample, fix)
    finding = finding or _check_batch_tensors("target", names.targets, targets, names.sample, fix)
    if finding is not None:
        return finding
    finder = _BadOutputFinder()
    with _preserve_state(network, rewind), _watch_layers(network, finder) as forward:
        output = diagnosed_pass.make_forward(forward)(*inputs)
        if finder.found is not None:
            return finder.found
        return _blame_loss(diagnosed_pass.criterion(output, targets), diagnosed_pass.criterion.term_names)


@torch.enable_grad()
def _find_gradient_cause(diagnosed_pass: DiagnosedPass, rewind: Callable[[], None]) -> Finding:
    """Run the forward and backward pass, and find the first gradient that is not finite."""
    network, (inputs, targets) = diagnosed_pass.network, diagnosed_pass.batch
    tracer = _BadGradientFinder()
    with _preserve_state(network, rewind), torch.autograd.set_detect_anomaly(False):
        with _watch_layers(network, tracer) as forward:
            output = diagnosed_pass.make_forward(forward)(*inputs)
        for each in iterate_tensors(output):
            _retain_gradient(each)
        total_loss(diagnosed_pass.criterion(output, targets)).backward()  # type: ignore[no-untyped-call]
        found = _find_bad_gradient(iterate_tensors(output))
        if found is not None:
            return make_nan_finding(f"the loss is the first to give a gradient of {found}", INFINITE_SLOPE_FIX)
        return tracer.find_cause()


@contextmanager
def _preserve_state(network: nn.Module, rewind: Callable[[], None]) -> Iterator[None]:
    """Rewind the generators to the failed batch; restore buffers, gradients and generators afterwards."""
    gradients = [(each, each.grad) for each in network.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with preserve_buffers(network.buffers()), preserve_generators():
            rewind()
            yield
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _check_batch_tensors(
    kind: str, names: Sequence[str], tensors: Sequence[Tensor], name_sample: Callable[[int], str], fix: str
) -> Finding | None:
    """Return a finding if an input or target is not finite."""
    for name, tensor in zip(names, tensors, strict=True):
        found = find_non_finite(tensor)
        if found is not None:
            row = next(row for row, each in enumerate(tensor) if find_non_finite(each) is not None)
            return make_nan_finding(f"{kind} '{name}' has {found} in {name_sample(row)}", fix)
    return None


def _blame_loss(loss: Tensor, names: Sequence[str]) -> Finding:
    found = find_non_finite(loss)
    if found is None:
        return make_nan_finding("the loss of the same batch is finite when computed again")
    bad = [name for name, each in zip(names, loss[1:] if loss.dim() else (), strict=True) if find_non_finite(each)]
    which = f"loss '{bad[0]}'" if bad else "the loss"
    return make_nan_finding(
        f"the network's output is finite, but {which} is {found} (a logarithm of 0 or a division by 0)"
    )


class _LayerWatcher(Protocol):
    def on_layer_call(self, layer: NamedLayer, weights: Weights, inputs: Any, output: Any) -> None:
        """Receive a layer's call; the calls of its submodules come first."""


class _BadOutputFinder:
    """Finds the first layer whose output is not finite."""

    def __init__(self) -> None:
        self.found: Finding | None = None

    def on_layer_call(self, layer: NamedLayer, weights: Weights, inputs: Any, output: Any) -> None:
        found = None if self.found else find_non_finite(output)
        if found is None:
            return
        bad_weight = next(((name, bad) for name, each in weights if (bad := find_non_finite(each)) is not None), None)
        if bad_weight is not None:
            text = f"{bad_weight[0]} of {layer} was {bad_weight[1]} before this step"
            self.found = make_nan_finding(
                text, f"{SMALLER_STEPS_FIX}; trainer.debug=anomaly finds the layer if a gradient was the cause"
            )
        elif find_non_finite(inputs) is None:  # otherwise an earlier layer is the cause
            self.found = make_nan_finding(f"{layer} is the first to output {found}")


class _BadGradientFinder:
    """Records all calls. After the backward pass it finds the first layer with finite gradients of its outputs only."""

    def __init__(self) -> None:
        self._calls: list[tuple[NamedLayer, list[Tensor], list[Tensor]]] = []

    def on_layer_call(self, layer: NamedLayer, weights: Weights, inputs: Any, output: Any) -> None:
        inputs_and_weights, outputs = (
            [*iterate_tensors(inputs), *(each for _, each in weights)],
            list(iterate_tensors(output)),
        )
        for each in (*inputs_and_weights, *outputs):
            _retain_gradient(each)
        self._calls.append((layer, inputs_and_weights, outputs))

    def find_cause(self) -> Finding:
        """Return the innermost layer that turns finite gradients into ones that are not finite."""
        first: tuple[NamedLayer, float] | None = None
        for layer, inputs_and_weights, outputs in reversed(self._calls):
            found = None if _find_bad_gradient(outputs) is not None else _find_bad_gradient(inputs_and_weights)
            if found is not None and (first is None or layer.is_within(first[0])):
                first = layer, found
        if first is None:
            return make_nan_finding("the gradients of the same batch are finite when computed again")
        return make_nan_finding(f"{first[0]} is the first to give a gradient of {first[1]}", INFINITE_SLOPE_FIX)


def _retain_gradient(tensor: Tensor) -> None:
    if tensor.requires_grad and not tensor.is_leaf:
        tensor.retain_grad()


def _find_bad_gradient(tensors: Iterable[Tensor]) -> float | None:
    """Return the first value that is not finite in the gradients of tensors; None if all are finite."""
    return find_non_finite(
        [each.grad for each in tensors if (each.is_leaf or each.retains_grad) and each.grad is not None]
    )


def _named_weights_and_statistics(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield a layer's parameters, and in evaluation also its running statistics, which only evaluation reads."""
    yield from module.named_parameters()
    if not module.training:
        yield from ((name, each) for name, each in module.named_buffers() if "running_" in name)


@contextmanager
def _watch_layers(network: nn.Module, watcher: _LayerWatcher) -> Iterator[Callable[..., Any]]:
    """Yield a function that computes the network's output and passes each layer's call to the watcher."""
    with ExitStack() as stack:
        for name, module in network.named_modules():
            stack.callback(module.register_forward_hook(_make_hook(name, watcher), with_kwargs=True).remove)
        yield _WatchedInterpreter(network, watcher).run if isinstance(network, fx.GraphModule) else network


def _make_hook(name: str, watcher: _LayerWatcher) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        watcher.on_layer_call(
            NamedLayer(name, type(module).__name__), _named_weights_and_statistics(module), (args, kwargs), output
        )

    return hook


class _WatchedInterpreter(fx.Interpreter):
    """Runs a generated `forward` node by node, to watch layers without a module, too, such as formulas."""

    def __init__(self, network: fx.GraphModule, watcher: _LayerWatcher) -> None:
        super().__init__(network)
        self._watcher = watcher

    def run_node(self, node: fx.Node) -> Any:
        output = super().run_node(node)
        if node.op in ("call_function", "call_method", "get_attr"):
            layer = NamedLayer(str(node.meta.get(LAYER_KEY, node.name)), str(node.meta.get(TYPE_KEY, node.target)))
            weights = [("the weight", output)] if node.op == "get_attr" else []
            self._watcher.on_layer_call(layer, weights, [self.env[each] for each in node.all_input_nodes], output)
        return output
