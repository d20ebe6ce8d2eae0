"""PyTorch's RNN, LSTM and GRU, with a choice of outputs, and with lengths.

State-dict names, initialization and settings are PyTorch's. `output` chooses which output the next layer gets. If the
data have lengths, padding does not affect it.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlspec.errors import Code, Finding
from dlspec.layouts import Layout, Lengths
from dlspec.parts.layers.padding import make_step_mask
from dlspec.parts.layers.rule import Inputs, Rule, Settings, Shape
from dlspec.parts.layers.unpacked_steps import is_exporting, run_without_packing

RecurrentOutput = Literal["sequence", "last", "mean", "state"]
RECURRENT_OUTPUTS: tuple[RecurrentOutput, ...] = get_args(RecurrentOutput)


def _output_layout(inputs: Inputs, shape: Shape, settings: Settings) -> Layout:
    return "sequence" if settings.get("output", "sequence") == "sequence" else "features"


def _output_lengths(inputs: Inputs, shape: Shape, settings: Settings) -> Lengths | None:
    return inputs[0].lengths if _output_layout(inputs, shape, settings) == "sequence" else None


def _make_rule(*, has_cell: bool) -> Rule:
    def check(inputs: Inputs, settings: Settings) -> Finding | None:
        if not inputs[0].has_batch:
            return Finding(
                Code.WRONG_LAYOUT,
                "the first input must be computed from the data, got a Parameter",
                "use the Parameter as the second input, the initial state",
            )
        if len(inputs[0].shape) != 2:
            return Finding(
                Code.WRONG_LAYOUT,
                f"a recurrent layer expects a sequence (T, C), got {inputs[0]}",
                "put a 'Flatten: 2' before it",
            )
        num_states = settings.get("num_layers", 1) * (2 if settings.get("bidirectional") else 1)
        size = settings.get("proj_size") or settings["hidden_size"]
        state_shape = (num_states, size + settings["hidden_size"] if has_cell else size)
        if len(inputs) < 2 or inputs[1].shape == state_shape:
            return None
        return Finding(
            Code.SHAPE_MISMATCH,
            f"the initial state must have shape {state_shape}, got {inputs[1]}",
            "use NAME.state of a layer with the same settings",
        )

    return Rule(
        takes=("sequence",),
        gives=_output_layout,
        keeps_lengths=True,
        lengths=_output_lengths,
        check=check,
        takes_parameter=True,
    )


class _Recurrent(nn.RNNBase):
    """Base of the recurrent layers. Takes a sequence (N, T, C) and returns the outputs listed in `wanted`.

    - `sequence`, (N, T, H): the output of every step
    - `last`, (N, H): the final state of the top layer
    - `mean`, (N, H): the mean of the outputs over time
    - `state`, (N, num_layers * directions, hidden_size): PyTorch's final state, batch first; an LSTM's h and c are
      concatenated in the last dimension

    H is `proj_size` if set, else `hidden_size`, and twice that if the layer is bidirectional. An optional second input
    is the initial state, in the shape of `state`.
    """

    rule = _make_rule(has_cell=False)
    lengths_of = {"lengths": 0}
    output: RecurrentOutput
    output_names: tuple[RecurrentOutput, ...] = RECURRENT_OUTPUTS
    wanted: tuple[str, ...]

    @property
    def needs_lengths(self) -> bool:
        """Whether padding would change an output. For a one-directional `sequence` it would not, as it comes last."""
        return self.bidirectional or self.wanted != ("sequence",)

    def _set_output(self, output: RecurrentOutput) -> None:
        """Set which output the next layer gets, and list it first."""
        self.output = output
        self.output_names = (output, *(each for each in RECURRENT_OUTPUTS if each != output))
        self.wanted = (output,)

    def forward(
        self, input: Tensor, state: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Run the layer over a sequence.

        Args:
            input: (N, T, C).
            state: Initial state, (N, num_layers * directions, hidden_size), without N for a `Parameter`; default zero.
            lengths: Real steps of each sample, int64 of shape (N,).

        Returns:
            The outputs listed in `wanted`: a tensor for a single one, else a tuple.
        """
        lengths = None if lengths is None else lengths.to(input.device)
        sequence, final = self._run_steps(input, self._prepare_state(input, state), lengths)
        outputs = tuple(self._select_output(each, sequence, final, lengths) for each in self.wanted)
        return outputs[0] if len(outputs) == 1 else outputs

    def step(self, state: Tensor | None, input: Tensor, initial: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the layer, which must not be bidirectional, over the next steps of a sequence.

        Args:
            state: the final state of the steps before, in the shape of `initial`; None at the beginning
            input: the next steps, (N, S, C)
            initial: initial state, (N, num_layers, hidden_size); default zero

        Returns:
            The output of these steps (N, S, H), and the final state.
        """
        before = initial if state is None else state
        output, final = self._run_steps(input, self._prepare_state(input, before), None)
        return output, self._final_state(final)

    def _run_steps(self, input: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        """Return the output of every step, and the final state as PyTorch returns it."""
        if lengths is None or not (self.bidirectional or "state" in self.wanted):
            # Padding comes after the real steps and does not affect them in a forward direction: no packing needed.
            return super().forward(input, state)  # type: ignore[no-any-return]
        if is_exporting():
            return run_without_packing(self, input, state, lengths, keep_cells="state" in self.wanted)
        packed = pack_padded_sequence(input, lengths.cpu(), batch_first=True, enforce_sorted=False)
        output, final = super().forward(packed, state)
        return pad_packed_sequence(output, batch_first=True, total_length=input.shape[1])[0], final

    def _prepare_state(self, input: Tensor, state: Tensor | None) -> Any:
        """Convert the initial state to PyTorch's shape, batch second. A `Parameter` is repeated for every sample."""
        if state is None:
            return None
        if state.dim() == 2:
            state = state.expand(input.shape[0], -1, -1)
        return state.transpose(0, 1).contiguous()

    def _select_output(self, name: str, sequence: Tensor, final: Any, lengths: Tensor | None) -> Tensor:
        if name == "sequence":
            return sequence
        if name == "state":
            return self._final_state(final)
        return self._average_steps(sequence, lengths) if name == "mean" else self._select_last_step(sequence, lengths)

    def _final_state(self, final: Any) -> Tensor:
        state: Tensor = final.transpose(0, 1)
        return state

    def _select_last_step(self, sequence: Tensor, lengths: Tensor | None) -> Tensor:
        size = sequence.shape[-1] // (2 if self.bidirectional else 1)
        if lengths is None:
            forward = sequence[:, -1, :size]
        else:
            at = (lengths - 1).view(-1, 1, 1).expand(-1, 1, size)
            forward = sequence[..., :size].gather(1, at).squeeze(1)
        return torch.cat([forward, sequence[:, 0, size:]], dim=-1) if self.bidirectional else forward

    def _average_steps(self, sequence: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return sequence.mean(dim=1)
        is_real = make_step_mask(lengths, sequence.shape[1])
        return (sequence * is_real.unsqueeze(-1)).sum(dim=1) / lengths.unsqueeze(1)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", output={self.output}" if self.output != "sequence" else "")


# The signatures are written out because dlspec derives the settings from them; PyTorch's own classes have only *args.


class LSTM(_Recurrent, nn.LSTM):  # type: ignore[misc]  # forward returns the outputs in `wanted`
    """`torch.nn.LSTM`, batch first, with the outputs sequence, last, mean and state."""

    rule = _make_rule(has_cell=True)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        output: RecurrentOutput = "sequence",
        batch_first: bool = True,
    ) -> None:
        nn.LSTM.__init__(
            self, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        )
        self._set_output(output)

    def _prepare_state(self, input: Tensor, state: Tensor | None) -> Any:
        initial = super()._prepare_state(input, state)
        size = self.proj_size or self.hidden_size
        return None if initial is None else (initial[..., :size].contiguous(), initial[..., size:].contiguous())

    def _final_state(self, final: Any) -> Tensor:
        return torch.cat(final, dim=-1).transpose(0, 1)


class GRU(_Recurrent, nn.GRU):  # type: ignore[misc]
    """`torch.nn.GRU`, batch first, with the outputs sequence, last, mean and state."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        output: RecurrentOutput = "sequence",
        batch_first: bool = True,
    ) -> None:
        nn.GRU.__init__(self, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self._set_output(output)


class RNN(_Recurrent, nn.RNN):  # type: ignore[misc]
    """`torch.nn.RNN`, batch first, with the outputs sequence, last, mean and state."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        output: RecurrentOutput = "sequence",
        batch_first: bool = True,
    ) -> None:
        nn.RNN.__init__(
            self, input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional
        )
        self._set_output(output)
