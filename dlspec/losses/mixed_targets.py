"""Which losses take the targets of samples that MixUp or CutMix mixed."""

from __future__ import annotations

from collections.abc import Sequence

from dlspec.data.augment.augmentation_settings import AugmentationTerm
from dlspec.data.augment.batch_augmentation import BatchAugmentation, is_map
from dlspec.data.dataset import Dataset, Target
from dlspec.losses.loss_matching import LossMatch


def list_mixings(data: Dataset) -> Sequence[AugmentationTerm]:
    """List MixUp and CutMix, where they are written in `data.augment`."""
    augmentation = data.augmentation
    return augmentation.mixings if isinstance(augmentation, BatchAugmentation) else ()


def explain_unmixed(match: LossMatch, mixing: str) -> str:
    """Explain why a loss can't compare an output with mixed targets; '' if it can.

    Mixed classes are probabilities, (N, K). Losses that take numbers of classes get one-hot classes otherwise.

    Args:
        match: the loss and its target.
        mixing: `MixUp` or `CutMix`.
    """
    target, loss, rule = match.target, match.term.type, match.rule
    if not isinstance(target, Target):
        return ""
    if target.kind == "numbers":
        return f"{loss} takes -1 and 1, which can't be mixed by {mixing}" if rule.numbers == "signs" else ""
    if target.shape:
        return _explain_unmixed_map(target, mixing)
    if match.term.settings.get("ignore_index", -100) >= 0:
        return f"{mixing} makes probabilities of classes, of which {loss} can't ignore any"
    is_number = rule.takes_class_numbers and loss != "CrossEntropyLoss"
    if is_number or rule.uses_signs or rule.size != "target":
        return f"{mixing} makes probabilities of classes, and {loss} takes one class for each sample"
    return ""


def _explain_unmixed_map(target: Target, mixing: str) -> str:
    if not is_map(target):
        return f"{mixing} can't mix '{target.name}', which has a class for each step"
    return "" if mixing == "CutMix" else f"{mixing} can't average '{target.name}', which has a class for each pixel"
