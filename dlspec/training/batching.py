"""Which batches a run trains on and is evaluated on."""

from __future__ import annotations

import torch

from dlspec.compat.torch_layers import is_batch_norm
from dlspec.data.batches.batches import Batches, BatchPlan, chosen_batch_size
from dlspec.data.dataset import Split
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.components import Model, TrainingData


class BatchMaker:
    """Makes the batches of a run's splits, on `device`, their numbers of type `dtype`."""

    def __init__(
        self,
        model: Model,
        data: TrainingData,
        settings: TrainerSpec,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        self._model, self._data, self._settings = model, data, settings
        self._device, self._dtype = device, dtype

    def for_training(self) -> Batches:
        """The training split's."""
        # Batch normalisation has no variance of a single sample and raises: such a last batch joins the one before.
        normalises = any(is_batch_norm(each) for each in self._model.network.modules())
        return self._make(self._data.dataset.train, self._settings.rows, smallest=2 if normalises else 1)

    def for_evaluation(self, split: Split) -> Batches:
        """A split's that is only evaluated: larger ones, unless the settings say otherwise."""
        rows, widest = self._settings.rows, self._data.widest
        chosen = chosen_batch_size(split, self._model.inputs, rows, self._device, widest)
        return self._make(split, self._settings.eval_batch_size or chosen)

    def _make(self, split: Split, batch_size: int, smallest: int = 1) -> Batches:
        criterion = self._model.criterion
        plan = BatchPlan(
            batch_size,
            limit=self._settings.limit_batches,
            smallest=smallest,
            trim=self._data.trim,
            trims=criterion.trims,
            fewest_steps=self._data.fewest_steps,
            dtype=self._dtype,
            workers=self._settings.num_workers,
        )
        return Batches(split, self._model.inputs, criterion.target_names, plan, self._device)
