"""The commands that train nothing: `validate` and `summary`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from dlspec.app import sweep
from dlspec.app.compose import Composed, start_hydra
from dlspec.app.flags import parse_flags
from dlspec.app.running import composed_or_refused, preparation
from dlspec.app.table import text_table
from dlspec.building.network import Network


def validate(words: Sequence[str]) -> int:
    """Checks the form, opens no data; raises SpecError with every mistake."""
    spec = preparation(_composed("validate", words)).read()
    count = f"{len(spec.layers)} layer{'s' if len(spec.layers) != 1 else ''}"
    print(f"the form is right: {count}, {spec.optimizer.schema.name}, data {spec.data.source_name}")
    waiting = [f"${{{key}}}" for key in spec.waiting]
    later = ["shapes, the loss and the target", *waiting]
    print(f"not checked yet, for that the data must be open: {', '.join(later)}; 'summary' and 'train' check it")
    return 0


def summary(words: Sequence[str]) -> int:
    """Checks all that `train` would, then prints the network, a line a layer."""
    print(summary_text(preparation(_composed("summary", words)).prepare().network))
    return 0


def _composed(command: str, words: Sequence[str]) -> Composed:
    parser = argparse.ArgumentParser(prog=f"dlspec {command}", add_help=False)  # --help was answered before
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--config-dir", "-cd")
    arguments = parse_flags(parser, words)
    sweep.register()
    return composed_or_refused(arguments.overrides, start_hydra(arguments.config_dir))


def summary_text(network: Network) -> str:
    """Layers, output shapes (the batch left out) and parameters."""
    rows = [["" if len(network.fields) == 1 else name, "input", str(each), ""] for name, each in network.fields.items()]
    for layer in network.layers:
        rows.append([layer.name, layer.type, str(layer.output), f"{layer.parameters:,}" if layer.parameters else ""])
    table = text_table(["layer", "type", "output", "parameters"], rows, right=["parameters"])
    parameters = list(network.module.parameters())
    total = sum(each.numel() for each in parameters)
    size = sum(each.numel() * each.element_size() for each in parameters)
    return f"{table}\n{total:,} parameters, {size / 2**20:.2f} MiB"


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"validate": validate, "summary": summary}
