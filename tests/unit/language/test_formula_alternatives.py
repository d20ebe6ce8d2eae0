"""What is suggested instead of functions that a formula does not have."""

from __future__ import annotations

import re

import pytest

from dlspec.language.expressions.formula_alternatives import FUNCTION_ALTERNATIVES, suggest_function
from dlspec.language.expressions.formula_functions import FORMULA_FUNCTIONS
from dlspec.language.expressions.formula_tree import reject_function
from dlspec.language.expressions.grammar import ExpressionError
from dlspec.parts.torch.torch_parts import LAYERS


def test_what_is_suggested_exists() -> None:
    for name, fix in FUNCTION_ALTERNATIVES.items():
        assert name not in FORMULA_FUNCTIONS
        if fix.startswith("use the layer "):
            assert re.findall(r"the layer (\w+),", fix)[0] in LAYERS
        else:
            assert set(re.findall(r"(\w+)\(", fix)) <= FORMULA_FUNCTIONS, fix


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("clip", "write clamp(x, min=0, max=1)"),
        ("bmm", "write matmul(a, b), or a @ b"),
        ("long", "a formula has no types"),
        ("torch.concatenate", "write cat([a, b], dim=1)"),
        ("x.float", "a formula has no types"),
        ("F.interpolate", "use the layer Upsample"),
        ("sofmax", "did you mean 'softmax'?"),
    ],
)
def test_a_function_is_suggested_by_its_meaning(written: str, said: str) -> None:
    import ast

    with pytest.raises(ExpressionError) as raised:
        reject_function(ast.parse(written, mode="eval").body)
    assert raised.value.finding.fix.startswith(said)


def test_without_a_guess_all_functions_are_listed() -> None:
    listed = suggest_function("qqqqqqq").removeprefix("available: ").split(", ")
    assert set(listed) == FORMULA_FUNCTIONS
