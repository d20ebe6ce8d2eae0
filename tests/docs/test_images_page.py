"""The walk of docs/images.md: its commands run in their order, and its settings read published image sets."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

import dlspec
from helpers.command_line import QUICK, CommandResult
from helpers.docs_examples import find_examples, read_doc
from helpers.image_files import encode, make_pixels, write_image

PAGE = read_doc("images.md")
BASH = re.compile(r"^```bash\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
WALK = PAGE.split("## Augmentation")[0] + PAGE.split("## Fine-tuning")[1]
FILES = ("conf/model/photo_and_age.yaml", "conf/data/roads.yaml")  # the page's yaml blocks, in their order
SMALLER = {  # what makes the page's fine-tuning small; the weights are made as small
    "experiment=finetune_resnet18": ["model.params.width=4", "data.size=32"],
    "experiment=finetune_vit": ["model.params={width: 8, heads: 2, depth: 5, patch: 8}", "data.size=16"],
    "model=resnet18": ["model.params.width=4"],
    "model=unet": ["model.params.width=4", "hydra.run.dir=runs/roads", "trainer.checkpoints=true"],
}
COLORS = np.array([(0, 0, 0), (255, 0, 0), (0, 128, 255)], np.uint8)
Command = Callable[..., CommandResult]


def find_commands() -> Iterator[list[str]]:
    for block in BASH.finditer(WALK):
        yield from (shlex.split(line)[3:] for line in block[1].splitlines())


def write_page_files(folder: Path) -> None:
    """Write the folders, tables, masks and weights that the page names."""
    table = ["photo,age,healthy"]
    for number in range(36):
        pixels = make_pixels(36, 48, 3, number)
        for name in ("animals", "others", "new"):
            write_image(folder / name / ("cat", "dog", "fox")[number % 3] / f"{number}.jpg", pixels)
        write_image(folder / "photos" / f"{number}.jpg", pixels)
        table.append(f"photos/{number}.jpg,{30 + number % 7},{('yes', 'no')[number % 2]}")
        write_image(folder / "roads/images" / ("north", "south")[number % 2] / f"{number}.jpg", pixels)
        write_image(folder / "roads/masks" / f"{number}.png", COLORS[make_pixels(36, 48, 1, number) % 3])
    (folder / "patients.csv").write_text("\n".join(table) + "\n")


def write_weights(file: str, experiment: str, size: int) -> None:
    more = [each for each in SMALLER[experiment] if "data" not in each]
    data = {"shape": [3, size, size], "num_classes": 7}
    words = [experiment, "weights=null", "freeze=[]", "optimizer.groups=[]", *more]
    network = dlspec.build(words, data)
    Path(file).parent.mkdir()
    save_file({name: each.contiguous() for name, each in network.state_dict().items()}, file)


@pytest.mark.soak  # 40 s
def test_the_commands_run_as_written(dlspec: Command, work: Path, write: Callable[[str, str], Path]) -> None:
    write_page_files(work)
    for place, example in zip(FILES, find_examples("images.md", WALK), strict=True):
        write(place, example.text)
    write_weights("resnet-18/model.safetensors", "experiment=finetune_resnet18", 32)
    write_weights("vit-base-patch16-224/model.safetensors", "experiment=finetune_vit", 16)
    seen = []
    for words in find_commands():
        seen.append(words[0])
        is_training = words[0] not in ("inspect", "evaluate", "predict")
        more = [*QUICK, "trainer.checkpoints=true", *SMALLER.get(words[0], [])] if is_training else []
        said = dlspec(*words, *more)
        assert said.code == 0, (words, said.err)
    assert {"inspect", "evaluate", "predict", *SMALLER} <= set(seen)
    masks = sorted(Path("masks").iterdir())
    assert len(masks) == 18 and set(np.unique(np.asarray(Image.open(masks[0])))) <= {0, 1, 2}


# ---- published image sets, written small ---------------------------------------------------------------------------


def write_imagenette(folder: Path) -> None:
    for part, count in (("train", 12), ("val", 4)):
        for label in ("n01440764", "n02102040"):
            for number in range(count):
                write_image(folder / f"imagenette2/{part}/{label}/{part}_{number}.JPEG", make_pixels(20, 30, 3, number))
    (folder / "imagenette2/noisy_imagenette.csv").write_text("path,noisy\n")


def write_cifar(folder: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (folder / "cifar10/plain_text").mkdir(parents=True)
    for part, count in (("train", 40), ("test", 20)):
        rows = [{"img": {"bytes": encode(make_pixels(32, 32, 3, row)), "path": None}, "label": row % 10}
                for row in range(count)]  # fmt: skip
        table = pyarrow.Table.from_pylist(rows)
        parquet.write_table(table, folder / f"cifar10/plain_text/{part}-00000-of-00001.parquet")


def write_pets(folder: Path) -> None:
    lines = ["#Image CLASS-ID SPECIES BREED ID"]
    for at, breed in enumerate(("Abyssinian", "american_bulldog", "american_pit_bull_terrier")):
        for number in range(1, 13):
            write_image(folder / f"oxford-iiit-pet/images/{breed}_{number}.jpg", make_pixels(20, 30, 3, number))
            lines.append(f"{breed}_{number} {at + 1} {1 + bool(at)} {at + 1}")
    (folder / "oxford-iiit-pet/images/Abyssinian_34.mat").write_bytes(b"MATLAB")
    (folder / "oxford-iiit-pet/annotations").mkdir()
    (folder / "oxford-iiit-pet/annotations/list.txt").write_text("\n".join(lines) + "\n")


def write_faces(folder: Path) -> None:
    for number in range(30):
        write_image(folder / f"UTKFace/{1 + number}_{number % 2}_3_201701{number:02}.jpg.chip.jpg", make_pixels(20, 20))
    write_image(folder / "UTKFace/61_1_20170109142408075.jpg.chip.jpg", make_pixels(20, 20))


SETS = {
    "Imagenette, ImageNet": (write_imagenette, ("the folders train, val are the splits", "24 training, 8 validation")),
    "CIFAR-10 (Hugging Face)": (write_cifar, ("10 classes, 0, 1", "20 test rows")),
    "Oxford pets, breeds": (write_pets, ("3 classes, 1, 2, 3", "inputs: image image")),
    "UTKFace, age": (write_faces, ("target age: value", "left out 1 file that the path does not match")),
}


def find_settings() -> dict[str, list[str]]:
    rows = re.findall(r"^\| ([^|]+) \| `(data=.*)` \|$", PAGE.split("## Well-known image sets")[1], flags=re.MULTILINE)
    return {name: shlex.split(words) for name, words in rows}


@pytest.mark.parametrize("name", SETS)
def test_published_sets_are_read_by_the_settings_of_the_page(dlspec: Command, work: Path, name: str) -> None:
    write_files, expected = SETS[name]
    write_files(work)
    said = dlspec("inspect", *find_settings()[name])
    assert said.code == 0, said.err
    assert [each for each in expected if each not in said.out + said.err] == []


def test_the_table_of_published_sets_is_tested() -> None:
    assert set(find_settings()) == set(SETS)
