"""Describe a spec's network as plain data for the page of a run: layers, totals, and the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from dlspec.cli.graph.network_picture import NetworkPicture, make_picture
from dlspec.cli.graph.picture_description import describe_arrows, describe_boxes, describe_frames
from dlspec.cli.summary.layer_rows import SummaryRow
from dlspec.cli.summary.network_summary import SpecSummary, format_totals, summarize
from dlspec.inference.loading.loaded_run import LoadedRun
from dlspec.jobs.python_spec import make_placeholder_section
from dlspec.jobs.run_preparation import Preparation
from dlspec.report.network_description import MAX_BOXES, DescribedLayer, NetworkDescription

DEPTHS = (None, 4, 3, 2, 1)  # of the picture; the first with few enough boxes is taken


def describe_network(preparation: Preparation) -> NetworkDescription:
    """Build the network of a spec, and describe its layers and its picture; raises as `summarize` does."""
    summary = summarize(preparation)
    picture = _make_readable_picture(summary)
    return NetworkDescription(
        layers=tuple(map(_describe_layer, summary.rows)),
        totals=tuple(format_totals(summary)),
        boxes=describe_boxes(picture),
        frames=describe_frames(picture),
        arrows=describe_arrows(picture),
    )


def describe_loaded_network(run: LoadedRun) -> NetworkDescription:
    """Describe the network of a run from the description of its data in its folder; its data are not opened."""
    preparing, section = run.preparing, run.preparing.tree.get("data")
    if isinstance(section, Mapping) and section.get("type") == "arrays":  # no section that could be read
        preparing = replace(preparing, tree={**preparing.tree, "data": make_placeholder_section(run.data)})
    return describe_network(replace(preparing, data=run.data))


def _make_readable_picture(summary: SpecSummary) -> NetworkPicture:
    network, containers = summary.prepared.network, summary.prepared.spec.graph.container_types
    pictures = (make_picture(network, summary.rows, containers, depth) for depth in DEPTHS)
    return next((each for each in pictures if len(each.boxes) <= MAX_BOXES), make_picture(network, summary.rows, {}, 1))


def _describe_layer(row: SummaryRow) -> DescribedLayer:
    remarks = "; ".join(each for each in (row.remarks, *(f"shortcut {each}" for each in row.shortcuts)) if each)
    return DescribedLayer(row.name, row.type, row.output, row.count, row.cost.multiply_adds, remarks)
