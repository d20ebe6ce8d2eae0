"""Every model and experiment of conf/ is exported as the table of docs/export.md says, or refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dlspec as library
from dlspec.errors import UserError
from dlspec.inference.export.onnx_file import OnnxSession
from dlspec.inference.export.run_export import export_run
from dlspec.inference.loading.loaded_run import load_run
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.python_spec import prepare_spec
from helpers.docs_examples import read_doc
from helpers.predicted_runs import CASES, ONE_STEP, SMALL_MODELS, write_files

CONF = Path(library.__file__).parents[1] / "conf"
FORMS = ("onnx", "pt2")
SMALL = ["model.params.width=16", "model.params.depth=1", "model.params.heads=2"]
IMAGES = ["weights=null", "data.path=images", "data.size=16"]
# Data for each model (of `CASES`), and what makes each experiment small.
MODELS = {
    "autoencoder": "tumours to features", "bert_base": "table of texts", "cnn": "digits", "gpt2": "characters",
    "gpt_small": "bytes", "lenet5": "mnist", "linear": "table of values", "llama": "characters",
    "mlp": "table of two classes",
    "mlp_mixer": "random images", "resnet18": "random images", "resnet50": "random images", "seq2seq": "random answers",
    "siamese": "random pairs", "text_cnn": "table of characters", "text_gru": "text csv",
    "text_lstm": "table of texts", "text_transformer": "table of texts", "unet": "random maps",
    "vae": "mnist to image", "vgg11": "random images", "vit": "random images", "wavenet": "characters",
    "wide_and_deep": "random wide and deep",
}  # fmt: skip
EXPERIMENTS: Mapping[str, Sequence[str]] = {
    "article_mnist": ["data.path=mnist", "model.params.channels=4"],
    "article_text": [*CASES["text csv"].overrides, *SMALL_MODELS["text_lstm"]],
    "bert_huggingface": [*SMALL, "weights=null", *CASES["text csv"].overrides],
    "finetune_resnet18": [*IMAGES, "model.params.width=4", "freeze=['stem.*']"],
    "finetune_vit": [*IMAGES, "model.params={width: 8, depth: 5, heads: 2, patch: 8}"],
    "gpt2_huggingface": [*SMALL, "weights=null", *CASES["characters"].overrides],
    "llama_huggingface": [
        "model.params={width: 16, depth: 1, heads: 2, kv_heads: 2, hidden: 32}",
        "weights=null",
        *CASES["characters"].overrides,
    ],
    "resnet_huggingface": ["weights=null", "model.params.width=4", *CASES["random images"].overrides],
    "shakespeare_small": ["data.path=long.txt", *SMALL],
}
REFUSALS = {"seq2seq": "token by token"}
QUICK = ("linear", "onnx")  # which `make check` exports; the long tests export the rest


@dataclass(frozen=True)
class TableRow:
    """A row of the table in docs/export.md."""

    differences: Mapping[str, str]  # by format
    sizes: str  # that may differ


def read_table() -> dict[str, TableRow]:
    pattern = r"^\| (?!model )(\w+) \| [^|]+ \| ([^|]+) \| ([^|]+) \| ([^|]*) ?\|$"
    found = re.findall(pattern, read_doc("export.md"), flags=re.MULTILINE)
    return {name: TableRow({"onnx": onnx, "pt2": pt2}, sizes.strip()) for name, onnx, pt2, sizes in found}


TABLE = read_table()


def list_names(group: str) -> set[str]:
    return {each.stem for each in (CONF / group).glob("*.yaml")}


def test_every_model_and_experiment_has_its_row() -> None:
    assert set(MODELS) == list_names("model") and set(EXPERIMENTS) == list_names("experiment")
    assert set(TABLE) == {*MODELS, *EXPERIMENTS}
    assert {name for name, row in TABLE.items() if "refused" in row.differences.values()} == set(REFUSALS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_files(folder)
    numbers = np.random.default_rng(0)
    for number in range(60):
        file = folder / "images" / ("cat" if number % 2 else "dog") / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(0, 256, (20, 24, 3), np.uint8)).save(file)
    return folder


def train(name: str, folder: Path) -> Path:
    """Train two steps, once for all formats."""
    run = folder / "trained" / name
    if not run.exists():
        if name in MODELS:
            words = [f"model={name}", *SMALL_MODELS.get(name, ()), *CASES[MODELS[name]].overrides]
        else:
            words = [f"experiment={name}", *EXPERIMENTS[name]]
        run.mkdir(parents=True)
        steps = [each for each in ONE_STEP if not each.startswith(("trainer.max_steps", "optimizer.lr"))]
        spec = prepare_spec([*words, *steps, "trainer.max_steps=2", "data.validation=0.3"], None)
        make_job(spec, shows_progress=False).run(run)
    return run


def read_sizes(file: Path) -> list[str]:
    """Read from a file's own texts which sizes of its inputs may differ."""
    if file.suffix == ".onnx":
        texts = OnnxSession(file.read_bytes()).session.get_modelmeta().custom_metadata_map
    else:
        texts = {"dlspec.inputs": ""}
        torch.export.load(file, extra_files=texts)
    shapes = [each["shape"] for each in json.loads(texts["dlspec.inputs"])]
    return list(dict.fromkeys(size for shape in shapes for size in shape if isinstance(size, str)))


CHOICES = [(name, form) for name in TABLE for form in FORMS]


@pytest.mark.parametrize(
    ("name", "form"), [QUICK, *(pytest.param(*each, marks=pytest.mark.soak) for each in CHOICES if each != QUICK)]
)
def test_the_zoo_is_exported(
    name: str, form: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    run, file = load_run(str(train(name, folder)), device="cpu"), tmp_path / f"model.{form}"
    if name in REFUSALS:
        with pytest.raises(UserError, match=REFUSALS[name]):
            export_run(run, str(file))
        return
    result = export_run(run, str(file))
    assert result.check is not None
    check, sizes = result.check, ", ".join(read_sizes(file))
    print(f"| {name} | {form} | {check.largest:.1e} | {check.changed}/{check.labels} | {sizes} | {result.rows_kind} |")
    assert check.largest < 1e-6 and check.changed == 0
    assert sizes == TABLE[name].sizes
