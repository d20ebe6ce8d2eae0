"""The losses of all members of a stack: cross-entropies in one operation, others one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

from dlspec.compat.torch_layers import has_hooks
from dlspec.training.criterion_interface import CriterionProtocol
from dlspec.training.stacking.member_values import MemberValues


class StackedNLLLoss(torch.autograd.Function):
    """The mean negative log-likelihood of each member, with the same bits as `nn.NLLLoss` computes."""

    @staticmethod
    def forward(logarithms: Tensor, classes: Tensor, ignored: int) -> Tensor:
        """Compute the losses (members,).

        Args:
            logarithms: the logarithms of the probabilities, (members, N, K).
            classes: (members, N), int64.
            ignored: the class that does not count.
        """
        pairs = zip(logarithms.unbind(), classes.unbind(), strict=True)
        return torch.stack([nll_loss(each, own, ignore_index=ignored) for each, own in pairs])

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        """Keep what the gradient needs.

        Args:
            context: where it is kept.
            inputs: those of `forward`.
            output: not needed.
        """
        context.save_for_backward(*inputs[:2])
        context.ignored = inputs[2]

    @staticmethod
    def backward(context: Any, *gradients: Any) -> Any:
        """Compute the gradient of the logarithms, (members, N, K): each sample that counts has an equal share."""
        logarithms, classes = context.saved_tensors
        counts = classes != context.ignored
        shares = -(gradients[0] / counts.sum(1)).unsqueeze(1) * counts
        chosen = (classes * counts).unsqueeze(2)
        return torch.zeros_like(logarithms).scatter_(2, chosen, shares.unsqueeze(2)), None, None


class StackedLoss:
    """Computes the losses of all members.

    Args:
        criteria: the criterion of each member.
    """

    def __init__(self, criteria: Sequence[CriterionProtocol]) -> None:
        self._criteria = criteria
        ignored = {_find_ignored_class(each.only_loss) for each in criteria}
        self._ignored = ignored.pop() if len(ignored) == 1 else None  # None for losses that are called one by one

    def __call__(self, outputs: MemberValues, targets: Sequence[MemberValues]) -> MemberValues:
        """Compute the loss of each member, as its criterion does.

        Args:
            outputs: the outputs of the networks.
            targets: the targets of the batches.
        """
        if self._ignored is not None and outputs.can_stack() and outputs.count_dimensions() == 2:
            classes = targets[0].stack()
            if classes.dtype == torch.int64 and classes.dim() == 2:
                logarithms = outputs.stack().log_softmax(2)
                losses = StackedNLLLoss.apply(logarithms, classes, self._ignored)  # type: ignore[no-untyped-call]
                return MemberValues(losses)
        own_targets = list(zip(*(each.split() for each in targets), strict=True)) or [()] * len(self._criteria)
        triples = zip(self._criteria, outputs.split(), own_targets, strict=True)
        return MemberValues(each=[criterion(output, own) for criterion, output, own in triples])


def _find_ignored_class(loss: nn.Module | None) -> int | None:
    """Return the class that a loss ignores if it is a mean cross-entropy without weights and smoothing; else None."""
    if type(loss) is not nn.CrossEntropyLoss or has_hooks(loss):
        return None
    is_plain = loss.weight is None and loss.reduction == "mean" and loss.label_smoothing == 0
    return loss.ignore_index if is_plain else None
