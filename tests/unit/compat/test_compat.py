"""Reaches into other libraries: each does what the public way does, and has a way out where a name is gone."""

from __future__ import annotations

import copy
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest
import torch
from hydra.core import utils as hydra_utils
from omegaconf import OmegaConf
from PIL.TiffImagePlugin import TiffImageFile
from safetensors.torch import save_file
from torch import nn
from torch.optim import optimizer as optimizer_module
from torch.optim.lr_scheduler import StepLR
from torchmetrics import MeanMetric
from torchmetrics.classification import BinaryAUROC, MulticlassAccuracy

from dlspec.compat import sklearn, torch_dynamo
from dlspec.compat.hydra import set_config_writer
from dlspec.compat.pillow import import_image_class
from dlspec.compat.safetensors import open_tensor_file
from dlspec.compat.torch_autograd import run_backward
from dlspec.compat.torch_cuda import end_failed_graph_capture
from dlspec.compat.torch_dispatch import observe_operations, use_cpu_kernels_on_meta
from dlspec.compat.torch_foreach import copy_tensors
from dlspec.compat.torch_inductor import keep_addresses
from dlspec.compat.torch_layers import (
    can_have_running_statistics,
    has_hooks,
    is_batch_norm,
    iterate_tensor_slots,
    set_training_mode,
)
from dlspec.compat.torch_optim import make_fused_step, mark_optimizer_stepped, run_fused_steps
from dlspec.compat.torchmetrics import (
    compute_directly,
    get_metric_state,
    get_summed_state,
    reset_directly,
    restore_metric,
    set_summed_state,
    update_directly,
)
from dlspec.errors import UserError
from dlspec.network.weights.tensor_files import list_stored_tensors
from dlspec.training.checkpoint.checkpoint_files import DamagedCheckpoint, read_checkpoint
from helpers.image_files import encode, make_pixels


@pytest.mark.filterwarnings("ignore:TF32")
def test_attention_on_meta_multiplies_out_no_weights() -> None:
    shapes: list[tuple[int, ...]] = []

    def see(operation: Any, output: Any, arguments: tuple[Any, ...]) -> None:
        shapes.extend(tuple(each.shape) for each in torch.utils._pytree.tree_leaves(output) if hasattr(each, "shape"))

    query = torch.ones(2, 1, 50, 8, device="meta")
    with observe_operations(see), use_cpu_kernels_on_meta():
        assert nn.functional.scaled_dot_product_attention(query, query, query).shape == query.shape
    assert shapes and not any(shape[-2:] == (50, 50) for shape in shapes)


@pytest.mark.parametrize("is_gone", [False, True])
def test_copies_of_many_tensors(is_gone: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_gone:
        monkeypatch.delattr(torch, "_foreach_copy_")
    targets, sources = [torch.zeros(2), torch.zeros(3)], [torch.ones(2), torch.full((3,), 2.0)]
    copy_tensors(targets, sources)
    assert all(torch.equal(one, other) for one, other in zip(targets, sources, strict=True))


@pytest.mark.parametrize(
    ("optimizer_class", "settings"),
    [
        (torch.optim.Adam, {"lr": 0.1, "weight_decay": 0.1}),
        (torch.optim.AdamW, {"lr": 0.1, "betas": (0.5, 0.9)}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
        (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.1}),
        (torch.optim.SGD, {"lr": 0.1}),
        (torch.optim.Adam, {"lr": 0.1, "amsgrad": True}),
    ],
)
def test_fused_steps_equal_pytorchs_own(optimizer_class: type[torch.optim.Optimizer], settings: Any) -> None:
    networks = [nn.Linear(3, 2), nn.Linear(3, 2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [optimizer_class(each.parameters(), fused=True, **settings) for each in networks]
    fused = make_fused_step(optimizers[0], optimizers[0].step)
    for number in range(6):
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
            optimizer.zero_grad()
            (network(torch.full((1, 3), float(number))) ** 2).sum().backward()
            if number == 2:  # a parameter without a gradient is not updated
                network.bias.grad = None
        fused()
        optimizers[1].step()
        assert all(torch.equal(*pair) for pair in zip(*(each.parameters() for each in networks), strict=True))
    assert str(optimizers[0].state_dict()) == str(optimizers[1].state_dict())


@pytest.mark.parametrize(
    ("optimizer_class", "settings"),
    [
        (torch.optim.Adam, [{"lr": 0.1}, {"lr": 0.1}, {"lr": 0.01}, {"lr": 0.1, "betas": (0.5, 0.9)}]),
        (torch.optim.AdamW, [{"lr": 0.1}, {"lr": 0.1, "weight_decay": 0.5}, {"lr": 0.1}]),
        (torch.optim.SGD, [{"lr": 0.1, "momentum": 0.9}, {"lr": 0.1}, {"lr": 0.1, "momentum": 0.9}]),
    ],
)
def test_steps_of_several_optimizers_equal_those_of_each(optimizer_class: Any, settings: list[dict[str, Any]]) -> None:
    pairs = [[nn.Linear(3, 2), nn.Linear(3, 2)] for _ in settings]
    optimizers = []
    for own, pair in zip(settings, pairs, strict=True):
        pair[1].load_state_dict(pair[0].state_dict())
        optimizers.append([optimizer_class(each.parameters(), fused=True, **own) for each in pair])
    steps = [make_fused_step(each, each.step) for each, _ in optimizers]
    for number in range(6):
        for networks, own in zip(pairs, optimizers, strict=True):
            for network, optimizer in zip(networks, own, strict=True):
                optimizer.param_groups[0]["lr"] *= 0.5 if number == 3 and own is optimizers[0] else 1.0
                optimizer.zero_grad()
                (network(torch.full((1, 3), float(number))) ** 2).sum().backward()
                if number == 4 and own is optimizers[1]:
                    network.bias.grad = None
        run_fused_steps(steps)
        for _, alone in optimizers:
            alone.step()
        for one, other in pairs:
            assert all(torch.equal(*each) for each in zip(one.parameters(), other.parameters(), strict=True))
    assert all(str(one.state_dict()) == str(other.state_dict()) for one, other in optimizers)


def load_state(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    optimizer.load_state_dict(copy.deepcopy(saved))


def move_state(optimizer: torch.optim.Optimizer, saved: Any) -> None:
    for state in optimizer.state.values():
        for each in state.values():
            each.data = each.data.clone()


@pytest.mark.parametrize("change", [load_state, move_state])
def test_fused_steps_use_a_changed_state(change: Callable[[torch.optim.Optimizer, Any], None]) -> None:
    networks = [nn.Linear(3, 2), nn.Linear(3, 2)]
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = [torch.optim.Adam(each.parameters(), fused=True) for each in networks]
    fused = make_fused_step(optimizers[0], optimizers[0].step)
    saved: Any = None
    for number in range(6):
        for network, optimizer in zip(networks, optimizers, strict=True):
            optimizer.zero_grad()
            (network(torch.full((1, 3), float(number))) ** 2).sum().backward()
        saved = copy.deepcopy(optimizers[1].state_dict()) if number == 2 else saved
        if number == 4:
            for optimizer in optimizers:
                change(optimizer, saved)
        fused()
        optimizers[1].step()
        assert all(torch.equal(*pair) for pair in zip(*(each.parameters() for each in networks), strict=True))
    assert str(optimizers[0].state_dict()) == str(optimizers[1].state_dict())


def test_a_backward_pass_is_pytorchs_own() -> None:
    networks = [nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    for _ in range(2):  # the second time adds to the first
        for network, run in zip(networks, (run_backward, torch.Tensor.backward), strict=True):
            run((network(torch.ones(5, 3)) ** 2).mean())
    gradients = [[each.grad for each in network.parameters()] for network in networks]
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    "loss",
    [
        torch.ones(2, requires_grad=True) * 2,
        torch.ones(()),
        torch.ones((), dtype=torch.complex64, requires_grad=True),
    ],
    ids=str,
)
def test_a_loss_without_gradients_is_answered_by_pytorch(loss: torch.Tensor) -> None:
    with pytest.raises(RuntimeError) as wanted:
        loss.backward()  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError) as found:
        run_backward(loss)
    assert str(found.value) == str(wanted.value)


def test_layers_are_switched_to_training_as_pytorch_does() -> None:
    class Frozen(nn.BatchNorm1d):
        def train(self, mode: bool = True) -> Self:
            return super().train(False)

    network = nn.Sequential(nn.Dropout(), nn.Sequential(Frozen(2), nn.Linear(2, 2)))
    for mode in (False, True, True, False):
        wanted = copy.deepcopy(network).train(mode)
        set_training_mode(network, mode)
        assert [each.training for each in network.modules()] == [each.training for each in wanted.modules()]


def test_a_layer_with_hooks_is_known() -> None:
    plain, hooked = nn.Linear(2, 2), nn.Linear(2, 2)
    hooked.register_forward_hook(lambda module, arguments, output: None)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    assert [has_hooks(each) for each in (plain, hooked, normed)] == [False, True, True]


def test_slots_hold_every_parameter_and_buffer_at_its_newest() -> None:
    network = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3))
    slots = [slot for slot, _ in iterate_tensor_slots(network)]
    network[1].running_mean = torch.ones(3)
    wanted = {id(each) for each in (*network.parameters(), *network.buffers())}
    assert {id(held[name]) for held, name in slots} == wanted


def test_kinds_of_normalisations() -> None:
    layers = [nn.BatchNorm1d(2), nn.SyncBatchNorm(2), nn.LazyBatchNorm2d(), nn.InstanceNorm3d(2), nn.LayerNorm(2)]
    assert [is_batch_norm(each) for each in layers] == [True, True, True, False, False]
    assert [can_have_running_statistics(each) for each in layers] == [True, True, True, True, False]


@pytest.mark.parametrize("make", [partial(MulticlassAccuracy, 3), BinaryAUROC, MeanMetric])
def test_metrics_are_called_without_their_wrappers(make: Callable[[], Any]) -> None:
    direct, wrapped, predictions, truth = make(), make(), torch.rand(6), torch.arange(6) % 2
    tensors = (predictions,) if isinstance(direct, MeanMetric) else (predictions.round().long(), truth)
    if isinstance(direct, BinaryAUROC):
        tensors = (predictions, truth)
    for _ in range(2):
        for _ in range(3):
            update_directly(direct, *tensors)
            wrapped.update(*tensors)
        assert torch.equal(compute_directly(direct), wrapped.compute())
        assert torch.equal(direct.compute(), wrapped.compute()) and direct.update_count == wrapped.update_count
        assert str(get_metric_state(direct)) == str(get_metric_state(wrapped))
        reset_directly(direct)
        wrapped.reset()
        assert str(get_metric_state(direct)) == str(get_metric_state(wrapped))


def test_states_of_samples_add_up() -> None:
    metric, predictions, truth = MulticlassAccuracy(3, average="micro"), torch.rand(5, 3), torch.arange(5) % 3
    states = []
    for row in range(5):
        metric.reset()
        metric.update(predictions[row : row + 1], truth[row : row + 1])
        state = get_summed_state(metric)
        assert state is not None
        states.append({name: each.clone() for name, each in state.items()})
    metric.reset()
    metric.update(predictions, truth)
    expected = float(metric.compute())
    set_summed_state(metric, {name: sum(each[name] for each in states) for name in states[0]})
    assert float(metric.compute()) == expected
    assert get_summed_state(BinaryAUROC()) is None  # it keeps all predictions


def test_a_restored_metric_goes_on() -> None:
    metric, other = MulticlassAccuracy(3), MulticlassAccuracy(3)
    metric.update(torch.tensor([0, 1]), torch.tensor([0, 2]))
    restore_metric(other, get_metric_state(metric))
    assert (other.compute(), other.update_count) == (metric.compute(), 1)
    assert get_metric_state(object()) == {}


def _adam() -> torch.optim.Adam:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    return torch.optim.Adam([weight])


def test_a_step_is_pytorchs_own_where_hooks_are_kept_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = _adam()
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    assert torch_dynamo._find_undecorated_step(optimizer) is not None
    monkeypatch.delattr(optimizer_module, "_global_optimizer_post_hooks")
    assert torch_dynamo._find_undecorated_step(optimizer) is None


def test_a_marked_optimizer_has_stepped_for_schedulers() -> None:
    optimizer = _adam()
    scheduler = StepLR(optimizer, 1)
    mark_optimizer_stepped(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scheduler.step()


def test_a_failed_recording_is_ended_whatever_pytorch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    class Graph:
        def capture_end(self) -> None:
            raise RuntimeError("worth nothing")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    end_failed_graph_capture(Graph(), None)  # type: ignore[arg-type]


def test_data_files_where_scikit_learn_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sklearn.find_data_folder() / "digits.csv.gz").is_file()  # type: ignore[operator]
    monkeypatch.setattr(sklearn, "find_spec", lambda name: None)
    assert sklearn.find_data_folder() is None


def test_what_the_compiler_leaves_out_is_not_logged() -> None:
    logger = logging.getLogger("torch._dynamo")
    before = logger.level
    try:
        torch_dynamo.silence_graph_breaks()
        assert not logger.isEnabledFor(logging.WARNING) and logger.isEnabledFor(logging.ERROR)
    finally:
        logger.setLevel(before)


def test_hydras_own_files_are_written_by_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hydra_utils, "_save_config", hydra_utils._save_config)
    written: dict[Path, str] = {}
    set_config_writer(written.__setitem__)
    hydra_utils._save_config(OmegaConf.create({"a": 1}), "config.yaml", Path("run/.hydra"))
    assert written == {Path("run/.hydra/config.yaml"): "a: 1\n"}


def test_a_header_that_is_too_large_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "step-000000001.safetensors"
    save_file({"weight": torch.ones(3)}, path)
    size = int.from_bytes(path.read_bytes()[:8], "little")
    monkeypatch.setenv("DLSPEC_MAX_WEIGHTS_HEADER_BYTES", str(size - 1))
    monkeypatch.setattr("safetensors.safe_open", lambda *_, **__: pytest.fail("it was parsed"))
    variable = "set the environment variable DLSPEC_MAX_WEIGHTS_HEADER_BYTES"
    with pytest.raises(UserError, match=variable):
        list_stored_tensors(path)
    with pytest.raises(DamagedCheckpoint, match=variable):
        read_checkpoint(path)
    monkeypatch.undo()
    monkeypatch.setenv("DLSPEC_MAX_WEIGHTS_HEADER_BYTES", str(size))
    assert list(list_stored_tensors(path)) == ["weight"]


def test_a_tensor_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.safetensors")
    try:
        path.write_bytes(b"")
    except OSError:
        pytest.skip("the file system has UTF-8 names only")
    plain = tmp_path / "plain.safetensors"
    save_file({"weight": torch.arange(3.0)}, plain)
    plain.replace(path)
    file = open_tensor_file(path)
    assert torch.equal(file.get_tensor("weight"), torch.arange(3.0))  # read after the descriptor was closed


def test_pillow_does_not_warn_about_metadata() -> None:
    content = encode(make_pixels(), "TIFF")

    def count_warnings(*, with_filter: bool) -> int:
        """Open the file cut off at many places; most of its metadata are at its end."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import_image_class.cache_clear()
            open_file = import_image_class("TiffImagePlugin", "TiffImageFile") if with_filter else TiffImageFile
            for length in range(0, len(content), 5):
                with suppress(Exception):
                    open_file(io.BytesIO(content[:length])).getexif()
        return len(caught)

    assert count_warnings(with_filter=False) > 0 and count_warnings(with_filter=True) == 0


def test_addresses_are_marked_as_static() -> None:
    tensor = torch.zeros(2)
    keep_addresses([tensor])
    assert tensor._dynamo_static_input_type == "unguarded"
