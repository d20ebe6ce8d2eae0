"""Right specs, and what a careless or hostile hand makes of them: the corpus and the mutations of the mutated specs.

Everything is drawn from the `random.Random` that is handed in, so a number names a mutated spec for ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import yaml

from helpers.docs_examples import MODELS, STATED_FACTS
from helpers.paths import ROOT

ZOO = ROOT / "conf" / "model"
ZOO_DATA: Mapping[str, dict[str, Any]] = {
    "gpt2": {"words": {"vocab_size": 50, "length": 12}, "target": "next"},
    "resnet18": {"shape": [3, 32, 32], "num_classes": 3},
    "text_lstm": {"vocab_size": 50, "length": 12, "num_classes": 2},
}
"""ResNet-50 has nothing that ResNet-18 has not, and takes long."""


@dataclass(frozen=True)
class ValidModel:
    """A model that is right, and the data that it is right for, in the words of tests/docs/test_docs.py."""

    name: str
    text: str
    data: Mapping[str, Any]

    @property
    def is_stated(self) -> bool:
        """Whether a command line can state the data."""
        return self.data.keys() <= STATED_FACTS


@cache
def load_valid_models() -> list[ValidModel]:
    """The models of docs/ and some of conf/."""
    docs = [ValidModel(str(each), each.text, each.notes["data"]) for each in MODELS]
    files = {name: (ZOO / f"{name}.yaml").read_text(encoding="utf-8") for name in ZOO_DATA}
    return docs + [ValidModel(f"conf/{name}", text, ZOO_DATA[name]) for name, text in files.items()]


def mutate(text: str, random: Random) -> str:
    """The text after one to three mutations of its characters, its lines or what it says."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        change = random.choice(
            (
                _mutate_characters,
                _mutate_lines,
                _mutate_structure,
                _mutate_structure,
                _mutate_structure,
                _mutate_structure,
            )
        )
        text = change(text, random)
    return text


# ---- characters and lines ------------------------------------------------------------------------------------------

STRANGE_CHARACTERS = "{}[]:,-&*!|>'\"#%@`?$()=<~\\/ \n\t.0159eE_aZäß漢\u202e\x1b\x00\ufeff"


def _mutate_characters(text: str, random: Random) -> str:
    """One to three characters are lost, doubled, changed or put in; or the text ends early."""
    if not text or random.random() < 0.1:
        return text[: random.randrange(len(text) + 1)]
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(text) + 1)
        lost, put = random.choice(
            (
                (1, ""),
                (0, random.choice(STRANGE_CHARACTERS)),
                (1, random.choice(STRANGE_CHARACTERS)),
                (0, text[at : at + 1]),
            )
        )
        text = text[:at] + put + text[at + lost :]
    return text


def _mutate_lines(text: str, random: Random) -> str:
    """A line is lost, doubled, moved or indented anew."""
    lines = text.split("\n")
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    line = lines.pop(at)
    kind = random.randrange(5)
    if kind == 1:
        lines[at:at] = [line, line]
    if kind == 2:
        lines.insert(to, line)
    if kind >= 3:
        lines.insert(at, " " * random.randint(0, 9) + line.lstrip() if kind == 3 else line[random.randint(0, 3) :])
    return "\n".join(lines)


# ---- what the text says --------------------------------------------------------------------------------------------

Slot = tuple[Any, Any]
"""A list or mapping, and the index or key in it."""

NUMBERS = (0, -1, 1, 2, 3, 7, 10**12, 10**30, 10**400, 0.5, -0.0, 1e-3, 1e300, float("inf"), float("nan"))
TEXTS = ("", " ", "_", "x", "auto", "same", "1e3", "0x10", "null", "true", "ReLU", "Linear", "Dense", "$", "$$", "$x")
FORMULAS = (
    "$width", "$index", "$in_channels", "$(1 / 0)", "$(9**9**9)", "$([1] * 9)", "$('a' * 3)", "$(2 * in_channels)",
    "${data.num_outputs}", "${data.shape}", "${data.vocab_size}", "${model}", "${model.layers}", "${.}", "${seed}",
    "${oc.env:HOME}", "${trainer}", "${", "$(", "_ * 2", "_[:, 0]", "softmax(_, dim=1)", "sum(_)", "a + b", "../../x",
    "\x1b[31m", "a.b",
)  # fmt: skip
PARTS = (
    "Flatten", "ReLU", "Linear", "Conv2d", "LSTM", "Softmax", "Concat", "Add", "Mean", "Select", "Residual", "Parallel",
    "Sequential", "Formula", "Parameter", "Identity", "Embedding", "Attention", "LayerNorm", "BatchNorm2d", "Permute",
    "TimeDistributed", "Reshape", "Dropout", "GRU", "Transformer", "MaxPool1d", "PositionalEmbedding", "Bilinear",
    "Unflatten",
)  # fmt: skip
KEYS = (
    "name", "from", "repeat", "if", "tie", "share", "parametrize", "layout", "type", "params", "blocks", "inputs",
    "layers", "outputs", "loss", "init", "freeze", "body", "shortcut", "branches", "merge", "dim", "out_features",
    "kernel_size", "bias", "defaults", "_target_", "hydra", "spec_version", "imports", "seed", "data", "output",
    "stochastic_depth", "x", "",
)  # fmt: skip


def _mutate_structure(text: str, random: Random) -> str:
    """A value, key or entry is lost, doubled, moved, wrapped, renamed or replaced; what is no YAML stays as it is."""
    try:
        tree = {"": yaml.safe_load(text)}
        slots = list(_list_slots(tree))
        random.choice(CHANGES)(random.choice(slots), slots, random)
        flow = random.choice((None, None, False, True))
        return yaml.safe_dump(tree.get(""), sort_keys=False, default_flow_style=flow, allow_unicode=True, width=100)
    except (yaml.YAMLError, RecursionError, TypeError, ValueError):
        return text


def _list_slots(value: Any) -> Iterator[Slot]:
    """Every place in it, at any depth."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield value, key
        yield from _list_slots(each)


def _draw_value(random: Random, names: list[Any], depth: int = 0) -> Any:
    """A value of any kind, small; `names` are words of the spec itself."""
    kind = random.randrange(9 if depth < 2 else 6)
    if kind == 6:
        return [_draw_value(random, names, depth + 1) for _ in range(random.randrange(4))]
    if kind >= 7:
        return {_draw_key(random, names): _draw_value(random, names, depth + 1) for _ in range(random.randrange(3))}
    return random.choice((NUMBERS, TEXTS, FORMULAS, PARTS, names or TEXTS, (None, True, False, [], {}))[kind])


def _draw_key(random: Random, names: list[Any]) -> Any:
    return random.choice(random.choice((KEYS, KEYS, PARTS, names or KEYS, (0, None, True, 1.5))))


def _list_words(slots: list[Slot]) -> list[Any]:
    """The keys and short values that the spec has."""
    keys = [key for _, key in slots if isinstance(key, str) and key]
    return keys + [each for holder, key in slots if isinstance(each := holder[key], str | int)]


def _delete(slot: Slot, slots: list[Slot], random: Random) -> None:
    holder, key = slot
    del holder[key]


def _duplicate(slot: Slot, slots: list[Slot], random: Random) -> None:
    holder, key = slot
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key}2"] = copy.deepcopy(holder[key])


def _swap(slot: Slot, slots: list[Slot], random: Random) -> None:
    (holder, key), (other, at) = slot, random.choice(slots)
    holder[key], other[at] = copy.deepcopy(other[at]), copy.deepcopy(holder[key])


def _replace(slot: Slot, slots: list[Slot], random: Random) -> None:
    holder, key = slot
    holder[key] = _draw_value(random, _list_words(slots))


def _renumber(slot: Slot, slots: list[Slot], random: Random) -> None:
    numbers = [each for each in slots if isinstance(each[0][each[1]], int | float)]
    holder, key = random.choice(numbers or [slot])
    holder[key] = random.choice(NUMBERS)


def _rename(slot: Slot, slots: list[Slot], random: Random) -> None:
    """Another key, at the same place among the others; of a text a letter is lost."""
    holder, key = slot
    if isinstance(holder, dict):
        new = _draw_key(random, _list_words(slots)) if random.random() < 0.7 else str(key)[:-1]
        items = [(new if each == key else each, value) for each, value in holder.items()]
        holder.clear()
        holder.update(items)
    elif isinstance(holder[key], str):
        holder[key] = holder[key][:-1]


def _wrap(slot: Slot, slots: list[Slot], random: Random) -> None:
    holder, key = slot
    value = holder[key]
    holder[key] = random.choice(
        ([value], [[value]], {_draw_key(random, _list_words(slots)): value}, str(value), {"repeat": value})
    )


def _unwrap(slot: Slot, slots: list[Slot], random: Random) -> None:
    holder, key = slot
    value = holder[key]
    if isinstance(value, dict | list) and value:
        holder[key] = random.choice(list(value.values() if isinstance(value, dict) else value))


def _insert(slot: Slot, slots: list[Slot], random: Random) -> None:
    """A key beside others, or an entry among others."""
    holders = [holder for holder, _ in slots] + [
        each for holder, key in slots if isinstance(each := holder[key], dict | list)
    ]
    holder, names = random.choice(holders), _list_words(slots)
    if isinstance(holder, list):
        layer = random.choice(PARTS)
        entry = random.choice(
            (
                layer,
                {layer: _draw_value(random, names)},
                {layer: None, _draw_key(random, names): random.choice(NUMBERS)},
            )
        )
        holder.insert(random.randrange(len(holder) + 1), entry)
    else:
        holder[_draw_key(random, names)] = _draw_value(random, names)


def _add_entry_key(slot: Slot, slots: list[Slot], random: Random) -> None:
    """`repeat`, `if`, `from` and the like beside a layer, with a content that may be right."""
    mappings = [each for holder, key in slots if isinstance(each := holder[key], dict)] or [slot[0]]
    holder, names = random.choice(mappings), _list_words(slots)
    if isinstance(holder, dict):
        key = random.choice(("repeat", "if", "from", "share", "tie", "name", "parametrize", "layout"))
        likely = (2, 0, "_", ["_", "_"], True, "weight_norm", "sequence", "a", {"c": [1, 2]}, [{"c": 1}], *names[:8])
        holder[key] = random.choice(likely) if random.random() < 0.7 else _draw_value(random, names)


CHANGES: tuple[Callable[[Slot, list[Slot], Random], None], ...] = (
    _delete, _duplicate, _swap, _replace, _replace, _renumber, _rename, _wrap, _unwrap, _insert, _add_entry_key,
    _add_entry_key,
)  # fmt: skip
