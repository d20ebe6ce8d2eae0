"""What has no form in an exported file: found, and named with its layer and reason, before anything is traced."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from dlspec.data.lazy_array import read_rows
from dlspec.errors import UserError
from dlspec.inference.answers.batch_prediction import BatchPredictor
from dlspec.inference.answers.row_draws import find_draws
from dlspec.inference.export.noise_inputs import ListedDraws
from dlspec.inference.loading.loaded_run import LoadedRun

WEIGHTS_FIX = "format=safetensors exports the weights"


def refuse_what_has_no_file(run: LoadedRun, form: str, *, prepare: bool) -> None:
    """Raise UserError if a run can't be exported as a network.

    Args:
        run: the run
        form: the format
        prepare: whether the preparation is exported too
    """
    _refuse_written_texts(run)
    if form == "onnx":
        _refuse_recurrent(run)
    if BatchPredictor(run, 2).draws_unknown:
        name = _find_drawing_layer(run)
        found = f"the layer '{name}' draws random numbers in every prediction, not by randn_like or rand_like"
        raise UserError(f"{found}; predict with the run, or {WEIGHTS_FIX}")
    if prepare and run.preparation is None:
        found = f"data.type: {run.spec.data.source_name} is a source of your own, whose preparation dlspec can't export"
        raise UserError(f"{found}; export the bare network: prepare=false")


def _refuse_written_texts(run: LoadedRun) -> None:
    fields = {each.name for each in run.data.fields}
    written = [each.name for each in run.data.targets if each.name in run.inputs and each.name not in fields]
    if written:
        found = f"the network writes '{written[0]}' token by token and reads what it wrote; a file computes one step"
        raise UserError(f"{found}. Predict with the run, or {WEIGHTS_FIX}")


def _refuse_recurrent(run: LoadedRun) -> None:
    """Refuse recurrent layers that ONNX or onnxruntime has no operator for."""
    for name, module in run.network.named_modules():
        found = f"'{name}' ({type(module).__name__})"
        if isinstance(module, nn.LSTM) and module.proj_size:
            raise UserError(f"{found} has proj_size, for which ONNX has no operator; write format=pt2")
        if isinstance(module, nn.RNNBase) and module.weight_ih_l0.dtype == torch.float64:
            raise UserError(f"{found} is in double precision, which onnxruntime has no operator for; write format=pt2")


def _find_drawing_layer(run: LoadedRun) -> str:
    """Return the name of the first layer during whose call the state of the random generator changes."""
    inputs = [read_rows(run.data.train.input(name)) for name in run.inputs]
    states: list[torch.Tensor] = []
    drawing: list[str] = []

    def keep_state(*_: Any) -> None:
        states.append(torch.get_rng_state())

    def compare_state(name: str, *_: Any) -> None:
        if not torch.equal(states.pop(), torch.get_rng_state()):
            drawing.append(name)

    with ExitStack() as hooks, torch.inference_mode(), ListedDraws():  # which replaces the draws that are inputs
        for name, module in run.network.named_modules():
            hooks.callback(module.register_forward_pre_hook(keep_state).remove)
            hooks.callback(module.register_forward_hook(partial(compare_state, name)).remove)
        find_draws(lambda: run.network(*inputs), run.device)
    return drawing[0] if drawing and drawing[0] else "the network"
