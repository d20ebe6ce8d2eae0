"""What the tests of losses compare: data of some targets, and networks of which only the outputs matter."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from dlspec.data.dataset import Dataset, Field, Split, Target
from dlspec.language.problems import Problems
from dlspec.layouts import TensorInfo
from dlspec.losses.criterion import Criterion
from dlspec.losses.criterion_setup import make_criterion
from dlspec.parts.specs.loss_spec import read_losses

ROWS = 6


def make_labels(target: Target, rows: int = ROWS, seed: int = 0) -> Tensor:
    """Made-up classes, each of them there, or numbers from 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    shape = (rows, *target.shape)
    if target.kind == "numbers":
        return torch.rand(shape, generator=generator)
    count = torch.Size(shape).numel()
    return torch.arange(count)[torch.randperm(count, generator=generator)].remainder(len(target.classes)).reshape(shape)


def make_data(*targets: Target, fields: tuple[Field, ...] = (), **tensors: Tensor) -> Dataset:
    """Data of these targets; `tensors` are those of the fields and of lengths."""
    split = Split(tensors or {"x": torch.zeros(ROWS, 4)}, {each.name: make_labels(each) for each in targets})
    return Dataset("made_up", fields or (Field("x", (4,), "features"),), targets, split, split, split)


def make_outputs(**ends: TensorInfo | tuple[TensorInfo, str]) -> Any:
    """A network of these outputs; each ends in a `Linear`, or in the layer whose name stands beside it."""
    ends_by_name: dict[str, Any] = {}
    for name, end in ends.items():
        value, layer = end if isinstance(end, tuple) else (end, "Linear")
        built = SimpleNamespace(type=layer, path=("model", "layers", name), output=value)
        ends_by_name[name] = SimpleNamespace(value=value, layer=built, end=built)
    return SimpleNamespace(outputs=ends_by_name, inputs=("x",))


def read_criterion(raw: Any, network: Any, data: Dataset) -> tuple[Criterion | None, list[tuple[str, str, str]]]:
    """The criterion of a config's `loss`, and what is wrong."""
    problems = Problems()
    terms = None if raw == "auto" else read_losses(raw, ("loss",), problems)
    criterion = None if problems else make_criterion(network, data, terms, problems)
    return criterion, [(".".join(map(str, each.path)), each.found, each.fix) for each in problems.found]


def read_valid_criterion(raw: Any, network: Any, data: Dataset) -> Criterion:
    """As `read_criterion`, where nothing may be wrong."""
    criterion, problems = read_criterion(raw, network, data)
    assert criterion is not None, problems
    return criterion


def format_case_name(row: Any) -> str:
    """A short name for a test's case; the same in every process, which a function's text is not."""
    return re.sub(r" at 0x\w+", "", str(row))[:40]


ABC = ("a", "b", "c")
LABEL, NUMBER, YES_NO = (
    Target("label", "classes", (), ABC),
    Target("value", "numbers"),
    Target("is", "classes", (), ABC[:2]),
)
PAIR = make_outputs(a=TensorInfo((4,), "features"), b=TensorInfo((4,), "features"), c=TensorInfo((4,), "features"))
ONES = make_outputs(a=TensorInfo((1,), "features"), b=(TensorInfo((1,), "features"), "Softplus"))
A, B, C = (torch.randn(ROWS, 4) for _ in range(3))
CALLS: list[tuple[dict[str, Any], Any, Target | None, Any]] = [
    ({"type": "TripletMarginLoss", "output": ["a", "b", "c"], "margin": 0.5}, PAIR, None,
     lambda o, t: functional.triplet_margin_loss(o["a"], o["b"], o["c"], 0.5)),
    ({"type": "TripletMarginLoss", "output": {"negative": "a", "anchor": "b", "positive": "c"}}, PAIR, None,
     lambda o, t: functional.triplet_margin_loss(o["b"], o["c"], o["a"])),
    ({"type": "CosineEmbeddingLoss", "output": ["a", "b"], "target": "is"}, PAIR, YES_NO,
     lambda o, t: functional.cosine_embedding_loss(o["a"], o["b"], t * 2.0 - 1)),
    ({"type": "CosineEmbeddingLoss", "output": ["a", "b"], "target": 1}, PAIR, YES_NO,
     lambda o, t: functional.cosine_embedding_loss(o["a"], o["b"], torch.ones(ROWS))),
    ({"type": "MarginRankingLoss", "output": ["a", "b"], "target": "is", "margin": 0.1}, ONES, YES_NO,
     lambda o, t: functional.margin_ranking_loss(o["a"][:, 0], o["b"][:, 0], t * 2.0 - 1, 0.1)),
    ({"type": "HingeEmbeddingLoss", "output": "b", "target": "is"}, ONES, YES_NO,
     lambda o, t: functional.hinge_embedding_loss(o["b"][:, 0], t * 2.0 - 1)),
    ({"type": "GaussianNLLLoss", "output": {"input": "a", "var": "b"}, "target": "value"}, ONES, NUMBER,
     lambda o, t: functional.gaussian_nll_loss(o["a"][:, 0], t, o["b"][:, 0])),
    ({"type": "BCEWithLogitsLoss", "output": "a", "target": 1}, ONES, NUMBER,
     lambda o, t: functional.binary_cross_entropy_with_logits(o["a"], torch.ones(ROWS, 1))),
    ({"type": "MSELoss", "output": "a", "target": 0.5}, PAIR, LABEL,
     lambda o, t: functional.mse_loss(o["a"], torch.full((ROWS, 4), 0.5))),
    ({"type": "CrossEntropyLoss", "output": "a", "target": 3}, PAIR, LABEL,
     lambda o, t: functional.cross_entropy(o["a"], torch.full((ROWS,), 3))),
    ({"type": "Mean", "output": "c"}, PAIR, LABEL, lambda o, t: o["c"].mean()),
]  # fmt: skip
