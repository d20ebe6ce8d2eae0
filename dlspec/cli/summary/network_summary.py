"""`summary`: everything that `train` checks, then the network as a table with what it costs."""

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
from dlspec.formatting import first_line, format_table
from dlspec.jobs.run_preparation import Preparation, PreparedRun
from dlspec.network.build_mode import META_MODE, SMALL_MODE, UNLIMITED_MODE, BuildMode, BuildModeError
from dlspec.network.memory_limits import get_memory_bytes
from dlspec.optim.optimizer_memory import estimate_state_bytes

MEBIBYTE = 2**20
MAX_WIDTH, MIN_NAME_WIDTH = 120, 24
"""Characters of a line, and of a layer's name that are always shown."""
NUMBER_COLUMNS = ("parameters", "multiply-adds", "activations")
# What a group has beside its settings: PyTorch's schedulers add the second.
_HIDDEN_KEYS = ("params", "initial_lr")


@dataclass(frozen=True)
class SpecSummary:
    """A spec that `train` would take, its network's costs, and where that was built to know them.

    `trouble` is why there are no costs: what PyTorch said when a batch was passed through.
    """

    prepared: PreparedRun
    costs: LayerCosts
    mode: BuildMode
    cost_error: str = ""

    @property
    def rows(self) -> list[SummaryRow]:
        """A row a layer."""
        prepared = self.prepared
        return make_layer_rows(prepared.network, self.costs, prepared.optimizer, prepared.freezing.until)


def summarize(preparation: Preparation) -> SpecSummary:
    """Checks all that `train` would; raises UserError. What is large is built without numbers."""
    opened = preparation.open(outline=True)
    for mode in (SMALL_MODE, META_MODE):
        try:
            return _summarize_in_mode(mode, preparation.prepare(mode, opened))
        except BuildModeError:
            continue
    return _summarize_in_mode(UNLIMITED_MODE, preparation.prepare(UNLIMITED_MODE, opened))


def _summarize_in_mode(mode: BuildMode, prepared: PreparedRun) -> SpecSummary:
    """What is frozen for some epochs learns: a run needs its most then."""
    prepared.freezing.enter(sys.maxsize)
    prepared.freezing.freeze_running_statistics(prepared.network.module)
    try:
        costs = measure_costs(prepared.network, prepared.criterion, prepared.data, mode)
    except BuildModeError:
        raise
    except Exception as error:  # a layer that takes no such batch: training would end there
        reason = first_line(error, 200)
        return SpecSummary(prepared, {}, mode, f"{type(error).__name__}: {reason}")
    return SpecSummary(prepared, costs, mode)


# ---- as text -------------------------------------------------------------------------------------------------------


def format_summary(summary: SpecSummary, depth: int | None = None) -> str:
    """A line a layer, or an entry that is `depth` names deep; then the sums. Shapes leave the batch out."""
    network, spec = summary.prepared.network, summary.prepared.spec
    rows = summary.rows if depth is None else fold_rows(summary.rows, depth, spec.graph.container_types)
    inputs = [
        SummaryRow("" if len(network.fields) == 1 else name, "input", str(each))
        for name, each in network.fields.items()
    ]
    return "\n".join(
        [
            _format_table([*inputs, *rows, *_make_loss_rows(summary)]),
            *_format_totals(summary),
            *_format_unchecked(summary),
        ]
    )


def _make_loss_rows(summary: SpecSummary) -> list[SummaryRow]:
    if LOSS_NAME not in summary.costs:
        return []
    names = " + ".join(each.match.term.type for each in summary.prepared.criterion.terms)
    return [SummaryRow("", f"loss {names}", "", cost=summary.costs[LOSS_NAME])]


def _format_table(rows: Sequence[SummaryRow]) -> str:
    """As wide as a terminal: layouts are left out where there is no room, then names lose their beginnings."""
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
    """Columns in which nothing stands are left out."""
    columns = {
        "layer": [row.name for row in rows],
        "type": [row.type for row in rows],
        "output": [row.output for row in rows],
        "parameters": [f"{row.count:,}" if row.count else "" for row in rows],
        "multiply-adds": [_format_count(row.cost.multiply_adds) for row in rows],
        "activations": [_format_mebibytes(row.cost.saved_bytes) for row in rows],
        "group": [", ".join(map(str, row.groups)) for row in rows],
        "weights": [row.remarks for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    return format_table(list(columns), list(zip(*columns.values(), strict=True)), right_aligned=NUMBER_COLUMNS)


def _format_totals(summary: SpecSummary) -> list[str]:
    parameters = list(summary.prepared.network.module.parameters())
    trained = [each for each in parameters if each.requires_grad]
    trained_count = f" ({_count_numbers(trained):,} trained)" if len(trained) < len(parameters) else ""
    lines = [
        f"{_count_numbers(parameters):,} parameters{trained_count}, {_count_bytes(parameters) / MEBIBYTE:,.2f} MiB"
    ]
    if summary.cost_error:
        return [*lines, f"what a training step needs is not known: a batch can't be passed: {summary.cost_error}"]
    total = sum(summary.costs.values(), NO_COST)
    products = f"{_format_count(total.multiply_adds) or 'no'} multiply-adds"
    lines.append(f"a sample: {products}, {_format_size(total.saved_bytes)} of activations to keep for the way back")
    return [
        *lines,
        *_format_groups(summary.prepared.optimizer),
        *_format_training_memory(summary, _count_bytes(parameters), _count_bytes(trained), total),
    ]


def _format_groups(optimizer: Optimizer | None) -> list[str]:
    """What the optimizer's groups, where there are several, have not in common."""
    groups = [] if optimizer is None or len(optimizer.param_groups) < 2 else optimizer.param_groups
    names = (
        [name for name in groups[0] if name not in _HIDDEN_KEYS and len({str(each[name]) for each in groups}) > 1]
        if groups
        else []
    )
    differences = [", ".join(f"{name} {each[name]}" for name in names) for each in groups]
    return [
        f"group {at}: {_count_numbers(each['params']):,} parameters, {differences[at]}"
        for at, each in enumerate(groups)
    ]


def _format_training_memory(summary: SpecSummary, weights: int, gradients: int, total: LayerCost) -> list[str]:
    """What a training step needs, and of what that is the sum."""
    optimizer, trainer = summary.prepared.optimizer, summary.prepared.spec.trainer
    batch_size = trainer.initial_batch_size
    parts: dict[str, int | None] = {"weights": weights, "gradients": gradients}
    if optimizer is not None:
        parts[f"{type(optimizer).__name__}'s state"] = estimate_state_bytes(optimizer)
    if trainer.average is not None:
        parts["averaged weights"] = weights
    parts["activations"] = total.saved_bytes_per_batch + batch_size * total.saved_bytes
    needed = sum(each or 0 for each in parts.values())
    details = ", ".join(f"{name} {'unknown' if each is None else _format_size(each)}" for name, each in parts.items())
    machine = f" (this machine has {_format_size(get_memory_bytes())})" if needed > get_memory_bytes() else ""
    return [f"a training step of {batch_size} samples: about {_format_size(needed)}{machine}", f"  {details}"]


def _format_unchecked(summary: SpecSummary) -> list[str]:
    prepared = summary.prepared
    if summary.mode is not META_MODE or not any(
        find_next_token_losses(prepared.network, prepared.criterion, prepared.data)
    ):
        return []
    return ["not checked, since it takes a network with numbers, and this one is large: whether it sees the future"]


# ---- numbers -------------------------------------------------------------------------------------------------------


def _count_numbers(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() for each in tensors)


def _count_bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _format_count(count: int) -> str:
    """`1,152`, `118.01 M`, `4.09 G`; nothing for 0."""
    for power, letter in ((12, "T"), (9, "G"), (6, "M")):
        if count >= 10**power:
            return f"{count / 10**power:,.2f} {letter}"
    return f"{count:,}" if count else ""


def _format_mebibytes(count: int) -> str:
    """A cell's; nothing for 0."""
    if count <= 0:
        return ""
    return "<0.01 MiB" if count < MEBIBYTE / 100 else f"{count / MEBIBYTE:,.2f} MiB"


def _format_size(count: int) -> str:
    """`4.80 KiB`, `3.06 MiB`, `1.20 GiB`."""
    if count < MEBIBYTE / 10:
        return f"{count / 1024:,.2f} KiB"
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / MEBIBYTE:,.2f} MiB"
