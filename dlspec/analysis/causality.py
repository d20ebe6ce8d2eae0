"""Check that a network does not see the future: with the next token as target, no output may depend on later inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlspec.data.dataset import Dataset, Target
from dlspec.errors import Code
from dlspec.formatting import first_line
from dlspec.language.problems import Problems
from dlspec.layouts import TensorInfo
from dlspec.losses.criterion import Criterion
from dlspec.network.random_state import preserve_random_state

if TYPE_CHECKING:
    from dlspec.losses.loss_matching import LossMatch
    from dlspec.network.builder import BuiltLayer, Network

NUM_SAMPLES = 2
# Positions of the token that is changed, as shares of the length; the first steps and the last one are added. The last
# one finds a layer that looks far ahead, the others find one that looks ahead only at some steps.
POSITION_SHARES = (0.25, 0.5, 0.75)
MAX_NUMBERS = 2**24  # in the largest layer output of one run: 64 MiB
NOT_CHECKED = "not checked: whether the network sees the future"
TOLERANCE = 1e-5  # relative and absolute
FIX = "set is_causal: true for attention, use one direction in recurrent layers, pad convolutions only on the left"

LayerOutputs = dict[str, list[Tensor]]


def check_causality(network: Network, criterion: Criterion, data: Dataset, problems: Problems) -> tuple[str, ...]:
    """Check that outputs do not depend on later inputs, for every loss whose target is the next token of an input.

    The network is run on the whole length of the data. One on the meta device can't be run, which `summary` says.

    Args:
        network: the built network.
        criterion: all loss terms of the spec.
        data: the dataset, from which a few samples are taken.
        problems: receives a problem with the path of the first layer that sees the future.

    Returns:
        A line for the user for each loss where this can't be checked.
    """
    tensors = chain(network.module.parameters(), network.module.buffers())
    device = next((each.device for each in tensors), torch.device("cpu"))
    if device.type == "meta":  # its tensors have no numbers to compare
        return ()
    notes: list[str] = []
    for each in find_next_token_losses(network, criterion, data):
        samples = {name: data.sample(name, NUM_SAMPLES).to(device) for name in network.inputs}
        try:
            _NextTokenCheck(network, each, _set_full_lengths(samples)).run(problems)
        except _NotCheckable as error:
            notes.append(f"{NOT_CHECKED} at '{each.target.name}': {error}")
        except Exception as error:  # a layer fails for this batch, as it would in training
            reason = first_line(error, 200)
            notes.append(f"{NOT_CHECKED} at '{each.target.name}': running it failed: {type(error).__name__}: {reason}")
    return tuple(notes)


class _NotCheckable(Exception):
    """The outputs can't be compared step by step; the message says why."""


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


class _NextTokenCheck:
    """Changes single tokens of some samples, and looks for outputs at earlier steps that change with them.

    Args:
        network: the built network.
        next_token_loss: the loss whose output must not depend on later tokens.
        samples: tensors of `NUM_SAMPLES` samples by the names of the network's inputs.
    """

    def __init__(self, network: Network, next_token_loss: NextTokenLoss, samples: Mapping[str, Tensor]) -> None:
        self.network, self.loss, self.samples = network, next_token_loss, samples
        self.output = next(iter(next_token_loss.match.names.values()))

    def run(self, problems: Problems) -> None:
        """Check the positions, as many in one run as fit, and report the first layer that sees the future."""
        length = self._find_length()
        positions = choose_positions_to_change(length)
        count = max(1, MAX_NUMBERS // max(1, self.network.max_layer_outputs))
        for start in range(0, len(positions), count):
            seen = self._find_position_seen_too_early(positions[start : start + count])
            if seen is not None:
                self._report_layer_that_sees_future(seen, length, problems)
                return

    def _find_length(self) -> int:
        """Return the number of tokens of a sample; raise `_NotCheckable` where the output has no step for each."""
        tokens, value = self.samples.get(self.loss.tokens), self.network.outputs[self.output].value
        if tokens is None or tokens.dim() != 2:
            raise _NotCheckable(f"'{self.loss.tokens}' is not one token at each step")
        steps = 0 if value.time_dim is None else value.shape[value.time_dim - 1]
        if steps != tokens.shape[1]:
            raise _NotCheckable(f"the output has {steps} steps for {tokens.shape[1]} tokens")
        return steps

    def _find_position_seen_too_early(self, positions: Sequence[int]) -> int | None:
        """Return the first of the positions whose token changes an earlier output, None without one."""
        before, after = self._make_inputs(positions)
        one = _select_output(_run_network(self.network, before), self.output, self.network)
        other = _select_output(_run_network(self.network, after), self.output, self.network)
        value = self.network.outputs[self.output].value
        differing = (
            position
            for row, position in enumerate(positions)
            if _earlier_steps_differ(one[row : row + 1], other[row : row + 1], value, position)
        )
        return next(differing, None)

    def _make_inputs(self, positions: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Make a batch with a row for each position, and the same with the token at this position changed."""
        before = {name: each[torch.arange(len(positions)) % len(each)] for name, each in self.samples.items()}
        tokens = before[self.loss.tokens].clone()
        for row, position in enumerate(positions):  # 0 and 1 are in every vocabulary
            tokens[row, position] = 0 if tokens[row, position] == 1 else 1
        return before, {**before, self.loss.tokens: tokens}

    def _report_layer_that_sees_future(self, position: int, length: int, problems: Problems) -> None:
        network, outputs = self.network, (LayerOutputs(), LayerOutputs())
        for inputs, recorded in zip(self._make_inputs([position]), outputs, strict=True):
            with _record_outputs(network.layers, recorded):
                _run_network(network, inputs)
        layer = next(
            (each for each in network.layers if _looks_ahead(each, *outputs, position, length)),
            network.outputs[self.output].layer,
        )
        which = "the last token" if position == length - 1 else f"token {position}"
        found = f"{layer.type} sees the future: {which} of '{self.loss.tokens}' changes its outputs at earlier steps, "
        found += f"but '{self.loss.target.name}' is the next token"
        problems.add(Code.SEES_FUTURE, layer.path, found, _make_fix(layer.module))


def _make_fix(module: nn.Module) -> str:
    """Say what keeps a layer from seeing later steps."""
    if hasattr(module, "is_causal"):
        return "set is_causal: true"
    if getattr(module, "bidirectional", False):
        return "set bidirectional: false"
    if isinstance(module, nn.Conv1d):
        steps = module.dilation[0] * (module.kernel_size[0] - 1)
        return f"pad only on the left: insert '- ZeroPad1d: {{padding: [{steps}, 0]}}' before it, and write padding: 0"
    return FIX


def choose_positions_to_change(length: int) -> list[int]:
    """Return the positions at which a token is changed: the last one first, then some over the whole length."""
    shares = {round(share * length) for share in POSITION_SHARES}
    return sorted({each for each in {length - 1, *shares, 1, 2} if 0 < each < length}, reverse=True)


def _set_full_lengths(samples: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Set the lengths of all samples to the full length."""
    full = dict(samples)
    for name in samples:
        whole = samples.get(name.removesuffix("_lengths"))
        if name.endswith("_lengths") and whole is not None:
            full[name] = torch.full_like(samples[name], whole.shape[1])
    return full


def _run_network(network: Network, inputs: Mapping[str, Tensor]) -> Any:
    """Run the network in eval mode, and return its output; random generators and its mode are restored afterwards."""
    module = network.module
    was_training = module.training
    module.eval()
    try:
        with torch.no_grad(), preserve_random_state():
            return module(*(inputs[name] for name in network.inputs))
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


def _looks_ahead(
    layer: BuiltLayer,
    outputs_before_change: LayerOutputs,
    outputs_after_change: LayerOutputs,
    position: int,
    length: int,
) -> bool:
    """Whether a layer's outputs at steps before the changed token differ; layers with other steps are not judged."""
    dim = layer.output.time_dim
    if dim is None or layer.output.shape[dim - 1] != length:
        return False
    pairs = zip(outputs_before_change[layer.name], outputs_after_change[layer.name], strict=True)
    return any(_earlier_steps_differ(one, other, layer.output, position) for one, other in pairs)


def _earlier_steps_differ(one: Tensor, other: Tensor, output_info: TensorInfo, position: int) -> bool:
    """Return whether two tensors differ at any time step before a position."""
    dim = output_info.time_dim
    if dim is None or one.shape != other.shape or one.dim() <= dim or one.shape[dim] < position:
        return False
    return not torch.allclose(
        one.narrow(dim, 0, position), other.narrow(dim, 0, position), TOLERANCE, TOLERANCE, equal_nan=True
    )
