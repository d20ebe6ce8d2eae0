"""Generate text with a network that predicts next tokens, for `samples.txt`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from dlspec.data.dataset import Target
from dlspec.data.lazy_array import read_rows
from dlspec.data.prepare.decoding import TextDecoder, make_decoder
from dlspec.generation.sampling import GenerationOptions, TokenSampler
from dlspec.generation.token_context import ContextFactory, TokenNetwork, find_token_inputs
from dlspec.generation.token_loop import TokenLimits, iterate_tokens
from dlspec.network.module_state import find_device
from dlspec.training.evaluation.prediction_view import PredictionView, evaluation_mode

TEMPERATURES = (0.8, 1.0)
MAX_TOKENS = 500
MAX_SECONDS = 10.0  # a large network on a slow machine generates fewer tokens
MAX_PROMPT_TOKENS = 32  # from the split's first sample, at most half of it
SEPARATOR = "-" * 80


def make_token_network(view: PredictionView, target: Target) -> TokenNetwork:
    """Describe the network of a view as one that predicts the next token of a target.

    Inputs other than tokens and lengths are those of the split's first sample.
    """
    own = find_token_inputs(target)
    field = view.data.field(own[0])
    assert field is not None and field.vocab_size is not None  # it is a field of tokens
    sample = {name: read_rows(view.split.input(name), slice(1)) for name in view.inputs if name not in own}
    device = find_device(view.network)
    return TokenNetwork(view.network, view.inputs, target, view.convert_output, device, field.vocab_size, sample)


def find_first_sample(view: PredictionView, target: Target) -> Tensor:
    """Return the tokens (1, steps) of the split's first sample, without padding."""
    name, lengths_name = find_token_inputs(target)
    tokens, lengths = view.split.get_loss_target(name)[:1], view.split.tensors.get(lengths_name)
    return tokens if lengths is None else tokens[:, : int(lengths[0])]


def generate_tokens(
    view: PredictionView,
    target: Target,
    prompt: Tensor,
    num_reserved: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> list[Tensor]:
    """Generate tokens after a prompt, once for each temperature.

    The random seed is fixed, so equal networks generate equal tokens. The network's mode and PyTorch's random
    generators are restored afterwards.

    Args:
        view: the network
        target: each step of it is the next token
        prompt: tokens (1, steps)
        num_reserved: the first token ids, such as padding, that are never generated
        clock: returns the time in seconds; generation stops after `MAX_SECONDS`

    Returns:
        Generated tokens (steps,) for each of `TEMPERATURES`, without the prompt.
    """
    samplers = [TokenSampler(GenerationOptions(temperature), [row]) for row, temperature in enumerate(TEMPERATURES)]

    def choose(probabilities: Tensor) -> Tensor:
        return torch.cat([each.choose(row[None]) for each, row in zip(samplers, probabilities, strict=True)])

    with evaluation_mode(view.network):
        network, count = make_token_network(view, target), len(TEMPERATURES)
        context = ContextFactory(network).make_context({
            name: each.repeat_interleave(count, 0) for name, each in network.sample.items()
        })  # fmt: skip
        limits = TokenLimits(MAX_TOKENS, forbidden=range(num_reserved))
        chosen = iterate_tokens(context, prompt.repeat(count, 1), choose, limits)
        return list(torch.stack(list(_stop_in_time(chosen, clock)), 1))


def _stop_in_time(chosen: Iterator[Tensor], clock: Callable[[], float]) -> Iterator[Tensor]:
    """Yield tokens until the time is over."""
    started = clock()
    for each in chosen:
        yield each
        if clock() - started >= MAX_SECONDS:
            return


def generate_samples_text(view: PredictionView, target: Target) -> str | None:
    """Generate the text of `samples.txt`; None if the data do not define the text of each token."""
    decoder = make_decoder(view.data.get_preprocessing(target.next_of))
    if decoder is None:
        return None
    first = find_first_sample(view, target)
    prompt = first[:, : max(1, min(MAX_PROMPT_TOKENS, first.shape[1] // 2))]
    return _format_samples(decoder, prompt[0], generate_tokens(view, target, prompt, decoder.num_reserved))


def _format_samples(decoder: TextDecoder, prompt: Tensor, token_rows: Sequence[Tensor]) -> str:
    prompt_text = decoder.decode(prompt.tolist())
    parts = [
        f"temperature {temperature}, {len(tokens)} tokens after {prompt_text!r}\n{SEPARATOR}\n"
        f"{decoder.decode([*prompt.tolist(), *tokens.tolist()])}\n"
        for temperature, tokens in zip(TEMPERATURES, token_rows, strict=True)
    ]
    return "\n\n".join(parts)
