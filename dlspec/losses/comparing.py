"""One loss, called: with an output and its target, without padding, with several outputs, or with lengths (CTC)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dlspec.data.batches.trimming import mapped, mean_over
from dlspec.losses.matching import Match
from dlspec.losses.shapes import Padding, Shapes, Targets

Pick = Callable[[Any], Tensor]
Compare = Callable[[Any, Targets], Tensor]
Call = tuple[nn.Module, Compare]
"""The loss's module, and what gives its mean over a batch: of the network's output(s) and the batch's targets."""


@dataclass(frozen=True)
class Joint:
    """All that calling a loss needs: where its outputs are, how they are shaped, and which steps are real.

    `padding` are the real steps of the output, `target_padding` (for CTC) those of the target at `index`.
    """

    match: Match
    picks: Mapping[str, Pick]
    shapes: Shapes
    index: int = -1
    padding: Padding | None = None
    target_padding: Padding | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def pick(self) -> Pick:
        """The output that is judged."""
        return next(iter(self.picks.values()))

    def make(self, **more: Any) -> nn.Module:
        """The loss; class weights are lists in YAML and tensors to PyTorch."""
        settings = {
            name: torch.tensor(each) if isinstance(each, list) else each for name, each in self.settings.items()
        }
        loss: nn.Module = self.match.term.schema.build(**{**settings, **more})
        return loss

    @property
    def has_reduction(self) -> bool:
        """Whether it is PyTorch's, which can give its values before their mean."""
        return hasattr(nn, self.match.term.type)


def call_of(joint: Joint) -> Call:
    """How this loss is called."""
    takes = joint.match.arguments
    if joint.match.term.type == "CTCLoss":
        return _ctc(joint)
    if len(takes.outputs) > 1:
        return _several(joint)
    if joint.padding is None:
        return _plain(joint)
    if joint.match.rule.is_native:
        return _ignoring(joint, joint.padding)
    return _averaged(joint, joint.padding) if joint.has_reduction or not takes.target else _chosen(joint, joint.padding)


def _plain(joint: Joint) -> Call:
    loss, pick, shape, aim = joint.make(), joint.pick, joint.shapes.output, joint.shapes.aim
    if not joint.match.arguments.target:
        return loss, lambda output, targets: loss(pick(output))

    def compare(output: Any, targets: Targets) -> Tensor:
        given = shape(pick(output))
        value: Tensor = loss(given, aim(given, targets))
        return value

    return loss, compare


def _ignoring(joint: Joint, padding: Padding) -> Call:
    """Padded steps get the class that the loss leaves out."""
    loss, shapes, pick = joint.make(), joint.shapes, joint.pick
    ignored = int(getattr(loss, "ignore_index", -100))

    def compare(output: Any, targets: Targets) -> Tensor:
        picked = pick(output)
        given, real = shapes.output(picked), shapes.mask(padding.real(picked, targets))
        value: Tensor = loss(given, shapes.aim(given, targets).masked_fill(~real, ignored))
        return value

    return loss, compare


def _averaged(joint: Joint, padding: Padding) -> Call:
    """The loss's values where steps are real, then their mean."""
    has_target = bool(joint.match.arguments.target)
    loss = joint.make(reduction="none") if has_target else joint.make()
    by_row = joint.settings.get("reduction") == "batchmean"
    shapes, pick = joint.shapes, joint.pick

    def compare(output: Any, targets: Targets) -> Tensor:
        picked = pick(output)
        given, real = shapes.output(picked), shapes.mask(padding.real(picked, targets))
        values: Tensor = loss(given, shapes.aim(given, targets)) if has_target else given
        mean = mean_over(values, real)
        return mean * (values.numel() // real.numel()) if by_row else mean

    return loss, compare


def _chosen(joint: Joint, padding: Padding) -> Call:
    """A loss of the user's own sees the real steps alone, as rows. Choosing them waits for the device."""
    loss, shapes, pick = joint.make(), joint.shapes, joint.pick

    def compare(output: Any, targets: Targets) -> Tensor:
        picked = pick(output)
        given, real = shapes.output(picked), padding.real(picked, targets)
        wanted = shapes.aim(given, targets)
        if given.shape[: real.dim()] != real.shape:  # rows already, or channels first
            real = real.flatten() if shapes.mask is torch.flatten else real
            time = padding.time_dim if real.dim() > 1 else 0
            given, wanted = given.movedim(time, real.dim() - 1), wanted.movedim(time, real.dim() - 1)
        value: Tensor = loss(given[real], wanted[real])
        return value

    return loss, compare


def _several(joint: Joint) -> Call:
    """A loss of several outputs, given in the order of its arguments."""
    padding, shapes, takes = joint.padding, joint.shapes, joint.match.arguments
    is_averaged = padding is not None and joint.has_reduction
    loss = joint.make(reduction="none") if is_averaged else joint.make()

    def compare(output: Any, targets: Targets) -> Tensor:
        given = {name: shapes.output(pick(output)) for name, pick in joint.picks.items()}
        if takes.target:
            given[takes.target] = shapes.aim(given[takes.outputs[0]], targets)
        values: Tensor = loss(*(given[name] for name in takes.names))
        if padding is None or not is_averaged:
            return values
        return mean_over(values, shapes.mask(padding.real(joint.pick(output), targets)))

    return loss, compare


def _ctc(joint: Joint) -> Call:
    """Log-probabilities (T, N, K), target tokens (N, S) and the lengths of both; without lengths all steps are real."""
    loss, pick, index = joint.make(), joint.pick, joint.index

    def compare(output: Any, targets: Targets) -> Tensor:
        picked, tokens = pick(output), targets[index]
        lengths = [_counted(each, given, targets) for each, given in
                   ((joint.padding, picked), (joint.target_padding, tokens))]  # fmt: skip
        value: Tensor = loss(picked.transpose(0, 1), tokens, *lengths)
        return value

    return loss, compare


def _counted(padding: Padding | None, given: Tensor, targets: Targets) -> Tensor:
    steps = given.shape[1]
    if padding is None:
        return torch.full(given.shape[:1], steps, dtype=torch.int64, device=given.device)
    return mapped(targets[padding.index], padding.windows).clamp(max=steps)
