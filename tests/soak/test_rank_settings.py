"""Settings under two processes: weights and results are those of one process with the same batches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dlspec.runs.io import read_json_lines
from helpers.command_line import QUIET, run_in_this_process
from helpers.image_files import make_pixels, write_image
from helpers.rank_runs import train_together

pytestmark = pytest.mark.soak
SHORT = (*QUIET, "trainer.progress=none", "trainer.test=last", "trainer.epochs=2", "trainer.limit_batches=9",
         "trainer.batch_size=16", "trainer.eval_batch_size=32", "optimizer=SGD", "optimizer.lr=0.05")  # fmt: skip
MLP = ("model=mlp", "data=digits")
IMAGES = ("model=cnn", "model.params.channels=4", "data=images", "data.path=images", "data.size=16",
          "trainer.limit_batches=null")  # fmt: skip
RUNS: dict[str, tuple[str, ...]] = {
    "augmentation": ("model=cnn", "model.params.channels=4", "data=digits",
                     "data.augment=[{RandomAffine: {degrees: 10, translate: [0.1, 0.1]}}, {RandomErasing: {p: 0.3}}]"),
    "augmented images": (*IMAGES, "data.augment=[RandomHorizontalFlip, {RandomAffine: 10}]"),
    "segments with pictures": ("model.layers=[{Conv2d: {out_channels: 11, kernel_size: 1}}]", "data=digits_segments",
                               "trainer.pictures=true", "trainer.limit_batches=4"),
    "ema": (*MLP, "trainer.average={EMA: 0.9}"),
    "swa": (*MLP, "trainer.average={SWA: 2}"),
    "accumulate": (*MLP, "trainer.accumulate=4"),
    "skip": ("model=sometimes_nan", "data=digits", "trainer.on_nan=skip", "imports=[nan_layer]"),
    "balanced": ("model=linear", "data=text_csv", "data.path=texts.csv", "trainer.sampling=balanced",
                 "model.layers=[{Embedding: 8}, Mean, {Linear: 3}]"),
    "clip and freeze": (*MLP, "trainer.clip_grad_value=0.01", "freeze=[{match: '1.*', unfreeze_at_epoch: 2}]"),
    "workers": (*IMAGES, "trainer.num_workers=2"),
    "recomputed": ("model=vit", "model.params.patch=2", "model.params.width=16", "model.params.depth=2",
                   "model.params.heads=2", "data=digits", "trainer.activation_checkpointing=['blocks.*']"),
}  # fmt: skip
# What rank 0 finds by trying.
FOUND: dict[str, tuple[str, ...]] = {
    "batch size": (*MLP, "trainer.batch_size=auto"),
    "learning rate": (*MLP, "trainer.tune=lr"),
    "fast settings": (*MLP, "trainer.tune=true"),
}
LAYER = '''
"""A layer whose output is nan in the seventh batch: of two processes, in the second one alone."""
import os
import torch
import yaml
from torch import nn
import dlspec

@dlspec.layer
class SometimesNan(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, value):
        if self.training and torch.is_grad_enabled():
            self.calls += 1
            if self.calls == 7 and os.environ.get("RANK", "1") == "1":
                return value * float("nan")
        return value
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("settings")
    for number in range(60):
        write_image(work / "images" / "ab"[number % 2] / f"{number}.png", make_pixels(16, 16, 3, number))
    rows = [f"word{row % 11} and word{row * row % 7},{'aab'[row % 3] if row % 10 else 'c'}" for row in range(200)]
    (work / "texts.csv").write_text("\n".join(["text,label", *rows, ""]))
    (work / "nan_layer.py").write_text(LAYER)
    (work / "conf/model").mkdir(parents=True)
    (work / "conf/model/sometimes_nan.yaml").write_text("layers: [Flatten, {Linear: 32}, SometimesNan, {Linear: 10}]\n")
    train_together(work, 2, {name: [*SHORT, *words] for name, words in (RUNS | FOUND).items()})
    return work


@pytest.mark.parametrize("name", RUNS)
def test_two_ranks_equal_one_process(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    alone = folder / f"{name}_alone".replace(" ", "_")
    done = run_in_this_process(*SHORT, *RUNS[name], f"hydra.run.dir={alone.name}")
    assert done.code == 0, done.err
    rows, others = (read_json_lines(each / "metrics.jsonl") for each in (folder / name, alone))
    assert len(rows) == len(others) == 2
    for row, other in zip(rows, others, strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    two, one = (load_file(each / "checkpoints/last.safetensors") for each in (folder / name, alone))
    assert two.keys() == one.keys()
    for key, each in two.items():
        torch.testing.assert_close(each, one[key], rtol=1e-5, atol=1e-6)
    two, one = (json.loads((each / "result.json").read_text())["test"] for each in (folder / name, alone))
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize("name", FOUND)
def test_rank_0_finds_settings_for_all(name: str, folder: Path) -> None:
    """The processes compare their settings before they train."""
    trainer = yaml.safe_load((folder / name / "spec.yaml").read_text())["trainer"]
    assert isinstance(trainer["batch_size"], int) and trainer["tune"] is False
    assert len(read_json_lines(folder / name / "metrics.jsonl")) == 2
