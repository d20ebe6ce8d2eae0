"""Every problem has a code, and no behaviour hangs on the wording of a message."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from typing import Any

import pytest

from dlspec.data.sources import open_data
from dlspec.errors import UNKNOWN_PART_CODES, Code, DataError, Finding, Problem, SpecError, UserError
from dlspec.jobs.spec_reading import read_spec
from dlspec.language.expressions.evaluation import evaluate_expression
from dlspec.language.expressions.expression_parsing import ExpressionError
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_batch import check_batch_is_kept
from dlspec.language.problems import Problems
from dlspec.language.source_map import SourceMap
from dlspec.language.yaml.yaml_files import load_yaml_text
from dlspec.layouts import Lengths, TensorInfo
from dlspec.parts.layers.formula_layer import Formula
from helpers.layer_table import build_layers, channels_first, features, sequence, tokens
from helpers.source_trees import PACKAGE, parse_package

CONFIG: dict[str, Any] = {
    "model": {"layers": ["Flatten", {"Linear": 10}]},
    "data": {"type": "digits"},
    "loss": {"type": "auto"},
    "optimizer": {"type": "Adam", "lr": 1e-3},
    "scheduler": None,
    "metrics": {"type": "auto"},
    "trainer": {"epochs": 1},
    "seed": 0,
}

# ---- a representative of each kind ---------------------------------------------------------------------------------

YAML: list[tuple[str, Code]] = [
    ("a: [1, 2", Code.YAML_SYNTAX),
    ("epochs:3\nseed: 1", Code.YAML_SYNTAX),
    ("a: !!python/name:os.system x", Code.YAML_FEATURE),
    ("a: 1\n---\nb: 2", Code.YAML_FEATURE),
    ("a: 1\na: 2", Code.DUPLICATE_KEY),
    ("a: *b", Code.UNKNOWN_ANCHOR),
    ("a: ${b${c}}", Code.REFERENCE_SYNTAX),
    ("a: " + "[" * 200 + "]" * 200, Code.TOO_LARGE),
]


@pytest.mark.parametrize(("text", "code"), YAML)
def test_the_codes_of_yaml(text: str, code: Code) -> None:
    with pytest.raises(SpecError) as caught:
        load_yaml_text(text, "a.yaml")
    assert [each.code for each in caught.value.problems] == [code]


SPECS: list[tuple[dict[str, Any], Code]] = [
    ({"modle": 1}, Code.UNKNOWN_KEY),
    ({"spec_version": 99}, Code.WRONG_VERSION),
    ({"spec_version": True}, Code.WRONG_VERSION),
    (
        {
            "spec_version": 1,
            "model": {
                "layers": [
                    {"Linear": 4, "name": "a"},
                    {"Linear": {"out_features": 4, "from": "$x", "repeat": {"x": ["a", "a"]}}},
                ]
            },
        },
        Code.CHANGED_RULE,
    ),
    ({"imports": "a.b"}, Code.WRONG_TYPE),
    ({"imports": ["no_such_module"]}, Code.IMPORT_FAILED),
    ({"model": None}, Code.EMPTY_MODEL),
    ({"model": {"layers": []}}, Code.EMPTY_MODEL),
    ({"model": {"layers": ["Linera"]}}, Code.UNKNOWN_LAYER),
    ({"model": {"layers": [{"Linear": {"out_feature": 3}}]}}, Code.UNKNOWN_SETTING),
    ({"model": {"layers": [{"Linear": "many"}]}}, Code.WRONG_VALUE),
    ({"model": {"layers": [{"Conv2d": {"out_channels": 3}}]}}, Code.MISSING_VALUE),
    ({"model": {"layers": [{"Linear": 3, "name": "class"}]}}, Code.INVALID_NAME),
    ({"model": {"layers": [{"Linear": 3, "name": "a"}, {"Linear": 3, "name": "a"}]}}, Code.NAME_TAKEN),
    ({"model": {"layers": [{"Linear": 3, "from": "b"}]}}, Code.UNKNOWN_OUTPUT),
    ({"model": {"layers": [{"Linear": 3, "from": "b"}, {"Linear": 3, "name": "b"}]}}, Code.OUTPUT_BELOW),
    ({"model": {"layers": [{"Linear": 3, "name": "a", "from": "a"}]}}, Code.CYCLE),
    ({"model": {"layers": [{"Linear": 3, "layout": "upside-down"}]}}, Code.UNKNOWN_CHOICE),
    ({"model": {"layers": [{"Linear": "$width"}]}}, Code.UNKNOWN_PARAM),
    ({"model": {"layers": [{"Linear": "$(1 / 0)"}]}}, Code.FORMULA_FAILED),
    ({"model": {"layers": [{"Linear": "$(1 +)"}]}}, Code.FORMULA_SYNTAX),
    ({"model": {"layers": [{"Linear": "$(lambda: 1)"}]}}, Code.FORMULA_REFUSED),
    ({"model": {"layers": [{"Linear": "$(open(1))"}]}}, Code.UNKNOWN_FUNCTION),
    ({"model": {"params": {"width": 1}, "layers": [{"Linear": 3}]}}, Code.UNUSED),
    ({"model": {"layers": [{"Linear": 3, "name": "a"}, {"share": "a", "tie": "a"}]}}, Code.MISPLACED_KEY),
    ({"model": {"layers": [{"Linear": 3, "name": "a"}, {"share": "a", "ReLU": {}}]}}, Code.CONFLICT),
    ({"data": {"type": "digit"}}, Code.UNKNOWN_DATA),
    ({"optimizer": {"type": "Adma"}}, Code.UNKNOWN_OPTIMIZER),
    ({"scheduler": {"type": "StepRL"}}, Code.UNKNOWN_SCHEDULER),
    ({"loss": {"type": "MSELos"}}, Code.UNKNOWN_LOSS),
    ({"metrics": ["Acuracy"]}, Code.UNKNOWN_METRIC),
    ({"init": [{"match": "*", "type": "normall_"}]}, Code.UNKNOWN_INIT),
    ({"init": ["*"]}, Code.MISSING_NAME),
    ({"trainer": {"average": {"type": "EMMA"}}}, Code.UNKNOWN_AVERAGE),
    ({"trainer": {"device": "gpuu"}}, Code.UNKNOWN_DEVICE),
    ({"trainer": {"epochs": True}}, Code.WRONG_VALUE),
    ({"trainer": {"epoch": 3}}, Code.UNKNOWN_KEY),
    ({"seed": "${sed}"}, Code.UNKNOWN_REFERENCE),
    ({"seed": "${seed}"}, Code.CYCLE),
    ({"seed": "${oc.env:HOME}"}, Code.REFERENCE_REFUSED),
    ({"scheduler": {"type": "OneCycleLR", "max_lr": 1.0, "total_steps": 9, "warmup": 3}}, Code.CONFLICT),
]


@pytest.mark.parametrize(("changes", "code"), SPECS, ids=[f"{code}-{at}" for at, (_, code) in enumerate(SPECS)])
def test_the_codes_of_a_spec(changes: dict[str, Any], code: Code) -> None:
    with pytest.raises(SpecError) as caught:
        read_spec(copy.deepcopy({**CONFIG, **changes}), SourceMap)
    assert {each.code for each in caught.value.problems} == {code}, str(caught.value)


PADDED_TEXT = TensorInfo((9,), "tokens", Lengths("x"), vocab_size=7)
LAYERS: list[tuple[Any, TensorInfo, Code]] = [
    ([{"Embedding": 4}, {"Formula": "mean(_, dim=1)"}], PADDED_TEXT, Code.COUNTS_PADDING),
    ([{"Conv2d": {"out_channels": 3, "kernel_size": 9}}], channels_first(1, 3, 3), Code.LAYER_REFUSED),
    ([{"Conv2d": {"out_channels": 3, "kernel_size": 3}}], features(4), Code.WRONG_LAYOUT),
    ([{"Linear": {"in_features": 3, "out_features": 3}}], features(4), Code.SHAPE_MISMATCH),
    ([{"Softmax": {"dim": 0}}], features(4), Code.SAMPLES_MIXED),
    ([{"Sum": 7}], sequence(5, 4), Code.WRONG_DIMENSION),
    (["Add"], features(4), Code.INPUT_COUNT),
    (["TimeDistributed"], features(4), Code.MISSING_VALUE),
    ([{"Linear": 3, "name": "a"}, {"Linear": 3, "from": "a.1"}], features(4), Code.UNKNOWN_OUTPUT),
    ([{"ReLU": {"inplace": True}}], features(4), Code.INPLACE),
    ([{"ReLU": {}, "tie": "a"}], features(4), Code.NO_WEIGHT),
    (["Embedding"], tokens(5, 7), Code.MISSING_VALUE),
    ([{"Formula": "_ + flip(_, dims=0)"}], features(4), Code.SAMPLES_MIXED),
]


@pytest.mark.parametrize(
    ("layers", "given", "code"), LAYERS, ids=[f"{code}-{at}" for at, (*_, code) in enumerate(LAYERS)]
)
def test_the_codes_of_layers(layers: Any, given: TensorInfo, code: Code) -> None:
    assert build_layers(layers, given, problems := Problems()) is None
    assert [each.code for each in problems.found] == [code], problems.found


def test_exceptions_and_checks_carry_a_finding() -> None:
    with pytest.raises(ExpressionError) as of_params:
        evaluate_expression("x[", {})
    with pytest.raises(ExpressionError) as of_a_formula:
        check_batch_is_kept(parse_formula("x[0]"))
    with pytest.raises(DataError) as of_data:
        open_data(read_spec({**CONFIG, "data": {"type": "text_csv", "path": "no.csv"}}, SourceMap).data)
    refused = Formula.rule.refuse((features(4), features(5)), {"formula": "x + y"})
    assert of_params.value.finding.code == Code.FORMULA_SYNTAX
    assert of_a_formula.value.finding.code == Code.SAMPLES_MIXED
    assert (of_data.value.finding, of_data.value.key) == (
        Finding(Code.FILE_UNREADABLE, str(of_data.value)),
        "path",
    )
    assert refused is not None and refused.code == Code.SHAPE_MISMATCH


def test_the_rule_of_a_users_own_layer_may_give_the_two_texts_alone() -> None:
    rule = type(Formula.rule)(check=lambda inputs, settings: ("too small", "take more"))
    assert rule.refuse((), {}) == Finding(Code.LAYER_REFUSED, "too small", "take more")


def test_a_code_is_data_and_is_not_printed() -> None:
    problem = Finding(Code.NAME_TAKEN, "the name 'a' is taken", "take another").to_problem("model.layers.0")
    assert problem == Problem(Code.NAME_TAKEN, "model.layers.0", "the name 'a' is taken", "take another")
    assert problem.format_lines() == ["model.layers.0   the name 'a' is taken   take another"]
    assert issubclass(DataError, UserError)


def test_codes_are_words_that_say_what_their_names_say() -> None:
    assert [str(each) for each in Code] == [each.name.lower().replace("_", "-") for each in Code]
    assert set(UNKNOWN_PART_CODES.values()) <= set(Code)


# ---- the package's own code ----------------------------------------------------------------------------------------


def test_every_code_is_used() -> None:
    used = {
        node.attr
        for tree in parse_package().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Code"
    }
    assert used == {each.name for each in Code}


# Functions that ask a text of somebody else's, who offers nothing else; each says so in its docstring.
OTHERS_TEXTS = {
    "is_failed_allocation",  # PyTorch on a CPU: a plain RuntimeError
    "is_out_of_memory",  # PyTorch, CUDA's libraries, MPS, C++
    "is_nan_gradient",  # PyTorch's anomaly detection
    "is_meta_tensor_error",  # PyTorch on the meta device
    "find_nondeterministic_operation",  # PyTorch's deterministic algorithms
    "_parse_config_name",  # Hydra's composing
    "_parse_merge_error",  # Hydra's merging
    "_pydantic_expectation",  # a setting without a hint of ours
    "message_has",  # libyaml's parser
    "context_has",  # libyaml's parser
    "_reword_python_error",  # Python's arithmetic, in the words of YAML
}
# Functions that cut what they show, and ask nothing.
SHOWING = {
    "first_line",  # of any error
    "problem_from_hydra_error",  # the first line of Hydra's
    "_find_cause",  # which problems are printed as one
}
# What a problem and an error have of text; `message` and `context` are libyaml's.
TEXTS = {"found", "fix", "note", "message", "context", "args", "msg", "strerror"}
SEARCHING = {"match", "search", "fullmatch", "findall", "finditer", "sub"}
CUTTING = set(
    "startswith endswith find index count partition rpartition removeprefix removesuffix replace split".split()
)


def _is_text_of_an_error(node: ast.expr) -> bool:
    """Whether it is an error as text, or the text of a problem: `str(error)`, `problem.found`, `error["msg"]`."""
    match node:
        case ast.Call(func=ast.Name(id="str" | "repr" | "first_line"), args=[ast.Name(id=name), *_]):
            return "error" in name or name in ("caught", "refused", "problem", "bad")
        case ast.Attribute(value=ast.Name(id="self"), attr="found"):
            return False  # a list of problems, or a job
        case ast.Attribute(attr=name):
            return name in TEXTS
        case ast.Subscript(value=ast.Name(id="error"), slice=ast.Constant(value=str(key))):
            return key in TEXTS
        case ast.Name(id=name):
            return name in ("fix", "message")
        case ast.JoinedStr(values=parts):
            return any(isinstance(each, ast.FormattedValue) and _is_text_of_an_error(each.value) for each in parts)
    return False


def _asks_a_text(node: ast.AST) -> bool:
    """Whether it compares, searches or cuts such a text. Whether there is one may be asked."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            is_asked = any(_is_text_of_an_error(each) for each in (left, *others))
            return is_asked and not all(isinstance(each, ast.Is | ast.IsNot) for each in ops)
        case ast.Call(func=ast.Attribute(value=value, attr=name), args=arguments):
            if name in SEARCHING and any(_is_text_of_an_error(each) for each in arguments):
                return True
            return name in CUTTING and _is_text_of_an_error(value)
        case ast.Match(subject=subject):
            return _is_text_of_an_error(subject)
    return False


def _askers(tree: ast.AST, function: str = "") -> Iterator[tuple[str, int]]:
    """The functions that ask a text, and the lines in which they do."""
    for node in ast.iter_child_nodes(tree):
        name = node.name if isinstance(node, ast.FunctionDef) else function
        if _asks_a_text(node):
            yield name, node.lineno  # type: ignore[attr-defined]  # an expression or a statement
        yield from _askers(node, name)


def test_no_behaviour_hangs_on_the_text_of_a_message() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path, tree in parse_package().items()
        for name, line in _askers(tree)
        if name not in OTHERS_TEXTS | SHOWING
    }
    assert found == set(), "ask for the problem's code, or carry the value"


ASKING = [
    "'did you mean' in problem.fix",
    "pattern.match(each.found)",
    "re.search('no layer', str(error))",
    "str(error).startswith('no')",
    "problem.found == 'no layer'",
    "error['msg'].removeprefix('Value error, ')",
    "f'{problem.found}'.endswith('there')",
    "str(error).removeprefix('trainer.device: ')",
]
NOT_ASKING = ["problem.fix is None", "print(problem.found)", "problem.code == code", "str(error)", "a.found or b.found"]


@pytest.mark.parametrize("text", ASKING)
def test_the_check_finds_what_asks_a_text(text: str) -> None:
    assert list(_askers(ast.parse(text)))


@pytest.mark.parametrize("text", NOT_ASKING)
def test_the_check_lets_the_rest_pass(text: str) -> None:
    assert not list(_askers(ast.parse(text)))


def test_the_exceptions_are_there() -> None:
    nodes = (node for tree in parse_package().values() for node in ast.walk(tree))
    names = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    assert names >= OTHERS_TEXTS | SHOWING
