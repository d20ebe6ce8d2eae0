"""Whether a network sees the future: where the target is the next token, no output may know a later input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code
from dlspec.language.problems import Problems
from dlspec.layouts import Value
from dlspec.losses.criterion import Criterion
from dlspec.network.random_state import kept_random_state

if TYPE_CHECKING:
    from dlspec.losses.matching import Match
    from dlspec.network.builder import BuiltLayer, Network

ROWS = 2
STEPS = 16
"""So many steps are tried where a network takes any number: a long text would take a while."""
TOLERANCE = 1e-5
FIX = "take is_causal: true for attention, recurrent layers in one direction, and pad convolutions on the left alone"

Outputs = dict[str, list[Tensor]]


def check_causality(network: Network, criterion: Criterion, data: Dataset, problems: Problems) -> None:
    """Where a target is the next token of an input, or an input itself, no earlier output may know a later step.

    A network on the meta device is taken at its word.
    """
    tensors = chain(network.module.parameters(), network.module.buffers())
    place = next((each.device for each in tensors), torch.device("cpu"))
    if place.type == "meta":  # it takes numbers to see
        return
    for each in must_not_see(network, criterion, data):
        samples = {name: data.sample(name, ROWS).to(place) for name in network.inputs}
        _check(network, each, samples, problems)


@dataclass(frozen=True)
class NextToken:
    """A loss whose target is the next token, and the input of whose later steps it must not know."""

    match: Match
    tokens: str
    target: Target


def must_not_see(network: Network, criterion: Criterion, data: Dataset) -> Iterator[NextToken]:
    """What must not look ahead: each loss whose target is the next token of an input."""
    for match in (each.match for each in criterion.terms):
        target = match.target
        if not isinstance(target, Target) or len(target.shape) != 1 or target.kind != "classes":
            continue
        moved = target.name if target in data.targets else ""
        yield from (
            NextToken(match, tokens, target) for tokens in sorted({target.next_of, moved} & set(network.inputs))
        )


def _check(network: Network, looked_at: NextToken, samples: Mapping[str, Tensor], problems: Problems) -> None:
    """Changes the last of the tokens of two samples: no earlier step of the output may change.

    `samples` are the network's inputs by their names, a few rows each. The first layer that looks ahead is told.
    """
    output, tokens = next(iter(looked_at.match.names.values())), looked_at.tokens
    value = network.outputs[output].value
    if tokens not in samples or value.time_dim is None:
        return
    before = _short(samples, network)
    after = {**before, tokens: _changed(before[tokens])}
    if before[tokens].shape[1] < 2:
        return
    one, other = (_passed(network, inputs) for inputs in (before, after))
    if not _differ(_picked(one[0], output, network), _picked(other[0], output, network), value):
        return
    layer = next(
        (each for each in network.layers if _looks_ahead(each, one[1], other[1])), network.outputs[output].layer
    )
    found = f"{layer.type} sees the future: the last of '{tokens}' changes what it gives for earlier steps, "
    problems.add(Code.SEES_FUTURE, layer.path, f"{found}and '{looked_at.target.name}' is the next token", FIX)


def _short(samples: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """The samples, cut where any length will do, and each of them as long as its row."""
    short: dict[str, Tensor] = {}
    for name, each in samples.items():
        is_lengths = name.removesuffix("_lengths") in samples.keys() - {name}
        is_cut = network.any_length and each.dim() > 1 and not each.is_floating_point() and not is_lengths
        short[name] = each[:, :STEPS] if is_cut else each
    for name in short:
        whole = short.get(name.removesuffix("_lengths"))
        if name.endswith("_lengths") and whole is not None:
            short[name] = torch.full_like(short[name], whole.shape[1])
    return short


def _changed(tokens: Tensor) -> Tensor:
    """With another token at the end; 0 and 1 are in every vocabulary."""
    changed = tokens.clone()
    changed[:, -1] = torch.where(tokens[:, -1] == 1, 0, 1)
    return changed


def _passed(network: Network, inputs: Mapping[str, Tensor]) -> tuple[Any, Outputs]:
    """The network's output, and what each of its layers gave, in eval mode; nothing is drawn or trained."""
    module, seen = network.module, Outputs()
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), kept_random_state(), _watched(network.layers, seen):
            return module(*(inputs[name] for name in network.inputs)), seen
    finally:
        module.train(was_training)


@contextmanager
def _watched(layers: tuple[BuiltLayer, ...], seen: Outputs) -> Iterator[None]:
    handles = [each.module.register_forward_hook(_noting(seen.setdefault(each.name, []))) for each in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _noting(outputs: list[Tensor]) -> Any:
    def note(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output)

    return note


def _picked(output: Any, name: str, network: Network) -> Tensor:
    found: Tensor = output if len(network.outputs) == 1 else output[name]
    return found


def _looks_ahead(layer: BuiltLayer, before: Outputs, after: Outputs) -> bool:
    pairs = zip(before[layer.name], after[layer.name], strict=True)
    return layer.output.time_dim is not None and any(_differ(one, other, layer.output) for one, other in pairs)


def _differ(one: Tensor, other: Tensor, value: Value) -> bool:
    """Whether any step but the last differs."""
    dim = value.time_dim
    if dim is None or one.shape != other.shape or one.dim() <= dim or one.shape[dim] < 2:
        return False
    steps = one.shape[dim] - 1
    return not torch.allclose(one.narrow(dim, 0, steps), other.narrow(dim, 0, steps), TOLERANCE, TOLERANCE)
