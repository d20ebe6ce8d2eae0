"""The published architectures: their sizes are the published ones, and their files say how to train them."""

from __future__ import annotations

import re

import pytest
from zoo import MODELS, command, header

from helpers.paths import ROOT

PICTURES = ["data.shape=[3,224,224]", "data.num_classes=1000"]
TEXT = ["data.vocab_size=20000", "data.length=40", "data.num_classes=2"]
PAIR = ["data.fields={left: {shape: [1, 105, 105]}, right: {shape: [1, 105, 105]}}"]
# What a header's number is of; the five that the papers' authors published are exact.
SIZES: dict[str, tuple[list[str], int]] = {
    "vgg11": (PICTURES, 132_863_336),
    "resnet18": (PICTURES, 11_689_512),
    "resnet50": (PICTURES, 25_557_032),
    "gpt2": (["data.vocab_size=50257", "data.length=1024"], 124_439_808),
    "bert_base": (["data.vocab_size=30522", "data.length=512", "data.num_classes=2"], 109_482_240 + 769),
    "mlp_mixer": (PICTURES, 18_528_264),
    "siamese": ([*PAIR, "data.targets={same: {num_classes: 2}}"], 38_951_745),
    "vit": (PICTURES, 22_050_664),
    "lenet5": ([], 61_706),
    "gpt_small": (["data.vocab_size=65", "data.length=64"], 804_096),
    "llama": (["data.vocab_size=65", "data.length=64"], 820_608),
    "text_transformer": (TEXT, 1_380_161),
    "text_cnn": (TEXT, 6_360_601),
    "text_gru": (TEXT, 2_121_401),
    "unet": (
        ["data.fields={image: {shape: [1, 64, 64]}}", "data.targets={map: {num_classes: 2, shape: [64, 64]}}"],
        31_030_593,
    ),
    "autoencoder": (["data.target=input"], 2_837_314),
    "vae": (["data.target=input", "model.loss.picture.type=MSELoss"], 815_824),
    "seq2seq": (
        [
            "data.fields={source: {vocab_size: 10000, length: 12}}",
            "data.targets={answer: {num_classes: 10000, shape: [9]}}",
        ],
        3_191_700,
    ),
    "wavenet": (["data.vocab_size=256", "data.length=200"], 173_088),
    "wide_and_deep": (
        [
            "data.fields={wide: {shape: [50]}, deep: {vocab_size: 1000, length: 10}}",
            "data.targets={label: {num_classes: 2}}",
        ],
        1_017_140,
    ),
}
HEADS = {"bert_base": 769}  # what classifies behind the pooler is not counted
VIT_B16 = ["model.params.width=768", "model.params.heads=12"]
TINY_LLAMA = ["model.params={width: 2048, depth: 22, heads: 32, kv_heads: 4, hidden: 5632}"]
NEXT = ("gpt2", "gpt_small", "llama", "wavenet")


@pytest.mark.parametrize("name", SIZES)
def test_a_model_has_the_size_that_its_header_says(dlspec, name: str) -> None:
    data, size = SIZES[name]
    target = ["data.target=input"] if name in NEXT else []
    said = dlspec("summary", f"model={name}", "data=random", "data.size=4", *data, *target)
    assert (said.code, said.err) == (0, "")
    assert f"\n{size:,} parameters" in said.out
    assert f"{size - HEADS.get(name, 0):,} parameters" in " ".join(header(MODELS[name]))


def test_tiny_llama_has_the_published_size(dlspec) -> None:
    """The size of Llama 2 7B is tested with the other numbers of its summary."""
    data = ["data=random", "data.vocab_size=32000", "data.length=2048", "data.target=input", "data.size=4"]
    said = dlspec("summary", "model=llama", *TINY_LLAMA, *data, "--depth", "1")
    assert "\n1,100,048,384 parameters" in said.out and "1,100,048,384" in " ".join(header(MODELS["llama"]))


def test_vit_b16_has_the_published_size(dlspec) -> None:
    said = dlspec("summary", "model=vit", *VIT_B16, "data=random", "data.size=4", *PICTURES)
    assert "\n86,567,656 parameters" in said.out and "86,567,656" in " ".join(header(MODELS["vit"]))


@pytest.mark.parametrize("name", MODELS)
def test_a_models_file_is_a_page_with_a_command(name: str) -> None:
    assert f"model={name}" in command(name).split()
    assert len(MODELS[name].read_text(encoding="utf-8").splitlines()) < 60


DOCS = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_page_of_models_has_each_with_its_command() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", DOCS, flags=re.M))
    assert rows == {name: command(name) for name in MODELS}
