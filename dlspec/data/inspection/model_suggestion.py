"""Suggest one of dlspec's models for data: one that builds on them and learns their target."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dlspec.data.dataset import Dataset, Field
from dlspec.data.prepare.kinds.label_columns import NO, YES
from dlspec.layouts import Layout

MODELS: Mapping[Layout, str] = {"features": "mlp", "tokens": "text_cnn", "channels-first": "cnn"}
TAGGER = '{layers: [{Embedding: 64}, {LSTM: {hidden_size: 64, bidirectional: true}}, {Linear: "${data.num_outputs}"}]}'
UNET_STEP = 16  # the height and width that unet takes are multiples of it
GPT_LENGTH = 64  # tokens that gpt_small takes at most


@dataclass(frozen=True)
class ModelSuggestion:
    """A model that trains on data, or why none of dlspec's does."""

    model: str = ""  # its name, or the model itself as `model=` takes it; "" if none does
    left_out: tuple[str, ...] = ()  # the columns that the model can't take beside the others
    obstacle: str = ""  # what the user has to write first, or what the model leaves out; "" if nothing is in the way


def suggest_model(dataset: Dataset, written_fields: Collection[str] = ()) -> ModelSuggestion:
    """Suggest a model for the fields and targets of a data set.

    Args:
        dataset: the data
        written_fields: the fields that the settings define; none of their columns can be left out
    """
    if len(dataset.targets) > 1:
        names = ", ".join(target.name for target in dataset.targets)
        fix = "write a model with an output for each, or choose one of them" + _suggest_labels(dataset)
        return ModelSuggestion(obstacle=f"several targets ({names}): {fix}")
    field = next((each for each in dataset.fields if each.layout == "features"), dataset.fields[0])
    model = _choose_model(dataset, field)
    if not model:
        return ModelSuggestion(obstacle=_describe_obstacle(dataset, field))
    if len(dataset.fields) == 1:
        return ModelSuggestion(model)
    names = ", ".join(each.name for each in dataset.fields)
    obstacle = f"several inputs ({names}): write a model that names them, inputs: [{names}], or leave some out"
    left_out = () if written_fields else _list_other_columns(dataset.preprocessing, field.name)
    return ModelSuggestion(model if left_out else "", left_out, obstacle)


def _suggest_labels(dataset: Dataset) -> str:
    """Return the setting that makes labels of targets that all say yes or no; "" for other ones."""
    columns = list(dataset.preprocessing.get("targets", {}))
    say_yes_or_no = all(
        each.classes and {name.lower() for name in each.classes} <= YES | NO for each in dataset.targets
    )
    if not columns or not say_yes_or_no or not all(map(str.isidentifier, columns)):
        return ""
    like = ", ".join(columns)
    return f"; as they say yes or no, they can be labels: 'data.target={{labels: {{labels: {{like: [{like}]}}}}}}'"


def _choose_model(dataset: Dataset, field: Field) -> str:
    target = dataset.targets[0] if dataset.targets else None
    if target is None or (dataset.reconstructed_field and field.layout != "tokens"):
        return "autoencoder" if field.layout in ("channels-first", "features") else ""
    if target.next_of:
        return "gpt_small" if target.next_of == field.name and field.shape[0] <= GPT_LENGTH else ""
    if not target.shape or (target.kind == "numbers" and len(target.shape) == 1):
        return MODELS.get(field.layout, "")
    if target.kind == "numbers":
        return ""
    if field.layout == "channels-first" and field.shape[1:] == target.shape:
        return "" if any(size % UNET_STEP for size in target.shape) else "unet"
    return TAGGER if field.layout == "tokens" and target.lengths == field.name else ""


def _describe_obstacle(dataset: Dataset, field: Field) -> str:
    shapes = [f"'{field.name}' of shape {list(field.shape)}"]
    shapes += [f"'{each.name}' of shape {list(each.shape)}" for each in dataset.targets if each.shape]
    return f"write a model for {' and '.join(shapes)}: none of dlspec's fits"


def _list_other_columns(preprocessing: Mapping[str, Any], kept: str) -> tuple[str, ...]:
    """List the columns of all fields but one; () if the data are not a table."""
    fields = preprocessing.get("fields", {})
    return tuple(name for field, plan in fields.items() if field != kept for name in plan["columns"])
