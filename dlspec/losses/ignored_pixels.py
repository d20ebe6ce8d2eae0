"""Which losses can leave out the pixels of a mask that are to be ignored."""

from __future__ import annotations

from torch import nn

from dlspec.data.dataset import Target
from dlspec.data.prepare.kinds.kind import IGNORED
from dlspec.losses.loss_matching import LossMatch


def explain_counted_pixels(match: LossMatch) -> str:
    """Explain why a loss would count pixels that are to be ignored; '' if it leaves them out."""
    loss, target = match.term.type, match.target
    name = target.name if isinstance(target, Target) else ""
    if not hasattr(nn, loss):
        return f"{loss} returns one number for a batch, so pixels of '{name}' can't be ignored"
    if len(match.arguments.outputs) > 1:
        return f"{loss} compares several outputs, whose pixels can't be ignored yet"
    if isinstance(target, Target) and target.weights and not match.rule.is_cross_entropy:
        return f"{loss} can't weight samples of which pixels of '{name}' are ignored"
    if isinstance(target, Target) and target.weights and match.term.settings.get("ignore_index", IGNORED) != IGNORED:
        return f"{loss} can't weight samples and ignore both a class and pixels of '{name}'"
    return ""
