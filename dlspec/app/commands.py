"""The commands that train nothing: `validate` and `summary`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from dlspec.app import sweep
from dlspec.app.compose import Composed, start_hydra
from dlspec.app.running import composed_or_refused, preparation
from dlspec.building.network import Network


def validate(words: Sequence[str]) -> int:
    """Checks the form, opens no data; raises SpecError with every mistake."""
    spec = preparation(_composed("validate", words)).read()
    print(f"the form is right: {len(spec.layers)} layers, {spec.optimizer.schema.name}, data {spec.data.source_name}")
    waiting = [f"${{{key}}}" for key in spec.waiting]
    later = ["shapes, the loss and the target", *waiting]
    print(f"not checked yet, for that the data must be open: {', '.join(later)}; 'summary' and 'train' check it")
    return 0


def summary(words: Sequence[str]) -> int:
    """Builds the network and prints it, a line a layer."""
    built = preparation(_composed("summary", words)).build()
    print_summary(built.network, Console(soft_wrap=True))
    return 0


def _composed(command: str, words: Sequence[str]) -> Composed:
    parser = argparse.ArgumentParser(prog=f"dlspec {command}")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train")
    parser.add_argument("--config-dir", "-cd", help="one more folder of configs")
    arguments = parser.parse_args(list(words))
    sweep.register()
    return composed_or_refused(arguments.overrides, start_hydra(arguments.config_dir))


def print_summary(network: Network, console: Console) -> None:
    """Layers, output shapes (the batch left out) and parameters."""
    table = Table("layer", "type", "output", box=None, header_style="bold", pad_edge=False)
    table.add_column("parameters", justify="right")
    table.add_row("", "input", str(network.input), "")
    for layer in network.layers:
        table.add_row(layer.name, layer.type, str(layer.output), f"{layer.parameters:,}" if layer.parameters else "")
    console.print(table)
    parameters = list(network.module.parameters())
    total = sum(each.numel() for each in parameters)
    size = sum(each.numel() * each.element_size() for each in parameters)
    console.print(f"{total:,} parameters, {size / 2**20:.2f} MiB")


COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"validate": validate, "summary": summary}
