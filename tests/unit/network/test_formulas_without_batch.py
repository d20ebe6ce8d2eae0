"""Formulas of values without a batch, Parameters and constants: the same numbers as the same lines in PyTorch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dlspec.errors import Code
from dlspec.language.problems import Problems
from helpers.layer_table import (
    build_layers,
    build_valid_layers,
    channels_first,
    get_refusal,
    list_problems,
    make_batch,
    sequence,
)

STEPS = sequence(5, 4)
TABLE = {"Parameter": {"shape": [5, 4], "name": "table"}}


def test_a_parameter_is_free_in_all_dimensions() -> None:
    layers: list[Any] = [
        TABLE,
        {"Formula": {"formula": "softmax(table, dim=0)[:4]", "name": "mixed"}},
        {"Formula": "_ @ transpose(mixed, 0, 1) + sum(table, dim=0) + unsqueeze(table, 0)"},
        "Flatten",
        {"Linear": 3},
    ]
    module, x = build_valid_layers(layers, STEPS).module, make_batch(STEPS, 3)
    found, table = torch.autograd.grad(module(x).square().sum(), module.table)[0], module.table

    def forward() -> Any:
        mixed = table.softmax(0)[:4]
        return module.get_submodule("4")(torch.flatten(x @ mixed.T + table.sum(0) + table[None], 1))

    torch.testing.assert_close(module(x), forward())
    torch.testing.assert_close(found, torch.autograd.grad(forward().square().sum(), table)[0])


@pytest.mark.parametrize("formula", ["sum(_, dim=0)", "(table + _)[0]", "transpose(table + _, 0, 1)"])
def test_what_has_a_batch_keeps_it(formula: str) -> None:
    found, fix = get_refusal([TABLE, {"Formula": formula}], STEPS)
    assert "batch" in found + fix


def test_a_sum_of_parameters_has_no_batch_either() -> None:
    layers = [TABLE, {"Add": {"from": ["table", "table"], "name": "twice"}}, {"Formula": "twice[0] * table[1]"}]
    assert "which no layer computes" in get_refusal(layers, STEPS)[0]


# ---- constants -----------------------------------------------------------------------------------------------------

ANGLES = {"Formula": {"formula": "arange(5)[:, None] / 10000 ** (arange(2) / 2)", "name": "angles"}}
CONSTANTS: list[Any] = [
    ANGLES,
    {"Formula": {"formula": "cat([sin(angles), cos(angles)], dim=1)", "name": "positions"}},
    {"Formula": "_ + positions"},
    "Flatten",
    {"Linear": 3},
]


def compute_positions(dtype: torch.dtype) -> Tensor:
    angles = torch.arange(5, dtype=dtype)[:, None] / 10000 ** (torch.arange(2, dtype=dtype) / 2)
    return torch.cat([angles.sin(), angles.cos()], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constants_are_computed_once_and_exactly(dtype: torch.dtype) -> None:
    module = build_valid_layers(CONSTANTS, STEPS).module.to(dtype)
    x, digits = make_batch(STEPS, 3).to(dtype).requires_grad_(), 1e-6 if dtype is torch.float32 else 1e-15
    wanted = module.get_submodule("4")((x + compute_positions(dtype)).flatten(1))
    for forward in (module, copy.deepcopy(module), torch.jit.trace(module, (x,)) if dtype is torch.float32 else module):
        found = forward(x)
        torch.testing.assert_close(found, wanted, rtol=digits, atol=digits)
        gradients = [torch.autograd.grad(each.square().sum(), x, retain_graph=True)[0] for each in (found, wanted)]
        torch.testing.assert_close(*gradients)
    assert [*module.state_dict()] == ["4.weight", "4.bias"]
    assert "arange" not in module.code and "sin" not in module.code.replace("insert", "")


def test_constants_do_not_change_the_previous_output() -> None:
    layers = [{"Linear": 4}, ANGLES, {"Formula": {"formula": "angles[0] * 2", "name": "first"}}, {"Linear": 2},
              {"Formula": "_ * first"}]  # fmt: skip
    module, x = build_valid_layers(layers, STEPS).module, make_batch(STEPS, 3)
    first, second = (module.get_submodule(each) for each in ("0", "3"))
    torch.testing.assert_close(module(x), second(first(x)) * torch.tensor([0.0, 0.0]))


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ({"Formula": "arange(4)"}, "the formula uses no output, and needs a name"),
        ({"Formula": {"formula": "arange(4)", "name": "t", "from": "_"}}, "the formula uses no output, so 'from'"),
        ({"Formula": {"formula": "randn_like(eye(4))", "name": "t"}}, "'randn_like(eye(4))' draws random numbers"),
        ({"Formula": {"formula": "eye(4) @ arange(4)", "name": "t"}}, "'eye(4) @ arange(4)' can't be computed"),
        ({"Formula": {"formula": "2 + 3", "name": "t"}}, "'2 + 3' uses no output"),
    ],
)
def test_wrong_constants(entry: Any, found: str) -> None:
    problems = Problems()
    assert build_layers([entry, {"Formula": "_ + sum(t, dim=0)"}], STEPS, problems) is None
    assert [each for each, _ in list_problems(problems) if each.startswith(found)]


# ---- whole numbers -------------------------------------------------------------------------------------------------


def test_a_table_of_relative_positions() -> None:
    """The index of Swin Transformer: a learned bias for each pair of positions in a window of 2 x 3."""
    layers: list[Any] = [
        {"Linear": 6},
        {"Parameter": {"shape": [15, 2], "name": "table"}},
        {"Formula": {"formula": "arange(6) // 3", "name": "rows"}},
        {"Formula": {"formula": "arange(6) % 3", "name": "columns"}},
        {"Formula": {"formula": "(rows[:, None] - rows + 1) * 5 + columns[:, None] - columns + 2", "name": "index"}},
        {"Formula": {"formula": "permute(table[index], (2, 0, 1))", "name": "bias"}},
        {"Attention": {"num_heads": 2, "from": ["_", "_", "bias"]}},
    ]
    given = sequence(6, 4)
    module, x = build_valid_layers(layers, given).module, make_batch(given, 3)
    coordinates = torch.stack(torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")).flatten(1)
    relative = (coordinates[:, :, None] - coordinates[:, None]).permute(1, 2, 0) + torch.tensor([1, 2])
    bias = module.table[(relative * torch.tensor([5, 1])).sum(-1)].permute(2, 0, 1)
    first, attention = (module.get_submodule(each) for each in ("0", "6"))
    wanted = attention(first(x), first(x), bias)
    torch.testing.assert_close(module(x), wanted)
    gradients = [torch.autograd.grad(each.square().sum(), module.table)[0] for each in (module(x), wanted)]
    torch.testing.assert_close(*gradients)


def test_whole_numbers_stay_whole() -> None:
    layers: list[Any] = [
        {"Formula": {"formula": "1 * (_ > 0) + (_ > 1)", "name": "levels"}},
        {"Formula": {"formula": "~(levels == 1)", "name": "is_extreme"}},
        {"Formula": {"formula": "~is_extreme", "name": "is_one"}},
        {"Formula": "one_hot(levels, 3)[..., 2] + levels // (1 + levels) + 7 % (levels + 1) * is_one"},
    ]
    module, x = build_valid_layers(layers, STEPS).module, make_batch(STEPS, 3) * 3
    levels = (x > 0).long() + (x > 1).long()
    wanted = (levels == 2) + levels // (1 + levels) + 7 % (levels + 1) * (levels == 1)
    assert torch.equal(module(x), wanted)


@pytest.mark.parametrize("formula", ["levels // levels", "7 % levels", "x // levels"])
def test_a_division_by_whole_numbers_of_the_data_is_not_refused(formula: str) -> None:
    layers = [{"Formula": {"formula": "1 + (_ > 0)", "name": "levels"}}, {"Formula": formula.replace("x", "_")}]
    assert build_valid_layers(layers, STEPS)


# ---- layouts -------------------------------------------------------------------------------------------------------

IMAGE = channels_first(3, 4, 4)
MOVED: dict[str, tuple[list[Any], Any]] = {
    "channels-last": (
        [{"Formula": "permute(_, (0, 2, 3, 1))"}, {"Linear": {"out_features": 5, "name": "n"}}],
        lambda n, x: n(x.permute(0, 2, 3, 1)),
    ),
    "a sequence of patches": (
        [{"Formula": "transpose(flatten(_, 2), 1, 2)"}, {"Linear": {"out_features": 5, "name": "n"}}],
        lambda n, x: n(x.flatten(2).mT),
    ),
    "and back": (
        [{"Formula": "flatten(permute(_, (0, 2, 3, 1)), 1, 2)"},
         {"Formula": "unflatten(transpose(_, 1, 2), 2, (4, 4))"},
         {"Conv2d": {"out_channels": 5, "kernel_size": 1, "name": "n"}}],
        lambda n, x: n(x),
    ),
    "heads": (
        [{"Formula": "transpose(flatten(_, 2), 1, 2)"}, {"Linear": 4},
         {"Formula": {"formula": "permute(unflatten(_, 2, (2, 2)), (0, 2, 1, 3))", "name": "h"}},
         {"Formula": "flatten(permute(softmax(h @ transpose(h, 2, 3), dim=-1) @ h, (0, 2, 1, 3)), 2)"},
         {"Linear": {"out_features": 5, "name": "n"}}],
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVED)
def test_the_next_layer_needs_no_layout(name: str) -> None:
    layers, wanted = MOVED[name]
    module, x = build_valid_layers(layers, IMAGE).module, make_batch(IMAGE, 3)
    if wanted is None:
        steps = module.get_submodule("1")(x.flatten(2).mT).unflatten(2, (2, 2)).transpose(1, 2)
        mixed = scaled_dot_product_attention(steps, steps, steps, scale=1.0).transpose(1, 2).flatten(2)
        torch.testing.assert_close(module(x), module.n(mixed))
    else:
        torch.testing.assert_close(module(x), wanted(module.n, x))


@pytest.mark.parametrize("layout", [None, "sequence"])
def test_version_1_stops_where_a_formula_moves_the_layout(layout: str | None) -> None:
    formula = {"formula": "transpose(_, 1, 2)"} | ({} if layout is None else {"layout": layout})
    problems = Problems(spec_version=1)
    build_layers([{"Formula": formula}, "Flatten"], STEPS, problems)
    assert [each.code for each in problems.found] == ([Code.CHANGED_RULE] if layout is None else [])


# ---- version 1 -----------------------------------------------------------------------------------------------------


def test_version_1_stops_where_the_previous_output_was_a_formula_without_a_batch() -> None:
    formula = {"Formula": {"formula": "table * 2", "name": "twice"}}
    problems = Problems(spec_version=1)
    build_layers([TABLE, formula, {"Formula": "_ + twice"}], STEPS, problems)
    assert [each.code for each in problems.found] == [Code.CHANGED_RULE]
    assert build_valid_layers([TABLE, formula, {"Formula": "_ + twice"}], STEPS)
