"""Predict tokens one after another: a text to be written, and the token after a row's text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from dlspec.data.dataset import Split, Target, shift_right
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.lazy_array import read_rows
from dlspec.data.prepare.kinds.cells import list_cells
from dlspec.data.prepare.kinds.plain_kinds import FittedAlphabet
from dlspec.data.prepare.kinds.splitters import split_cells
from dlspec.data.prepare.kinds.text import FittedText
from dlspec.inference.answers.token_targets import TokenTargets

Predict = Callable[[Sequence[Tensor]], dict[str, Tensor]]
Tokens = NDArray[np.int64]


def find_lengths(split: Split, targets: Sequence[Target], token_targets: TokenTargets) -> dict[str, Tensor]:
    """Find the real steps (N,) of each row, by target, where rows differ in length.

    Args:
        split: the samples
        targets: the predicted targets
        token_targets: those whose tokens are predicted one after another
    """
    fields = {each.name: each.lengths for each in targets if each.lengths}
    fields |= {target.name: name for name, target in token_targets.following.items()}
    found = {name: split.tensors.get(f"{of}_lengths") for name, of in fields.items()}
    return {name: read_rows(each) for name, each in found.items() if each is not None}


# ---- a text to be written --------------------------------------------------------------------------------------------


def add_empty_targets(split: Split, targets: Sequence[Target], rows: int) -> Split:
    """Add targets of zeros that the network reads, with as many steps as they may have.

    Args:
        split: the encoded rows
        targets: the targets
        rows: the number of rows
    """
    zeros = {each.name: torch.zeros(rows, *each.shape, dtype=torch.int64) for each in targets}
    lengths = {f"{each.name}_lengths": torch.full((rows,), each.shape[0]) for each in targets}
    return Split({**split.tensors, **lengths}, {**split.targets, **zeros})


def write_greedily(
    predict: Predict, inputs: Sequence[Tensor], positions: Mapping[str, int], ends: Mapping[str, int | None]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Write texts: at each step the most probable token, until every row has its end token.

    Args:
        predict: predicts a batch
        inputs: the network's inputs
        positions: by target: the position of the text among the inputs, where it is shifted by one step
        ends: by target: the token that ends a text; None if texts have none

    Returns:
        The predictions of the last step, and the tokens (N, T) of each text.
    """
    given = list(inputs)
    tokens = {name: torch.zeros_like(given[at]) for name, at in positions.items()}
    is_ended = {name: torch.zeros(len(each), dtype=torch.bool) for name, each in tokens.items()}
    predictions: dict[str, Tensor] = {}
    for step in range(max(each.shape[1] for each in tokens.values())):
        for name, at in positions.items():
            given[at] = shift_right(tokens[name])
        predictions = predict(given)
        for name, each in tokens.items():
            if step < each.shape[1]:
                chosen = _choose_token(predictions[name][:, step])
                each[:, step] = chosen.to(each.device)
                is_ended[name] |= chosen == ends[name] if ends[name] is not None else False
        if all(bool(each.all()) for each in is_ended.values()):
            break
    return predictions, {name: each.cpu() for name, each in tokens.items()}


def _choose_token(probabilities: Tensor) -> Tensor:
    return probabilities.argmax(-1) if probabilities.dim() > 1 else (probabilities > 0.5).long()


# ---- the token after a text ------------------------------------------------------------------------------------------


def keep_ends_of_texts(
    split: Split, fitted: FittedTable, columns: Mapping[str, NDArray[Any]], following: Mapping[str, Target]
) -> Split:
    """Replace the tokens of texts by their last ones, where the network predicts the token after them.

    A text may be longer than a sample. The lengths (N,) of the fields say how many tokens are real.

    Args:
        split: the encoded rows
        fitted: what encodes rows
        columns: the cells of these rows
        following: the target that is the next token, by field
    """
    tensors, targets = dict(split.tensors), dict(split.targets)
    for plan in fitted.fields:
        target = following.get(plan.name)
        if target is None:
            continue
        steps = tensors[plan.name].shape[1]
        reads_itself = target.name == plan.name  # then the input is the text itself, shifted by one step
        tokens, lengths = _encode_ends(plan.name, plan.columns[0], fitted, columns, split, steps - reads_itself)
        tokens = pad(tokens, (0, steps - tokens.shape[1]))
        tensors[plan.name] = tokens
        tensors[f"{plan.name}_lengths"] = lengths + reads_itself
        if reads_itself:
            targets[target.name] = tensors.pop(plan.name)
    return Split(tensors, targets)


def _encode_ends(
    field: str, column: str, fitted: FittedTable, columns: Mapping[str, NDArray[Any]], split: Split, keep: int
) -> tuple[Tensor, Tensor]:
    """Return the last `keep` tokens (N, keep) of each row, and how many are real (N,)."""
    kind = fitted.inputs[column]
    if isinstance(kind, FittedAlphabet):
        ends = [kind.alphabet.encode(cell[-keep:] if keep else "")[-keep:] if cell else np.zeros(0, np.int64)
                for cell in list_cells(columns[column])]  # fmt: skip
        return _pad_tokens(ends, keep)
    if isinstance(kind, FittedText):
        words = split_cells(columns[column], kind.splitter, kind.vocabulary.lowercase)
        tokens, lengths = kind.vocabulary.encode_words([(text or [])[-keep:] if keep else [] for text in words])
        return torch.from_numpy(tokens[:, :keep]), torch.from_numpy(np.minimum(lengths, keep))
    tokens_of_field, found = read_rows(split.tensors[field]), split.tensors.get(f"{field}_lengths")
    full = torch.full((len(tokens_of_field),), tokens_of_field.shape[1])
    lengths_of_field = full if found is None else read_rows(found)
    ends = [row[:length][-keep:] if keep else row[:0]
            for row, length in zip(tokens_of_field.numpy(), lengths_of_field.tolist(), strict=True)]  # fmt: skip
    return _pad_tokens(ends, keep)


def _pad_tokens(rows: Sequence[Tokens], width: int) -> tuple[Tensor, Tensor]:
    tokens = np.zeros((len(rows), width), np.int64)
    for at, row in enumerate(rows):
        tokens[at, : len(row)] = row
    return torch.from_numpy(tokens), torch.tensor([len(row) for row in rows], dtype=torch.int64)
