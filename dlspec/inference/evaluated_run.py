"""What an evaluation needs of a finished run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dlspec.data.dataset import Dataset
from dlspec.data.encoding.fitted_table import FittedTable
from dlspec.data.sources.source import DataSource
from dlspec.inference.evaluation_data import NewData
from dlspec.inference.evaluation_pass import Evaluator
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.training.components import Model, TrainingData


@dataclass(frozen=True)
class EvaluatedRun:
    """A finished run with the weights of one of its checkpoints."""

    folder: Path
    model: Model
    data: Dataset  # its description counts, not its samples
    source: DataSource  # the settings of its data
    settings: TrainerSpec
    fitted: FittedTable | None  # encodes new rows; None for a source of the user's own
    training_data: TrainingData  # how batches are made
    checkpoint: str
    epoch: int | None
    step: int | None
    report_batch: Callable[[int, int], None] = field(default=lambda done, total: None, kw_only=True)

    def make_evaluator(self, *, is_limited: bool) -> Evaluator:
        """Make the evaluator; `is_limited` says whether `trainer.limit_batches` limits the rows."""
        update = {"progress": "none", **({} if is_limited else {"limit_batches": None})}
        settings = self.settings.model_copy(update=update)
        return Evaluator(self.model, self.training_data, settings, report_batch=self.report_batch)

    @property
    def new_data(self) -> NewData | None:
        """How new rows become samples; None if dlspec does not know how the run's data were prepared."""
        return None if self.fitted is None else NewData(self.fitted, self.data, self.source, str(self.folder))
