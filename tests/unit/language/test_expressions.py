"""`$` formulas: all that the language has, all that it refuses, and that nothing makes them slow or large."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlspec.language.expressions import expression_parsing
from dlspec.language.expressions.evaluation import evaluate_expression
from dlspec.language.expressions.expression_functions import make_divisible
from dlspec.language.expressions.expression_parsing import (
    ExpressionError,
    UnknownValue,
    extract_expression,
    has_embedded_expression,
    unescape_dollars,
)

CLASSES = UnknownValue("data.num_classes")
SCOPE: dict[str, Any] = {
    "width": 64,
    "rate": 0.5,
    "word": "lin",
    "sizes": [16, 32, 64],
    "nothing": None,
    "big": 10**18,
    "many": [0] * 9_000,
    "classes": CLASSES,
    "mixed": [1, CLASSES],
    "part": {"LeakyReLU": {"negative_slope": 0.1}},
}

COMPUTED: list[tuple[str, Any]] = [
    ("4 * width + 1", 257),
    ("width / 4", 16.0),
    ("width // 3", 21),
    ("width % 7", 1),
    ("2 ** 10", 1024),
    ("2 ** -1", 0.5),
    ("-width", -64),
    ("+rate", 0.5),
    ("width == 64", True),
    ("width != 64", False),
    ("1 < rate * 4 <= 2", True),
    ("width > 64 or rate >= 0.5", True),
    ("width and nothing", None),
    ("not width", False),
    ("word if width > 9 else 'b'", "lin"),
    ("word + 'ear'", "linear"),
    ("'ab' * 2", "abab"),
    ("sizes[0]", 16),
    ("sizes[-1]", 64),
    ("sizes[1:]", [32, 64]),
    ("sizes[::-1]", [64, 32, 16]),
    ("word[0]", "l"),
    ("sizes + [128]", [16, 32, 64, 128]),
    ("[1, 2] * 2", [1, 2, 1, 2]),
    ("(1, 2)", [1, 2]),
    ("32 in sizes", True),
    ("3 not in sizes", True),
    ("min(sizes)", 16),
    ("max(1, width)", 64),
    ("round(2.567, 1)", 2.6),
    ("round(2.5)", 2),
    ("int(rate * 5)", 2),
    ("len(sizes)", 3),
    ("sum(sizes)", 112),
    ("prod(sizes)", 32768),
    ("prod([])", 1),
    ("make_divisible(width * 0.3)", 24),
    ("null", None),
    ("nothing == null", True),
    ("true and not false", True),
    ("width", 64),
    ("part", SCOPE["part"]),
]


@pytest.mark.parametrize(("text", "value"), COMPUTED)
def test_computed(text: str, value: Any) -> None:
    found = evaluate_expression(text, SCOPE)
    assert (type(found), found) == (type(value), value)


def test_make_divisible_never_takes_more_than_a_tenth() -> None:
    assert [make_divisible(value) for value in (1, 8, 11, 12, 17, 20, 36)] == [8, 8, 16, 16, 16, 24, 40]


UNKNOWN: list[tuple[str, Any]] = [
    ("classes", CLASSES),
    ("2 * classes", CLASSES),
    ("classes if width else 1", CLASSES),
    ("1 if classes else 2", CLASSES),
    ("max(classes, 3)", CLASSES),
    ("mixed", [1, CLASSES]),
    ("sum(mixed)", CLASSES),
    ("width or classes", 64),
    ("nothing and classes", None),
    ("width if width else classes", 64),
]


@pytest.mark.parametrize(("text", "value"), UNKNOWN)
def test_unknowns_wait_where_they_are_needed_and_nowhere_else(text: str, value: Any) -> None:
    assert evaluate_expression(text, SCOPE) == value


REFUSED: list[tuple[str, str]] = [
    ("width +", "'width +' is not a valid expression"),
    ("", "'' is not a valid expression"),
    ("width = 3", "'width = 3' is not a valid expression"),
    ("a\0b", "'a\0b' is not a valid expression"),
    ("widht", "'widht': unknown param 'widht'"),
    ("width.real", "'width.real' is not allowed"),
    ("'{}'.format(width)", "unknown function ''{}'.format'"),
    ("lambda: 3", "'lambda: 3' is not allowed"),
    ("[w for w in sizes]", "'[w for w in sizes]' is not allowed"),
    ("f'{width}'", "'f'{width}'' is not allowed"),
    ("(w := 3)", "'w := 3' is not allowed"),
    ("{1: 2}", "'{1: 2}' is not allowed"),
    ("max(*sizes)", "'*sizes' is not allowed"),
    ("round(1.5, ndigits=1)", "'round(1.5, ndigits=1)': keyword arguments are not allowed"),
    ("open('file')", "unknown function 'open'"),
    ("__import__('os')", "unknown function '__import__'"),
    ("sizes[0](3)", "unknown function 'sizes[0]'"),
    ("1j", "'1j' is not allowed"),
    ("b'a'", "'b'a'' is not allowed"),
    ("...", "'...' is not allowed"),
    ("~width", "'~width' is not allowed"),
    ("width @ width", "'width @ width': operator MatMult is not allowed"),
    ("width << 3", "'width << 3': operator LShift is not allowed"),
    ("width is null", "'width is null': this comparison is not allowed: write '== null' instead of 'is'"),
    ("word % 3", "'word % 3': '%' can't be applied to a string"),
    ("width / 0", "'width / 0': division by zero"),
    ("width + word", "'width + word': + can't be applied to an integer and a string"),
    ("nothing * 2", "'nothing * 2': * can't be applied to null and an integer"),
    ("sizes[3]", "'sizes[3]': list index out of range"),
    ("width[0]", "'width[0]': 64 can't be indexed"),
    ("part['a']", "'part['a']': {LeakyReLU: {negative_slope: 0.1}} can't be indexed"),
    ("int(word)", "'int(word)': invalid literal for int() with base 10: 'lin'"),
    ("(-8) ** 0.5", "'(-8) ** 0.5': the result is not a finite number"),
    ("1e999", "'1e999': the result is not a finite number"),
    ("9 ** 9 ** 9", "'9 ** 9 ** 9': an exponent must not exceed 1,000, nor its base 1e+18"),
    ("prod(['a', 10 ** 9])", "'prod(['a', 10 ** 9])': prod() expects a list of numbers"),
    ("prod([10 ** 18, 10])", "'prod([10 ** 18, 10])': a number beyond 1e+18"),
    ("2 ** 1000", "'2 ** 1000': a number beyond 1e+18"),
    ("big * 10", "'big * 10': a number beyond 1e+18"),
    ("'a' * 10 ** 9", "''a' * 10 ** 9': the result has more than 10,000 items"),
    ("[0] * 10 ** 9", "'[0] * 10 ** 9': the result has more than 10,000 items"),
    ("10 ** 9 * [[]]", "'10 ** 9 * [[]]': the result has more than 10,000 items"),
    ("[many] * 100", "'[many] * 100': the result has more than 10,000 items"),
    ("[many, many]", "'[many, many]': the result has more than 10,000 items"),
    ("round(1, -10 ** 9)", "'round(1, -10 ** 9)': round() to more than 100 digits"),
    ("-" * 499 + "1", "an expression nested more than 50 levels deep"),
    ("lambda: " + "-" * 400 + "1", f"'lambda: {'-' * 49}...' is not allowed"),
    ("(" * 250 + ")" * 250, f"'{'(' * 250}{')' * 250}' is not a valid expression"),
    ("1" * 501, "an expression of 501 characters; at most 500 are allowed"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=lambda each: each[:30])
def test_refused(text: str, said: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate_expression(text, SCOPE)
    assert str(caught.value) == said


def test_what_the_language_has_is_said_where_it_was_left() -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate_expression("open('a')", SCOPE)
    assert caught.value.finding.fix == "available: min, max, round, int, len, sum, prod, make_divisible"
    with pytest.raises(ExpressionError) as caught:
        evaluate_expression("width +", SCOPE)
    assert caught.value.finding.fix == expression_parsing.EXPRESSION_LANGUAGE
    with pytest.raises(ExpressionError) as caught:
        evaluate_expression("width / 0", SCOPE)
    assert caught.value.finding.fix == ""


FORMS: list[tuple[Any, str | None, bool]] = [
    ("$width", "width", False),
    ("$(4 * width)", "4 * width", False),
    ("$( a )", "a", False),
    ("width", None, False),
    ("$$width", None, False),
    ("$$$width", None, True),
    ("$3", None, False),
    ("costs 3$", None, False),
    ("a$width", None, True),
    ("$width.b", None, True),
    ("$(a)b", None, True),
    ("$(a) $(b)", "a) $(b", False),
    ("${data.x}", None, False),
    (3, None, False),
    (None, None, False),
]


@pytest.mark.parametrize(("value", "formula", "partial"), FORMS)
def test_what_is_a_formula(value: Any, formula: str | None, partial: bool) -> None:
    assert (extract_expression(value), has_embedded_expression(value)) == (formula, partial)


def test_two_dollars_are_one() -> None:
    assert [unescape_dollars(each) for each in ("$$width", "a$$b", "$$$$", 3)] == ["$width", "a$b", "$$", 3]


def test_names() -> None:
    assert expression_parsing.find_params("max(a, b[c]) if null else len(d)") == {"a", "b", "c", "d"}


NUMBERS = st.integers(-99, 99).map(str)
FORMULAS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.builds("({} {} {})".format, inner, st.sampled_from("+ - * / // % == != < <= > >= and or".split()), inner)
        | st.builds("({} if {} else {})".format, inner, inner, inner)
        | st.builds("(- {})".format, inner)
        | st.builds("(not {})".format, inner)
        | st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), inner, inner)
        | st.builds("sum([{}, {}][{}:])".format, inner, inner, st.integers(-2, 2))
    ),
    max_leaves=12,
)


@given(FORMULAS)
def test_arithmetic_is_pythons(text: str) -> None:
    try:
        wanted = eval(text)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match=r"by zero|modulo"):
            evaluate_expression(text, {})
        return
    try:
        found = evaluate_expression(text, {})
    except ExpressionError as error:
        assert "beyond" in str(error) or "allowed" in str(error) or "deep" in str(error)
        return
    assert (type(found), found) == (type(wanted), wanted)


WORDS = st.sampled_from("width rate word sizes many big classes 9 10 1e9 'ab' ** * + - / // % [ ] ( ) , : if else and "
                        "or not in len max round int sum prod min lambda for . == < -".split())  # fmt: skip


@given(st.text(max_size=40) | st.lists(WORDS, max_size=16).map(" ".join))
def test_any_text_is_computed_or_refused(text: str) -> None:
    try:
        value = evaluate_expression(text, SCOPE)
    except ExpressionError as error:
        assert str(error)
    else:
        assert value is None or isinstance(value, bool | int | float | str | list | dict | UnknownValue)
        assert len(str(value)) < 100_000


def test_every_node_that_is_let_through_is_computed() -> None:
    """A node in the list of allowed ones that `_value` did not know would be refused only when it is met."""
    examples = {"BinOp": "1+1", "UnaryOp": "-1", "BoolOp": "1 and 2", "Compare": "1 < 2", "IfExp": "1 if 1 else 2",
                "List": "[1]", "Tuple": "(1,)", "Subscript": "[1][0]", "Slice": "[1][:]"}  # fmt: skip
    assert {node.__name__ for node in expression_parsing._NODES} == set(examples)
    for name, text in examples.items():
        assert any(type(node).__name__ == name for node in ast.walk(expression_parsing.parse_expression(text)))
        evaluate_expression(text, {})
