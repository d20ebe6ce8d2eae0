"""Lightning and skorch, used as their documentation shows."""

from __future__ import annotations

import math
import tempfile
from typing import Any

import torch
from terminal import terminal
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from turns import Turns
from works import Loss, Task

BARE = {"enable_progress_bar": False, "logger": False, "enable_checkpointing": False}


def lightning(task: Task, turns: Turns, is_bare: bool = False) -> None:
    """Its trainer as it is by default, with bar, logger and checkpoints; or `has_no_settings`, without any of them."""
    import lightning as L

    network, inputs, targets = task.start()

    class Module(L.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.total: Tensor | float = 0.0

        def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
            loss = task.work.loss(self.network(batch[0]), batch[1])
            self.total = self.total + loss.detach() * len(batch[1])
            if not is_bare:
                self.log("train_loss", loss, prog_bar=True)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters())

    class Watch(L.Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            turns.next(float(module.total) / len(targets))
            module.total = 0.0

    loader = DataLoader(TensorDataset(inputs, targets), batch_size=task.work.batch_size, shuffle=True)
    with tempfile.TemporaryDirectory() as folder, terminal():
        trainer = L.Trainer(
            max_epochs=task.most_epochs,
            accelerator="gpu" if task.device == "cuda" else "cpu",
            devices=1,
            default_root_dir=folder,
            callbacks=[Watch()],
            **(BARE if is_bare else {}),  # type: ignore[arg-type]
        )
        trainer.fit(Module(), loader)


def skorch(task: Task, turns: Turns) -> None:
    """Train with `NeuralNet.fit` on whole tensors, without a validation split, with its table of epochs."""
    from skorch import NeuralNet
    from skorch.callbacks import Callback

    network, inputs, targets = task.start()

    class Watch(Callback):  # type: ignore[misc]
        def on_epoch_begin(self, net: Any, **settings: Any) -> None:
            turns.next(net.history[-2, "train_loss"] if len(net.history) > 1 else math.nan)

    net = NeuralNet(
        network,
        criterion=Criterion,
        criterion__loss=task.work.loss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=task.work.batch_size,
        max_epochs=task.most_epochs,
        train_split=None,
        device=task.device,
        iterator_train__shuffle=True,
        callbacks=[Watch()],
    )
    with terminal():
        net.fit(inputs, targets)


class Criterion(nn.Module):
    """Wrap a loss function as the module that skorch expects."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.loss(output, target)
