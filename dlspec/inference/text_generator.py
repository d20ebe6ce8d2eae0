"""Generate text with a finished run: what follows a prompt, or the text that the network writes for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from dlspec.data.dataset import Target, shift_right
from dlspec.data.lazy_array import read_rows
from dlspec.data.prepare.decoding import TextDecoder, make_decoder
from dlspec.data.prepare.kinds.text_target import END, FittedTextTarget
from dlspec.errors import UserError, format_value
from dlspec.generation.sampling import DEFAULT_LENGTH, GenerationOptions, TokenSampler
from dlspec.generation.token_context import ContextFactory, TokenNetwork, find_token_inputs
from dlspec.generation.token_loop import TokenLimits, iterate_tokens, search_beams
from dlspec.inference.answers.text_prediction import Predict
from dlspec.inference.answers.token_targets import TokenTargets
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.inference.rows.row_encoding import EncodedChunk

UNFINISHED = "\ufffd"  # the first bytes of a character that is not complete yet


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, as the network takes it."""

    tokens: Tensor  # (1, T)
    others: Mapping[str, Tensor]  # the network's other inputs, (1, ...)


class TextGenerator:
    """Generates text with a run whose network predicts one token after another.

    Args:
        run: the run
        target: the target whose tokens are generated
        encode_row: encodes a row as a sample
        is_written: whether the network writes a text for a row, and does not continue a text of it
        keep_steps: False to compute the whole window again for each token
    """

    def __init__(
        self,
        run: LoadedRun,
        target: Target,
        encode_row: Callable[[Mapping[str, Any]], EncodedChunk],
        *,
        is_written: bool,
        keep_steps: bool = True,
    ) -> None:
        self.run, self.encode_row, self.is_written = run, encode_row, is_written
        self.network = make_token_network(run, target)
        self._decoder = _make_text_decoder(run, target, self.is_written)
        self.contexts = ContextFactory(self.network, keep_steps=keep_steps)

    @property
    def problem(self) -> str:
        """Why the whole window is computed again for each token; "" if only the new token is."""
        return self.contexts.problem

    @property
    def prompt_column(self) -> str:
        """The column that a prompt is the text of; UserError if the network needs more than one."""
        fitted = self.run.require_preparation()
        columns = [name for plan in fitted.fields for name in plan.columns]
        if len(columns) != 1:
            found = f"the network takes {', '.join(columns)}"
            raise UserError(f"{found}, of which a prompt is only one; use predict with rows of all of them")
        return columns[0]

    def limit_tokens(self, options: GenerationOptions) -> TokenLimits:
        """Return which tokens may be generated, and how many."""
        length = options.max_length or DEFAULT_LENGTH
        if not self.is_written:
            return TokenLimits(length, forbidden=range(self._decoder.num_reserved))
        longest = self.network.length
        if options.max_length is not None and options.max_length > longest:
            found = f"max_length is {options.max_length}, but the run writes at most {longest} tokens"
            raise UserError(f"{found}; write max_length={longest}")
        has_end = isinstance(self._find_column(), FittedTextTarget)
        return TokenLimits(min(length, longest), END if has_end else None)

    def _find_column(self) -> object:
        return self.run.require_preparation().targets.get(self.network.target.name)

    def generate(self, prompt: str, options: GenerationOptions) -> Iterator[str]:
        """Generate a text piece by piece: what follows the prompt, or what the network writes for it.

        Args:
            prompt: the text
            options: how tokens are chosen

        Raises:
            UserError: if the prompt can't be read, or an option does not fit.
        """
        limits, encoded = self.limit_tokens(options), self.encode_prompt(prompt)
        given = [] if self.is_written else encoded.tokens[0].tolist()
        pieces = self._decode_pieces(given, self.iterate_ids(encoded, options, limits))
        return cut_at_stops(pieces, options.stop)

    def write_batch(
        self, predict: Predict, inputs: Sequence[Tensor], rows: Sequence[int], options: GenerationOptions
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Write a text for each row of a batch.

        Args:
            predict: predicts a batch
            inputs: the network's inputs; the text among them is replaced
            rows: the numbers of the rows, which with the seed determine what is drawn
            options: how tokens are chosen

        Returns:
            The predictions after the texts, and the tokens (N, T), 0 after the end of each text.
        """
        name, given = self.network.target.name, list(inputs)
        others = {each: tensor for each, tensor in zip(self.run.inputs, inputs, strict=True) if each != name}
        tokens, at = self._write_tokens(others, rows, options), self.run.inputs.index(name)
        given[at] = shift_right(tokens).to(given[at].device)
        return predict(given), {name: tokens}

    def _write_tokens(self, others: Mapping[str, Tensor], rows: Sequence[int], options: GenerationOptions) -> Tensor:
        limits, empty = self.limit_tokens(options), torch.zeros(len(rows), 0, dtype=torch.int64)
        if options.beams > 1:
            singles = [{name: each[at : at + 1] for name, each in others.items()} for at in range(len(rows))]
            written = [search_beams(self.contexts.make_context(each), empty[:1], options.beams, limits)
                       for each in singles]  # fmt: skip
        else:
            context, sampler = self.contexts.make_context(others), TokenSampler(options, rows)
            written = list(torch.stack(list(iterate_tokens(context, empty, sampler.choose, limits)), 1))
        return torch.stack([pad(each, (0, self.network.length - len(each))) for each in written])

    def iterate_ids(self, prompt: Prompt, options: GenerationOptions, limits: TokenLimits) -> Iterator[int]:
        """Yield the tokens after a prompt.

        Args:
            prompt: the encoded prompt
            options: how tokens are chosen
            limits: which tokens, and how many
        """
        context = self.contexts.make_context(prompt.others)
        if options.beams > 1:
            yield from search_beams(context, prompt.tokens, options.beams, limits).tolist()
            return
        sampler = TokenSampler(options, [0])
        for chosen in iterate_tokens(context, prompt.tokens, sampler.choose, limits):
            yield int(chosen)

    def encode_prompt(self, prompt: str) -> Prompt:
        """Encode a prompt; UserError if it can't be read."""
        if not prompt and not self.network.reads_target:
            found = "the prompt is empty, and the network needs a first token"
            raise UserError(f"{found}; write for example prompt={self._find_first_text()}")
        encoded = self.encode_row({self.prompt_column: prompt} if prompt else {self.prompt_column: None})
        split, network = encoded.split, self.network
        others = {name: read_rows(split.input(name)) for name in self.run.inputs if name not in network.own_inputs}
        if self.is_written:
            return Prompt(torch.zeros(1, 0, dtype=torch.int64), others)
        steps = int(split.tensors[network.own_inputs[1]][0]) - network.reads_target
        tokens = read_rows(split.get_loss_target(network.growing))[:1, :steps]
        return Prompt(tokens, others)

    def _find_first_text(self) -> str:
        """Find a text of one token that a message can suggest as a prompt."""
        texts = (self._decoder.decode([token]) for token in range(self._decoder.num_reserved, self.network.vocab_size))
        return next((text for text in texts if text.isalnum()), "TEXT")

    def _decode_pieces(self, given: list[int], ids: Iterator[int]) -> Iterator[str]:
        """Yield the text of each token, as soon as its characters are complete."""
        tokens, shown = list(given), self._decoder.decode(given)
        for token in ids:
            tokens.append(token)
            text = self._decoder.decode(tokens)
            if not text.endswith(UNFINISHED):
                yield text[len(shown) :]
                shown = text
        rest = self._decoder.decode(tokens)[len(shown) :]
        if rest:
            yield rest


def cut_at_stops(pieces: Iterator[str], stops: Sequence[str]) -> Iterator[str]:
    """Yield pieces of text up to the first of some texts, which may lie across pieces.

    Args:
        pieces: the text
        stops: the texts that end it
    """
    held = ""  # the end of the text, in which a stop may begin
    for piece in pieces:
        held += piece
        found = [held.find(stop) for stop in stops if stop in held]
        if found:
            yield held[: min(found)]
            return
        kept = max((len(stop) - 1 for stop in stops), default=0)
        ready = len(held) - kept
        if ready > 0:
            yield held[:ready]
            held = held[ready:]
    if held:
        yield held


def make_token_network(run: LoadedRun, target: Target) -> TokenNetwork:
    """Describe the network of a run as one that predicts the next token of a target."""
    own, precision = find_token_inputs(target), run.backend.precision
    field = run.data.field(own[0])
    assert field is not None and field.vocab_size is not None  # it is a field of tokens

    def call(function: Callable[..., Any], *arguments: Tensor) -> Any:
        with precision.apply_settings():
            return precision.wrap_forward(function)(*arguments)

    sample = {name: read_rows(run.data.train.input(name), slice(1)) for name in run.inputs if name not in own}
    predict = run.criterion.predict_targets
    return TokenNetwork(run.network, run.inputs, target, predict, run.device, field.vocab_size, sample, call)


def choose_target(run: LoadedRun, targets: TokenTargets) -> Target:
    """Return the only text that the run writes, else the only one that it continues; UserError if there are several."""
    written = [each for each in run.data.targets if each.name in targets.written]
    found = written or [each for each in run.data.targets if each in targets.following.values()]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"the run predicts the tokens of {', '.join(each.name for each in found)}; use predict")
    names = ", ".join(each.name for each in run.criterion.predicted_targets) or "no target"
    raise UserError(f"the run predicts {names}, not one token after another; use predict for it")


def _make_text_decoder(run: LoadedRun, target: Target, is_written: bool) -> TextDecoder:
    saved = run.data.get_preprocessing(target.name if is_written else target.next_of)
    decoder = make_decoder(saved)
    if decoder is not None:
        return decoder
    if not target.classes:
        raise UserError(f"the data of the run do not say what the tokens of {format_value(target.name)} mean")
    return TextDecoder(lambda tokens: " ".join(target.classes[token] for token in tokens))
