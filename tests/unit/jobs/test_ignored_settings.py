"""Settings that PyTorch accepts and ignores are named in a line of the run."""

from __future__ import annotations

import pytest

import dlspec
from dlspec.jobs.ignored_settings import describe_ignored_dropout


@pytest.mark.parametrize(
    ("layer", "note"),
    [
        ({"LSTM": {"hidden_size": 4, "dropout": 0.5}}, "dropout of LSTM '0' has no effect"),
        ({"GRU": {"hidden_size": 4, "dropout": 0.1, "bidirectional": True}}, "dropout of GRU '0' has no effect"),
        ({"RNN": {"hidden_size": 4, "dropout": 0.5, "num_layers": 2}}, ""),
        ({"LSTM": 4}, ""),
    ],
)
def test_dropout_between_the_layers_of_one_layer(layer: dict[str, object], note: str) -> None:
    network = dlspec.build({"model": {"layers": [layer]}}, data={"shape": [6, 8], "num_classes": 3})
    assert "".join(describe_ignored_dropout(network)).startswith(note)
    assert bool(note) == bool(describe_ignored_dropout(network))
