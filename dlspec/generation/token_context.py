"""The tokens so far, and the probabilities of the next one: from kept steps, or from the whole window again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from dlspec.data.dataset import Target
from dlspec.formatting import first_line
from dlspec.generation.stepwise_network import StepwiseCall, StepwiseNetwork, find_difference

TRIAL_SEED = 0


def call_directly(call: Callable[..., Any], *arguments: Tensor) -> Any:
    """Call a function with its arguments, and nothing else."""
    return call(*arguments)


@dataclass(frozen=True)
class TokenNetwork:
    """A network that predicts the next token of one of its inputs.

    The input is the text itself, or, where the network reads its own target, that text after a token 0.
    """

    module: nn.Module  # in eval mode
    inputs: tuple[str, ...]  # what it takes, in order
    target: Target
    predict_targets: Callable[[Any], Mapping[str, Tensor]]  # from its output to predictions by target
    device: torch.device
    vocab_size: int  # number of different tokens
    sample: Mapping[str, Tensor]  # its other inputs for one text, (1, ...), with which single steps are tried
    call: Callable[..., Any] = call_directly  # calls the network, or a part of it, in the precision of its training

    @property
    def growing(self) -> str:
        """The input that grows by the tokens."""
        return self.own_inputs[0]

    @property
    def own_inputs(self) -> tuple[str, str]:
        """The inputs that change with each token: the growing input and its lengths."""
        return find_token_inputs(self.target)

    @property
    def reads_target(self) -> bool:
        """Whether the input is the target itself, shifted by one step."""
        return self.growing == self.target.name

    @property
    def length(self) -> int:
        """The longest input that the network was trained with."""
        return self.target.shape[0]

    def compute(self, call: Callable[..., Any], *arguments: Tensor) -> Any:
        """Call the network, or a part of it, in the precision of its training."""
        with torch.inference_mode():
            return self.call(call, *arguments)

    def predict(self, output: Any) -> Tensor:
        """Convert the network's output to the probabilities of the next token after each step, (N, S, K)."""
        probabilities = self.predict_targets(output)[self.target.name]
        is_binary = probabilities.dim() == 2
        return torch.stack([1 - probabilities, probabilities], -1) if is_binary else probabilities

    def make_inputs(self, tokens: Tensor, others: Mapping[str, Tensor], steps: int) -> list[Tensor]:
        """Make the inputs of the whole network.

        Args:
            tokens: the growing input, (N, T)
            others: the other inputs by name
            steps: how many of the tokens are real
        """
        lengths = torch.full((len(tokens),), steps)
        own = dict(zip(self.own_inputs, (tokens, lengths), strict=True))
        return [(own[name] if name in own else others[name]).to(self.device) for name in self.inputs]


def find_token_inputs(target: Target) -> tuple[str, str]:
    """Return the inputs that change with each token of a target: the one that grows, and its lengths."""
    growing = target.next_of or target.name
    return growing, f"{growing}_lengths"


class TokenContext(ABC):
    """A text that grows token by token.

    When the window of the network is full, it continues with the second half of it: the first half is forgotten.

    Args:
        network: the network
        others: its other inputs by name, (N, ...)
    """

    def __init__(self, network: TokenNetwork, others: Mapping[str, Tensor]) -> None:
        self.network, self.others = network, others
        self._tokens: Tensor | None = None  # those that the network sees, (N, T)

    def extend(self, new: Tensor) -> Tensor:
        """Append tokens (N, S), and return the probabilities (N, K) of the next one, on the CPU."""
        is_first, length = self._tokens is None, self.network.length
        if is_first and self.network.reads_target:
            new = pad(new, (1, 0))
        tokens = new if self._tokens is None else torch.cat([self._tokens, new], 1)
        restarts = is_first or tokens.shape[1] > length
        if tokens.shape[1] > length:
            tokens = tokens[:, -length:] if is_first else tokens[:, -(length // 2) :]
            if self.network.reads_target:
                tokens = pad(tokens[:, 1:], (1, 0))
        self._tokens = tokens
        return self._predict(tokens if restarts else new, restarts).float().cpu()

    def select(self, rows: Tensor) -> None:
        """Go on with some rows (int64) of the batch, which may repeat."""
        assert self._tokens is not None
        self._tokens = self._tokens[rows]
        self.others = {name: each[rows] for name, each in self.others.items()}

    @abstractmethod
    def _predict(self, new: Tensor, restarts: bool) -> Tensor:
        """Return the probabilities (N, K) after new tokens, which are all tokens if the text restarts."""


class KeptContext(TokenContext):
    """Computes only the new tokens, from what the layers kept of those before.

    Args:
        network: the network
        others: its other inputs by name, (N, ...)
        stepwise: the plan of its steps
    """

    def __init__(self, network: TokenNetwork, others: Mapping[str, Tensor], stepwise: StepwiseNetwork) -> None:
        super().__init__(network, others)
        self._stepwise = stepwise
        self._call: StepwiseCall | None = None

    def _predict(self, new: Tensor, restarts: bool) -> Tensor:
        if restarts or self._call is None:
            others = {name: each.to(self.network.device) for name, each in self.others.items()}
            self._call = self.network.compute(lambda: self._stepwise.start(others))
        output = self.network.compute(self._call.advance, new.to(self.network.device))
        return self.network.predict(output)[:, -1]

    def select(self, rows: Tensor) -> None:
        super().select(rows)
        if self._call is not None:
            with torch.inference_mode():
                self._call.select(rows.to(self.network.device))


class WholeContext(TokenContext):
    """Computes the whole window again for each token."""

    def _predict(self, new: Tensor, restarts: bool) -> Tensor:
        assert self._tokens is not None
        steps = self._tokens.shape[1]
        # Padded because some networks accept only one length. The model is causal, so padding changes no earlier step.
        padded = pad(self._tokens, (0, self.network.length - steps))
        output = self.network.compute(self.network.module, *self.network.make_inputs(padded, self.others, steps))
        return self.network.predict(output)[:, steps - 1]


class ContextFactory:
    """Chooses once how the tokens of a network are computed, and makes their contexts.

    `problem` says why the window is computed again for each token; "" if the steps are kept.

    Args:
        network: the network
        keep_steps: False to compute the window again for each token
    """

    def __init__(self, network: TokenNetwork, *, keep_steps: bool = True) -> None:
        self.network = network
        self._stepwise = StepwiseNetwork(network.module, network.inputs, network.growing)
        self.problem = "keep_steps is false"
        if keep_steps:
            self.problem = self._stepwise.problem or self._find_difference()

    def make_context(self, others: Mapping[str, Tensor]) -> TokenContext:
        """Make the context of a batch of texts.

        Args:
            others: the network's other inputs by name, (N, ...)
        """
        if self.problem:
            return WholeContext(self.network, others)
        return KeptContext(self.network, others, self._stepwise)

    def _find_difference(self) -> str:
        """Compare a window of random tokens computed in parts with the same computed as a whole."""
        network, others = self.network, self.network.sample
        generator = torch.Generator().manual_seed(TRIAL_SEED)
        tokens = torch.randint(0, network.vocab_size, (1, network.length), generator=generator)
        try:
            whole = network.compute(network.module, *network.make_inputs(tokens, others, network.length))
            return find_difference(network.predict(whole), self._compute_in_parts(tokens, others))
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            return f"its layers can't compute one more step: {first_line(error)}"

    def _compute_in_parts(self, tokens: Tensor, others: Mapping[str, Tensor]) -> Tensor:
        """Compute the first half, then two single steps, then the rest."""
        network, half = self.network, (tokens.shape[1] + 1) // 2
        singles = min(2, tokens.shape[1] - half)
        sizes = [half, *[1] * singles, tokens.shape[1] - half - singles]
        device = network.device
        call = network.compute(lambda: self._stepwise.start({name: each.to(device) for name, each in others.items()}))
        pieces = [each.to(device) for each in torch.split(tokens, sizes, 1) if each.shape[1]]
        return torch.cat([network.predict(network.compute(call.advance, each)) for each in pieces], 1)
