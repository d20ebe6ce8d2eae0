"""`summary --graph`: which boxes and arrows a picture has, that text from specs is text, and the files."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from dlspec.cli.graph import dot_export as graph_dot
from dlspec.cli.graph.dot_export import format_dot, write_picture
from dlspec.cli.graph.network_picture import NetworkPicture, make_picture
from dlspec.cli.summary.layer_rows import make_layer_rows
from dlspec.errors import UserError
from dlspec.jobs import python_spec as face
from dlspec.language.problems import Problems
from dlspec.layouts import TensorInfo
from helpers.command_line import CommandResult
from helpers.layer_table import build_valid_layers, features, make_graph, sequence, tokens

RESIDUAL = {"Residual": ["LayerNorm", {"Linear": 16}, "GELU", {"Linear": 8}]}
BLOCKS = {
    "blocks": {"block": {"layers": [{"Residual": ["LayerNorm", {"Attention": {"num_heads": 2}}]}, RESIDUAL]}},
    "layers": [{"Embedding": 8}, {"block": {"repeat": 5, "name": "blocks"}}, "LayerNorm", {"Linear": 3}],
}


def picture(model: Any, given: TensorInfo, depth: int | None = None, *, expand: bool = False) -> NetworkPicture:
    network, holders = build_valid_layers(model, given), make_graph(model, Problems()).container_types
    return make_picture(network, make_layer_rows(network, {}, None), holders, depth, expand=expand)


def boxes(found: NetworkPicture) -> list[str]:
    """Each box as the layers in it."""
    return [" ".join(line.type for line in box.lines) for box in found.boxes]


def arrows(found: NetworkPicture) -> list[tuple[str, str]]:
    return [(each.layer, box.name) for box in found.boxes for each in box.takes]


def test_copies_are_drawn_once() -> None:
    found = picture(BLOCKS, tokens(6))
    assert found.copies == {"blocks.0": 5}
    assert boxes(found) == ["x", "Embedding", "LayerNorm", "Attention", "Add", "LayerNorm", "Linear GELU", "Linear",
                            "Add", "LayerNorm", "Linear", "output"]  # fmt: skip
    assert arrows(found) == [
        ("<input >", "0"), ("0", "blocks.0.0.body.0"), ("blocks.0.0.body.0", "blocks.0.0.body.1"),
        ("blocks.0.0.body.1", "blocks.0.0"), ("0", "blocks.0.0"), ("blocks.0.0", "blocks.0.1.body.0"),
        ("blocks.0.1.body.0", "blocks.0.1.body.1"), ("blocks.0.1.body.1", "blocks.0.1.body.3"),
        ("blocks.0.1.body.3", "blocks.0.1"), ("blocks.0.0", "blocks.0.1"), ("blocks.0.1", "2"), ("2", "3"),
        ("3", "<output output>"),
    ]  # fmt: skip


def test_expanded_they_are_all_there() -> None:
    found = picture(BLOCKS, tokens(6), expand=True)
    assert found.copies == {}
    assert boxes(found).count("Attention") == 5
    assert ("blocks.3.1", "blocks.4.0.body.0") in arrows(found)


def test_folded_by_depth() -> None:
    found = picture(BLOCKS, tokens(6), 2)
    assert boxes(found) == ["x", "Embedding", "block", "LayerNorm", "Linear", "output"]
    assert (found.copies, found.boxes[2].lines[0].parameters) == ({"blocks.0": 5}, 600)
    whole = picture(BLOCKS, tokens(6), 1)
    assert boxes(whole) == ["x", "Embedding", "block x 5", "LayerNorm", "Linear", "output"]
    assert arrows(whole) == [("<input >", "0"), ("0", "blocks"), ("blocks", "2"), ("2", "3"), ("3", "<output output>")]


@pytest.mark.parametrize(
    ("layers", "copies"),
    [
        ([{"Linear": {"out_features": 8, "repeat": 3}}], {"0.0": 3}),
        ([{"Linear": 8}, {"Linear": 8}], {}),  # two entries are two
        ([{"Linear": {"out_features": "$(8 + index)", "repeat": 3}}], {}),
        ([{"Linear": {"out_features": 8, "name": "steps", "repeat": 3}}, {"Concat": {"from": "steps.*"}}], {}),
        ([{"Parallel": [{"Linear": 8, "repeat": 3}]}], {}),  # side by side
        ([{"Linear": {"out_features": 5, "repeat": 3}}], {"0.1": 2}),  # the first one takes 8
        ([{"Sequential": [{"Linear": 8}, {"Linear": {"out_features": 8, "repeat": 2}}], "repeat": 2}],
         {"0.0": 2, "0.0.1.0": 2}),
        ([{"Linear": {"out_features": 8, "name": "one"}}, {"share": "one"}], {}),
    ],
)  # fmt: skip
def test_what_counts_as_copies(layers: Any, copies: Mapping[str, int]) -> None:
    assert picture(layers, features(8)).copies == copies


def test_a_memory_that_all_copies_look_at() -> None:
    layers = [{"Linear": {"out_features": 8, "name": "memory"}}, {"Linear": 8},
              {"Attention": {"num_heads": 2, "from": ["_", "memory"]}, "repeat": 4}]  # fmt: skip
    found = picture(layers, sequence(5, 8))
    assert found.copies == {"2.0": 4}
    assert [each for each in arrows(found) if each[1] == "2.0"] == [("1", "2.0"), ("memory", "2.0")]


def test_several_inputs_and_outputs() -> None:
    layers = [{"LSTM": {"hidden_size": 3, "from": "a", "name": "read"}},
              {"Linear": {"out_features": 2, "from": "read.last", "name": "one"}},
              {"Linear": {"out_features": 2, "from": "b", "name": "two"}}]  # fmt: skip
    loss = {name: {"type": "Mean", "output": name} for name in ("one", "two")}
    spec = {"inputs": ["a", "b"], "layers": layers, "outputs": ["one", "two"], "loss": loss}
    data = {"type": "random", "fields": {"a": {"shape": [4, 5]}, "b": {"shape": [6]}}, "targets": {}}
    built = face.prepare_spec(spec, data).build()
    found = make_picture(built.network, make_layer_rows(built.network, {}, None), {})
    assert boxes(found) == ["a", "b", "LSTM", "Linear", "Linear", "one", "two"]
    assert arrows(found) == [
        ("<input a>", "read"), ("read", "one"), ("<input b>", "two"), ("one", "<output one>"), ("two", "<output two>"),
    ]  # fmt: skip
    assert "last (3)" in format_dot(found)


# ---- text from specs -----------------------------------------------------------------------------------------------

HOSTILE = '<script>alert(1)</script>" ]; x -> y & \\N \\G\x1b[31m\u202e\ud800 <IMG SRC="/etc/passwd"/>'


def test_text_from_specs_is_text(tmp_path: Path) -> None:
    layers = [{"Linear": 4}, {"Formula": "_ * 1 + where(_ < 1, _, _)"}, {"Linear": 1}]
    plain = picture(layers, features(4))
    line = replace(plain.boxes[1].lines[0], type=HOSTILE, settings={HOSTILE: HOSTILE}, remarks=HOSTILE)
    boxes = [replace(plain.boxes[0], lines=(replace(line, kind="input"),)), replace(plain.boxes[1], lines=(line, line))]
    found = replace(plain, boxes=(*boxes, *plain.boxes[2:]), container_types={"0": HOSTILE})
    text = format_dot(found)
    assert "<script" not in text and "<IMG" not in text and "\x1b" not in text
    pytest.importorskip("pygraphviz", reason="the extra 'graph' is not installed")
    write_picture(found, tmp_path / "net.svg")
    root = ElementTree.fromstring((tmp_path / "net.svg").read_bytes())
    tags = {each.tag.rpartition("}")[2] for each in root.iter()}
    assert tags <= {"svg", "g", "title", "polygon", "path", "text", "ellipse"}
    told = ["".join(each.itertext()) for each in root.iter() if each.tag.endswith("text")]
    assert any("<script>alert(1)</script>" in each for each in told)
    assert any("where(_ < 1, _, _)" in each for each in told)


# ---- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["svg", "pdf", "png", "dot"])
def test_each_kind_of_file(dlspec, work: Path, ending: str) -> None:
    if ending != "dot":
        pytest.importorskip("pygraphviz", reason="the extra 'graph' is not installed")
    said = dlspec("summary", "--graph", f"net.{ending}")
    assert said.code == 0 and said.out.endswith(f"\ndrawn: net.{ending}\n")
    content = (work / f"net.{ending}").read_bytes()
    if ending == "png":
        with Image.open(work / "net.png") as image:
            assert image.width > 150 and image.height > 200 and len(image.getcolors(10**6)) > 10
    assert content.startswith({"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG", "dot": b"digraph"}[ending])
    assert [each.name for each in work.iterdir()] == [f"net.{ending}"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--graph", "net.gif"],
            "--graph: 'net.gif' must end with one of .svg, .pdf, .png, .dot: write --graph network.svg",
        ),
        (["--graph", "net"], "--graph: 'net' must end with one of .svg, .pdf, .png, .dot: write --graph network.svg"),
        (["--graph", "no/net.dot"], "--graph: folder 'no' does not exist"),
        (["--graph", "folder.dot"], "can't write 'folder.dot': Is a directory"),
        (["--graph"], "argument --graph: expected one argument"),
        (["--expand"], "--expand needs --graph: add --graph network.svg"),
    ],
)
def test_what_can_t_be_drawn(dlspec, work: Path, words: list[str], says: str) -> None:
    (work / "folder.dot").mkdir()
    said: CommandResult = dlspec("summary", *words)
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith(says) and said.err.count("\n") == 1
    assert [each.name for each in work.iterdir()] == ["folder.dot"]


def test_without_the_extra(dlspec, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    said = dlspec("summary", "--graph", "net.svg")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)
    assert "pip install 'dlspec[graph]'" in said.err
    assert dlspec("summary", "--graph", "net.dot").code == 0


def test_no_picture_that_nobody_could_read(monkeypatch: pytest.MonkeyPatch) -> None:
    found = picture(BLOCKS, tokens(6), expand=True)
    monkeypatch.setattr(graph_dot, "MAX_BOXES", 39)
    with pytest.raises(
        UserError, match=r"the picture would have 40 boxes, the maximum is 39: fold them with --depth 2"
    ):
        format_dot(found)
