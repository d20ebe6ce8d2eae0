"""Why a batch's loss is not finite: what comes in, the first layer that gives such numbers, a weight, or the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from dlspec.building.assembly import LAYER, TYPE
from dlspec.training.batches import Batch
from dlspec.training.criterion import Criterion
from dlspec.training.finite import first_bad
from dlspec.training.randomness import kept_generators

SMALLER = "a smaller learning rate or trainer.clip_grad_norm may help"
Computing = Callable[[Callable[..., Any]], Callable[..., Any]]
Weights = Iterable[tuple[str, Tensor]]
MEND = "mend that sample"


@dataclass(frozen=True)
class Cause:
    """Where the first number that is not finite comes from, and what may help."""

    text: str
    fix: str = SMALLER


@dataclass(frozen=True)
class Names:
    """What a batch's tensors are called, and which sample of the split, as `sample 3 of ...`, a row is."""

    inputs: Sequence[str]
    targets: Sequence[str]
    sample: Callable[[int], str]


@torch.no_grad()
def cause_of(
    network: nn.Module, criterion: Criterion, batch: Batch, names: Names, computing: Computing = lambda forward: forward
) -> Cause:
    """Passes the batch once more, in the mode that the network is in; nothing is changed by it.

    `computing` turns a `forward` into one in the numbers of the run's precision.
    """
    inputs, targets = batch
    fix = f"{MEND}, or leave such batches out: trainer.on_nan=skip" if network.training else MEND
    brought = _brought("input", names.inputs, inputs, names.sample, fix)
    brought = brought or _brought("target", names.targets, targets, names.sample, fix)
    if brought is not None:
        return brought
    finder = _Finder()
    forward = _Nodes(network, finder).run if isinstance(network, fx.GraphModule) else network
    with kept_generators(), _kept_buffers(network), _watched(network, finder):
        output = computing(forward)(*inputs)
        if finder.found is not None:
            return finder.found
        return _of_loss(criterion(output, targets), criterion.term_names)


@contextmanager
def _kept_buffers(network: nn.Module) -> Iterator[None]:
    """Afterwards running statistics are as before."""
    kept = [(each, each.clone()) for each in network.buffers()]
    try:
        yield
    finally:
        for buffer, before in kept:
            buffer.copy_(before)


def _brought(
    kind: str, names: Sequence[str], tensors: Sequence[Tensor], sample: Callable[[int], str], fix: str
) -> Cause | None:
    """What came with the data."""
    for name, tensor in zip(names, tensors, strict=True):
        found = first_bad(tensor)
        if found is not None:
            row = next(row for row, each in enumerate(tensor) if first_bad(each) is not None)
            return Cause(f"{kind} '{name}' has {found} in {sample(row)}", fix)
    return None


def _of_loss(loss: Tensor, names: Sequence[str]) -> Cause:
    found = first_bad(loss)
    if found is None:
        return Cause("the same batch gives a finite loss the next time")
    bad = [name for name, each in zip(names, loss[1:] if loss.dim() else (), strict=True) if first_bad(each)]
    which = f"loss '{bad[0]}'" if bad else "the loss"
    return Cause(f"the network's output is finite, and {which} of it is {found} (a log of 0, a division by 0)")


class _Finder:
    """Notes the first layer whose output is not finite."""

    def __init__(self) -> None:
        self.found: Cause | None = None

    def look(self, layer: str, weights: Weights, inputs: Any, output: Any) -> None:
        """A layer was called; the layers within it were before it."""
        found = None if self.found else first_bad(output)
        if found is None:
            return
        spoiled = next(((name, bad) for name, each in weights if (bad := first_bad(each)) is not None), None)
        if spoiled is not None:
            self.found = Cause(f"{spoiled[0]} of {layer} was {spoiled[1]} before this step")
        elif first_bad(inputs) is None:  # else another one is to blame
            self.found = Cause(f"{layer} is the first that gives {found}")


def _weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What a layer computes with; running statistics are changed in training, and used in evaluation alone."""
    yield from module.named_parameters()
    if not module.training:
        yield from ((name, each) for name, each in module.named_buffers() if "running_" in name)


@contextmanager
def _watched(network: nn.Module, finder: _Finder) -> Iterator[None]:
    """Within it the finder sees what each module of the network gives."""
    with ExitStack() as stack:
        for name, module in network.named_modules():
            stack.callback(module.register_forward_hook(_hook(name, finder), with_kwargs=True).remove)
        yield


def _hook(name: str, finder: _Finder) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        which = f"layer '{name}'" if name else "the network"
        finder.look(f"{which} ({type(module).__name__})", _weights(module), (args, kwargs), output)

    return hook


class _Nodes(fx.Interpreter):
    """Runs a generated `forward` line by line: what needs no module is a layer, too."""

    def __init__(self, network: fx.GraphModule, finder: _Finder) -> None:
        super().__init__(network)
        self._finder = finder

    def run_node(self, node: fx.Node) -> Any:
        output = super().run_node(node)
        if node.op in ("call_function", "call_method", "get_attr"):
            layer = f"layer '{node.meta.get(LAYER, node.name)}' ({node.meta.get(TYPE, node.target)})"
            own = [("the weight", output)] if node.op == "get_attr" else []
            self._finder.look(layer, own, [self.env[each] for each in node.all_input_nodes], output)
        return output
