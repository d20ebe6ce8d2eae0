"""The summary of a spec's network: all checks of `train`, then a table of layers with their costs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torch.optim import Optimizer

from dlspec.analysis.causality import find_next_token_losses
from dlspec.analysis.costs import LOSS_NAME, NO_COST, LayerCost, LayerCosts, measure_costs
from dlspec.cli.summary.layer_rows import SummaryRow, fold_rows, make_layer_rows
from dlspec.cli.summary.memory_lines import MEBIBYTE, THIS_MACHINE, TargetMachines, format_size, format_training_memory
from dlspec.formatting import first_line, format_table
from dlspec.jobs.run_preparation import Preparation, PreparedRun
from dlspec.network.build_mode import META_MODE, SMALL_MODE, UNLIMITED_MODE, BuildMode, BuildModeError
from dlspec.optim.optimizer_memory import count_bytes

# Maximal characters of a line, and minimal characters of a layer's name.
MAX_WIDTH, MIN_NAME_WIDTH = 120, 24
NUMBER_COLUMNS = ("parameters", "multiply-adds", "activations")
# Keys of an optimizer's group that are not settings; PyTorch's schedulers add `initial_lr`.
_HIDDEN_KEYS = ("params", "initial_lr")


@dataclass(frozen=True)
class SpecSummary:
    """A checked spec with the costs of its network."""

    prepared: PreparedRun
    costs: LayerCosts
    mode: BuildMode  # how the network was built to measure the costs
    cost_error: str = ""  # PyTorch's error if the costs could not be measured

    @property
    def rows(self) -> list[SummaryRow]:
        """One row per layer."""
        prepared = self.prepared
        return make_layer_rows(prepared.network, self.costs, prepared.optimizer, prepared.freezing.unfreeze_epochs)

    @property
    def total_cost(self) -> LayerCost:
        """The costs of all layers and the loss."""
        return sum(self.costs.values(), NO_COST)


def summarize(preparation: Preparation) -> SpecSummary:
    """Make all checks of `train` and measure the network's costs.

    A large network is built on the meta device, without values.

    Raises:
        UserError: if a check fails.
    """
    opened = preparation.open(outline=True)
    for mode in (SMALL_MODE, META_MODE):
        try:
            return _measure_costs_in_mode(mode, preparation.prepare(mode, opened))
        except BuildModeError:
            continue
    return _measure_costs_in_mode(UNLIMITED_MODE, preparation.prepare(UNLIMITED_MODE, opened))


def _measure_costs_in_mode(mode: BuildMode, prepared: PreparedRun) -> SpecSummary:
    """Measure the costs while all weights are trained that any epoch trains: then a run needs the most memory."""
    prepared.freezing.set_epoch(sys.maxsize)
    prepared.freezing.freeze_running_statistics(prepared.network.module)
    try:
        costs = measure_costs(prepared.network, prepared.criterion, prepared.data, mode)
    except BuildModeError:
        raise
    except Exception as error:  # a layer fails for this batch, as it would in training
        reason = first_line(error, 200)
        return SpecSummary(prepared, {}, mode, f"{type(error).__name__}: {reason}")
    return SpecSummary(prepared, costs, mode)


# ---- format --------------------------------------------------------------------------------------------------------


def format_summary(summary: SpecSummary, depth: int | None = None, target: TargetMachines = THIS_MACHINE) -> str:
    """Format a table with one line per layer, followed by the totals. Shapes are printed without the batch dimension.

    Args:
        summary: what to format.
        depth: the number of parts after which names are cut: then there is one line per entry.
        target: the processes that the network will be trained with, and their memory.
    """
    network, spec = summary.prepared.network, summary.prepared.spec
    rows = summary.rows if depth is None else fold_rows(summary.rows, depth, spec.graph.container_types)
    inputs = [
        SummaryRow("" if len(network.fields) == 1 else name, "input", str(each))
        for name, each in network.fields.items()
    ]
    return "\n".join(
        [
            _format_table([*inputs, *rows, *_make_loss_rows(summary)]),
            *format_totals(summary, target),
            *_format_skipped_checks(summary),
        ]
    )


def _make_loss_rows(summary: SpecSummary) -> list[SummaryRow]:
    if LOSS_NAME not in summary.costs:
        return []
    names = " + ".join(each.match.term.type for each in summary.prepared.criterion.terms)
    return [SummaryRow("", f"loss {names}", "", cost=summary.costs[LOSS_NAME])]


def _format_table(rows: Sequence[SummaryRow]) -> str:
    """Format a table of at most MAX_WIDTH characters: if needed without layouts, then with shortened names."""
    text = _format_columns(rows)
    if _find_width(text) > MAX_WIDTH:
        rows = [replace(row, output=re.sub(r"\) .*", ")", row.output)) for row in rows]
        text = _format_columns(rows)
    if _find_width(text) > MAX_WIDTH:
        max_length = max(MIN_NAME_WIDTH, max(len(row.name) for row in rows) - _find_width(text) + MAX_WIDTH)
        text = _format_columns([replace(row, name=_cut_start(row.name, max_length)) for row in rows])
    return text


def _find_width(text: str) -> int:
    return max(map(len, text.split("\n")))


def _cut_start(name: str, max_length: int) -> str:
    return name if len(name) <= max_length else f"...{name[3 - max_length :]}"


def _format_columns(rows: Sequence[SummaryRow]) -> str:
    """Format a table without its empty columns."""
    columns = {
        "layer": [row.name for row in rows],
        "type": [row.type for row in rows],
        "output": [row.output for row in rows],
        "parameters": [f"{row.count:,}" if row.count else "" for row in rows],
        "multiply-adds": [_format_count(row.cost.multiply_adds) for row in rows],
        "activations": [_format_mebibytes(row.cost.saved_bytes) for row in rows],
        "group": [", ".join(map(str, row.groups)) for row in rows],
        "shortcut": ["; ".join(row.shortcuts) for row in rows],
        "weights": [row.remarks for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    return format_table(list(columns), list(zip(*columns.values(), strict=True)), right_aligned=NUMBER_COLUMNS)


def format_totals(summary: SpecSummary, target: TargetMachines = THIS_MACHINE) -> list[str]:
    """Format the lines below the table: parameters, multiply-adds, memory."""
    prepared = summary.prepared
    parameters = list(prepared.network.module.parameters())
    trained = [each for each in parameters if each.requires_grad]
    trained_count = f" ({_count_elements(trained):,} trained)" if len(trained) < len(parameters) else ""
    size = f"{sum(map(count_bytes, parameters)) / MEBIBYTE:,.2f} MiB"
    lines = [f"{_count_elements(parameters):,} parameters{trained_count}, {size}"]
    if summary.cost_error:
        return [*lines, f"the memory of a training step is unknown: training on a batch failed: {summary.cost_error}"]
    total = summary.total_cost
    products = f"{_format_count(total.multiply_adds) or 'no'} multiply-adds"
    lines.append(f"a sample: {products}, {format_size(total.saved_bytes)} of activations kept for the backward pass")
    return [
        *lines,
        *_format_groups(prepared.optimizer),
        *format_training_memory(prepared, total, target),
    ]


def _format_groups(optimizer: Optimizer | None) -> list[str]:
    """Format the optimizer's groups with the settings in which they differ, if it has multiple groups."""
    groups = [] if optimizer is None or len(optimizer.param_groups) < 2 else optimizer.param_groups
    names = (
        [name for name in groups[0] if name not in _HIDDEN_KEYS and len({str(each[name]) for each in groups}) > 1]
        if groups
        else []
    )
    differences = [", ".join(f"{name} {each[name]}" for name in names) for each in groups]
    return [
        f"group {at}: {_count_elements(each['params']):,} parameters, {differences[at]}"
        for at, each in enumerate(groups)
    ]


def _format_skipped_checks(summary: SpecSummary) -> list[str]:
    prepared = summary.prepared
    if summary.mode is not META_MODE or not any(
        find_next_token_losses(prepared.network, prepared.criterion, prepared.data)
    ):
        return []
    return ["not checked, because this large network was built without values: whether it sees the future"]


# ---- numbers -------------------------------------------------------------------------------------------------------


def _count_elements(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() for each in tensors)


def _format_count(count: int) -> str:
    """Format a count: `1,152`, `118.01 M`, `4.09 G`; an empty string for 0."""
    for power, letter in ((12, "T"), (9, "G"), (6, "M")):
        if count >= 10**power:
            return f"{count / 10**power:,.2f} {letter}"
    return f"{count:,}" if count else ""


def _format_mebibytes(count: int) -> str:
    """Format bytes in MiB for a cell; an empty string for 0."""
    if count <= 0:
        return ""
    return "<0.01 MiB" if count < MEBIBYTE / 100 else f"{count / MEBIBYTE:,.2f} MiB"
