"""What a network of next tokens writes when it is left to itself: `samples.txt`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dlspec.data.dataset import Target
from dlspec.data.prepare.decoding import TextDecoder, make_decoder
from dlspec.training.evaluation.prediction_view import PredictionView, evaluation_mode

TEMPERATURES = (0.8, 1.0)
MAX_TOKENS = 500
MAX_SECONDS = 10.0
"""On a slow machine a large network writes less: nobody waits longer for it."""
MAX_PROMPT_TOKENS = 32
"""So many tokens of the split's first sample, at most half of it, are what the network goes on from."""
SEPARATOR = "-" * 80


@dataclass(frozen=True)
class NextTokenPredictor:
    """Gives the probabilities of the next token: what `view`'s network says of `target`, which is the next of a field.

    Where the network takes the target itself, it takes it moved by one step: 0, and then each token before.
    """

    view: PredictionView
    target: Target

    @property
    def shifts_tokens(self) -> bool:
        return self.target.next_of == self.target.name

    @property
    def first_sample(self) -> Tensor:
        """The tokens (1, steps) of the split's first sample that are no padding."""
        split, name = self.view.split, self.target.next_of
        tokens, lengths = split.get_loss_target(name)[:1], split.tensors.get(f"{name}_lengths")
        return tokens if lengths is None else tokens[:, : int(lengths[0])]

    def predict_next(self, tokens: Tensor) -> Tensor:
        """Of what follows each row of (rows, steps): (rows, K), on the CPU. It sees as many steps as a sample has."""
        length = self.target.shape[0]
        context = tokens[:, max(0, tokens.shape[1] - length + self.shifts_tokens) :]
        context = pad(context, (1, 0)) if self.shifts_tokens else context
        last = context.shape[1] - 1
        # Some networks take one length alone; what stands behind a step changes nothing before it.
        context = pad(context, (0, length - context.shape[1]))
        predictions = self.view.predict_targets(
            [self._make_input(name, context, last + 1) for name in self.view.inputs]
        )[self.target.name]
        predictions = predictions[:, last].float().cpu()
        return predictions if predictions.dim() > 1 else torch.stack([1 - predictions, predictions], 1)

    def _make_input(self, name: str, context: Tensor, steps: int) -> Tensor:
        """An input of the network; what is neither the tokens nor their lengths is the split's first sample's."""
        if name == self.target.next_of:
            return context
        if name == f"{self.target.next_of}_lengths":
            return torch.full((len(context),), steps)
        return self.view.split.input(name)[:1].repeat_interleave(len(context), 0)


def generate_tokens(
    predictor: NextTokenPredictor, prompt: Tensor, num_reserved: int = 0, clock: Callable[[], float] = time.monotonic
) -> list[Tensor]:
    """A row of tokens for each temperature, behind the `prompt` (1, steps); the first `forbidden` ids are none to say.

    Equal networks write the same. The network is left as it was, and so are PyTorch's generators.
    """
    tokens, generator, started = prompt.repeat(len(TEMPERATURES), 1), torch.Generator().manual_seed(0), clock()
    temperatures = torch.tensor(TEMPERATURES)[:, None]
    with evaluation_mode(predictor.view.network):
        while tokens.shape[1] < prompt.shape[1] + MAX_TOKENS and clock() - started < MAX_SECONDS:
            scores = predictor.predict_next(tokens).log() / temperatures
            scores[:, :num_reserved] = -torch.inf
            chosen = torch.multinomial(scores.softmax(1), 1, generator=generator)
            tokens = torch.cat([tokens, chosen], 1)
    return list(tokens[:, prompt.shape[1] :])


def generate_samples_text(view: PredictionView, target: Target) -> str | None:
    """The file's text; None where nothing says what the tokens mean."""
    decoder = make_decoder(view.data.preprocessing.get(target.next_of))
    if decoder is None:
        return None
    predictor = NextTokenPredictor(view, target)
    first = predictor.first_sample
    prompt = first[:, : max(1, min(MAX_PROMPT_TOKENS, first.shape[1] // 2))]
    return _format_samples(decoder, prompt[0], generate_tokens(predictor, prompt, decoder.num_reserved))


def _format_samples(decoder: TextDecoder, prompt: Tensor, token_rows: Sequence[Tensor]) -> str:
    prompt_text = decoder.decode(prompt.tolist())
    parts = [
        f"temperature {temperature}, {len(tokens)} tokens behind {prompt_text!r}\n{SEPARATOR}\n"
        f"{decoder.decode([*prompt.tolist(), *tokens.tolist()])}\n"
        for temperature, tokens in zip(TEMPERATURES, token_rows, strict=True)
    ]
    return "\n\n".join(parts)
