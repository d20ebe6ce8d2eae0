"""Generate text with a network that predicts next tokens, for `samples.txt`."""

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
MAX_SECONDS = 10.0  # a large network on a slow machine generates fewer tokens
MAX_PROMPT_TOKENS = 32  # from the split's first sample, at most half of it
SEPARATOR = "-" * 80


@dataclass(frozen=True)
class NextTokenPredictor:
    """Predicts the probabilities of the next token with the network of a view.

    If the target is also the network's input, the input is shifted by one step: it starts with token 0.
    """

    view: PredictionView
    target: Target  # each step of it is the next token of the field `target.next_of`

    @property
    def shifts_tokens(self) -> bool:
        """Whether the target is also the input, shifted by one step."""
        return self.target.next_of == self.target.name

    @property
    def first_sample(self) -> Tensor:
        """The tokens (1, steps) of the split's first sample, without padding."""
        split, name = self.view.split, self.target.next_of
        tokens, lengths = split.get_loss_target(name)[:1], split.tensors.get(f"{name}_lengths")
        return tokens if lengths is None else tokens[:, : int(lengths[0])]

    def predict_next(self, tokens: Tensor) -> Tensor:
        """Predict the token after each row of tokens (rows, steps): probabilities (rows, K) on the CPU.

        The network sees only the last steps, at most the length of a sample.
        """
        length = self.target.shape[0]
        context = tokens[:, max(0, tokens.shape[1] - length + self.shifts_tokens) :]
        context = pad(context, (1, 0)) if self.shifts_tokens else context
        last = context.shape[1] - 1
        # Padded because some networks accept only one length. The model is causal, so padding changes no earlier step.
        context = pad(context, (0, length - context.shape[1]))
        predictions = self.view.predict_targets(
            [self._make_input(name, context, last + 1) for name in self.view.inputs]
        )[self.target.name]
        predictions = predictions[:, last].float().cpu()
        return predictions if predictions.dim() > 1 else torch.stack([1 - predictions, predictions], 1)

    def _make_input(self, name: str, context: Tensor, steps: int) -> Tensor:
        """Make an input of the network. Inputs other than tokens and lengths are those of the split's first sample."""
        if name == self.target.next_of:
            return context
        if name == f"{self.target.next_of}_lengths":
            return torch.full((len(context),), steps)
        return self.view.split.input(name)[:1].repeat_interleave(len(context), 0)


def generate_tokens(
    predictor: NextTokenPredictor, prompt: Tensor, num_reserved: int = 0, clock: Callable[[], float] = time.monotonic
) -> list[Tensor]:
    """Generate tokens after a prompt, once for each temperature.

    The random seed is fixed, so equal networks generate equal tokens. The network's mode and PyTorch's random
    generators are restored afterwards.

    Args:
        predictor: predicts the next token.
        prompt: tokens (1, steps).
        num_reserved: the first token ids, such as padding, that are never generated.
        clock: returns the time in seconds; generation stops after `MAX_SECONDS`.

    Returns:
        Generated tokens (steps,) for each of `TEMPERATURES`, without the prompt.
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
    """Generate the text of `samples.txt`; None if the data do not define the text of each token."""
    decoder = make_decoder(view.data.get_preprocessing(target.next_of))
    if decoder is None:
        return None
    predictor = NextTokenPredictor(view, target)
    first = predictor.first_sample
    prompt = first[:, : max(1, min(MAX_PROMPT_TOKENS, first.shape[1] // 2))]
    return _format_samples(decoder, prompt[0], generate_tokens(predictor, prompt, decoder.num_reserved))


def _format_samples(decoder: TextDecoder, prompt: Tensor, token_rows: Sequence[Tensor]) -> str:
    prompt_text = decoder.decode(prompt.tolist())
    parts = [
        f"temperature {temperature}, {len(tokens)} tokens after {prompt_text!r}\n{SEPARATOR}\n"
        f"{decoder.decode([*prompt.tolist(), *tokens.tolist()])}\n"
        for temperature, tokens in zip(TEMPERATURES, token_rows, strict=True)
    ]
    return "\n\n".join(parts)
