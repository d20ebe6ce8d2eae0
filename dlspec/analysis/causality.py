"""Check that a network does not see the future: with the next token as target, no output may depend on later inputs."""

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
from dlspec.layouts import TensorInfo
from dlspec.losses.criterion import Criterion
from dlspec.network.random_state import preserve_random_state

if TYPE_CHECKING:
    from dlspec.losses.loss_matching import LossMatch
    from dlspec.network.builder import BuiltLayer, Network

NUM_SAMPLES = 2
MAX_STEPS = 16  # time steps of the test input, if the network accepts any number: long texts take time
TOLERANCE = 1e-5  # relative and absolute
FIX = "set is_causal: true for attention, use one direction in recurrent layers, pad convolutions only on the left"

LayerOutputs = dict[str, list[Tensor]]


def check_causality(network: Network, criterion: Criterion, data: Dataset, problems: Problems) -> None:
    """Check that outputs do not depend on later inputs, for every loss whose target is the next token of an input.

    The network is run, so one on the meta device is not checked.

    Args:
        network: the built network.
        criterion: all loss terms of the spec.
        data: the dataset, from which a few samples are taken.
        problems: receives a problem with the path of the first layer that sees the future.
    """
    tensors = chain(network.module.parameters(), network.module.buffers())
    device = next((each.device for each in tensors), torch.device("cpu"))
    if device.type == "meta":  # its tensors have no numbers to compare
        return
    for each in find_next_token_losses(network, criterion, data):
        samples = {name: data.sample(name, NUM_SAMPLES).to(device) for name in network.inputs}
        _check_next_token_loss(network, each, samples, problems)


@dataclass(frozen=True)
class NextTokenLoss:
    """A loss whose target is the next token of one of the network's inputs."""

    match: LossMatch
    tokens: str  # the input's name
    target: Target


def find_next_token_losses(network: Network, criterion: Criterion, data: Dataset) -> Iterator[NextTokenLoss]:
    """Find the losses whose target is the next token of an input, where outputs must not depend on later inputs.

    Args:
        network: the built network.
        criterion: all loss terms of the spec.
        data: the dataset, which knows the inputs and targets by name.

    Returns:
        A loss for each pair of a loss term and such an input.
    """
    for match in (each.match for each in criterion.terms):
        target = match.target
        if not isinstance(target, Target) or len(target.shape) != 1 or target.kind != "classes":
            continue
        shifted_target = target.name if target in data.targets else ""
        yield from (
            NextTokenLoss(match, tokens, target)
            for tokens in sorted({target.next_of, shifted_target} & set(network.inputs))
        )


def _check_next_token_loss(
    network: Network, next_token_loss: NextTokenLoss, samples: Mapping[str, Tensor], problems: Problems
) -> None:
    """Change the last token of some samples, and report the first layer whose earlier output steps change with it.

    `samples` maps the names of the network's inputs to tensors of `NUM_SAMPLES` samples.
    """
    output, tokens = next(iter(next_token_loss.match.names.values())), next_token_loss.tokens
    value = network.outputs[output].value
    if tokens not in samples or value.time_dim is None:
        return
    before = _shorten_samples(samples, network)
    after = {**before, tokens: _change_last_token(before[tokens])}
    if before[tokens].shape[1] < 2:
        return
    before_outputs, after_outputs = (_run_network(network, inputs) for inputs in (before, after))
    if not _earlier_steps_differ(
        _select_output(before_outputs[0], output, network), _select_output(after_outputs[0], output, network), value
    ):
        return
    layer = next(
        (each for each in network.layers if _looks_ahead(each, before_outputs[1], after_outputs[1])),
        network.outputs[output].layer,
    )
    found = f"{layer.type} sees the future: the last token of '{tokens}' changes its outputs at earlier steps, "
    problems.add(Code.SEES_FUTURE, layer.path, f"{found}but '{next_token_loss.target.name}' is the next token", FIX)


def _shorten_samples(samples: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Cut the samples to `MAX_STEPS` if the network accepts any length, and set all lengths to the full length."""
    shortened: dict[str, Tensor] = {}
    for name, each in samples.items():
        is_lengths = name.removesuffix("_lengths") in samples.keys() - {name}
        is_cut = network.allows_trimming and each.dim() > 1 and not each.is_floating_point() and not is_lengths
        shortened[name] = each[:, :MAX_STEPS] if is_cut else each
    for name in shortened:
        whole = shortened.get(name.removesuffix("_lengths"))
        if name.endswith("_lengths") and whole is not None:
            shortened[name] = torch.full_like(shortened[name], whole.shape[1])
    return shortened


def _change_last_token(tokens: Tensor) -> Tensor:
    """Replace the last token of each sample by 0 or 1, which are in every vocabulary."""
    changed = tokens.clone()
    changed[:, -1] = torch.where(tokens[:, -1] == 1, 0, 1)
    return changed


def _run_network(network: Network, inputs: Mapping[str, Tensor]) -> tuple[Any, LayerOutputs]:
    """Run the network in eval mode, and return its output and the outputs of each layer by name.

    Random generators and the network's mode are restored afterwards.
    """
    module, layer_outputs = network.module, LayerOutputs()
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), preserve_random_state(), _record_outputs(network.layers, layer_outputs):
            return module(*(inputs[name] for name in network.inputs)), layer_outputs
    finally:
        module.train(was_training)


@contextmanager
def _record_outputs(layers: tuple[BuiltLayer, ...], layer_outputs: LayerOutputs) -> Iterator[None]:
    handles = [
        each.module.register_forward_hook(_make_recording_hook(layer_outputs.setdefault(each.name, [])))
        for each in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _make_recording_hook(outputs: list[Tensor]) -> Any:
    def record_output(module: nn.Module, given: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            outputs.append(output)

    return record_output


def _select_output(output: Any, name: str, network: Network) -> Tensor:
    found: Tensor = output if len(network.outputs) == 1 else output[name]
    return found


def _looks_ahead(layer: BuiltLayer, before: LayerOutputs, after: LayerOutputs) -> bool:
    pairs = zip(before[layer.name], after[layer.name], strict=True)
    return layer.output.time_dim is not None and any(
        _earlier_steps_differ(one, other, layer.output) for one, other in pairs
    )


def _earlier_steps_differ(one: Tensor, other: Tensor, value: TensorInfo) -> bool:
    """Return whether two tensors differ at any time step before the last one."""
    dim = value.time_dim
    if dim is None or one.shape != other.shape or one.dim() <= dim or one.shape[dim] < 2:
        return False
    steps = one.shape[dim] - 1
    return not torch.allclose(one.narrow(dim, 0, steps), other.narrow(dim, 0, steps), TOLERANCE, TOLERANCE)
