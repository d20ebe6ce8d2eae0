"""A whole config: its sections in our words, each spelling of metrics and losses, the user's own modules."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from dlspec.config.conf_files import find_packaged_conf
from dlspec.data.sources import SOURCES
from dlspec.errors import Code, SourceLocation, SpecError
from dlspec.jobs.spec import Spec
from dlspec.jobs.spec_keys import TOP_LEVEL_KEYS as ALL_KEYS
from dlspec.jobs.spec_reading import read_spec, settle_spec
from dlspec.language.expressions.expression_parsing import UnknownValue
from dlspec.language.problems import Problems, sort_by_location
from dlspec.language.sections.trainer_section import TrainerSpec
from dlspec.language.source_map import SourceMap
from dlspec.language.yaml.yaml_files import load_yaml_file
from dlspec.parts.section_reader import describe_expected

CONFIG: dict[str, Any] = {
    "model": {"layers": ["Flatten", {"Linear": "${data.num_outputs}"}]},
    "data": {"type": "digits"},
    "loss": {"type": "auto"},
    "optimizer": {"type": "Adam", "lr": 1e-3},
    "scheduler": None,
    "metrics": {"type": "auto"},
    "trainer": {"epochs": 1},
    "seed": 0,
}


def read(changes: dict[str, Any], facts: dict[str, Any] | None = None) -> Spec:
    return read_spec(copy.deepcopy({**CONFIG, **changes}), SourceMap, facts=facts)


def said_of(changes: dict[str, Any], facts: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(SpecError) as caught:
        read(changes, facts)
    return str(caught.value).splitlines()[:-1]


def test_a_whole_config() -> None:
    spec = read({})
    assert [layer.type for layer in spec.layers] == ["Flatten", "Linear"]
    assert spec.layers[1].settings == {"out_features": UnknownValue("data.num_outputs")}
    assert (spec.optimizer.schema.name, spec.optimizer.settings) == ("Adam", {"lr": 0.001})
    assert (spec.loss, spec.metrics, spec.scheduler, spec.seed) == (None, None, None, 0)
    assert spec.unknown_facts == ("data.num_outputs",)
    opened = read({}, {"num_outputs": 10})
    assert (opened.layers[1].settings, opened.unknown_facts) == ({"out_features": 10}, ())


def test_a_fact_may_stand_in_the_trainer_and_the_seed() -> None:
    changes = {"trainer": {"batch_size": "${data.num_classes}"}, "seed": "${data.num_classes}"}
    assert read(changes).unknown_facts == ("data.num_classes", "data.num_outputs")
    spec = read(changes, {"num_classes": 7, "num_outputs": 7})
    assert (spec.trainer.batch_size, spec.seed) == (7, 7)


# Facts where a setting alone is one, and where a model's structure or a formula depends on one.
WAITING: list[dict[str, Any]] = [
    {},
    {
        "model": {
            "layers": [
                {"Reshape": ["${data.num_classes}", "$(2 * 3)"]},
                {"Linear": {"out_features": "${data.num_outputs}"}},
            ]
        }
    },
    {"model": {"layers": ["Flatten", {"Linear": "$(2 * ${data.num_classes})"}]}},
    {"model": {"params": {"n": "${data.num_classes}"}, "layers": ["Flatten", {"Linear": "$n"}]}},
    {"model": {"layers": ["Flatten", {"Linear": 8, "repeat": "${data.num_classes}"}]}},
    {"model": {"layers": [{"Linear": 8, "if": "$(${data.num_classes} > 7)"}, {"Linear": "${data.num_classes}"}]}},
    {"model": {"layers": [{"Residual": {"body": ["ReLU"], "stochastic_depth": "${data.num_classes}"}}]}},
    {
        "model": {
            "layers": [{"Linear": "${data.shape}"}, {"Dropout": "${data.num_classes}"}, {"Linear": "${data.x.length}"}]
        }
    },
    {"model": {"layers": [{"Linear": {"out_features": "${data.num_classes}", "name": "a"}}, {"share": "a"}]}},
    {"model": {"layers": ["Flatten"], "loss": {"CrossEntropyLoss": {"ignore_index": "${data.num_classes}"}}}},
    {"scheduler": {"type": "StepLR", "step_size": "${data.shape}", "warmup": "${data.num_classes}"}},
    {"optimizer": {"type": "SGD", "lr": "${data.num_classes}", "groups": [{"match": "*.bias", "lr": "${data.shape}"}]}},
    {"trainer": {"batch_size": "${data.shape}"}, "seed": "${data.num_classes}"},
]


def outcome(read: Callable[[], Spec]) -> Any:
    """What a reading finds, or what it says."""
    try:
        spec = read()
    except SpecError as error:
        return str(error)
    layers = [(each.node, each.schema.name, each.settings) for each in spec.layers]
    parts = [each and (each.part, each.settings) for each in (spec.optimizer, spec.scheduler)]
    known = {"layers", "optimizer", "scheduler", "problems"}
    rest = {each.name: getattr(spec, each.name) for each in fields(spec) if each.name not in known}
    return layers, parts, rest, spec.problems.origins, spec.problems.names


@pytest.mark.parametrize("changes", WAITING)
def test_facts_that_are_put_in_give_what_reading_with_them_gives(changes: dict[str, Any]) -> None:
    facts = {"num_outputs": 10, "num_classes": 7, "shape": [3, 4], "layout": "sequence"}
    tree = {**CONFIG, **changes}
    waiting = read(changes)
    assert outcome(lambda: settle_spec(waiting, tree, SourceMap, facts=facts)) == outcome(lambda: read(changes, facts))


@pytest.mark.parametrize(
    ("formula", "settled"),
    [
        ("_ + arange($steps - 1)[0]", "_ + arange(3 - 1)[0]"),
        ("_ * sum(eye($steps), dim=0)[:1]", "_ * sum(eye(3), dim=0)[:1]"),
        ("one_hot(_, $(2 * steps - 1))", "one_hot(_, 5)"),
    ],
)
def test_sizes_in_a_formula_may_be_facts(formula: str, settled: str) -> None:
    model = {"params": {"steps": "${data.num_classes}"}, "layers": [{"Formula": formula}]}
    waiting = read({"model": model})
    spec = settle_spec(waiting, {**CONFIG, "model": model}, SourceMap, facts={"num_outputs": 10, "num_classes": 3})
    assert spec.layers[0].settings == {"formula": settled}


METRICS: list[tuple[Any, Any]] = [
    (None, None),
    ("auto", None),
    ({"type": "auto"}, None),
    ("Accuracy", [("Accuracy", {})]),
    (["Accuracy", {"F1Score": {"average": "macro"}}], [("Accuracy", {}), ("F1Score", {"average": "macro"})]),
    ({"Accuracy": None, "F1Score": {"average": "macro"}}, [("Accuracy", {}), ("F1Score", {"average": "macro"})]),
    ({"type": "F1Score", "average": "macro"}, [("F1Score", {"average": "macro"})]),
]


@pytest.mark.parametrize(("raw", "wanted"), METRICS, ids=str)
def test_spellings_of_metrics(raw: Any, wanted: Any) -> None:
    found = read({"metrics": raw}).metrics
    assert (None if found is None else [(each.schema.name, each.settings) for each in found]) == wanted


OWN = {"layers": ["Flatten"], "loss": "MSELoss"}
LOSSES: list[tuple[Any, Any, str | None]] = [
    (CONFIG["model"], {"type": "auto"}, None),
    (CONFIG["model"], "auto", None),
    (CONFIG["model"], None, None),
    (OWN, {"type": "auto"}, "MSELoss"),
    (OWN, None, "MSELoss"),
    (OWN, {"type": "L1Loss"}, "L1Loss"),
    (OWN, "L1Loss", "L1Loss"),
    ({**OWN, "loss": {"HuberLoss": {"delta": 2.0}}}, "auto", "HuberLoss"),
]


@pytest.mark.parametrize(("model", "loss", "wanted"), LOSSES, ids=str)
def test_whose_loss(model: Any, loss: Any, wanted: str | None) -> None:
    found = read({"model": model, "loss": loss}).loss
    assert (found[0].type if found else None) == wanted


def test_scheduler_with_an_interval() -> None:
    spec = read({"scheduler": {"type": "StepLR", "step_size": 2, "interval": "step"}})
    assert spec.scheduler is not None
    assert (spec.scheduler.settings, spec.interval) == ({"step_size": 2}, "step")


KEYS = ", ".join(sorted(ALL_KEYS))
SAID: list[tuple[dict[str, Any], list[str]]] = [
    ({"trainer": {"epochs": 0}}, ["trainer.epochs   'epochs' must be a whole number >= 1, got 0"]),
    ({"trainer": {"epochs": 1.5}}, ["trainer.epochs   'epochs' must be a whole number >= 1, got 1.5"]),
    ({"trainer": {"epochs": None}}, ["trainer.epochs   'epochs' must be a whole number >= 1, got null"]),
    ({"trainer": {"epochs": [1]}}, ["trainer.epochs   'epochs' must be a whole number >= 1, got [1]"]),
    ({"trainer": {"patience": True}}, ["trainer.patience   'patience' must be a whole number >= 1 or null, got true"]),
    ({"trainer": {"monitor": 3}}, ["trainer.monitor   'monitor' must be a string, got 3"]),
    ({"trainer": {"checkpoints": "maybe"}}, ["trainer.checkpoints   'checkpoints' must be true or false, got 'maybe'"]),
    ({"trainer": {"epoch": 1}}, ["trainer.epoch   unknown key   did you mean 'epochs'?"]),
    ({"trainer": 3}, ["trainer   expected a mapping, got 3   write its keys below it"]),
    (
        {"data": {"type": "digits", "validation": 1}},
        ["data.validation   'validation' must be a number >= 0 and < 1, got 1"],
    ),
    (
        {"data": {"type": "digits", "limit": "${data.num_classes}"}},
        [
            "data.limit   limit is ${data.num_classes}, which is unknown until the data are open   "
            "write the value itself"
        ],
    ),
    ({"data": {"type": "digist"}}, ["data.type   unknown data set 'digist'   did you mean 'digits'?"]),
    ({"data": None}, ["data   missing data set   write a data set's name, or NAME: {setting: value}"]),
    ({"optimizer": None}, ["optimizer   missing optimizer   write an optimizer's name, or NAME: {setting: value}"]),
    (
        {"optimizer": "${data.shape}"},
        ["optimizer   ${data.shape} is not a valid optimizer name   write an optimizer's name"],
    ),
    (
        {"optimizer": "${nothing}"},
        [f"optimizer   '${{nothing}}': no such key   available: {', '.join(sorted(CONFIG))}"],
    ),
    ({"seed": True}, ["seed   seed must be a whole number >= 0 and < 2 ** 63, got true"]),
    ({"seed": 2**63}, ["seed   seed must be a whole number >= 0 and < 2 ** 63, got 9223372036854775808"]),
    ({"seed": "1"}, ["seed   seed must be a whole number >= 0 and < 2 ** 63, got '1'"]),
    ({"spec_version": 3}, ["spec_version   unknown version 3   install the version of dlspec that wrote the spec"]),
    ({"sede": 1}, ["sede   no such key   did you mean 'seed'?"]),
    ({"x": 1}, [f"x   no such key   available: {KEYS}"]),
    (
        {"imports": "mine"},
        ["imports   'imports' must be a list of module names, got 'mine'   write them in brackets: 'imports=[mine]'"],
    ),
    (
        {"scheduler": {"type": "StepLR", "step_size": 1, "interval": 3}},
        ["scheduler.interval   interval must be step or epoch, got 3"],
    ),
    ({"metrics": {"Accuracy": {"type": "F1Score"}}}, ["metrics.Accuracy.type   unknown setting 'type'"]),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), SAID, ids=lambda each: str(each)[:50])
def test_mistakes_of_sections(changes: dict[str, Any], said: list[str]) -> None:
    found = said_of(changes)
    assert len(found) == len(said)
    assert all(line.startswith(wanted) for line, wanted in zip(found, said, strict=True)), found


def test_every_mistake_at_once_and_each_once() -> None:
    changes = {"seed": -1, "optimizer": {"type": "Adm"}, "trainer": {"epochs": 0}, "model": {"layers": ["Flaten"]}}
    assert [line.split("   ")[0] for line in said_of(changes)] == [
        "model.layers.0",
        "optimizer.type",
        "trainer.epochs",
        "seed",
    ]


def test_every_field_of_every_section_says_what_it_wants() -> None:
    for model in (TrainerSpec, *SOURCES.values()):
        for name in model.model_fields:
            assert describe_expected(model, (name,)), f"{model.__name__}.{name}"


class Sample(BaseModel):
    share: float = Field(0.5, gt=0, lt=1)
    sizes: list[int] | None = None
    word: Literal["a", "b"] = "a"


def test_what_a_field_wants() -> None:
    assert describe_expected(Sample, ("share",)) == "a number > 0 and < 1"
    assert describe_expected(Sample, ("word",)) == "a or b"
    assert describe_expected(Sample, ("sizes", 1)) == "a whole number"
    assert describe_expected(SOURCES["random"], ("shape", 0)) == "a whole number >= 1"
    assert (
        describe_expected(Sample, ("share", 1))
        == describe_expected(Sample, ("nothing",))
        == describe_expected(Sample, ())
        == ""
    )


# ---- the user's own modules ------------------------------------------------------------------------------------------


@pytest.fixture
def module_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    return tmp_path


def test_a_part_of_ones_own(module_folder: Path) -> None:
    (module_folder / "spec_test_scale.py").write_text(
        "import dlspec\nfrom torch import nn\n\n\n@dlspec.layer\nclass SpecTestScale(nn.Module):\n"
        "    def __init__(self, start: float = 1.0) -> None:\n        super().__init__()\n"
    )
    model = {"layers": [{"SpecTestScale": 2}]}
    assert said_of({"model": model})[0].startswith("model.layers.0   unknown layer 'SpecTestScale'")
    spec = read({"model": model, "imports": ["spec_test_scale"]})
    assert [(layer.type, layer.settings) for layer in spec.layers] == [("SpecTestScale", {"start": 2.0})]


BROKEN = {
    "spec_test_raises": ("raise RuntimeError('half done')", "RuntimeError: half done"),
    "spec_test_leaves": ("raise SystemExit(3)", "SystemExit: 3"),
    "spec_test_syntax": ("def", "SyntaxError: invalid syntax (spec_test_syntax.py, line 1)"),
    "spec_test_none": (None, "ModuleNotFoundError: No module named 'spec_test_none'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_module_that_fails(module_folder: Path, name: str) -> None:
    text, error = BROKEN[name]
    if text is not None:
        (module_folder / f"{name}.py").write_text(text)
    fix = "fix this error in the module" if text else "the module must be importable from the working directory"
    said = f"imports.0   importing '{name}' failed: {error}   {fix}"
    assert said_of({"imports": [name]}) == [said]


# ---- places ---------------------------------------------------------------------------------------------------------


def test_the_order_of_the_files() -> None:
    spots = {
        ("a",): SourceLocation("one.yaml", 9, 1),
        ("b",): SourceLocation("two.yaml", 2, 1),
        ("c",): SourceLocation("command line", 0, 3, "c=3"),
        ("d",): SourceLocation("one.yaml", 2, 7),
        ("e",): SourceLocation("one.yaml", 2, 1),
    }
    problems = Problems()
    for path in [*spots, ("nowhere",)]:
        problems.add(Code.WRONG_VALUE, path, f"wrong {path[0]}")
    found = [problem.path for problem in problems.locate(SourceMap(spots))]
    assert found == ["e", "d", "a", "b", "c", "nowhere"]
    assert sort_by_location([]) == []


def test_the_nearest_place() -> None:
    spots = {
        ("a",): SourceLocation("f", 1, 1),
        ("a", "b"): SourceLocation("f", 2, 1),
        ("x", "y"): SourceLocation("f", 3, 1),
    }
    places = SourceMap(spots, {("a", "b"): SourceLocation("f", 2, 4), ("v",): SourceLocation("f", 7, 1)})
    found = {
        path: places.find(path, at_value=bool(at_value))
        for path, at_value in [(("a", "b"), 1), (("a", "b", "c"), 1), (("a",), 1), (("x",), 0), (("v", "w"), 0)]
    }
    assert {path: place and place.line for path, place in found.items()} == {
        ("a", "b"): 2,
        ("a", "b", "c"): 2,
        ("a",): 1,
        ("x",): 3,
        ("v", "w"): 7,
    }
    assert places.find(("a", "b"), at_value=True) == SourceLocation("f", 2, 4)
    assert places.find(("q",)) is None


def test_origins_that_lead_round_end() -> None:
    problems = Problems(origins={("a",): ("b",), ("b",): ("a",)})
    problems.add(Code.WRONG_VALUE, ("a",), "wrong", at_value=True)
    assert [problem.path for problem in problems.locate(SourceMap())] == ["a"]


# ---- fuzzing --------------------------------------------------------------------------------------------------------

MODELS = {path.stem: load_yaml_file(path).tree for path in sorted((find_packaged_conf() / "model").glob("*.yaml"))}
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=6)
    | st.sampled_from(["$width", "$(1/0)", "$(", "${data.shape}", "${model}", "${.x}", "${", "Linear", "type", "name"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from("type name from Linear $width layers params 1".split()), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def places_in(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path, *(found for key, child in children for found in places_in(child, (*path, key)))]


def mutated(tree: Any, path: tuple[Any, ...], action: str, junk: Any) -> Any:
    if not path:
        return junk if action == "replace" else tree
    *above, last = path
    tree = copy.deepcopy(tree)
    node = tree
    for key in above:
        node = node[key]
    if action == "replace":
        node[last] = junk
    elif action == "delete":
        del node[last]
    elif action == "rename" and isinstance(node, dict):
        node[str(junk)] = node.pop(last)
    elif isinstance(node, list):
        node.insert(last, copy.deepcopy(node[last]))
    return tree


@st.composite
def wrong_models(draw: st.DrawFn) -> Any:
    tree = MODELS[draw(st.sampled_from(sorted(MODELS)))]
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(places_in(tree)))
        tree = mutated(tree, path, draw(st.sampled_from(["replace", "delete", "duplicate", "rename"])), draw(JUNK))
    return tree


def is_spec_or_refused(changes: dict[str, Any]) -> None:
    for facts in (None, {"num_outputs": 10, "shape": [1, 8, 8]}):
        try:
            spec = read(changes, facts)
        except SpecError as error:
            assert error.problems
            assert all(problem.found for problem in error.problems)
        else:
            assert isinstance(spec, Spec)


@settings(max_examples=75, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(wrong_models())
@example({"layers": [float("nan")]})
def test_a_mutated_model_is_a_spec_or_refused(model: Any) -> None:
    is_spec_or_refused({"model": model})


SECTION = st.sampled_from(sorted(CONFIG))


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.dictionaries(SECTION, JUNK, min_size=1, max_size=2))
def test_a_junk_section_is_a_spec_or_refused(changes: dict[str, Any]) -> None:
    is_spec_or_refused(changes)


@pytest.mark.soak
@settings(max_examples=20_000, suppress_health_check=[HealthCheck.too_slow], deadline=2000)
@given(wrong_models(), st.dictionaries(SECTION, JUNK, max_size=2))
def test_many_mutated_configs(model: Any, changes: dict[str, Any]) -> None:
    is_spec_or_refused({"model": model, **changes})
