"""`Formula`: what it computes, what it is traced to, what it refuses and in which words."""

from __future__ import annotations

import ast
import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from dlspec.language.expressions.expression_parsing import ExpressionError
from dlspec.language.expressions.formula import parse_formula
from dlspec.language.expressions.formula_batch import check_batch_is_kept
from dlspec.language.expressions.formula_functions import FORMULA_FUNCTIONS, IS_STEP
from dlspec.language.expressions.formula_tree import find_calls, find_output_names
from dlspec.layouts import NO_PADDING, LengthChange, Lengths, TensorInfo
from dlspec.parts.layers.formula_layer import Formula
from helpers.layer_table import channels_first, channels_last, features, make_batch, parameter, sequence, tokens

X = sequence(5, 4)
x, y, square = make_batch(X, 3), make_batch(X, 3, seed=2), make_batch(sequence(4, 4), 3)
p, ids = torch.rand(3, 5, 4) * 0.8 + 0.1, make_batch(tokens(5), 3)
scale, lengths = torch.randn(4), Lengths("x")

# ---- what is computed ----------------------------------------------------------------------------------------------

UNARY = (
    "exp expm1 square abs sign sin cos tan asin acos atan sinh cosh tanh sigmoid relu erf floor ceil round log log1p "
)
UNARY += "log2 sqrt rsqrt reciprocal detach ones_like zeros_like rand_like randn_like gelu silu softplus elu logsigmoid"
ALONG = "sum mean amax amin logsumexp prod argmax softmax log_softmax cumsum cumprod var std norm"


def named(name: str) -> Any:
    return getattr(torch, name, None) or getattr(F, name)


COMPUTED: list[tuple[str, Any]] = [
    *((f"{name}(p)", lambda name=name: named(name)(p)) for name in UNARY.split()),
    *((f"{name}(x, dim=1)", lambda name=name: named(name)(x, dim=1)) for name in ALONG.split()),
    ("_ * scale / sqrt(mean(_ ** 2, dim=-1, keepdim=True) + 0.1)",
     lambda: x * scale / (x.pow(2).mean(-1, keepdim=True) + 0.1).sqrt()),
    ("-x + 2 - 3 * y / 4 // 1 % 5", lambda: -x + 2 - 3 * y / 4 // 1 % 5),
    ("x / sqrt(2 * 8) + exp(1)", lambda: x / 4 + torch.e),
    ("(x > 0) & (y <= 1) | ~(x != y)", lambda: (x > 0) & (y <= 1) | ~(x != y)),
    ("x[:, 1:, ::2] * x[..., :1, None, 0]", lambda: x[:, 1:, ::2] * x[..., :1, 0, None]),
    ("x @ transpose(y, 1, 2)", lambda: x @ y.mT),
    ("matmul(x, transpose(y, -1, -2))", lambda: x @ y.mT),
    ("x @ scale", lambda: x @ scale),
    ("einsum('ntc, nsc -> nts', x, y)", lambda: x @ y.mT),
    ("einsum('...c,c->...', x, scale)", lambda: x @ scale),
    ("cat([x, y], dim=1)", lambda: torch.cat([x, y], 1)),
    ("cat(chunk(x, 2, dim=2)[::1], dim=1)", lambda: torch.cat(x.chunk(2, 2), 1)),
    ("stack((x, y), 1)", lambda: torch.stack([x, y], 1)),
    ("chunk(x, 2, dim=-1)[1]", lambda: x.chunk(2, -1)[1]),
    ("split(x, [2, 3], dim=1)[0]", lambda: x[:, :2]),
    ("unbind(x, dim=1)[-1]", lambda: x[:, -1]),
    ("flip(x, dims=[1, 2])", lambda: x.flip([1, 2])),
    ("roll(x, 1, dims=1)", lambda: x.roll(1, 1)),
    ("x[:, :4] * eye(4)", lambda: x[:, :4] * torch.eye(4)),
    ("x * arange(4)", lambda: x * torch.arange(4)),
    ("tril(square) + triu(square, 1)", lambda: square),
    ("permute(x, (0, 2, 1))", lambda: x.mT),
    ("reshape(x, (-1, 2, 10))", lambda: x.reshape(3, 2, 10)),
    ("expand(x[:, None], (-1, 2, -1, -1))", lambda: x[:, None].expand(3, 2, 5, 4)),
    ("flatten(x, 1)", lambda: x.flatten(1)),
    ("unflatten(x, 2, (2, -1))", lambda: x.unflatten(2, (2, 2))),
    ("squeeze(unsqueeze(x, -1), dim=3)", lambda: x),
    ("normalize(x)", lambda: F.normalize(x)),
    ("norm(x, 1, dim=(1, 2))", lambda: x.abs().sum((1, 2))),
    ("var(x, 1, correction=0, keepdim=true)", lambda: x.var(1, correction=0, keepdim=True)),
    ("one_hot(ids, 7)", lambda: F.one_hot(ids, 7)),
    ("clamp(x, min=0) + clamp(3, max=2)", lambda: x.relu() + 2),
    ("where(x > 0, y, 0) + maximum(x, y) - minimum(x, y)", lambda: torch.where(x > 0, y, 0) + (x - y).abs()),
    ("pow(2, x) + pow(x, 2) + leaky_relu(x, 0.2)", lambda: 2**x + x**2 + F.leaky_relu(x, 0.2)),
    ("x * 2 ** (-5 - arange(4))", lambda: x * torch.tensor([1 / 32, 1 / 64, 1 / 128, 1 / 256])),
    ("x * pow(10000, -2 * arange(4) / 4)", lambda: x * torch.tensor([1, 0.01, 1e-4, 1e-6])),
    ("x * pow(10, 0 - arange(4))", lambda: x * torch.tensor([1, 0.1, 0.01, 0.001])),
    ("(ids + 1) ** -1 + pow(ids + 1, -2)", lambda: 1 / (ids + 1) + 1 / (ids + 1).double().square().float()),
    ("(ids + 2) ** (1 - ids)", lambda: ((ids + 2).double() ** (1 - ids).double()).float()),
    ("pow(ids + 2, -1 - ids)", lambda: ((ids + 2).double() ** (-1 - ids).double()).float()),
    ("(ids + 2) ** 64", lambda: ((ids + 2).double() ** 64).float()),
    ("ids ** 2 + 2 ** 3", lambda: ids * ids + 8),
    ("1 * (x > 0) + (y > 0)", lambda: (x > 0).long() + (y > 0).long()),
    ("sum * sum(x, dim=1, keepdim=True)", lambda: y * x.sum(1, keepdim=True)),
]  # fmt: skip
WITHOUT_BATCH: list[tuple[str, Any]] = [
    ("sum(table, dim=0) * x", lambda: table.sum(0) * x),
    ("softmax(table, dim=0) + x", lambda: table.softmax(0) + x),
    ("x @ transpose(table, 0, 1)", lambda: x @ table.T),
    ("permute(table, (1, 0))[:, 1:] @ table[:4]", lambda: table.T[:, 1:] @ table[:4]),
    ("x + table[0] - table[-1, None]", lambda: x + table[0] - table[-1]),
    ("x * reshape(table, (4, 5))[0, 0]", lambda: x * table[0, 0]),
    ("x + unsqueeze(table, 0)", lambda: x + table),
    ("x[:, :4] + eye(4)[1] + sum(eye(4), dim=0)", lambda: x[:, :4] + torch.eye(4)[1] + 1),
    ("flip(table, dims=0) + stack([scale], dim=0)", lambda: table.flip(0) + scale),
    ("expand(scale, (5, 4)) + x", lambda: scale + x),
    ("einsum('tc,sc->ts', table, table) @ x", lambda: (table @ table.T) @ x),
    ("einsum('tc->ct', table)", lambda: table.T),
    ("table[ids % 5] + x", lambda: table[ids % 5] + x),
    ("x[:, arange(5) // 2] * table[flip(arange(5), dims=0)]", lambda: x[:, [0, 0, 1, 1, 2]] * table.flip(0)),
    ("cat([table, table], dim=0)", lambda: torch.cat([table, table])),
    ("chunk(table, 2, dim=0)[1] + unbind(table, dim=0)[0]", lambda: table.chunk(2)[1] + table[0]),
]  # fmt: skip
COMPUTED += WITHOUT_BATCH
table = torch.randn(5, 4)
TENSORS = {"_": x, "table": table, "x": x, "y": y, "p": p, "ids": ids, "scale": scale, "sum": y, "square": square}
VALUES = dict.fromkeys(TENSORS, X) | {
    "scale": parameter(4),
    "table": parameter(5, 4),
    "ids": tokens(5),
    "square": sequence(4, 4),
}


def traced(layer: Formula, count: int) -> fx.GraphModule:
    """The layer's forward on proxies alone."""
    graph = fx.Graph()
    tracer = fx.proxy.GraphAppendingTracer(graph)
    graph.output(layer.forward(*(fx.Proxy(graph.placeholder(f"x{at}"), tracer) for at in range(count))).node)
    return fx.GraphModule(nn.Module(), graph)


@pytest.mark.parametrize(("text", "wanted"), COMPUTED, ids=[text for text, _ in COMPUTED])
def test_what_is_computed_and_traced(text: str, wanted: Any) -> None:
    names = find_output_names(parse_formula(text))
    inputs = [TENSORS[name] for name in names]
    assert Formula.rule.check([VALUES[name] for name in names], {"formula": text}) is None
    plain = traced(Formula(text), len(inputs))
    assert {node.op for node in plain.graph.nodes} <= {"placeholder", "call_function", "call_method", "output"}
    for forward in (wanted, lambda: Formula(text)(*inputs), lambda: plain(*inputs)):
        torch.manual_seed(0)
        found = forward()
        if forward is wanted:
            right = found
        torch.testing.assert_close(found, right)


def test_every_function_has_a_row() -> None:
    assert {name for text, _ in COMPUTED for name, _ in find_calls(parse_formula(text))} == (
        FORMULA_FUNCTIONS - {IS_STEP}  # its values are those of the lengths: see test_padding.py
    )


def test_the_traced_code_is_straight() -> None:
    code = traced(Formula("mu + exp(logvar / 2) * randn_like(mu)"), 2).code
    lines = [line.split(";")[0].strip() for line in code.splitlines() if " = " in line]
    assert lines == [
        "truediv = x1 / 2",
        "exp = torch.exp(truediv)",
        "randn_like = torch.randn_like(x0)",
        "mul = exp * randn_like",
        "add = x0 + mul",
    ]
    assert repr(Formula("exp(x)")) == "Formula(exp(x))"


def test_gradients_flow() -> None:
    inputs = [each.clone().requires_grad_() for each in (x, scale, y)]
    Formula("softmax(x * scale, dim=-1) @ transpose(tanh(y), 1, 2)")(*inputs).square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in inputs)


# ---- what a tree tells ---------------------------------------------------------------------------------------------


def test_names_come_in_the_order_they_are_written_in() -> None:
    formula = parse_formula("(b + exp(_))\n * a - exp / b + null_ + where(a > 0, true, x[:, null])")
    assert find_output_names(formula) == ("b", "_", "a", "exp", "null_", "x")


LENGTHY = TensorInfo((5, 4), "sequence", lengths)
RULES = [
    ("exp(x) * y + 1", (LENGTHY, LENGTHY), (5, 4), "sequence", True),
    ("x * scale", (LENGTHY, parameter(4)), (5, 4), "sequence", True),
    ("x * scale", (LENGTHY, parameter(5, 4)), (5, 4), "sequence", False),
    ("softmax(x, dim=1)", (LENGTHY,), (5, 4), "sequence", False),
    ("x[:, 1:]", (LENGTHY,), (4, 4), "sequence", True),
    ("x[:, ::2]", (LENGTHY,), (3, 4), "sequence", True),
    ("cumsum(x, dim=1)", (LENGTHY,), (5, 4), "sequence", True),
    ("x @ transpose(x, 1, 2)", (LENGTHY,), (5, 5), "sequence", False),
    ("x - mean(x, dim=-1, keepdim=True)", (LENGTHY,), (5, 4), "sequence", True),
    ("sum(x[:, :1], dim=1)", (LENGTHY,), (4,), "features", True),
    ("x * 2", (channels_first(3, 8, 8),), (3, 8, 8), "channels-first", True),
    ("x * 2", (channels_first(3, 8),), (3, 8), "channels-first", True),
    ("transpose(x, 1, 2)", (channels_first(3, 8),), (8, 3), "sequence", False),
    ("transpose(x, 1, 2) * 2", (sequence(8, 3),), (3, 8), "channels-first", False),
    ("permute(x, (0, 2, 3, 1))", (channels_first(3, 8, 8),), (8, 8, 3), "channels-last", False),
    ("permute(x, (0, -1, 1, 2))", (channels_last(8, 8, 3),), (3, 8, 8), "channels-first", False),
    ("flatten(x, 2)", (channels_first(3, 8, 8),), (3, 64), "channels-first", False),
    ("transpose(flatten(relu(x), 2), 1, 2)[:, 1:]", (channels_first(3, 8, 8),), (63, 3), "sequence", False),
    ("flatten(x, 1, 2)", (channels_last(8, 8, 3),), (64, 3), "sequence", False),
    ("flatten(x, 1)", (channels_last(8, 8, 3),), (192,), "features", False),
    ("unflatten(x, 2, (2, 2))", (sequence(5, 4),), (5, 2, 2), "sequence", False),
    ("reshape(x, (-1, 3, 64)) @ eye(64)", (channels_first(3, 8, 8),), (3, 64), "channels-first", False),
    ("softmax(x @ transpose(x, 1, 2), dim=-1) @ x", (sequence(5, 4),), (5, 4), "sequence", False),
    ("einsum('ntc->nct', x)", (sequence(5, 4),), (4, 5), "sequence", False),
    ("transpose(x, 1, 2)", (LENGTHY,), (4, 5), "channels-first", True),
    ("mean(x, dim=[2, 3])", (channels_first(3, 8, 8),), (3,), "features", False),
    ("x == 3", (tokens(5),), (5,), "tokens", True),
]


MIXING = ("softmax(x, dim=1)", "x[:, ::2]", "x @ transpose(x, 1, 2)")  # of their lengths nothing is known


@pytest.mark.parametrize(("text", "inputs", "shape", "layout", "keeps"), RULES, ids=[each[0] for each in RULES])
def test_layouts_and_lengths(text: str, inputs: Any, shape: Any, layout: str, keeps: bool) -> None:
    rule, read = Formula.rule, {"formula": text}
    assert rule.lengths is not None and callable(rule.keeps_lengths)
    assert (rule.gives(inputs, shape, read), rule.keeps_lengths(inputs, read)) == (layout, keeps)
    kept = {"x[:, 1:]": lengths.after(LengthChange(1)), "sum(x[:, :1], dim=1)": NO_PADDING}.get(text, lengths)
    assert rule.lengths(inputs, shape, read) == (kept if inputs[0].lengths and text not in MIXING else None)


@pytest.mark.parametrize(
    ("text", "keeps"),
    [
        ("roll(ids, -1, 1)", True),
        ("cat([zeros_like(ids[:, :1]), ids[:, :-1]], dim=1)", True),
        ("ids == 3", False),
        ("clamp(ids, 0, 1)", False),
        ("-ids", False),
        ("ids + 1", False),
        ("where(ids > 3, ids, 0)", False),
    ],
)
def test_what_only_moves_tokens_keeps_their_vocabulary(text: str, keeps: bool) -> None:
    assert Formula.rule.keeps_vocabulary({"formula": text}) == keeps


# ---- what is refused -----------------------------------------------------------------------------------------------

LANGUAGE = (
    "a Formula can contain names of outputs, numbers, + - * / // % ** @, comparisons, & | ~, slices like x[:, 1:], and "
)
LANGUAGE += "functions like exp(x)"
DIM_0 = "dim 0 is the batch, and samples must not be mixed"
MORE = "to raise the limit, set the environment variable DLSPEC_MAX_FORMULA_SIZE"
NO = "is not allowed"
REFUSED = [
    ("x.sum(1)", "unknown function 'x.sum'", "write sum(x, ...)"),
    ("torch.exp(x)", "unknown function 'torch.exp'", "write exp(...)"),
    ("softmx(x, dim=1)", "unknown function 'softmx'", "did you mean 'softmax'?"),
    ("max(x)", "unknown function 'max'", "write amax(x, dim=1), or maximum(a, b) for two tensors"),
    ("x.shape", f"'x.shape' {NO}", "write the size as a number, or use a param"),
    ("a.state", f"'a.state' {NO}", "give it a simple name in an entry above: Identity: {from: a.state, name: state}"),
    ("x and y", f"'x and y' {NO}", "write & with parentheses: (a > 0) & (b > 0)"),
    ("not x", f"'not x' {NO}", "write ~ with parentheses: ~(a > 0)"),
    ("x if y else x", f"'x if y else x' {NO}", "write where(condition, a, b)"),
    ("x in y", f"'x in y' {NO}", "write (a == 1) | (a == 2)"),
    ("x + 'a'", f"''a'' {NO}", "only the equation of einsum is written as a string"),
    ("0 < x < 1", "'0 < x < 1' compares more than two values", "compare two at a time: (a < b) & (b < c)"),
    ("x > 0 & y", "'0 & y' has a number on one side", "put parentheses around each condition: (a > 0) & (b > 0)"),
    ("[x, y]", f"'[x, y]' {NO}", "lists are only allowed as arguments: cat([a, b], dim=1)"),
    ("x[0]", "'x[0]' selects samples from the batch", "write x[:, 0]: the first dimension is the batch"),
    ("x[1:]", "'x[1:]' selects samples from the batch", "write x[:, 1:]: the first dimension is the batch"),
    ("x[:, ::-1]", "'::-1' has a step below 1", "to reverse a dimension, write flip(x, dims=1)"),
    ("x[:, 0.5]", "'0.5' is not a valid index",
     "use integers, slices, '...', None or an output of integers; for a condition write where(condition, a, b)"),
    ("x[y > 0]", "'x[y > 0]' selects samples from the batch",
     "index a value without a batch; to select by a condition, write where(condition, a, b)"),
    ("chunk(x, 2, 1)", "'chunk(x, 2, 1)' returns more than one tensor", "select one: chunk(x, 2, 1)[0]"),
    ("sum(x)", "'sum(x)' lacks the argument 'dim'", f"write sum(x, dim=1): {DIM_0}"),
    ("mean(x, 0, True)", "'mean(x, 0, True)' works on the batch dimension",
     f"write mean(x, dim=1, keepdim=True): {DIM_0}"),
    ("amax(x, [])", "'amax(x, [])' needs a number as 'dim'", f"write amax(x, dim=1): {DIM_0}"),
    ("cat([x, y])", "'cat([x, y])' lacks the argument 'dim'", f"write cat([x, y], dim=1): {DIM_0}"),
    ("roll(x, 1)", "'roll(x, 1)' lacks the argument 'dims'", f"write roll(x, 1, dims=1): {DIM_0}"),
    ("permute(x, (1, 0))", "'permute(x, (1, 0))' moves the batch dimension",
     "keep dim 0, the batch, first: permute(x, (0, 1))"),
    ("reshape(x, (3, 4))", "'reshape(x, (3, 4))' needs -1 as the first number of 'shape'",
     "write -1 first, for the batch: reshape(x, (-1, ...))"),
    ("sum(arange(4)) * x", "'sum(arange(4))' lacks the argument 'dim'", "write sum(arange(4), dim=0)"),
    ("reshape(x, 0.5)", "'reshape(x, 0.5)' needs sizes as 'shape'", "write integers: reshape(x, (-1, 4))"),
    ("(x + w)[0]", "'(x + w)[0]' selects samples from the batch",
     "write (x + w)[:, 0]: the first dimension is the batch"),
    ("einsum('nc,nd->cd', x, y)", "'einsum('nc,nd->cd', x, y)' does not keep the batch dimension first",
     "start the output with the batch's letter: einsum('nij,njk->nik', a, b)"),
    ("exp(x, out=y)", "exp has no argument 'out'", "write exp(input)"),
    ("sum(x, 1, keepdims=True)", "sum has no argument 'keepdims'", "did you mean 'keepdim'?"),
    ("exp()", "'exp()' lacks the argument 'input'", "write exp(input)"),
    ("maximum(x, 0)", "'maximum(x, 0)' needs a tensor as 'other', not a number", "write clamp(x, min=0)"),
    ("clamp(x, min=y)", "'clamp(x, min=y)' needs a number as 'min'", "write a number or a param there"),
    ("arange(x.shape[1]) + x", "'arange(x.shape[1])' needs a number as 'end'", "write a number or a param there"),
    ("2 + 3", "'2 + 3' uses no output", "name one, or write _ for the previous one"),
    ("x * $scale", "'$' is not allowed in 'x * $scale'", "write '$' only before a param's name"),
    ("x +", "'x +' is not a valid expression", LANGUAGE),
    ("__import__('os') + x", "unknown function '__import__'", ""),
    ("x.__class__", f"'x.__class__' {NO}", LANGUAGE),
    ("(lambda: 0)()", f"'lambda: 0' {NO}", LANGUAGE),
    ("(a := x)", f"'(a := x)' {NO}", LANGUAGE),
    ("sum(*x)", f"'*x' {NO}", LANGUAGE),
    ("x + f'{y}'", f"'f'{{y}}'' {NO}", LANGUAGE),
    ("[x for x in y]", f"'[x for x in y]' {NO}", LANGUAGE),
    ("x * 9**9**9", "'9 ** 9 ** 9': an exponent must not exceed 1,000, nor its base 1e+18", ""),
    ("x * 1e999", "a number beyond 1e+18", "write a smaller one"),
    ("(x > 0) + ~(x < -1)", "'(x > 0) + ~(x < -1)' adds two conditions, which gives true or false",
     "write (x > 0) | ~(x < -1), or multiply one by 1 to count them"),
    ("x + eye(10**9)", "'eye(10 ** 9)' creates 1,000,000,000 numbers; at most 100,000,000 are allowed", MORE),
    ("x * arange(0.5)", "'arange(0.5)' needs a size as 'end'", "write an integer >= 1"),
    ("roll(x, [0] * 10**9, 1)", "'[0] * 10 ** 9': the result has more than 10,000 items", MORE),
    ("[0] * 10**9", f"'[0]' {NO}", "lists are only allowed as arguments: cat([a, b], dim=1)"),
    ("-" * 99 + "x", "an expression nested more than 50 levels deep",
     "to raise the limit, set the environment variable DLSPEC_MAX_FORMULA_DEPTH"),
    ("(" * 10_000 + "x" + ")" * 10_000, "an expression of 20,001 characters; at most 500 are allowed",
     "to raise the limit, set the environment variable DLSPEC_MAX_FORMULA_LENGTH"),
    ("x + " * 25_000, "an expression of 100,000 characters; at most 500 are allowed",
     "to raise the limit, set the environment variable DLSPEC_MAX_FORMULA_LENGTH"),
    ("(" * 240 + "x" + ")" * 240, f"'{'(' * 57}...' is not a valid expression", LANGUAGE),
]  # fmt: skip


@pytest.mark.parametrize(("text", "found", "fix"), REFUSED, ids=[each[0][:40] for each in REFUSED])
def test_what_is_refused(text: str, found: str, fix: str) -> None:
    before = time.process_time()
    with pytest.raises(ExpressionError) as error:
        check_batch_is_kept(parse_formula(text))
    assert time.process_time() - before < 0.5
    assert (str(error.value), error.value.finding.fix) == (found, fix or error.value.finding.fix)


WORDS = [*"abx_", *sorted(FORMULA_FUNCTIONS), *"0 1 2 -1 1e9 10**9 None true 'a' 'nc,cd->nd'".split()]
SIGNS = [*"()[]{},:.+-*/%@<>=&|~!$#;\\", "**", "//", "==", "...", " dim=", " if ", " else ", " not ", " in ", "lambda:"]
TEXTS = st.lists(st.sampled_from(WORDS) | st.sampled_from(SIGNS), max_size=12).map("".join)
CALLS = st.builds("{}({}, {})".format, st.sampled_from(WORDS), st.sampled_from(WORDS) | TEXTS, TEXTS)


@settings(max_examples=200, deadline=None)
@given(TEXTS | CALLS | st.text(max_size=20))
def test_any_text_is_a_tree_or_refused(text: str) -> None:
    try:
        tree = parse_formula(text)
    except ExpressionError:
        return
    names = find_output_names(tree)
    assert isinstance(tree, ast.expr)
    refused = Formula.rule.check([X] * len(names), {"formula": text})  # whatever it says, nothing is raised
    if refused is None:
        assert isinstance(Formula(text, [X] * len(names))(*[x] * len(names)), Tensor)


MIXES = "the first dimension is the batch, and samples must not be mixed"
UNFIT: list[tuple[str, tuple[TensorInfo, ...], str, str]] = [
    ("x + exp(y)", (channels_first(4, 3, 3), features(4)),
     "'x + exp(y)' combines (4, 3, 3) and (4), which do not match",
     "put a Reshape before one of them: both need the same number of dimensions, and sizes of 1 broadcast"),
    ("where(x > 0, x, w)", (channels_first(4, 3, 3), parameter(4)),
     "'where(x > 0, x, w)' combines (4, 3, 3) and (4), which do not match",
     "a Parameter must broadcast to the other input: shape [4, 1, 1] gives one number per channel"),
    ("x - mean(x, dim=1)", (X,), "'x - mean(x, dim=1)' combines (5, 4) and (4), which do not match",
     "write keepdim=True: both need the same number of dimensions"),
    ("softmax(sum(x, dim=1), dim=-1)", (features(4),),
     "'softmax(sum(x, dim=1), dim=-1)' has a wrong dimension: dim is -1, the batch; samples must not be mixed",
     "use 1 or more: the dimensions of a sample start at 1"),
    ("sum(x, dim=3)", (X,),
     "'sum(x, dim=3)' has a wrong dimension: dim is 3, but (5, 4) sequence has dimensions 1 to 2",
     "count the batch as 0, as PyTorch does"),
    ("x @ y", (features(4), features(4)), "'x @ y' mixes the samples of (4) and (4)", "write sum(a * b, dim=-1)"),
    ("w @ x", (parameter(4, 4), features(4)),
     "'w @ x' mixes the samples of (4, 4) and (4)", "write sum(a * b, dim=-1)"),
    ("einsum('nc,mc->nc', x, y)", (features(4), features(4)), "'einsum('nc,mc->nc', x, y)' mixes samples",
     "start each operand with the batch's letter, n"),
    ("sum(x, dim=1)[..., 0]", (features(4),), "'sum(x, dim=1)[..., 0]' takes samples out of the batch", MIXES),
    ("transpose(x, 1, -2)", (features(4),),
     "'transpose(x, 1, -2)' has a wrong dimension: dim1 is -2, the batch; samples must not be mixed",
     "use 1 or more: the dimensions of a sample start at 1"),
    ("sum(w * x, dim=0)", (parameter(5, 4), X), "'sum(w * x, dim=0)' works on the batch dimension",
     f"write sum(w * x, dim=1): {DIM_0}"),
    ("w[7] * x", (parameter(5, 4), X), "'w[7]' can't be computed from (5, 4)",
     "PyTorch says: index 7 is out of bounds for dimension 0 with size 5"),
    ("w[:, None] + x", (parameter(5, 4), X), "'w[:, None] + x' combines (5, 4) and (5, 1, 4), which do not match",
     "a Parameter must broadcast to the other input: shape [4] gives one number per channel"),
    ("x[:, y > 0]", (X, X), "'x[:, y > 0]' has an index that is not of integers",
     "to select by a condition, write where(condition, a, b)"),
    ("w[ids]", (parameter(6, 4), tokens(5)), "'w[ids]' can't be computed from (6, 4) and (5)",
     "PyTorch says: index 6 is out of bounds for dimension 0 with size 6"),
    ("x[:, ids % 5]", (X, tokens(5)), "'x[:, ids % 5]' mixes the samples of (5, 4) and (5)", MIXES),
    ("unsqueeze(x, -2) * unsqueeze(x, -3)", (features(4),), "'unsqueeze(x, -3)' mixes the samples of (4)", MIXES),
    ("reshape(x, (-1, 2))", (features(4),), "'reshape(x, (-1, 2))' mixes the samples of (4)", MIXES),
    ("triu(x)", (features(4),), "'triu(x)' works on the batch", "use it on matrices, (N, R, C)"),
    ("cat([x, y], dim=1)", (X, sequence(5, 3)), "'cat([x, y], dim=1)' can't be computed from (5, 4) and (5, 3)",
     "PyTorch says: Sizes of tensors must match except in dimension 1. Expected size 4 but got size 3 for tensor "
     "number 1 in the list."),
    ("x / (1 / sin(0))", (X,), "'1 / sin(0)' can't be computed from numbers", "PyTorch says: float division by zero"),
    ("x + y", (X,), "got 1 inputs, but the formula uses x, y", "remove 'from': the formula names its inputs"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "inputs", "found", "fix"), UNFIT, ids=[each[0] for each in UNFIT])
def test_what_does_not_fit_is_refused(text: str, inputs: tuple[TensorInfo, ...], found: str, fix: str) -> None:
    state = torch.random.get_rng_state()
    refused = Formula.rule.refuse(inputs, {"formula": text})
    assert refused is not None and (refused.found, refused.fix) == (found, fix)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    "text", ["x * w", "w - x", "sum(w, dim=-1) * x", "x @ transpose(exp(x), 1, 2) * randn_like(x)"]
)
def test_a_large_sample_is_tried_without_memory(text: str) -> None:
    many = sequence(2048, 2048)
    inputs = {"x": many, "w": parameter(1, 2048) if "sum" not in text else parameter(1)}
    assert (
        Formula.rule.check([inputs[name] for name in find_output_names(parse_formula(text))], {"formula": text}) is None
    )
