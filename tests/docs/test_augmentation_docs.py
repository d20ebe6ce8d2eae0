"""The section on augmentation in docs/images.md: its table is whole, and its file is valid."""

from __future__ import annotations

import re

import yaml

from dlspec.data.augment.augmentation_registry import augmentation_registry
from dlspec.data.augment.dataset_augmentation import augment_dataset
from dlspec.data.sources import SOURCES, open_data
from helpers.docs_examples import find_examples, read_doc

SECTION = read_doc("images.md").split("## Augmentation\n")[1].split("\n## ")[0]


def test_every_augmentation_is_in_the_table() -> None:
    table = SECTION.split("| what changes | augmentations |")[1].split("\n\n")[0]
    listed = set(re.findall(r"`(\w+)", table))
    assert listed == set(augmentation_registry())


def test_the_file_augments_digits() -> None:
    (example,) = find_examples("images.md", SECTION)
    settings = yaml.safe_load(example.text)
    data = open_data(SOURCES[settings.pop("type")].model_validate({**settings, "augment": None}))
    assert augment_dataset(data, settings["augment"]).augmentation is not None


def test_each_field_may_have_its_own_list() -> None:
    (text,) = re.findall(r"^```text\n(augment:.*?)^```$", SECTION, flags=re.MULTILINE | re.DOTALL)
    assert set(yaml.safe_load(text)["augment"]) == {"left", "right"}
