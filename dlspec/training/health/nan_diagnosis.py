"""Why a batch's loss or gradients are not finite: what comes in, a weight, the loss, or the first layer to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from dlspec.data.batches.batch_loader import Batch
from dlspec.data.batches.tensor_tree import iterate_tensors
from dlspec.errors import Code, Finding
from dlspec.network.codegen import LAYER_KEY, TYPE_KEY
from dlspec.training.criterion_interface import CriterionProtocol, total_loss
from dlspec.training.health.nan_checks import NotFinite, NotFiniteGradient, find_non_finite
from dlspec.training.runtime.randomness import preserve_generators

SMALLER_STEPS_FIX = "a smaller learning rate or trainer.clip_grad_norm may help"
INFINITE_SLOPE_FIX = "a root, a norm or a logarithm has no finite slope at 0: add a small number before it"
ForwardMaker = Callable[[Callable[..., Any]], Callable[..., Any]]
Weights = Iterable[tuple[str, Tensor]]
FIX_SAMPLE = "mend that sample"


def make_finding(found: str, fix: str = SMALLER_STEPS_FIX) -> Finding:
    """Where the first number that is not finite comes from, and what may help."""
    return Finding(Code.NOT_FINITE, found, fix)


@dataclass(frozen=True)
class NamedLayer:
    """A layer by its name in the spec and the state dict, '' for the whole network."""

    name: str
    type: str

    def is_within(self, other: NamedLayer) -> bool:
        return not other.name or self.name.startswith(f"{other.name}.")

    def __str__(self) -> str:
        return f"layer '{self.name}' ({self.type})" if self.name else f"the network ({self.type})"


@dataclass(frozen=True)
class BatchNames:
    """What a batch's tensors are called, and which sample of the split, as `sample 3 of ...`, a row is."""

    inputs: Sequence[str]
    targets: Sequence[str]
    sample: Callable[[int], str]


@dataclass(frozen=True)
class DiagnosedPass:
    """The pass of a batch through a network, in the mode that it is in, to its loss.

    `make_forward` turns a `forward` into one in the numbers of the run's precision.
    """

    network: nn.Module
    criterion: CriterionProtocol
    batch: Batch
    make_forward: ForwardMaker
    names: BatchNames


def find_cause(error: NotFinite, diagnosed_pass: DiagnosedPass) -> Finding:
    """Passes the batch once more; nothing is changed by it."""
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
    """Passes the batch forward and back."""
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
            return make_finding(f"the loss is the first that gives a gradient of {found}", INFINITE_SLOPE_FIX)
        return tracer.find_cause()


@contextmanager
def _preserve_state(network: nn.Module, rewind: Callable[[], None]) -> Iterator[None]:
    """Afterwards running statistics, gradients and random generators are as before."""
    buffers = [(each, each.clone()) for each in network.buffers()]
    gradients = [(each, each.grad) for each in network.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with preserve_generators():
            rewind()
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _check_batch_tensors(
    kind: str, names: Sequence[str], tensors: Sequence[Tensor], name_sample: Callable[[int], str], fix: str
) -> Finding | None:
    """What came with the data."""
    for name, tensor in zip(names, tensors, strict=True):
        found = find_non_finite(tensor)
        if found is not None:
            row = next(row for row, each in enumerate(tensor) if find_non_finite(each) is not None)
            return make_finding(f"{kind} '{name}' has {found} in {name_sample(row)}", fix)
    return None


def _blame_loss(loss: Tensor, names: Sequence[str]) -> Finding:
    found = find_non_finite(loss)
    if found is None:
        return make_finding("the same batch gives a finite loss the next time")
    bad = [name for name, each in zip(names, loss[1:] if loss.dim() else (), strict=True) if find_non_finite(each)]
    which = f"loss '{bad[0]}'" if bad else "the loss"
    return make_finding(f"the network's output is finite, and {which} of it is {found} (a log of 0, a division by 0)")


class _LayerWatcher(Protocol):
    def on_layer_call(self, layer: NamedLayer, weights: Weights, inputs: Any, output: Any) -> None:
        """A layer was called; the layers within it were before it."""


class _BadOutputFinder:
    """Notes the first layer whose output is not finite."""

    def __init__(self) -> None:
        self.found: Finding | None = None

    def on_layer_call(self, layer: NamedLayer, weights: Weights, inputs: Any, output: Any) -> None:
        found = None if self.found else find_non_finite(output)
        if found is None:
            return
        bad_weight = next(((name, bad) for name, each in weights if (bad := find_non_finite(each)) is not None), None)
        if bad_weight is not None:
            text = f"{bad_weight[0]} of {layer} was {bad_weight[1]} before this step"
            self.found = make_finding(
                text, f"{SMALLER_STEPS_FIX}; trainer.debug=anomaly tells whose gradient it was, if one was"
            )
        elif find_non_finite(inputs) is None:  # else another one is to blame
            self.found = make_finding(f"{layer} is the first that gives {found}")


class _BadGradientFinder:
    """Notes all calls; the gradients of what they were given and gave say who was the first on the way back."""

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
        first: tuple[NamedLayer, float] | None = None
        for layer, inputs_and_weights, outputs in reversed(self._calls):
            found = None if _find_bad_gradient(outputs) is not None else _find_bad_gradient(inputs_and_weights)
            if found is not None and (first is None or layer.is_within(first[0])):
                first = layer, found
        if first is None:
            return make_finding("the same batch gives finite gradients the next time")
        return make_finding(f"{first[0]} is the first that gives a gradient of {first[1]}", INFINITE_SLOPE_FIX)


def _retain_gradient(tensor: Tensor) -> None:
    if tensor.requires_grad and not tensor.is_leaf:
        tensor.retain_grad()


def _find_bad_gradient(tensors: Iterable[Tensor]) -> float | None:
    """The first number in the gradients of tensors that is not finite; None where all are."""
    return find_non_finite(
        [each.grad for each in tensors if (each.is_leaf or each.retains_grad) and each.grad is not None]
    )


def _weights_in_use(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a layer computes with; running statistics are changed in training, and used in evaluation alone."""
    yield from module.named_parameters()
    if not module.training:
        yield from ((name, each) for name, each in module.named_buffers() if "running_" in name)


@contextmanager
def _watch_layers(network: nn.Module, watcher: _LayerWatcher) -> Iterator[Callable[..., Any]]:
    """What computes the network's output; within it the watcher sees what each layer gives."""
    with ExitStack() as stack:
        for name, module in network.named_modules():
            stack.callback(module.register_forward_hook(_make_hook(name, watcher), with_kwargs=True).remove)
        yield _WatchedInterpreter(network, watcher).run if isinstance(network, fx.GraphModule) else network


def _make_hook(name: str, watcher: _LayerWatcher) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        watcher.on_layer_call(NamedLayer(name, type(module).__name__), _weights_in_use(module), (args, kwargs), output)

    return hook


class _WatchedInterpreter(fx.Interpreter):
    """Runs a generated `forward` line by line: what needs no module is a layer, too."""

    def __init__(self, network: fx.GraphModule, watcher: _LayerWatcher) -> None:
        super().__init__(network)
        self._watcher = watcher

    def run_node(self, node: fx.Node) -> Any:
        output = super().run_node(node)
        if node.op in ("call_function", "call_method", "get_attr"):
            layer = NamedLayer(str(node.meta.get(LAYER_KEY, node.name)), str(node.meta.get(TYPE_KEY, node.target)))
            own = [("the weight", output)] if node.op == "get_attr" else []
            self._watcher.on_layer_call(layer, own, [self.env[each] for each in node.all_input_nodes], output)
        return output
