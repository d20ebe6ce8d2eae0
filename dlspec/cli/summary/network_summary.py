"""`summary`: everything that `train` checks, then the network as a table with what it costs."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import Tensor
from torch.optim import Optimizer

from dlspec.analysis.causality import must_not_see
from dlspec.analysis.costs import FREE, LOSS, Cost, Costs, measured
from dlspec.cli.summary.layer_rows import Row, folded, layer_rows
from dlspec.jobs.preparation import Preparation, Prepared
from dlspec.network.memory_limits import memory
from dlspec.network.meta_device import META, SMALL, WHOLE, Place, Unfit
from dlspec.optim.memory import state_bytes
from dlspec.text import first_line, text_table

MEBIBYTE = 2**20
WIDEST, LEAST = 120, 24
"""Characters of a line, and of a layer's name that are always shown."""
NUMBERS = ("parameters", "multiply-adds", "activations")
# What a group has beside its settings: PyTorch's schedulers add the second.
_OWN = ("params", "initial_lr")


@dataclass(frozen=True)
class Summed:
    """A spec that `train` would take, its network's costs, and where that was built to know them.

    `trouble` is why there are no costs: what PyTorch said when a batch was passed through.
    """

    prepared: Prepared
    costs: Costs
    place: Place
    trouble: str = ""

    @property
    def rows(self) -> list[Row]:
        """A row a layer."""
        prepared = self.prepared
        return layer_rows(prepared.network, self.costs, prepared.optimizer, prepared.freezing.until)


def summed(preparation: Preparation) -> Summed:
    """Checks all that `train` would; raises UserError. What is large is built without numbers."""
    opened = preparation.open(outline=True)
    for place in (SMALL, META):
        try:
            return _summed_in(place, preparation.prepare(place, opened))
        except Unfit:
            continue
    return _summed_in(WHOLE, preparation.prepare(WHOLE, opened))


def _summed_in(place: Place, prepared: Prepared) -> Summed:
    """What is frozen for some epochs learns: a run needs its most then."""
    prepared.freezing.enter(sys.maxsize)
    prepared.freezing.hold(prepared.network.module)
    try:
        costs = measured(prepared.network, prepared.criterion, prepared.data, place)
    except Unfit:
        raise
    except Exception as error:  # a layer that takes no such batch: training would end there
        reason = first_line(error, 200)
        return Summed(prepared, {}, place, f"{type(error).__name__}: {reason}")
    return Summed(prepared, costs, place)


# ---- as text -------------------------------------------------------------------------------------------------------


def summary_text(summed: Summed, depth: int | None = None) -> str:
    """A line a layer, or an entry that is `depth` names deep; then the sums. Shapes leave the batch out."""
    network, spec = summed.prepared.network, summed.prepared.spec
    rows = summed.rows if depth is None else folded(summed.rows, depth, spec.graph.holders)
    inputs = [
        Row("" if len(network.fields) == 1 else name, "input", str(each)) for name, each in network.fields.items()
    ]
    return "\n".join([_table([*inputs, *rows, *_loss(summed)]), *_totals(summed), *_unchecked(summed)])


def _loss(summed: Summed) -> list[Row]:
    if LOSS not in summed.costs:
        return []
    names = " + ".join(each.match.term.type for each in summed.prepared.criterion.terms)
    return [Row("", f"loss {names}", "", cost=summed.costs[LOSS])]


def _table(rows: Sequence[Row]) -> str:
    """As wide as a terminal: layouts are left out where there is no room, then names lose their beginnings."""
    text = _columns(rows)
    if _width(text) > WIDEST:
        rows = [replace(row, output=re.sub(r"\) .*", ")", row.output)) for row in rows]
        text = _columns(rows)
    if _width(text) > WIDEST:
        most = max(LEAST, max(len(row.name) for row in rows) - _width(text) + WIDEST)
        text = _columns([replace(row, name=_end(row.name, most)) for row in rows])
    return text


def _width(text: str) -> int:
    return max(map(len, text.split("\n")))


def _end(name: str, most: int) -> str:
    return name if len(name) <= most else f"...{name[3 - most :]}"


def _columns(rows: Sequence[Row]) -> str:
    """Columns in which nothing stands are left out."""
    columns = {
        "layer": [row.name for row in rows],
        "type": [row.type for row in rows],
        "output": [row.output for row in rows],
        "parameters": [f"{row.count:,}" if row.count else "" for row in rows],
        "multiply-adds": [_count(row.cost.multiply_adds) for row in rows],
        "activations": [_mebibytes(row.cost.kept) for row in rows],
        "group": [", ".join(map(str, row.groups)) for row in rows],
        "weights": [row.remarks for row in rows],
    }
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    return text_table(list(columns), list(zip(*columns.values(), strict=True)), right=NUMBERS)


def _totals(summed: Summed) -> list[str]:
    parameters = list(summed.prepared.network.module.parameters())
    trained = [each for each in parameters if each.requires_grad]
    some = f" ({_numbers(trained):,} trained)" if len(trained) < len(parameters) else ""
    lines = [f"{_numbers(parameters):,} parameters{some}, {_bytes(parameters) / MEBIBYTE:,.2f} MiB"]
    if summed.trouble:
        return [*lines, f"what a training step needs is not known: a batch can't be passed: {summed.trouble}"]
    whole = sum(summed.costs.values(), FREE)
    products = f"{_count(whole.multiply_adds) or 'no'} multiply-adds"
    lines.append(f"a sample: {products}, {_size(whole.kept)} of activations to keep for the way back")
    return [*lines, *_groups(summed.prepared.optimizer), *_training(summed, _bytes(parameters), _bytes(trained), whole)]


def _groups(optimizer: Optimizer | None) -> list[str]:
    """What the optimizer's groups, where there are several, have not in common."""
    groups = [] if optimizer is None or len(optimizer.param_groups) < 2 else optimizer.param_groups
    names = (
        [name for name in groups[0] if name not in _OWN and len({str(each[name]) for each in groups}) > 1]
        if groups
        else []
    )
    return [
        f"group {at}: {_numbers(each['params']):,} parameters, {', '.join(f'{name} {each[name]}' for name in names)}"
        for at, each in enumerate(groups)
    ]


def _training(summed: Summed, weights: int, gradients: int, whole: Cost) -> list[str]:
    """What a training step needs, and of what that is the sum."""
    optimizer, trainer = summed.prepared.optimizer, summed.prepared.spec.trainer
    rows = trainer.rows
    parts: dict[str, int | None] = {"weights": weights, "gradients": gradients}
    if optimizer is not None:
        parts[f"{type(optimizer).__name__}'s state"] = state_bytes(optimizer)
    if trainer.average is not None:
        parts["averaged weights"] = weights
    parts["activations"] = whole.fixed + rows * whole.kept
    needed = sum(each or 0 for each in parts.values())
    told = ", ".join(f"{name} {'unknown' if each is None else _size(each)}" for name, each in parts.items())
    has = f" (this machine has {_size(memory())})" if needed > memory() else ""
    return [f"a training step of {rows} samples: about {_size(needed)}{has}", f"  {told}"]


def _unchecked(summed: Summed) -> list[str]:
    prepared = summed.prepared
    if summed.place is not META or not any(must_not_see(prepared.network, prepared.criterion, prepared.data)):
        return []
    return ["not checked, since it takes a network with numbers, and this one is large: whether it sees the future"]


# ---- numbers -------------------------------------------------------------------------------------------------------


def _numbers(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() for each in tensors)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _count(count: int) -> str:
    """`1,152`, `118.01 M`, `4.09 G`; nothing for 0."""
    for power, letter in ((12, "T"), (9, "G"), (6, "M")):
        if count >= 10**power:
            return f"{count / 10**power:,.2f} {letter}"
    return f"{count:,}" if count else ""


def _mebibytes(count: int) -> str:
    """A cell's; nothing for 0."""
    if count <= 0:
        return ""
    return "<0.01 MiB" if count < MEBIBYTE / 100 else f"{count / MEBIBYTE:,.2f} MiB"


def _size(count: int) -> str:
    """`4.80 KiB`, `3.06 MiB`, `1.20 GiB`."""
    if count < MEBIBYTE / 10:
        return f"{count / 1024:,.2f} KiB"
    return f"{count / 2**30:,.2f} GiB" if count >= 2**30 else f"{count / MEBIBYTE:,.2f} MiB"
