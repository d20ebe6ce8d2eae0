"""The batches that a run trains on and is evaluated on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlspec.compat.torch_layers import is_batch_norm
from dlspec.data.batches.batch_loader import BatchLoader, BatchPlan, choose_evaluation_batch_size
from dlspec.data.batches.batch_share import BatchShare
from dlspec.data.dataset import Split
from dlspec.data.lazy_array import read_rows
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.components import Model, TrainingData, find_sampled_target
from dlspec.training.distributed import ProcessGroup


class BatchFactory:
    """Makes the batches of a run's splits on a device.

    `dtype` is the type of floating-point tensors in a batch, None to keep the type of the data.
    """

    def __init__(
        self,
        model: Model,
        data: TrainingData,
        settings: TrainerSpec,
        device: torch.device,
        dtype: torch.dtype | None,
        group: ProcessGroup | None = None,
    ) -> None:
        self._group = group or ProcessGroup()
        self._model, self._data, self._settings = model, data, settings
        self._device, self._dtype = device, dtype

    def make_training_batches(self) -> BatchLoader:
        """Make the batches of the training split."""
        # Batch normalization raises for a single sample, which has no variance: such a last batch joins the one before.
        # With several processes, each needs two samples.
        has_batch_norm = any(is_batch_norm(each) for each in self._model.network.modules())
        return self._make_batches(
            self._data.dataset.train,
            self._settings.initial_batch_size,
            min_batch_size=2 * self._group.world_size if has_batch_norm else 1,
            share=self._group.make_share(is_even=has_batch_norm),
            sampled_classes=self._find_sampled_classes(),
            buckets=self._data.dataset.buckets,
            augmentation=self._data.dataset.augmentation,
        )

    def _find_sampled_classes(self) -> Tensor | None:
        name = find_sampled_target(self._data.dataset) if self._settings.sampling else None
        return None if name is None else read_rows(self._data.dataset.train.targets[name])

    def make_evaluation_batches(self, split: Split, *, is_shared: bool = False) -> BatchLoader:
        """Make the batches of a split that is only evaluated. They are larger, unless `eval_batch_size` is set.

        Args:
            split: the samples.
            is_shared: whether each of several processes gets its own part of every batch.
        """
        batch_size, max_layer_outputs = self._settings.initial_batch_size, self._data.max_layer_outputs
        chosen = choose_evaluation_batch_size(split, self._model.inputs, batch_size, self._device, max_layer_outputs)
        share = self._group.make_share() if is_shared else BatchShare()
        return self._make_batches(split, self._settings.eval_batch_size or chosen, share=share)

    def _make_batches(self, split: Split, batch_size: int, **options: Any) -> BatchLoader:
        criterion = self._model.criterion
        plan = BatchPlan(
            batch_size,
            limit=self._settings.limit_batches,
            **options,
            trim=self._data.trim,
            trims=criterion.trims,
            fewest_steps=self._data.fewest_steps,
            dtype=self._dtype,
            workers=self._settings.num_workers,
        )
        return BatchLoader(split, self._model.inputs, criterion.target_names, plan, self._device)
