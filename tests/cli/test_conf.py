"""Every file under conf/ builds and runs on data that suit it; the README's blocks run."""

from __future__ import annotations

import re
import shlex
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image
from zoo import ROOT, command

from helpers.command_line import QUICK, CommandResult
from helpers.predicted_runs import SMALL_MODELS

FILES = sorted(str(path.relative_to(ROOT / "conf").with_suffix("")) for path in (ROOT / "conf").glob("*/*.yaml"))

TEXT = ["model=text_lstm", "data=text_csv", "data.path=texts.csv"]
SMALL = ["model.params.width=8", "model.params.depth=1", "model.params.heads=2"]
IMAGES = ["data.path=images", "data.size=16"]
# What a file needs beside itself; the others run with the defaults.
BESIDE = {
    "data/breast_cancer": ["model=mlp"],
    "data/diabetes": ["model=mlp"],
    "data/digits_segments": ["model.layers=[{Conv2d: {out_channels: 11, kernel_size: 1}}]"],
    "data/mnist": ["data.path=mnist"],
    "data/python_lines": ["model=text_lstm", "data.limit=50"],
    "data/python_docs": ["model=text_lstm", "model.layers.lstm.LSTM.output=sequence", "data.limit=50"],
    "data/sms_spam": ["model=text_lstm", "data.path=texts.csv"],
    "data/text": ["model=text_lstm", "model.layers.lstm.LSTM.output=sequence", "data.limit=50"],
    "data/text_csv": ["model=text_lstm", "data.path=texts.csv"],
    "data/files": ["model=text_lstm", 'data.path="texts/{label}/{n}.txt"', "data.target=label"],
    "data/images": ["data.path=images"],
    "data/table": ["model=text_lstm", "data.path=texts.csv", "data.target=label"],
    "experiment/article_mnist": ["data.path=mnist"],
    "experiment/article_text": TEXT[1:],
    "experiment/bert_huggingface": [*SMALL, "weights=null", *TEXT[1:]],
    "experiment/gpt2_huggingface": [*SMALL, "weights=null", "data=text", "data.path=texts.csv", "data.length=9"],
    "experiment/llama_huggingface": [
        *(*SMALL, "model.params.kv_heads=1", "model.params.hidden=24", "weights=null"),
        *("data=text", "data.path=texts.csv", "data.length=9"),
    ],
    "experiment/resnet_huggingface": ["weights=null", "model.params.width=4"],
    "experiment/finetune_resnet18": ["weights=null", "model.params.width=4", *IMAGES, "freeze=['stem.*']"],
    "experiment/finetune_vit": [
        *("weights=null", "model.params={width: 8, depth: 5, heads: 2, patch: 8}", *IMAGES),
    ],
    "experiment/shakespeare_small": ["data.path=texts.csv", "data.length=9"],
}

INFERRED = ("data/files", "data/images", "data/table")


def words_of(name: str) -> list[str]:
    """What makes a run of it: a model's own command is in its header."""
    group, choice = name.split("/")
    if group != "model":
        return [f"{group}={choice}", *BESIDE.get(name, [])]
    words = shlex.split(command(choice))
    if "data=python_lines" in words:  # which takes a second to read
        return [*(each for each in words if each != "data=python_lines"), *TEXT[1:]]
    return [*words, "data.limit=50"] if "data=python_docs" in words else words


@pytest.fixture
def small_files(work: Path) -> None:
    """MNIST's four files and a CSV file, with a few made-up samples."""
    (work / "mnist").mkdir()
    for name, count in (("train", 60), ("t10k", 20)):
        images = struct.pack(">IIII", 2051, count, 28, 28) + bytes(index % 256 for index in range(count * 784))
        labels = struct.pack(">II", 2049, count) + bytes(index % 10 for index in range(count))
        (work / f"mnist/{name}-images-idx3-ubyte").write_bytes(images)
        (work / f"mnist/{name}-labels-idx1-ubyte").write_bytes(labels)
    labels = ("spam" if index % 3 else "ham" for index in range(60))
    rows = "".join(f"this is word{index % 7} and number {index},{label}\n" for index, label in enumerate(labels))
    (work / "texts.csv").write_text("text,label\n" + rows)
    for number in range(40):
        file = work / "texts" / ("ham" if number % 2 else "spam") / f"{number}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"some words {number}")
        image = work / "images" / file.parent.name / f"{number}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), number).save(image)


# The models that take long at their own size; what is in SMALL_MODELS makes them small.
LARGE_MODELS = "bert_base gpt2 gpt_small llama resnet18 resnet50 text_transformer unet vgg11 vit wavenet".split()


@pytest.mark.parametrize("name", FILES)
def test_every_file_validates_and_runs_two_steps(dlspec, small_files: None, name: str) -> None:
    small = SMALL_MODELS[model] if (model := name.removeprefix("model/")) in LARGE_MODELS else []
    check_file(dlspec, name, small)


@pytest.mark.soak
@pytest.mark.parametrize("name", LARGE_MODELS)
def test_a_large_model_runs_two_steps(dlspec, small_files: None, name: str) -> None:
    check_file(dlspec, f"model/{name}", [])


def check_file(dlspec: Callable[..., CommandResult], name: str, smaller: Sequence[str]) -> None:
    choice = words_of(name)
    said = dlspec("validate", *choice)
    assert (said.code, said.err) == (0, "")
    said = dlspec(*choice, *smaller, *QUICK)
    is_inferred = name in INFERRED or "finetune" in name  # these say what they took the columns for
    assert (said.code, is_inferred or said.err) == (0, is_inferred or "")


README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.M | re.S)


COMMANDS = [
    shlex.split(found, comments=True)
    for block in blocks("bash")
    for line in block.splitlines()
    for found in re.findall(r"(?:^|/)python -m dlspec(?: (.*))?$", line)
]
FILES_IN_AND_OUT = [each for each in COMMANDS if "churn.csv" in " ".join(each) or "run=latest" in each]
YAML = blocks("yaml")


def test_the_readme_has_what_is_tested_here() -> None:
    assert len(COMMANDS) >= 5 and YAML


@pytest.mark.parametrize("words", [each for each in COMMANDS if each not in FILES_IN_AND_OUT], ids=" ".join)
def test_the_readmes_commands(dlspec, write, small_files: None, words: list[str]) -> None:
    write("conf/model/mine.yaml", YAML[0])
    trains = not words or words[0] not in ("validate", "summary", "inspect", "--help")
    said = dlspec(*words, *(QUICK if trains else []))
    assert (said.code, said.err) == (0, "")


def test_the_readmes_way_from_a_file_to_predictions(dlspec, write, work: Path) -> None:
    rows = [f"{20 + row % 50},{row * 37 % 100 / 4},{'DE' if row % 3 else 'FR'},{'yes' if row % 5 < 2 else 'no'}"
            for row in range(200)]  # fmt: skip
    write("churn.csv", "\n".join(["age,load,country,churned", *rows, ""]))
    write("new.csv", "age,load,country\n31,4.5,DE\n62,1.25,FR\n")
    assert [words[0] for words in FILES_IN_AND_OUT] == ["inspect", "model=mlp", "evaluate", "predict"]
    for words in FILES_IN_AND_OUT:
        said = dlspec(*words, *(["trainer.epochs=2"] if words[0] == "model=mlp" else []))
        assert said.code == 0, said.err
    header, *answers = (work / "predictions.csv").read_text().splitlines()
    assert header.split(",")[1:] == ["churned", "churned.yes"]
    assert len(answers) == 2


@pytest.mark.parametrize("text", YAML)
def test_the_readmes_models(dlspec, write, text: str) -> None:
    write("conf/model/mine.yaml", text)
    said = dlspec("summary", "model=mine")
    assert (said.code, said.err) == (0, "")


def test_the_readmes_refusal(dlspec, write) -> None:
    wrong = YAML[0].replace("out_channels", "out_chanels").replace("BatchNorm2d", "BatchNormalization")
    write("conf/model/mine.yaml", wrong)
    said = dlspec("validate", "model=mine")
    assert (said.code, [said.err]) == (2, [text for text in blocks("text") if text.startswith("conf/")])


@pytest.mark.parametrize("code", blocks("python"))
def test_the_readmes_python(work: Path, code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(code, "README.md", "exec"), {})
