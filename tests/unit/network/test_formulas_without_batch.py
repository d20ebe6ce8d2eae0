"""Formulas of values without a batch, Parameters and constants: the same numbers as the same lines in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.layer_table import build_valid_layers, get_refusal, make_batch, sequence

STEPS = sequence(5, 4)
TABLE = {"Parameter": {"shape": [5, 4], "name": "table"}}


def test_a_parameter_is_free_in_all_dimensions() -> None:
    layers: list[Any] = [
        {"Identity": {"name": "steps"}},
        TABLE,
        {"Formula": {"formula": "softmax(table, dim=0)[:4]", "name": "mixed"}},
        {"Formula": "steps @ transpose(mixed, 0, 1) + sum(table, dim=0) + unsqueeze(table, 0)"},
        "Flatten",
        {"Linear": 3},
    ]
    module, x = build_valid_layers(layers, STEPS).module, make_batch(STEPS, 3)
    found, table = torch.autograd.grad(module(x).square().sum(), module.table)[0], module.table

    def forward() -> Any:
        mixed = table.softmax(0)[:4]
        return module.get_submodule("5")(torch.flatten(x @ mixed.T + table.sum(0) + table[None], 1))

    torch.testing.assert_close(module(x), forward())
    torch.testing.assert_close(found, torch.autograd.grad(forward().square().sum(), table)[0])


@pytest.mark.parametrize("formula", ["sum(_, dim=0)", "(table + _)[0]", "transpose(table + _, 0, 1)"])
def test_what_has_a_batch_keeps_it(formula: str) -> None:
    found, fix = get_refusal([TABLE, {"Formula": formula}], STEPS)
    assert "batch" in found + fix


def test_a_sum_of_parameters_has_no_batch_either() -> None:
    layers = [TABLE, {"Add": {"from": ["table", "table"], "name": "twice"}}, {"Formula": "twice[0] * table[1]"}]
    assert "which no layer computes" in get_refusal(layers, STEPS)[0]
