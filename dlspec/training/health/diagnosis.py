"""Why a batch's loss or gradients are not finite: what comes in, a weight, the loss, or the first layer to blame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn

from dlspec.data.batches.batches import Batch
from dlspec.data.batches.nests import tensors_in
from dlspec.errors import Code, Finding
from dlspec.network.codegen import LAYER, TYPE
from dlspec.training.health.finite import BadGradient, NotFinite, first_bad
from dlspec.training.protocols import Criterion, total_loss
from dlspec.training.runtime.randomness import kept_generators

SMALLER = "a smaller learning rate or trainer.clip_grad_norm may help"
SLOPES = "a root, a norm or a logarithm has no finite slope at 0: add a small number before it"
Computing = Callable[[Callable[..., Any]], Callable[..., Any]]
Weights = Iterable[tuple[str, Tensor]]
MEND = "mend that sample"


def not_finite(found: str, fix: str = SMALLER) -> Finding:
    """Where the first number that is not finite comes from, and what may help."""
    return Finding(Code.NOT_FINITE, found, fix)


@dataclass(frozen=True)
class Layer:
    """A layer by its name in the spec and the state dict, '' for the whole network."""

    name: str
    type: str

    def is_within(self, other: Layer) -> bool:
        return not other.name or self.name.startswith(f"{other.name}.")

    def __str__(self) -> str:
        return f"layer '{self.name}' ({self.type})" if self.name else f"the network ({self.type})"


@dataclass(frozen=True)
class Names:
    """What a batch's tensors are called, and which sample of the split, as `sample 3 of ...`, a row is."""

    inputs: Sequence[str]
    targets: Sequence[str]
    sample: Callable[[int], str]


@dataclass(frozen=True)
class Passing:
    """The pass of a batch through a network, in the mode that it is in, to its loss.

    `computing` turns a `forward` into one in the numbers of the run's precision.
    """

    network: nn.Module
    criterion: Criterion
    batch: Batch
    computing: Computing
    names: Names


def cause_of(bad: NotFinite, passing: Passing) -> Finding:
    """Passes the batch once more; nothing is changed by it."""
    find = _cause_of_gradient if isinstance(bad, BadGradient) else _cause_of_loss
    return find(passing, bad.rewind)


@torch.no_grad()
def _cause_of_loss(passing: Passing, rewind: Callable[[], None]) -> Finding:
    network, names, (inputs, targets) = passing.network, passing.names, passing.batch
    fix = f"{MEND}, or leave such batches out: trainer.on_nan=skip" if network.training else MEND
    brought = _brought("input", names.inputs, inputs, names.sample, fix)
    brought = brought or _brought("target", names.targets, targets, names.sample, fix)
    if brought is not None:
        return brought
    finder = _Finder()
    with _kept(network, rewind), _watched(network, finder) as forward:
        output = passing.computing(forward)(*inputs)
        if finder.found is not None:
            return finder.found
        return _of_loss(passing.criterion(output, targets), passing.criterion.term_names)


@torch.enable_grad()
def _cause_of_gradient(passing: Passing, rewind: Callable[[], None]) -> Finding:
    """Passes the batch forward and back."""
    network, (inputs, targets) = passing.network, passing.batch
    tracer = _Tracer()
    with _kept(network, rewind), torch.autograd.set_detect_anomaly(False):
        with _watched(network, tracer) as forward:
            output = passing.computing(forward)(*inputs)
        for each in tensors_in(output):
            _retain(each)
        total_loss(passing.criterion(output, targets)).backward()  # type: ignore[no-untyped-call]
        found = _bad_gradient(tensors_in(output))
        if found is not None:
            return not_finite(f"the loss is the first that gives a gradient of {found}", SLOPES)
        return tracer.cause()


@contextmanager
def _kept(network: nn.Module, rewind: Callable[[], None]) -> Iterator[None]:
    """Afterwards running statistics, gradients and random generators are as before."""
    buffers = [(each, each.clone()) for each in network.buffers()]
    gradients = [(each, each.grad) for each in network.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None
    try:
        with kept_generators():
            rewind()
            yield
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def _brought(
    kind: str, names: Sequence[str], tensors: Sequence[Tensor], sample: Callable[[int], str], fix: str
) -> Finding | None:
    """What came with the data."""
    for name, tensor in zip(names, tensors, strict=True):
        found = first_bad(tensor)
        if found is not None:
            row = next(row for row, each in enumerate(tensor) if first_bad(each) is not None)
            return not_finite(f"{kind} '{name}' has {found} in {sample(row)}", fix)
    return None


def _of_loss(loss: Tensor, names: Sequence[str]) -> Finding:
    found = first_bad(loss)
    if found is None:
        return not_finite("the same batch gives a finite loss the next time")
    bad = [name for name, each in zip(names, loss[1:] if loss.dim() else (), strict=True) if first_bad(each)]
    which = f"loss '{bad[0]}'" if bad else "the loss"
    return not_finite(f"the network's output is finite, and {which} of it is {found} (a log of 0, a division by 0)")


class _Watcher(Protocol):
    def look(self, layer: Layer, weights: Weights, inputs: Any, output: Any) -> None:
        """A layer was called; the layers within it were before it."""


class _Finder:
    """Notes the first layer whose output is not finite."""

    def __init__(self) -> None:
        self.found: Finding | None = None

    def look(self, layer: Layer, weights: Weights, inputs: Any, output: Any) -> None:
        found = None if self.found else first_bad(output)
        if found is None:
            return
        spoiled = next(((name, bad) for name, each in weights if (bad := first_bad(each)) is not None), None)
        if spoiled is not None:
            text = f"{spoiled[0]} of {layer} was {spoiled[1]} before this step"
            self.found = not_finite(text, f"{SMALLER}; trainer.debug=anomaly tells whose gradient it was, if one was")
        elif first_bad(inputs) is None:  # else another one is to blame
            self.found = not_finite(f"{layer} is the first that gives {found}")


class _Tracer:
    """Notes all calls; the gradients of what they were given and gave say who was the first on the way back."""

    def __init__(self) -> None:
        self._calls: list[tuple[Layer, list[Tensor], list[Tensor]]] = []

    def look(self, layer: Layer, weights: Weights, inputs: Any, output: Any) -> None:
        taken, given = [*tensors_in(inputs), *(each for _, each in weights)], list(tensors_in(output))
        for each in (*taken, *given):
            _retain(each)
        self._calls.append((layer, taken, given))

    def cause(self) -> Finding:
        first: tuple[Layer, float] | None = None
        for layer, taken, given in reversed(self._calls):
            found = None if _bad_gradient(given) is not None else _bad_gradient(taken)
            if found is not None and (first is None or layer.is_within(first[0])):
                first = layer, found
        if first is None:
            return not_finite("the same batch gives finite gradients the next time")
        return not_finite(f"{first[0]} is the first that gives a gradient of {first[1]}", SLOPES)


def _retain(tensor: Tensor) -> None:
    if tensor.requires_grad and not tensor.is_leaf:
        tensor.retain_grad()


def _bad_gradient(tensors: Iterable[Tensor]) -> float | None:
    """The first number in the gradients of tensors that is not finite; None where all are."""
    return first_bad([each.grad for each in tensors if (each.is_leaf or each.retains_grad) and each.grad is not None])


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a layer computes with; running statistics are changed in training, and used in evaluation alone."""
    yield from module.named_parameters()
    if not module.training:
        yield from ((name, each) for name, each in module.named_buffers() if "running_" in name)


@contextmanager
def _watched(network: nn.Module, watcher: _Watcher) -> Iterator[Callable[..., Any]]:
    """What computes the network's output; within it the watcher sees what each layer gives."""
    with ExitStack() as stack:
        for name, module in network.named_modules():
            stack.callback(module.register_forward_hook(_hook(name, watcher), with_kwargs=True).remove)
        yield _Nodes(network, watcher).run if isinstance(network, fx.GraphModule) else network


def _hook(name: str, watcher: _Watcher) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        watcher.look(Layer(name, type(module).__name__), _weights(module), (args, kwargs), output)

    return hook


class _Nodes(fx.Interpreter):
    """Runs a generated `forward` line by line: what needs no module is a layer, too."""

    def __init__(self, network: fx.GraphModule, watcher: _Watcher) -> None:
        super().__init__(network)
        self._watcher = watcher

    def run_node(self, node: fx.Node) -> Any:
        output = super().run_node(node)
        if node.op in ("call_function", "call_method", "get_attr"):
            layer = Layer(str(node.meta.get(LAYER, node.name)), str(node.meta.get(TYPE, node.target)))
            own = [("the weight", output)] if node.op == "get_attr" else []
            self._watcher.look(layer, own, [self.env[each] for each in node.all_input_nodes], output)
        return output
