"""The examples in docs/ do what the text beside them says: models learn a step, what is refused says what is shown.

An example's data stand in a comment above it:

    <!-- data: {image: [3, 32, 32], words: {vocab_size: 50, length: 9, lengths: true}, target: {num_classes: 4}} -->

A list is a sample's shape; the target may also be `next` (the next token), `itself` (the input) or several by name.
`<!-- refused -->` stands above a model whose mistake the ```text block below it shows, `<!-- not a model -->` above a
piece of one.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn, optim
from torch.nn import functional
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim import lr_scheduler

import dlspec as library
from dlspec.jobs import python_spec as face
from dlspec.language.expressions import formula_functions
from dlspec.language.expressions.expression_functions import EXPRESSION_FUNCTIONS
from dlspec.language.parse.part import ENTRY_KEYS
from dlspec.limits import DEFAULT_LIMITS
from dlspec.parts.torch.torch_parts import LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS
from helpers.command_line import CommandResult
from helpers.docs_examples import (
    ALL_EXAMPLES,
    CONFIGS,
    MODELS,
    ONE_STEP,
    REFUSED,
    Example,
    find_examples,
    make_arrays,
    read_doc,
)

_SECTION = re.compile(r"^## \d+\. (.*?)\n(.*?)(?=^## |\Z)", flags=re.MULTILINE | re.DOTALL)


# ---- the data that an example states -------------------------------------------------------------------------------


# ---- what is tested ------------------------------------------------------------------------------------------------


def test_the_docs_have_what_is_tested_here() -> None:
    for each in ALL_EXAMPLES:
        assert each.notes, f"{each}: what data is it for?"
        assert (each.shown is not None) == ("refused" in each.notes), f"{each}: what does it say?"
    assert len(MODELS) > 60 and len(REFUSED) > 10 and CONFIGS


LANGUAGE = read_doc("language.md")


def test_the_tables_are_whole() -> None:
    rows = [line for line in LANGUAGE.splitlines() if "`DLSPEC_MAX_" in line]
    wanted = [(f"| {most:,}", f"`DLSPEC_MAX_{name.upper()}`") for name, most in DEFAULT_LIMITS.items()]
    assert [all(word in row for word in words) for row, words in zip(rows, wanted, strict=True)] == [True] * len(rows)
    assert [key for key in ENTRY_KEYS if f"| `{key}: " not in LANGUAGE] == []
    assert f"`{' '.join(EXPRESSION_FUNCTIONS)}`" in LANGUAGE.replace("\n  ", " ")
    assert " ".join(sorted(formula_functions.FORMULA_FUNCTIONS)) in LANGUAGE.replace("\n", " ")


def test_what_is_left_out_of_torch_is_listed() -> None:
    listed = set(re.findall(r"`(\w+)`", LANGUAGE))
    registered = {name for each in (LAYERS, LOSSES, OPTIMIZERS, SCHEDULERS) for name in each}
    bases = ("Module", "RNNBase", "RNNCellBase", "Optimizer", "LRScheduler", "_LRScheduler")
    for module, base in ((nn, nn.Module), (optim, optim.Optimizer), (lr_scheduler, lr_scheduler.LRScheduler)):
        classes = {name for name, each in vars(module).items() if isinstance(each, type) and issubclass(each, base)}
        missing = {name for name in classes - registered - listed - {*bases} if not name.startswith("Lazy")}
        assert not missing


def test_variants(dlspec: Callable[..., CommandResult], write: Callable[[str, str], Path]) -> None:
    """The commands and the file that change a model whose layers are a mapping."""
    section = LANGUAGE.split("## Variants")[1].split("\n## ")[0]
    model, other = re.findall(r"^```yaml\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    write("conf/model/mine.yaml", model)
    write("conf/model/other.yaml", other)
    commands = [
        shlex.split(line, comments=True)[3:] for line in section.splitlines() if line.startswith("python -m dlspec ")
    ]
    assert len(commands) == 2
    shown = []
    for words in (["model=mine"], *commands, ["model=other"]):
        said = dlspec("summary", *words, "data=random", "data.shape=[20]", "data.num_classes=3")
        assert (said.code, said.err) == (0, "")
        shown.append(tuple(word in said.out for word in ("ReLU", "GELU", "Dropout", "128")))
    without = (False, True, False, False)
    assert shown == [(True, False, True, False), (True, False, True, True), without, without]


# The networks of from-keras.md are those of from-pytorch.md, as another test checks.
DIFFERENT_MODELS = list({(each.text, str(each.notes)): each for each in reversed(MODELS)}.values())[::-1]


@pytest.mark.parametrize("example", DIFFERENT_MODELS, ids=str)
def test_a_model_learns_a_step(
    work: Path, composed_once: None, write: Callable[[str, str], Path], example: Example
) -> None:
    write("conf/model/mine.yaml", example.text)
    learns_a_step({"model": "mine"}, example)


@pytest.mark.parametrize("example", CONFIGS, ids=str)
def test_a_config_learns_a_step(work: Path, composed_once: None, example: Example) -> None:
    learns_a_step(yaml.safe_load(example.text), example)


def learns_a_step(spec: dict[str, Any], example: Example) -> None:
    data = make_arrays(example.notes["data"])
    before = library.build(spec, data).state_dict()
    result = library.train({**spec, "trainer": ONE_STEP}, data)
    assert np.isfinite(result.results["train/loss"])
    after = result.network.state_dict()
    assert after.keys() == before.keys()
    assert any(not torch.equal(before[name], after[name].to("cpu")) for name in before)


@pytest.mark.parametrize("example", REFUSED, ids=str)
def test_what_is_refused_says_what_is_shown(work: Path, write: Callable[[str, str], Path], example: Example) -> None:
    write("conf/model/mine.yaml", example.text)
    with pytest.raises(library.UserError) as caught:
        library.train({"model": "mine", "trainer": ONE_STEP}, make_arrays(example.notes["data"]))
    assert example.shown in str(caught.value)


@pytest.mark.parametrize("example", [each for each in ALL_EXAMPLES if "not a model" in each.notes], ids=str)
def test_a_piece_is_yaml(example: Example) -> None:
    assert yaml.safe_load(example.text)


# ---- the same ten networks in PyTorch and in Keras -----------------------------------------------------------------


def sections(name: str) -> dict[str, str]:
    return dict(_SECTION.findall(read_doc(name)))


def code(section: str) -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return found


PYTORCH, KERAS = sections("from-pytorch.md"), sections("from-keras.md")


def test_both_have_the_same_ten_networks() -> None:
    assert len(PYTORCH) == 10
    assert list(PYTORCH) == list(KERAS)
    for name, section in PYTORCH.items():
        assert [each.text for each in find_examples("", section)] == [
            each.text for each in find_examples("", KERAS[name])
        ]


@pytest.mark.parametrize("name", KERAS)
def test_the_keras_code_is_python(name: str) -> None:
    compile(code(KERAS[name]), name, "exec")


@pytest.mark.parametrize("name", PYTORCH)
def test_the_pytorch_network_is_the_same(work: Path, write: Callable[[str, str], Path], name: str) -> None:
    (example,) = find_examples(name, PYTORCH[name])
    write("conf/model/mine.yaml", example.text)
    built = face.prepare_spec({"model": "mine"}, make_arrays(example.notes["data"])).build()
    written = its_network(code(PYTORCH[name]))
    give_weights(built.network.module, written)
    inputs = [built.data.train.input(each)[:4] for each in built.network.inputs]
    torch.testing.assert_close(outputs(built.network.module, inputs), outputs(written, inputs))


def its_network(code: str) -> nn.Module:
    """The `network` that the code makes."""
    names: dict[str, Any] = {"torch": torch, "nn": nn, "F": functional}
    exec(compile(code, "from-pytorch.md", "exec"), names)
    network: nn.Module = names["network"]
    return network


def give_weights(giver: nn.Module, taker: nn.Module) -> None:
    """Parameters and buffers in the order in which they stand; there must be as many."""
    with torch.no_grad():
        vector = parameters_to_vector(giver.parameters())
        assert sum(each.numel() for each in taker.parameters()) == len(vector)
        vector_to_parameters(vector, taker.parameters())
        for own, other in zip(taker.buffers(), giver.buffers(), strict=True):
            own.copy_(other)


def outputs(network: nn.Module, inputs: list[Tensor]) -> Tensor:
    with torch.no_grad():
        given: Tensor = network.eval()(*inputs)
    return given
