"""The examples in docs/: each yaml block with the data that a comment above it states."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from helpers.paths import ROOT

DOCS = ROOT / "docs"

EXAMPLE_SAMPLES = 60

STATED_FACTS = {"shape", "vocab_size", "length", "num_classes"}

ONE_STEP = {"max_steps": 1, "batch_size": 8, "progress": "none"}

_EXAMPLE = re.compile(
    r"((?:^<!-- [^\n]* -->\n)*)^```yaml\n(.*?)^```$(?:\n\n?^```text\n(.*?)\n^```$)?", flags=re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Example:
    """A yaml block: what its comments say of it, and the text that is shown below it."""

    place: str
    notes: Mapping[str, Any]
    text: str
    shown: str | None

    def __str__(self) -> str:
        return self.place


def find_examples(name: str, text: str) -> list[Example]:
    return [
        Example(f"{name}:{text.count(chr(10), 0, found.start(2)) + 1}", _parse_notes(found[1]), found[2], found[3])
        for found in _EXAMPLE.finditer(text)
    ]


def _parse_notes(comments: str) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    for comment in re.findall(r"^<!-- (.*) -->$", comments, flags=re.MULTILINE):
        note = yaml.safe_load(comment)
        notes |= note if isinstance(note, dict) else {note: True}
    return notes


def read_doc(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


ALL_EXAMPLES = [each for path in sorted(DOCS.glob("*.md")) for each in find_examples(path.name, read_doc(path.name))]

MODELS = [each for each in ALL_EXAMPLES if not {"refused", "not a model", "a config"} & each.notes.keys()]

CONFIGS = [each for each in ALL_EXAMPLES if "a config" in each.notes]

REFUSED = [each for each in ALL_EXAMPLES if "refused" in each.notes]


def make_arrays(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays as stated, or the facts themselves where those are all that a spec needs."""
    if facts.keys() <= STATED_FACTS:
        return {"size": EXAMPLE_SAMPLES, **facts}
    generator = np.random.default_rng(0)
    target = facts.get("target", "itself")
    extra = 1 if target == "next" else 0
    arrays: dict[str, Any] = {}
    for name, fact in facts.items():
        if name != "target":
            arrays |= _make_field(name, fact, extra, generator)
    if target == "next":
        (tokens,) = [name for name, values in arrays.items() if values.dtype == np.int64]
        arrays |= {tokens: arrays[tokens][:, :-1], "target": arrays[tokens][:, 1:]}
    else:
        arrays["target"] = _make_target(target, generator)
    return arrays


def _make_field(name: str, fact: Any, extra: int, generator: np.random.Generator) -> dict[str, Any]:
    if isinstance(fact, list):
        return {name: generator.standard_normal((EXAMPLE_SAMPLES, *fact), dtype=np.float32)}
    length = fact["length"] + extra
    tokens = generator.integers(1, fact["vocab_size"], size=(EXAMPLE_SAMPLES, length), dtype=np.int64)
    tokens[0, 0] = fact["vocab_size"] - 1
    if not fact.get("lengths"):
        return {name: tokens}
    lengths = generator.integers(2, length + 1, size=EXAMPLE_SAMPLES)
    lengths[0] = length
    tokens[np.arange(length) >= lengths[:, None]] = 0
    return {name: tokens, f"{name}_lengths": lengths}


def _make_target(fact: Any, generator: np.random.Generator) -> Any:
    if fact == "itself":
        return None
    if isinstance(fact, list):
        return generator.standard_normal((EXAMPLE_SAMPLES, *fact)).astype(np.float32)
    if "num_classes" not in fact:
        return {name: _make_target(each, generator) for name, each in fact.items()}
    shape = (EXAMPLE_SAMPLES, *fact.get("shape", []))
    return np.arange(np.prod(shape)).reshape(shape) % fact["num_classes"]
