"""`${...}`: as OmegaConf looks keys up, wherever dlspec allows it; facts of the data; and all that is refused."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from dlspec.language.expressions.expression_parsing import InvalidValue, UnknownValue
from dlspec.language.expressions.references import resolve_references
from dlspec.language.problems import Problems, format_path

TREE: dict[str, Any] = {
    "top": 1,
    "text": "word",
    "none": None,
    "model": {"width": 8, "list": [1, {"deep": "x"}, [2, 3]], "flag": 0.5},
}

AS_OMEGACONF: dict[str, Any] = {
    "absolute": "${model.width}",
    "a whole mapping": "${model}",
    "a list": "${model.list}",
    "an item by a dot": "${model.list.0}",
    "an item by a bracket": "${model.list[0]}",
    "an item's item": "${model.list[2][1]}",
    "a key in an item": "${model.list.1.deep}",
    "a key in brackets": "${model[width]}",
    "spaces": "${ model.width }",
    "null": "${none}",
    "within text": "a${model.width}b",
    "twice within text": "${text}-${top}-${text}",
    "a number within text": "x${model.flag}",
    "relative": {"inner": {"one": "${.two}", "two": 2}},
    "relative, one up": {"two": 2, "inner": {"one": "${..two}"}},
    "relative, two up": {"two": 2, "inner": {"more": {"one": "${...two}"}}},
    "relative in a list": ["${.1}", 5],
    "relative out of a list": {"two": 2, "list": ["${..two}"]},
    "relative to the top": "${.top}",
    "relative in what was looked up": {"a": {"x": "${.y}", "y": 1}, "b": {"copy": "${..a}", "y": 2}},
    "a chain": {"a": "${..own.b}", "b": "${model.width}"},
    "a chain through text": {"a": "<${.b}>", "b": "${text}!"},
    "select": "${oc.select:model.width}",
    "select what is not there": "${oc.select:nothing.here}",
    "select with a default": "${oc.select:nothing.here,3}",
    "select with a default in text": "v${oc.select:nothing.here, 3}",
    "select with a quoted default": "${oc.select:nothing, 'a b'}",
    "select with a list": "${oc.select:nothing,[1,2]}",
    "select with a default that is not needed": "${oc.select:model.width,3}",
    "select a null": "${oc.select:none,3}",
    "select a relative key": {"a": "${oc.select:.b,1}", "b": 2},
    "no reference": "$model {x} $(y)",
    "no text": [1, 2.5, True, None],
}


@pytest.mark.parametrize("case", AS_OMEGACONF)
def test_as_omegaconf(case: str) -> None:
    tree = {**TREE, "own": AS_OMEGACONF[case]}
    problems = Problems()
    found = resolve_references(tree, None, problems)
    assert found == OmegaConf.to_container(OmegaConf.create(tree), resolve=True)
    assert not problems


def test_words_within_text_are_yamls_own() -> None:
    """OmegaConf writes Python's True and None there."""
    tree = {"a": True, "b": None, "c": [1, {"d": "e"}], "text": "${a} ${b} ${c}"}
    assert resolve_references(tree, None, Problems())["text"] == "true null [1, {d: e}]"


def test_the_tree_itself_stays_as_it_is() -> None:
    tree = {"a": [1], "b": "${a}", "c": "${a}"}
    found = resolve_references(tree, None, Problems())
    found["b"].append(2)
    assert (found["a"], found["c"], tree) == ([1], [1], {"a": [1], "b": "${a}", "c": "${a}"})


FACTS = {"num_classes": 10, "shape": [1, 8, 8], "target": {"vocab_size": 5}}
DATA = {"type": "digits", "vocab_size": None, "length": 7}

FACT_CASES: list[tuple[str, Any, Any]] = [
    ("${data.num_classes}", UnknownValue("data.num_classes"), 10),
    ("${data.shape}", UnknownValue("data.shape"), [1, 8, 8]),
    ("${data.target.vocab_size}", UnknownValue("data.target.vocab_size"), 5),
    ("${data.length}", 7, 7),
    ("${data.type}", "digits", "digits"),
    ("n${data.num_classes}", UnknownValue("data.num_classes"), "n10"),
    ("${oc.select:data.num_classes,3}", UnknownValue("data.num_classes"), 10),
    ("${oc.select:data.vocab_size,3}", UnknownValue("data.vocab_size"), 3),
    ("${data.vocab_size}", UnknownValue("data.vocab_size"), "'${data.vocab_size}': the data have no vocab_size"),
    ("${data.num_outputs}", UnknownValue("data.num_outputs"), "'${data.num_outputs}': the data have no num_outputs"),
    ("${data.num_clases}", "'${data.num_clases}': no such key", "'${data.num_clases}': no such key"),
    ("${data.a.b.num_classes}", "'${data.a.b.num_classes}': no such key", "'${data.a.b.num_classes}': no such key"),
]


@pytest.mark.parametrize(("text", "before", "after"), FACT_CASES)
def test_facts_before_and_after_the_data_are_open(text: str, before: Any, after: Any) -> None:
    assert [_resolved(text, None), _resolved(text, FACTS)] == [before, after]


def test_a_fact_that_several_targets_have_is_asked_for_by_name() -> None:
    problems = Problems()
    facts = {"shape": [4], "toxic": {"num_outputs": 1}, "insult": {"num_outputs": 1}}
    resolve_references({"data": DATA, "own": "${data.num_outputs}"}, facts, problems)
    (problem,) = problems.found
    assert problem.fix == "several have one: write ${data.toxic.num_outputs} or ${data.insult.num_outputs}"


def _resolved(text: str, facts: dict[str, Any] | None) -> Any:
    problems = Problems()
    found = resolve_references({"data": DATA, "own": text}, facts, problems)["own"]
    assert bool(problems) == isinstance(found, InvalidValue)
    return problems.found[0].found if problems else found


REFUSED: dict[str, tuple[str, str]] = {
    "${oc.env:HOME}": (
        "'${oc.env:HOME}' is not allowed: oc.select is the only resolver",
        "refer to a key of the config, or use oc.select",
    ),
    "${hydra:job.name}": (
        "'${hydra:job.name}' is not allowed: oc.select is the only resolver",
        "refer to a key of the config, or use oc.select",
    ),
    "${hydra.job.name}": (
        "'${hydra.job.name}' is not allowed: oc.select is the only resolver",
        "refer to a key of the config, or use oc.select",
    ),
    "${mine:3}": (
        "'${mine:3}' is not allowed: oc.select is the only resolver",
        "refer to a key of the config, or use oc.select",
    ),
    "${model.widht}": ("'${model.widht}': no such key", "did you mean 'width'?"),
    "${modle.width}": ("'${modle.width}': no such key", "did you mean 'model'?"),
    "${nothing}": ("'${nothing}': no such key", "available: data, model, none, own, text, top"),
    "${model.list.9}": ("'${model.list.9}': no such key", "write a number from 0 to 2"),
    "${model.width.x}": ("'${model.width.x}': no such key", ""),
    "${.nothing}": ("'${.nothing}': no such key 'nothing'", "available: data, model, none, own, text, top"),
    "${...top}": ("'${...top}' leads above the top of the config", "remove a dot"),
    "${data.num_clases}": ("'${data.num_clases}': no such key", "did you mean 'num_classes'?"),
    "${}": ("'${}': no such key", "available: data, model, none, own, text, top"),
    "${model.${text}}": ("'${model.${text}}' is not a valid reference", "write ${KEY}, with one key inside"),
    "a${model": ("'a${model' is not a valid reference", "write ${KEY}, with one key inside"),
    "${own}": ("'${own}' refers to itself (own -> own)", "write a value"),
    "${model.list}" * 3000: ("a string of more than 10,000 characters", "make it shorter"),
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda each: each[:30])
def test_refused(text: str) -> None:
    problems = Problems()
    found = resolve_references({**TREE, "data": DATA, "own": text}, None, problems)["own"]
    assert isinstance(found, InvalidValue)
    assert [(format_path(each.path), each.found, each.fix) for each in problems.found] == [("own", *REFUSED[text])]


def test_a_circle_is_told_where_it_is_entered() -> None:
    problems = Problems()
    found = resolve_references({"a": "${b}", "b": ["${a}"]}, None, problems)
    assert isinstance(found["b"][0][0], InvalidValue)
    assert [each.found for each in problems.found] == [
        "'${b}' refers to itself (b -> a -> b)",
        "'${a}' refers to itself (a -> b -> a)",
    ]


def test_growing_without_end_is_one_mistake() -> None:
    tree: dict[str, Any] = {"a0": ["x"] * 9}
    tree |= {f"a{n}": [f"${{a{n - 1}}}"] * 9 for n in range(1, 30)}
    problems = Problems()
    resolve_references(tree, None, problems)
    assert [each.found for each in problems.found] == ["'${a4}' leads to more than 100,000 values or 150 levels"]


def test_text_that_grows_without_end_is_refused() -> None:
    tree: dict[str, Any] = {"a0": "x" * 100}
    tree |= {f"a{n}": f"${{a{n - 1}}}" * 9 for n in range(1, 30)}
    problems = Problems()
    resolve_references(tree, None, problems)
    assert [each.found for each in problems.found] == [
        "a string of more than 10,000 characters",
        "'${a5}' leads to more than 100,000 values or 150 levels",
    ]


def test_a_looked_up_value_knows_where_it_was_written() -> None:
    problems = Problems()
    resolve_references({"a": {"b": 3}, "c": ["${a.b}", "x${a.b}"]}, None, problems)
    assert problems.origins == {("c", 0): ("a", "b")}


@pytest.mark.parametrize("length", [20, 2000])
def test_a_long_chain(length: int) -> None:
    tree: dict[str, Any] = {f"a{n}": f"${{a{n + 1}}}" for n in range(length)} | {f"a{length}": 1}
    problems = Problems()
    found = resolve_references(tree, None, problems)
    assert [each.found for each in problems.found] == (
        [] if length == 20 else ["'${a1}' leads to more than 100,000 values or 150 levels"]
    )
    assert found["a0"] == 1 if length == 20 else isinstance(found["a0"], InvalidValue)


def test_a_chain_through_deep_lists_does_not_exhaust_the_stack() -> None:
    def nested(text: str) -> Any:
        return text if not text.startswith("[") else [nested(text[1:])]

    tree = {f"a{n}": nested("[" * 60 + f"${{a{n + 1}}}") for n in range(50)} | {"a50": 1}
    problems = Problems()
    resolve_references(tree, None, problems)
    assert len(problems) == 1
