"""Check that padding does not count: a padded sample must give what it gives without padding.

The layers' rules ensure that for most networks. This check runs the others, such as those with a layer of the user's
own or a `Formula` that works over time, on a sample with padding and on the same sample without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from dlspec.compat.torch_layers import BATCH_NORM
from dlspec.errors import Code
from dlspec.language.problems import Problems
from dlspec.layouts import TensorInfo
from dlspec.network.built_network import BuiltLayer, Network
from dlspec.network.codegen import LAYER_KEY
from dlspec.network.layer_rules.padding_fixes import suggest_padding_fix
from dlspec.network.module_state import preserve_buffers
from dlspec.network.random_state import preserve_random_state

_ROWS = 8  # with a single one, a maximum could be the same by chance
_COMPARISONS = 2  # that many are made, if the network fits so many numbers of steps
_MORE_MISSING_STEPS = (2, 3, 4, 5, 6, 7, 8)
_TOLERANCE = 1e-4  # relative and absolute, for float32


def check_padding(network: Network, samples: Mapping[str, tuple[TensorInfo, Tensor]], problems: Problems) -> None:
    """Report the first layer through which padding changes an output.

    Nothing is reported if the network has no input with lengths, if its layers' rules exclude it, and if the network
    can't be run on shorter samples, as its weights depend on the number of steps.

    Args:
        network: The built network, in any mode.
        samples: A few samples of each of the data's fields that it takes, (N, ...), with their layout.
        problems: Receives the problem.
    """
    padded = {
        name: sample.shape[info.time_dim] for name, (info, sample) in samples.items() if info.lengths and info.time_dim
    }
    is_ensured = network.allows_trimming and not _may_normalize_folded_steps(network)
    if is_ensured or not padded or any(sample.is_meta for _, sample in samples.values()):
        return
    steps, fewest = min(padded.values()), max(network.fewest_steps.get(name, 1) for name in padded)
    count = 0
    for missing in _list_missing_steps(steps, fewest):
        comparison = _PaddingComparison(network, samples, missing)
        found = comparison.find_layer()
        if found is not None:
            _report(found, missing, problems)
        count += comparison.fits_shorter_samples
        if found is not None:
            return
        if count == _COMPARISONS:
            break
    found = _find_layer_in_training(network, samples)
    if found is not None:
        _report(found, 1, problems, " in training")
    _check_fields_of_other_lengths(network, samples, problems)


def _check_fields_of_other_lengths(
    network: Network, samples: Mapping[str, tuple[TensorInfo, Tensor]], problems: Problems
) -> None:
    """Report padding of one field that counts although the mask of another field leaves out its own."""
    padded = [name for name, (value, _) in samples.items() if value.lengths and value.time_dim]
    if len(padded) < 2 or any(each.value.lengths for each in network.outputs.values()):
        return
    for field in padded:
        layer = _PaddingComparison(network, samples, 1).find_layer_that_reads(field)
        if layer is not None:
            found = f"{layer.type} counts padding: its output depends on what '{field}' has after a sample's end"
            fix = f"mask it with is_step(x) of an output x that has the lengths of '{field}'"
            is_formula = layer.type == "Formula"
            problems.add(Code.COUNTS_PADDING, layer.path, found, fix if is_formula else suggest_padding_fix(layer.type))
            return


def _list_missing_steps(steps: int, fewest: int) -> list[int]:
    """List by how many steps to pad. A layer that groups steps fits only some of these numbers."""
    wanted = dict.fromkeys((1, steps // 3, *_MORE_MISSING_STEPS, steps // 2))
    return [each for each in wanted if 0 < each <= steps - fewest]


def _find_layer_in_training(network: Network, samples: Mapping[str, tuple[TensorInfo, Tensor]]) -> BuiltLayer | None:
    """Return the first layer through which padding changes an output while the user's own layers are trained."""
    own = [each for each in network.module.modules() if _is_own_layer(each)]
    comparison = _PaddingComparison(network, samples, 1, own)
    return comparison.find_layer() if own and not comparison.draws_random_numbers() else None


def _is_own_layer(module: nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] not in ("torch", "dlspec")


def _report(layer: BuiltLayer, missing: int, problems: Problems, when: str = "") -> None:
    steps = f"{missing} step" + ("s" if missing > 1 else "")
    found = f"{layer.type} counts padding{when}: its output differs if a sample is padded by {steps}"
    problems.add(Code.COUNTS_PADDING, layer.path, found, suggest_padding_fix(layer.type))


class _PaddingComparison:
    """Samples of each input with padding, and the same without.

    Args:
        network: The built network.
        samples: A few samples of each of the data's fields, with their layout.
        missing: By how many steps the samples with lengths are padded.
        trained: Modules that run in training mode, beside the batch normalizations.
    """

    def __init__(
        self,
        network: Network,
        samples: Mapping[str, tuple[TensorInfo, Tensor]],
        missing: int,
        trained: Sequence[nn.Module] = (),
    ) -> None:
        self.network, self.samples, self.missing, self.trained = network, samples, missing, trained
        self.fits_shorter_samples = True
        # An EmbeddingBag has no lengths: it leaves the token 0 out. An Embedding with `padding_idx: 0` gives it zeros.
        self.pads_with_zero = any(
            each.type == "EmbeddingBag" or getattr(each.module, "padding_idx", None) == 0 for each in network.layers
        )

    def find_layer(self) -> BuiltLayer | None:
        """Return the first layer through which padding changes an output; None if it changes none."""
        cut, cut_outputs = self._run(self._make_inputs(is_padded=False))
        self.fits_shorter_samples = cut is not None
        if cut is None:
            return None
        inputs = self._make_inputs(is_padded=True)
        padded, padded_outputs = self._run(inputs)
        if padded is None or _are_equal(padded, cut):
            return None
        again, _ = self._run(inputs)
        if again is None or not _are_equal(padded, again):
            return None  # it draws random numbers
        for layer in self.network.layers:
            one, other = padded_outputs.get(layer.name), cut_outputs.get(layer.name)
            if one is not None and other is not None and not _are_equal(_unfold_steps(one), _unfold_steps(other)):
                return layer
        return next(iter(self.network.outputs.values())).layer

    def draws_random_numbers(self) -> bool:
        """Whether the network's outputs depend on the random state."""
        found = []
        for seed in (1, 2):
            with preserve_random_state():
                torch.manual_seed(seed)
                found.append(self._run(self._make_inputs(is_padded=True))[0])
        return not _are_equal(*found)

    def find_layer_that_reads(self, field: str) -> BuiltLayer | None:
        """Return the first layer without steps whose output depends on the padding of one field alone."""
        inputs = self._make_inputs(is_padded=True, only=field)
        one, outputs = self._run(inputs)
        again, _ = self._run(inputs)
        other, other_outputs = self._run(self._make_inputs(is_padded=True, only=field, seed=1))
        if one is None or other is None or _are_equal(one, other) or not _are_equal(one, again):
            return None
        for layer in self.network.layers:
            has_no_steps = layer.output.time_dim is None
            if has_no_steps and not _are_equal(outputs.get(layer.name), other_outputs.get(layer.name)):
                return layer
        return next(iter(self.network.outputs.values())).layer

    def _run(self, inputs: list[Tensor]) -> tuple[Any, dict[str, Any]]:
        """Run the network in eval mode, and return its output and those of its layers; None if that fails.

        Batch normalizations are in training mode, in which padding could count in the statistics of the batch.
        """
        module, recorded = self.network.module, dict[str, Any]()
        was_training = module.training
        module.eval()
        try:
            with torch.no_grad(), preserve_random_state(), _train_modules(module, self.trained):
                return _run_recording(module, inputs, recorded), recorded
        except Exception:  # shapes that depend on the number of steps, or a layer's own code
            return None, recorded
        finally:
            module.train(was_training)

    def _make_inputs(self, *, is_padded: bool, only: str = "", seed: int = 0) -> list[Tensor]:
        """Make the network's inputs.

        Args:
            is_padded: Whether the samples have their padding, or are cut to their real steps.
            only: The one field whose samples have padding; '' for all.
            seed: Seed of the padding's values.
        """
        made: dict[str, Tensor] = {}
        generator, padding_generator = (torch.Generator().manual_seed(each) for each in (0, seed))
        for name, (value, samples) in self.samples.items():
            made[name] = sample = samples[torch.arange(_ROWS) % len(samples)]
            if value.lengths is None or value.time_dim is None:
                continue
            if value.vocab_size:
                tokens = torch.randint(
                    min(1, value.vocab_size - 1), value.vocab_size, sample.shape, generator=generator
                )
                sample = tokens.to(sample.device)
            missing = self.missing if only in ("", name) else 0
            length = sample.shape[value.time_dim] - missing
            real = sample.narrow(value.time_dim, 0, length)
            padding = sample.narrow(value.time_dim, length, missing)
            if padding.is_floating_point():
                padding = torch.randn(padding.shape, generator=padding_generator).to(padding)
            elif self.pads_with_zero:
                padding = torch.zeros_like(padding)
            elif only and value.vocab_size:
                padding = (padding + seed) % value.vocab_size
            made[name] = torch.cat([real, padding], dim=value.time_dim) if is_padded else real
            made[f"{value.lengths.field}_lengths"] = torch.full((_ROWS,), length, device=sample.device)
        return [made[name] for name in self.network.inputs]


def _may_normalize_folded_steps(network: Network) -> bool:
    """Whether a batch normalization may be in a TimeDistributed, where its statistics would be those of all steps."""
    has_norm = any(isinstance(each, BATCH_NORM) for each in network.module.modules())
    return has_norm and any(getattr(each.module, "folds_batch", False) for each in network.layers)


@contextmanager
def _train_modules(module: nn.Module, others: Sequence[nn.Module]) -> Iterator[None]:
    """Put batch normalizations and other modules into training mode, and restore their buffers afterwards."""
    trained = [*(each for each in module.modules() if isinstance(each, BATCH_NORM)), *others]
    with preserve_buffers(each for one in trained for each in one.buffers()):
        for each in trained:
            each.training = True
        yield


def _run_recording(module: nn.Module, inputs: list[Tensor], recorded: dict[str, Any]) -> Any:
    """Run a network, and record the output of each layer by its name."""
    if isinstance(module, fx.GraphModule):
        return _RecordingInterpreter(module, recorded).run(*inputs)
    (value,) = inputs
    for name, layer in module.named_children():
        recorded[name] = value = layer(value)
    return value


class _RecordingInterpreter(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, recorded: dict[str, Any]) -> None:
        super().__init__(module)
        self.recorded = recorded

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if LAYER_KEY in n.meta:
            self.recorded[n.meta[LAYER_KEY]] = value
        return value


def _unfold_steps(value: Any) -> Any:
    """Return (N * T, ...), in which each step is a sample, as (N, T, ...)."""
    is_folded = isinstance(value, Tensor) and value.dim() and len(value) > _ROWS and len(value) % _ROWS == 0
    return value.reshape(_ROWS, -1, *value.shape[1:]) if is_folded else value


def _are_equal(one: Any, other: Any) -> bool:
    """Whether two outputs agree in the part that both have: padding comes last in each dimension."""
    if isinstance(one, Mapping):
        return all(_are_equal(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return all(_are_equal(*each) for each in zip(one, other, strict=True))
    if not isinstance(one, Tensor) or one.dim() != other.dim():
        return True
    common = tuple(slice(min(sizes)) for sizes in zip(one.shape, other.shape, strict=True))
    return torch.allclose(one[common].float(), other[common].float(), _TOLERANCE, _TOLERANCE, equal_nan=True)
