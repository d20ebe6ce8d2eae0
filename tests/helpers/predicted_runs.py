"""Small runs of every model on every kind of data, with the predictions that training itself computed in its test."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlspec.data.batches.tensor_tree import map_tensors
from dlspec.data.dataset import Dataset
from dlspec.errors import SpecError
from dlspec.jobs.job_setup import make_job
from dlspec.jobs.python_spec import prepare_spec

RNG = np.random.default_rng(0)
# Overrides that make a model of conf/ small; models that are not here are small as they are.
SMALL_MODELS: Mapping[str, Sequence[str]] = {
    "autoencoder": ["model.params.widths=[20,10]", "model.params.code=5"],
    "bert_base": ["model.params.width=16", "model.params.depth=1", "model.params.heads=2"],
    "cnn": ["model.params.channels=4"],
    "gpt2": ["model.params.width=16", "model.params.depth=1", "model.params.heads=2"],
    "gpt_small": ["model.params.width=16", "model.params.depth=1", "model.params.heads=2"],
    "lenet5": [],
    "linear": [],
    "llama": [f"model.params.{each}" for each in ("width=16", "depth=1", "heads=2", "kv_heads=1", "hidden=24")],
    "mlp": ["model.params.width=8"],
    "mlp_mixer": [f"model.params.{each}" for each in ("patch=4", "width=8", "depth=1", "tokens=8", "channels=8")],
    "resnet18": ["model.params.width=4", "model.params.small=true"],
    "resnet50": ["model.params.width=4", "model.params.small=true", "model.params.depths=[1,1,1,1]"],
    "seq2seq": ["model.params.embedding=8", "model.params.width=8"],
    "siamese": ["model.params.channels=[4,8]", "model.params.kernels=[5,3]", "model.params.features=16"],
    "text_cnn": ["model.params.embedding=8", "model.params.channels=4"],
    "text_gru": ["model.params.embedding=8", "model.params.width=8"],
    "text_lstm": ["model.params.embedding=8", "model.params.hidden_size=8"],
    "text_transformer": ["model.params.width=16", "model.params.depth=1", "model.params.heads=2"],
    "unet": ["model.params.width=4", "model.params.depth=2"],
    "vae": ["model.params.width=10", "model.params.code=3"],
    "vgg11": ["model.params.width=4", "model.params.hidden=16", "model.params.pooled=1"],
    "vit": [f"model.params.{each}" for each in ("patch=4", "width=8", "depth=1", "heads=2")],
    "wavenet": ["model.params.width=8", "model.params.skip=8", "model.params.depth=2", "model.params.stacks=1"],
    "wide_and_deep": ["model.params.embedding=4", "model.params.widths=[8]"],
}
# Models for targets that no model of conf/ is for.
OWN_MODELS: Mapping[str, str] = {
    "tagger": "layers:\n  - Embedding: 8\n  - LSTM: {hidden_size: 8, bidirectional: true}\n"
    "  - Linear: ${data.num_classes}\n",
}
ONE_STEP = [
    *("trainer.max_steps=1", "trainer.epochs=1", "trainer.progress=none", "trainer.curves=false"),
    *("trainer.pictures=false", "trainer.tensorboard=false", "trainer.batch_size=8", "trainer.eval_batch_size=7"),
    *("trainer.device=cpu", "optimizer.lr=0.01"),
]


@dataclass(frozen=True)
class DataCase:
    """A data set of some kind of target, small."""

    overrides: Sequence[str] = ()
    arrays: Callable[[], Any] | None = None  # data given in Python
    rows: Callable[[Path], Any] | None = None  # all rows as `Predictor.predict` takes them, None if there are none


def write_files(folder: Path) -> None:
    """Write the files that the cases read, and the models of one's own."""
    (folder / "conf" / "model").mkdir(parents=True)
    for name, text in OWN_MODELS.items():
        (folder / "conf" / "model" / f"{name}.yaml").write_text(text, encoding="utf-8")
    lines, jsonl = ["age,plan,spend,grade,joined,churned,price,topics"], []
    words = "win a free prize now or see you at lunch today my friend call me".split()
    for row in range(60):
        age, spend, plan = int(RNG.integers(18, 80)), float(RNG.integers(0, 100)), "abc"[row % 3]
        text = " ".join(RNG.choice(words, 3 + row % 5)) + f" {row}"
        topics = "|".join(["sport", "art", "war"][: row % 4]) if row % 4 else "art"
        churned = "yes" if age + spend > 95 else "no"
        lines.append(f"{age},{plan},{spend},{'LMH'[row % 3]},2024-01-{1 + row % 28:02d},{churned},{spend * 3},{topics}")
        tokens = text.split()
        jsonl.append({
            "text": text, "source": text, "label": "spam" if "win" in tokens else "ham", "tokens": tokens,
            "tags": ["N" if len(each) > 3 else "V" for each in tokens], "answer": " ".join(tokens[:2]),
            "steps": [[float(len(each)), 1.5] for each in tokens], "three": [age / 80, spend / 100, 0.5],
        })  # fmt: skip
        (folder / "reviews" / ("pos" if row % 2 else "neg")).mkdir(parents=True, exist_ok=True)
        (folder / "reviews" / ("pos" if row % 2 else "neg") / f"{row}.txt").write_text(text, encoding="utf-8")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, jsonl)) + "\n", encoding="utf-8")
    texts = "".join(f'"{each["text"]}",{each["label"]}\n' for each in jsonl)
    (folder / "texts.csv").write_text("message,kind\n" + texts, encoding="utf-8")
    (folder / "long.txt").write_text(" ".join(each["text"] for each in jsonl) * 3, encoding="utf-8")
    _write_mnist(folder / "mnist")


def _write_mnist(folder: Path) -> None:
    folder.mkdir()
    for prefix, count in (("train", 60), ("t10k", 20)):
        images, labels = RNG.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (folder / f"{prefix}-{name}-ubyte").write_bytes(head + values.tobytes())


def _read_csv(folder: Path) -> list[dict[str, str]]:
    import csv

    with (folder / "rows.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _read_jsonl(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]


def _read_digits(folder: Path) -> dict[str, Any]:
    from sklearn.datasets import load_digits

    return {"image": load_digits().images}


def _read_tumours(folder: Path) -> Any:
    from sklearn.datasets import load_breast_cancer

    return load_breast_cancer(as_frame=True).data


def _read_patients(folder: Path) -> Any:
    from sklearn.datasets import load_diabetes

    return load_diabetes(as_frame=True, scaled=False).data


def _read_mnist(folder: Path) -> Any:
    content = (folder / "mnist" / "t10k-images-idx3-ubyte").read_bytes()
    return np.frombuffer(content, np.uint8, offset=16).reshape(20, 28, 28)


def _make_arrays(**arrays: Any) -> Callable[[], Any]:
    return lambda: arrays


def table(target: str, file: str = "rows.jsonl", **columns: str) -> DataCase:
    """A table with some columns as inputs."""
    written = ", ".join(f"{name}: {kind}" for name, kind in columns.items())
    overrides = ["data=table", f"data.path={file}", f"data.target={target}", f"data.only=[{','.join(columns)}]"]
    return DataCase(
        [*overrides, f"data.columns={{{written}}}"], rows=_read_csv if file.endswith("csv") else _read_jsonl
    )


TOKENS = RNG.integers(0, 20, (60, 9))
CASES: Mapping[str, DataCase] = {
    "digits": DataCase(["data=digits", "data.limit=24"], rows=_read_digits),
    "digits to image": DataCase(["data=digits", "data.limit=24", "data.target=image"], rows=_read_digits),
    "mnist": DataCase(["data=mnist", "data.path=mnist"], rows=_read_mnist),
    "mnist to image": DataCase(["data=mnist", "data.path=mnist", "data.target=image"], rows=_read_mnist),
    "segments": DataCase(["data=digits_segments", "data.limit=24"]),
    "tumours": DataCase(["data=breast_cancer", "data.limit=24"], rows=_read_tumours),
    "tumours to features": DataCase(["data=breast_cancer", "data.target=features"], rows=_read_tumours),
    "patients": DataCase(["data=diabetes", "data.limit=24"], rows=_read_patients),
    "patients in their unit": DataCase(
        ["data=diabetes", "data.limit=24", "data.standardize_target=false"], rows=_read_patients
    ),
    "characters": DataCase(["data=text", "data.path=long.txt", "data.length=32"]),
    "bytes": DataCase(["data=text", "data.path=long.txt", "data.length=32", "data.unit=bytes"]),
    "text csv": DataCase(["data=text_csv", "data.path=texts.csv", "data.text=message", "data.label=kind"]),
    "texts to text": DataCase(
        ["data=text_csv", "data.path=texts.csv", "data.text=message", "data.label=kind", "data.target=text"]
    ),
    "lines": DataCase(["data=python_lines", "data.limit=24", "data.max_length=12"]),
    "files": DataCase(
        ["data=files", 'data.path="reviews/{label}/{n}.txt"', "data.target=label", "data.columns={text: text}"]
    ),
    "table of two classes": table("churned", "rows.csv", age="number", plan="category", spend="number", joined="date"),
    "table of three classes": table("grade", "rows.csv", age="number", spend="number"),
    "table of values": table("price", "rows.csv", age="number", plan="category", spend="number"),
    "table of labels": table("{topics: labels}", "rows.csv", age="number", spend="number"),
    "table to features": table("features", "rows.csv", age="number", spend="number"),
    "table of texts": table("label", text="text"),
    "table of tags": table("{tags: tags}", tokens="{text: {tokenizer: given}}"),
    "table of answers": table("{answer: text}", source="text"),
    "table of characters": table("label", text="{text: {tokenizer: characters}}"),
    "table of sequences": table("label", steps="numbers"),
    "table of vectors": table("{three: {numbers: {scale: none}}}", text="text"),
    "random images": DataCase(["data=random", "data.size=60", "data.shape=[3,32,32]", "data.num_classes=4"]),
    "random yes or no": DataCase(["data=random", "data.size=60", "data.shape=[1,28,28]", "data.num_classes=2"]),
    "random numbers": DataCase(["data=random", "data.size=60", "data.shape=[6]", "data.num_classes=null"]),
    "random steps": DataCase(["data=random", "data.size=60", "data.shape=[12,3]", "data.num_classes=3"]),
    "random tokens": DataCase(
        ["data=random", "data.size=60", "data.vocab_size=20", "data.length=12", "data.num_classes=3"]
    ),
    "random next tokens": DataCase(
        ["data=random", "data.size=60", "data.vocab_size=20", "data.length=16", "data.target=input"]
    ),
    "random pairs": DataCase(
        [
            "data=random",
            "data.size=60",
            "data.targets={same: {num_classes: 2}}",
            "data.fields={left: {shape: [1, 28, 28]}, right: {shape: [1, 28, 28]}}",
        ]
    ),
    "random wide and deep": DataCase(
        [
            "data=random",
            "data.size=60",
            "data.targets={label: {num_classes: 2}}",
            "data.fields={wide: {shape: [5]}, deep: {vocab_size: 20, length: 4}}",
        ]
    ),
    "random answers": DataCase(
        [
            "data=random",
            "data.size=60",
            "data.fields={source: {vocab_size: 20, length: 12}}",
            "data.targets={answer: {num_classes: 20, shape: [5]}}",
        ]
    ),
    "random maps": DataCase(
        [
            "data=random",
            "data.size=60",
            "data.fields={image: {shape: [1, 16, 16]}}",
            "data.targets={map: {num_classes: 2, shape: [16, 16]}}",
        ]
    ),
    "arrays": DataCase(arrays=_make_arrays(x=RNG.random((60, 5), np.float32), target=np.arange(60) % 3)),
    "arrays of labels": DataCase(
        arrays=_make_arrays(x=RNG.random((60, 5), np.float32), target=RNG.integers(0, 2, (60, 4)).astype(bool))
    ),
    "arrays of names": DataCase(
        arrays=_make_arrays(x=RNG.random((60, 5), np.float32), target=np.array(["no", "maybe", "yes"] * 20))
    ),
    "arrays of one-hots": DataCase(
        arrays=_make_arrays(x=RNG.random((60, 5), np.float32), target=np.eye(4, dtype=np.int64)[np.arange(60) % 4])
    ),
    "arrays of probabilities": DataCase(
        ["loss=CrossEntropyLoss"],
        _make_arrays(x=RNG.random((60, 5), np.float32), target=RNG.dirichlet(np.ones(3), 60).astype(np.float32)),
    ),
    "arrays of vectors": DataCase(
        arrays=_make_arrays(x=RNG.random((60, 5), np.float32), target=RNG.random((60, 3), np.float32))
    ),
    "arrays of tokens": DataCase(
        arrays=_make_arrays(x=TOKENS, x_lengths=RNG.integers(2, 10, 60), target=np.arange(60) % 2)
    ),
    "arrays of next tokens": DataCase(arrays=_make_arrays(x=TOKENS[:, :-1], target=TOKENS[:, 1:])),
    "arrays of tags": DataCase(
        arrays=_make_arrays(x=TOKENS, x_lengths=RNG.integers(2, 10, 60), target=RNG.integers(0, 4, (60, 9)))
    ),
}


@dataclass(frozen=True)
class PredictedRun:
    """A run that was trained and saved, with the predictions of its test."""

    folder: Path
    data: Dataset
    batches: Sequence[Mapping[str, Tensor]]  # by target, of each evaluation batch


def train_and_capture(model: str, case: DataCase, folder: Path) -> PredictedRun | None:
    """Train one step, and keep what training predicted for the test split; None if the model does not fit the data."""
    arrays = None if case.arrays is None else case.arrays()
    spec = [f"model={model}", *SMALL_MODELS.get(model, ()), *case.overrides, *ONE_STEP]
    try:
        job = make_job(prepare_spec(spec, arrays), shows_progress=False)
    except SpecError:
        return None
    folder.mkdir(parents=True)
    captured: list[Mapping[str, Tensor]] = []
    add, trainer, criterion = job.trainer.scores.add, job.trainer, job.prepared.criterion

    def keep_output(output: Any, *rest: Any) -> None:
        if trainer.state.phase == "test":
            names = [each.name for each in criterion.predicted_targets]
            found = criterion.predict(output) if names else {"": output}
            captured.append(map_tensors(Tensor.clone, found if isinstance(found, dict) else {names[0]: found}))
        add(output, *rest)

    trainer.scores.add = keep_output  # type: ignore[method-assign]
    job.run(folder)
    return PredictedRun(folder, job.prepared.data, captured)


def find_rows_of_test(encoded: Mapping[str, Tensor], data: Dataset, inputs: Sequence[str]) -> list[int]:
    """Find the rows whose tensors are those of the test split, in the order of the split."""

    def list_keys(tensors: Mapping[str, Tensor]) -> list[bytes]:
        parts = [tensors[name].contiguous().numpy() for name in inputs]
        return [b"".join(part[row].tobytes() for part in parts) for row in range(len(parts[0]))]

    found = {key: row for row, key in reversed(list(enumerate(list_keys(encoded))))}
    return [found[key] for key in list_keys({name: data.test.input(name) for name in inputs})]


def take_rows(rows: Any, chosen: Sequence[int]) -> Any:
    """Take some rows of a list, a frame, an array, or a mapping of arrays."""
    if isinstance(rows, Mapping):
        return {name: each[list(chosen)] for name, each in rows.items()}
    if isinstance(rows, list):
        return [rows[row] for row in chosen]
    return rows.iloc[list(chosen)] if hasattr(rows, "iloc") else rows[list(chosen)]


def join_batches(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, list[Tensor]]:
    """Return the predictions of each row by target; rows of different batches may differ in length."""
    return {name: [row for batch in batches for row in batch[name]] for name in batches[0]}


def are_close(found: Sequence[Tensor], expected: Sequence[Tensor]) -> bool:
    """Whether the predictions of all rows are equal to 1e-6, in the steps that both have."""
    return len(found) == len(expected) and all(
        torch.allclose(*_cut_to_shorter(one, other), rtol=1e-6, atol=1e-6)
        for one, other in zip(found, expected, strict=True)
    )


def _cut_to_shorter(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    if one.dim() == 0 or one.shape == other.shape:
        return one, other
    steps = min(len(one), len(other))
    return one[:steps], other[:steps]
