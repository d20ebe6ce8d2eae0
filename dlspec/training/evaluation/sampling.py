"""What a network of next tokens writes when it is left to itself: `samples.txt`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dlspec.data.dataset import Target
from dlspec.data.prepare.decoding import Decoder, decoder_of
from dlspec.training.evaluation.looking import View, looking

TEMPERATURES = (0.8, 1.0)
MOST_TOKENS = 500
MOST_SECONDS = 10.0
"""On a slow machine a large network writes less: nobody waits longer for it."""
PROMPT = 32
"""So many tokens of the split's first sample, at most half of it, are what the network goes on from."""
RULE = "-" * 80


@dataclass(frozen=True)
class Speaker:
    """Gives the probabilities of the next token: what `view`'s network says of `target`, which is the next of a field.

    Where the network takes the target itself, it takes it moved by one step: 0, and then each token before.
    """

    view: View
    target: Target

    @property
    def is_moved(self) -> bool:
        return self.target.next_of == self.target.name

    @property
    def first(self) -> Tensor:
        """The tokens (1, steps) of the split's first sample that are no padding."""
        split, name = self.view.split, self.target.next_of
        tokens, lengths = split.compared(name)[:1], split.tensors.get(f"{name}_lengths")
        return tokens if lengths is None else tokens[:, : int(lengths[0])]

    def probabilities(self, tokens: Tensor) -> Tensor:
        """Of what follows each row of (rows, steps): (rows, K), on the CPU. It sees as many steps as a sample has."""
        length = self.target.shape[0]
        seen = tokens[:, max(0, tokens.shape[1] - length + self.is_moved) :]
        seen = pad(seen, (1, 0)) if self.is_moved else seen
        last = seen.shape[1] - 1
        # Some networks take one length alone; what stands behind a step changes nothing before it.
        seen = pad(seen, (0, length - seen.shape[1]))
        told = self.view.predicted([self._input(name, seen, last + 1) for name in self.view.inputs])[self.target.name]
        told = told[:, last].float().cpu()
        return told if told.dim() > 1 else torch.stack([1 - told, told], 1)

    def _input(self, name: str, seen: Tensor, steps: int) -> Tensor:
        """An input of the network; what is neither the tokens nor their lengths is the split's first sample's."""
        if name == self.target.next_of:
            return seen
        if name == f"{self.target.next_of}_lengths":
            return torch.full((len(seen),), steps)
        return self.view.split.input(name)[:1].repeat_interleave(len(seen), 0)


def write(
    speaker: Speaker, prompt: Tensor, forbidden: int = 0, clock: Callable[[], float] = time.monotonic
) -> list[Tensor]:
    """A row of tokens for each temperature, behind the `prompt` (1, steps); the first `forbidden` ids are none to say.

    Equal networks write the same. The network is left as it was, and so are PyTorch's generators.
    """
    tokens, generator, started = prompt.repeat(len(TEMPERATURES), 1), torch.Generator().manual_seed(0), clock()
    heat = torch.tensor(TEMPERATURES)[:, None]
    with looking(speaker.view.network):
        while tokens.shape[1] < prompt.shape[1] + MOST_TOKENS and clock() - started < MOST_SECONDS:
            scores = speaker.probabilities(tokens).log() / heat
            scores[:, :forbidden] = -torch.inf
            chosen = torch.multinomial(scores.softmax(1), 1, generator=generator)
            tokens = torch.cat([tokens, chosen], 1)
    return list(tokens[:, prompt.shape[1] :])


def samples_of(view: View, target: Target) -> str | None:
    """The file's text; None where nothing says what the tokens mean."""
    decoder = decoder_of(view.data.preprocessing.get(target.next_of))
    if decoder is None:
        return None
    speaker = Speaker(view, target)
    first = speaker.first
    prompt = first[:, : max(1, min(PROMPT, first.shape[1] // 2))]
    return _as_text(decoder, prompt[0], write(speaker, prompt, decoder.reserved))


def _as_text(decoder: Decoder, prompt: Tensor, written: Sequence[Tensor]) -> str:
    begun = decoder.decode(prompt.tolist())
    parts = [
        f"temperature {temperature}, {len(tokens)} tokens behind {begun!r}\n{RULE}\n"
        f"{decoder.decode([*prompt.tolist(), *tokens.tolist()])}\n"
        for temperature, tokens in zip(TEMPERATURES, written, strict=True)
    ]
    return "\n\n".join(parts)
