"""`weights`: tensors from elsewhere, whatever they are called there."""

from __future__ import annotations

import fnmatch
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import dlspec
from dlspec.errors import SpecError, UserError
from dlspec.network.weights.name_groups import find_patterns, format_patterns
from dlspec.network.weights.rename_patterns import RenamePattern, rename_tensor
from dlspec.network.weights.rename_suggestions import suggest_renames
from dlspec.network.weights.tensor_files import list_stored_tensors
from dlspec.network.weights.weight_loading import load_saved_weights
from helpers.command_line import QUIET
from helpers.weights_files import read_weights

DATA = {"shape": [6], "num_classes": 3}
LAYERS = [{"Linear": 4, "name": "first"}, "ReLU", {"Linear": 3, "name": "head"}]


def built(layers: list[Any] | None = None, **weights: Any) -> nn.Module:
    return dlspec.build({"model": {"layers": layers or LAYERS}, "weights": weights}, data=DATA)


def said(layers: list[Any] | None = None, **weights: Any) -> str:
    with pytest.raises(SpecError) as caught:
        built(layers, **weights)
    return str(caught.value)


def numbers(*shape: int, start: float = 0) -> torch.Tensor:
    return torch.arange(start, start + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def tensors() -> dict[str, torch.Tensor]:
    return {
        "first.weight": numbers(4, 6),
        "first.bias": numbers(4),
        "head.weight": numbers(3, 4),
        "head.bias": numbers(3),
    }


def is_filled(network: nn.Module) -> bool:
    state = network.state_dict()
    return all(torch.equal(state[name], each) for name, each in tensors().items())


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_safetensors_file(work: Path) -> None:
    save_file(tensors(), "a.safetensors")
    assert is_filled(built(path="a.safetensors"))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_of_torch_save(work: Path, zipped: bool) -> None:
    torch.save(tensors(), "a.bin", _use_new_zipfile_serialization=zipped)
    torch.save({"state_dict": tensors(), "epoch": 3}, "b.pth", _use_new_zipfile_serialization=zipped)
    assert is_filled(built(path="b.pth"))
    assert is_filled(built(path="a.bin"))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_set_of_files_with_its_index(work: Path, kind: str) -> None:
    parts, index = [dict(list(tensors().items())[:1]), dict(list(tensors().items())[1:])], {}
    for at, part in enumerate(parts):
        name = f"part-{at}.{kind}"
        save_file(part, name) if kind == "safetensors" else torch.save(part, name)
        index |= dict.fromkeys(part, name)
    name = "model.safetensors.index.json" if kind == "safetensors" else "pytorch_model.bin.index.json"
    Path(name).write_text(json.dumps({"weight_map": index}))
    assert is_filled(built(path=name)) and is_filled(built(path="."))


def test_another_runs_folder(work: Path, dlspec) -> None:
    words = ("model={layers: [Flatten, {Linear: 10}]}", "trainer.max_steps=3", "trainer.progress=none")
    assert dlspec(*words, "hydra.run.dir=made").code == 0
    said = dlspec(*words, "weights.path=made", "optimizer=SGD", "optimizer.lr=0", "hydra.run.dir=again")
    assert said.err == "weights: 2 of 2 tensors of made\n"
    made, again = (read_weights(work / each / "checkpoints/best.safetensors")[0] for each in ("made", "again"))
    assert all(torch.equal(made[name], again[name]) for name in made)


# ---- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "becomes", "name", "wanted"),
    [
        ("fc.*", "head.*", "fc.weight", "head.weight"),
        ("h.*.attn.*", "blocks.*.0.*", "h.11.attn.q.bias", "blocks.11.0.q.bias"),
        ("*.gamma", "*.weight", "norm.gamma", "norm.weight"),
        ("a?.[xy]*", "b*", "a1.y.z", "b.z"),
        ("*h.*.norm.*", "blocks.*.*", "net.h.3.norm.bias", "blocks.3.bias"),
        ("*h.*.norm.*", "blocks.*.*", "h.3.norm.bias", "blocks.3.bias"),
        ("*.gamma", "norm.weight", "a.gamma", "norm.weight"),
        ("fc.*", "*.head.*", "fc.bias", "bias.head."),
        ("a.b", "c", "axb", None),
    ],
)
def test_a_star_stands_for_what_the_patterns_matched(pattern: str, becomes: str, name: str, wanted: str | None) -> None:
    assert RenamePattern(pattern, (becomes,)).rename(name) == (None if wanted is None else (wanted,))


def test_a_pattern_of_many_stars_gives_up_at_once() -> None:
    assert (
        RenamePattern("*a" * 12 + "*b", ("x",)).rename("a" * 200) is None
    )  # all ways to share it out would take years


def test_renamed_turned_divided_joined_and_left_out(work: Path) -> None:
    wanted = tensors()
    stored = {
        "net.w": torch.cat([wanted["first.weight"]]).T.contiguous(),
        "net.b": torch.cat([wanted["first.bias"]]),
        "top": wanted["head.weight"][:2].contiguous(),
        "end": wanted["head.weight"][2:].contiguous(),
        "head.bias": wanted["head.bias"],
        "mask": torch.ones(3),
    }
    save_file(stored, "a.safetensors")
    rename = {"net.w": "first.weight", "net.b": "first.bias", "top": "head.weight", "end": "head.weight", "mask": None}
    assert is_filled(built(path="a.safetensors", rename=rename, transpose=["net.w"]))


def test_a_rename_may_be_idle_where_all_fits(work: Path) -> None:
    save_file(tensors(), "a.safetensors")
    assert is_filled(built(path="a.safetensors", rename={"old.*": "first.*", "mask": None}))


def test_one_tensor_for_three_layers_of_different_width(work: Path) -> None:
    whole = numbers(9, 6)
    save_file({"qkv.weight": whole, "qkv.bias": numbers(9)}, "a.safetensors")
    layers = [{"Parallel": {"branches": {"q": [{"Linear": 4}], "k": [{"Linear": 2}], "v": [{"Linear": 3}]}}}]
    network = built(layers, path="a.safetensors", rename={"qkv.*": ["0.q.0.*", "0.k.0.*", "0.v.0.*"]})
    state = network.state_dict()
    assert torch.equal(state["0.k.0.weight"], whole[4:6]) and torch.equal(state["0.v.0.bias"], numbers(9)[6:])


def test_a_changed_head_is_left_fresh(work: Path) -> None:
    save_file({**tensors(), "head.weight": numbers(10, 4), "head.bias": numbers(10)}, "a.safetensors")
    network = built(path="a.safetensors", fresh=["head.*"])
    plain = dlspec.build({"model": {"layers": LAYERS}}, data=DATA)
    assert torch.equal(network.state_dict()["first.weight"], numbers(4, 6))
    assert torch.equal(network.state_dict()["head.weight"], plain.state_dict()["head.weight"])


def test_a_tied_weight_needs_to_be_there_once(work: Path) -> None:
    layers = [{"Linear": 6, "name": "first"}, {"Linear": 6, "tie": "first", "name": "second"}]
    stored = {"first.weight": numbers(6, 6), "first.bias": numbers(6), "second.bias": numbers(6, start=9)}
    save_file(stored, "a.safetensors")
    network = built(layers, path="a.safetensors")
    assert torch.equal(network.state_dict()["second.weight"], numbers(6, 6))


def test_a_tied_weight_that_is_there_twice_must_be_the_same(work: Path) -> None:
    layers = [{"Linear": {"out_features": 6, "bias": False, "name": name}} for name in ("first", "second")]
    layers[1]["tie"] = "first"
    save_file({"first.weight": numbers(6, 6), "second.weight": numbers(6, 6)}, "same.safetensors")
    assert torch.equal(built(layers, path="same.safetensors").state_dict()["first.weight"], numbers(6, 6))
    save_file({"first.weight": numbers(6, 6), "second.weight": numbers(6, 6, start=1)}, "a.safetensors")
    text = "'first.weight' and 'second.weight' are one tensor in the model, but differ in the file"
    assert text in said(layers, path="a.safetensors")


def test_no_row_of_a_divided_tensor_is_lost(work: Path) -> None:
    save_file({"qkv.weight": numbers(10, 6), "qkv.bias": numbers(10)}, "a.safetensors")
    layers = [{"Parallel": {"branches": {each: [{"Linear": 3}] for each in "qkv"}}}]
    text = said(layers, path="a.safetensors", rename={"qkv.*": ["0.q.0.*", "0.k.0.*", "0.v.0.*"]})
    assert "0.v.0.weight (in the file qkv.weight): (4, 6) instead of (3, 6)" in text


def test_not_strict_takes_what_fits(work: Path) -> None:
    save_file({"first.weight": numbers(4, 6), "other": numbers(2)}, "a.safetensors")
    network = built(path="a.safetensors", strict=False)
    assert torch.equal(network.state_dict()["first.weight"], numbers(4, 6))


def test_a_run_says_what_was_taken(work: Path, dlspec) -> None:
    model = "model={layers: [Flatten, {Linear: 10, name: head}]}"
    save_file({"head.weight": torch.zeros(10, 64), "old": torch.zeros(1)}, "a.safetensors")
    words = ("weights={path: a.safetensors, rename: {old: null}, fresh: [head.bias]}", "trainer.max_steps=1")
    said = dlspec(model, *words, "hydra.run.dir=made", "trainer.progress=none")
    line = "weights: 1 of 2 tensors of a.safetensors; left out: old; kept their initial values: head.bias"
    assert (said.code, said.err) == (0, line + "\n")
    assert line in (work / "made/log.txt").read_text()


def test_dimensions_of_one_do_not_count(work: Path) -> None:
    wanted = tensors()
    more = {"head.weight": wanted["head.weight"][None], "head.bias": wanted["head.bias"][:, None]}
    save_file({**wanted, **more}, "a.bin")
    assert is_filled(built(path="a.bin"))


def test_a_runs_network_is_loaded_in_python(work: Path, dlspec) -> None:
    from dlspec import load

    words = ("model={layers: [Flatten, {Linear: 10}, {Dropout: 0.5}]}", "trainer.max_steps=3", *QUIET)
    assert dlspec(*words, "hydra.run.dir=made").code == 0
    network, kept = load("made"), read_weights(work / "made/checkpoints/best.safetensors")[0]
    assert not network.training
    assert all(torch.equal(each, kept[name]) for name, each in network.state_dict().items())
    with pytest.raises(UserError, match="no run in 'nowhere'"):
        load("nowhere")


# ---- what is refused -------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> Any:
        return (Path("owned").touch, ())


def test_a_file_that_would_run_code(work: Path) -> None:
    torch.save({"first.weight": Evil()}, "a.bin")
    assert "contains more than tensors, and loading it could run code" in said(path="a.bin")
    assert not Path("owned").exists()


def test_files_that_are_none(work: Path) -> None:
    Path("empty.safetensors").touch()
    Path("cut.bin").write_bytes(b"PK\x03\x04 and no more")
    Path("huge.safetensors").write_bytes((2**40).to_bytes(8, "little") + b"{")
    Path("x.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    assert "no file 'nowhere.bin'" in said(path="nowhere.bin")
    assert "neither a safetensors file" in said(path="empty.safetensors")
    assert "is not a complete file of torch.save" in said(path="cut.bin")
    assert "neither a safetensors file" in said(path="huge.safetensors")
    assert "is outside its folder" in said(path="x.index.json")
    assert "File name too long" in said(path="x" * 5000)


def test_tensors_that_are_none(work: Path) -> None:
    torch.save({"first.weight": torch.empty(4, 6, device="meta")}, "meta.pt")
    assert "'meta.pt' contains no tensors by name" in said(path="meta.pt")
    head = json.dumps({"first.weight": {"dtype": "F6_E2M3", "shape": [4, 6], "data_offsets": [0, 18]}}).encode()
    Path("odd.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + bytes(18))
    assert "can't read 'first.weight' in 'odd.safetensors'" in said(path="odd.safetensors", strict=False)


def test_any_byte_of_a_file_may_be_wrong(work: Path) -> None:
    torch.save(tensors(), "a.pt", _use_new_zipfile_serialization=False)
    whole = Path("a.pt").read_bytes()
    for at in range(0, len(whole), 7):
        Path("b.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
        with suppress(UserError):
            list_stored_tensors(Path("b.pt"))


WRONG = {
    "shape": (
        {"head.weight": numbers(10, 4)}, {},
        "'head.weight' in the file has shape (10, 4), but the model's 'head.weight' has (3, 4)   "
        "keep the model's initial values: 'weights.fresh=[head.weight]'",
    ),
    "turned": ({"head.weight": numbers(4, 3)}, {}, "transpose it: 'weights.transpose=[head.weight]'"),
    "unused": ({"fc.weight": numbers(3, 4)}, {}, "no name of the model matches 1 tensor of the file: fc.weight"),
    "pattern": ({"fc.bias": numbers(3)}, {"rename": {"fcc.*": None}}, "no name of the model matches 1 tensor"),
    "idle": ({}, {"rename": {"hed.*": "fc.*"}, "strict": False}, "no tensor of the file is named 'hed.*'"),
    "whole numbers": ({"head.weight": numbers(3, 4).int()}, {}, "'head.weight' in the file is int32"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_says_both_names(work: Path, name: str) -> None:
    more, settings, text = WRONG[name]
    save_file({**tensors(), **more}, "a.safetensors")
    assert text in said(path="a.safetensors", **settings)


def test_a_file_of_which_nothing_fits_is_refused_also_where_not_all_must(work: Path) -> None:
    save_file({"other.weight": numbers(4, 6)}, "a.safetensors")
    assert "no name of the model matches 1 tensor of the file: other.weight" in said(path="a.safetensors", strict=False)


def test_a_rename_that_misses_is_shown_with_its_result(work: Path) -> None:
    save_file({"body.weight": numbers(4, 6)}, "a.safetensors")
    assert "of the file: body.weight (renamed to frist.weight)" in said(
        path="a.safetensors", rename={"body.*": "frist.*"}
    )


def test_says_what_is_missing(work: Path) -> None:
    save_file({"first.weight": numbers(4, 6)}, "a.safetensors")
    text = "the file has nothing for 3 tensors of the model: first.bias, head.weight, head.bias"
    assert text in said(path="a.safetensors")


BLOCK = {"fc.weight": (8, 8), "fc.bias": (8,), "norm.weight": (8,)}
MODEL_SHAPES = {
    "stem.weight": (8, 3),
    **{f"blocks.{at}.{name}": each for at in range(3) for name, each in BLOCK.items()},
    "head.weight": (2, 8),
}


@pytest.mark.parametrize(
    "pairs, wanted",
    [
        ([("", "model.")], {"model.*": "*"}),
        ([("", "_orig_mod.module.")], {"_orig_mod.module.*": "*"}),
        ([("stem", "embed")], {"embed.*": "stem.*"}),
        ([("blocks", "encoder.layers")], {"encoder.layers.*": "blocks.*"}),
        ([("blocks.", "")], {"0.*": "blocks.0.*", "1.*": "blocks.1.*", "2.*": "blocks.2.*"}),
        ([(".fc.", ".linear.")], {"blocks.*.linear.*": "blocks.*.fc.*"}),
        ([(".fc.", "_linear.")], {}),  # blocks.0_linear may be any of the blocks
        ([("head", "out"), ("stem", "embed")], {"embed.*": "stem.*", "out.*": "head.*"}),
        ([("head.weight", "kernel")], {}),  # not one part of the name is the same
    ],
)
def test_renames_are_suggested_where_there_is_one_way(pairs: list[tuple[str, str]], wanted: dict[str, str]) -> None:
    names = {name: name for name in MODEL_SHAPES}
    for old, new in pairs:
        names = {name: each.replace(old, new) if old else new + each for name, each in names.items()}
    unused = {names[name]: MODEL_SHAPES[name] for name in names if names[name] not in MODEL_SHAPES}
    missing = {name: each for name, each in MODEL_SHAPES.items() if name not in names.values()}
    used = [name for name in names.values() if name in MODEL_SHAPES]
    renames = suggest_renames(unused, missing, used)
    assert renames == wanted
    patterns = [RenamePattern(each, (new,)) for each, new in renames.items()]
    assert all(rename_tensor(names[name], patterns)[1] in ((name,), (names[name],)) for name in names)


def test_no_rename_is_suggested_where_two_layers_fit() -> None:
    missing = {"q.weight": (8, 8), "k.weight": (8, 8)}
    assert suggest_renames({"0.weight": (8, 8), "1.weight": (8, 8)}, missing, []) == {}
    assert suggest_renames({"0.weight": (8, 8), "1.weight": (8, 4)}, {**missing, "v.weight": (8, 4)}, []) == {
        "1.*": "v.*"
    }


def test_square_matrices_beside_transposed_ones_are_named(work: Path) -> None:
    layers = [{"Linear": 6, "name": "first"}, {"Linear": 3, "name": "head"}]
    keras = {
        "first.weight": numbers(6, 6), "first.bias": numbers(6), "head.weight": numbers(6, 3), "head.bias": numbers(3),
    }  # fmt: skip
    save_file(keras, "a.safetensors")
    text = said(layers, path="a.safetensors")
    assert "transpose it: 'weights.transpose=[head.weight]'" in text and "fit either way" in text
    assert text.index("first.weight") > text.index("fit either way")
    assert "fit either way" not in said(layers, path="a.safetensors", transpose=["first.weight"])


def test_weights_of_a_run_that_belong_to_another_network_are_described(work: Path) -> None:
    save_file(tensors(), "a.safetensors")
    layers = [{"Linear": 5, "name": "first"}, "ReLU", {"Linear": 3, "name": "top"}]
    network = dlspec.build({"model": {"layers": layers}}, data=DATA)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    with pytest.raises(UserError) as caught:
        load_saved_weights(network, Path("a.safetensors"))
    assert str(caught.value) == (
        "the network is not the one whose weights 'a.safetensors' has: 2 tensors of the file have other shapes than "
        "the model's: first.bias: (4,) instead of (5,); first.weight: (4, 6) instead of (5, 6); no name of the model "
        "matches 2 tensors of the file: head.bias, head.weight; the file has nothing for 2 tensors of the model: "
        "top.weight, top.bias. Put back the spec and the code of your own layers as they were in training"
    )
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())


def test_patterns_match_exactly_the_names() -> None:
    names = [f"layers.{at}.{name}" for at in range(30) for name in ("a.weight", "a.bias", "b.weight")]
    wanted = [name for name in names if name.startswith("layers.2") or ".b." in name]
    others = [name for name in names if name not in wanted]
    patterns = find_patterns(wanted, others)
    assert sorted(name for each in patterns for name in each.names) == sorted(wanted)
    assert not [name for name in others for each in patterns if fnmatch.fnmatchcase(name, each.pattern)]
    assert all(fnmatch.fnmatchcase(name, each.pattern) for each in patterns for name in each.names)
    assert format_patterns(patterns).startswith("layers.*.b.weight (19), layers.2.* (3), layers.20.* (3)")
    many = [f"layers.{at}.weight" for at in range(0, 40, 2)]
    assert format_patterns(find_patterns(many, ["layers.1.weight"])).endswith("layers.22.weight, 8 more in layers.*")
    assert [each.pattern for each in find_patterns(["a[0].w", "a[0].b"], [])] == ["a[0].w", "a[0].b"]
