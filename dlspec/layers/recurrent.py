"""PyTorch's RNN, LSTM and GRU with one output, and with lengths.

State-dict names, initialisation and settings are PyTorch's. `output` chooses what flows on; `lengths`, where the data
have them, keep padding out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

Output = Literal["sequence", "last", "mean"]


class _Recurrent(nn.RNNBase):
    """(N, T, C) to (N, T, H) for `sequence`, (N, H) for `last` (the top layer's final state) and `mean` (over time).

    H is `hidden_size` (`proj_size` where that is set), twice that where the layer is bidirectional.
    """

    output: Output
    takes_lengths = True

    def forward(self, input: Tensor, lengths: Tensor | None = None) -> Tensor:
        sequence = self._run(input, lengths)
        if self.output == "sequence":
            return sequence
        return self._mean(sequence, lengths) if self.output == "mean" else self._last(sequence, lengths)

    def _run(self, input: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None or not self.bidirectional:
            # Forward in time, padding behind a sample changes nothing before it: no packing is needed.
            sequence: Tensor = super().forward(input)[0]
            return sequence
        packed = pack_padded_sequence(input, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(super().forward(packed)[0], batch_first=True, total_length=input.shape[1])[0]

    def _last(self, sequence: Tensor, lengths: Tensor | None) -> Tensor:
        size = sequence.shape[-1] // (2 if self.bidirectional else 1)
        if lengths is None:
            forward = sequence[:, -1, :size]
        else:
            at = (lengths.to(sequence.device) - 1).view(-1, 1, 1).expand(-1, 1, size)
            forward = sequence[..., :size].gather(1, at).squeeze(1)
        return torch.cat([forward, sequence[:, 0, size:]], dim=-1) if self.bidirectional else forward

    def _mean(self, sequence: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return sequence.mean(dim=1)
        lengths = lengths.to(sequence.device)
        inside = torch.arange(sequence.shape[1], device=sequence.device) < lengths.unsqueeze(1)
        return (sequence * inside.unsqueeze(-1)).sum(dim=1) / lengths.unsqueeze(1)

    def extra_repr(self) -> str:
        return super().extra_repr() + (f", output={self.output}" if self.output != "sequence" else "")


# The signatures are written out, since PyTorch hides its own behind *args; dlspec's settings come from them.


class LSTM(_Recurrent, nn.LSTM):  # type: ignore[misc]  # forward gives one output
    """`torch.nn.LSTM`, batch first, with one output."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        output: Output = "sequence",
        batch_first: bool = True,
    ) -> None:
        nn.LSTM.__init__(
            self, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, proj_size
        )
        self.output = output


class GRU(_Recurrent, nn.GRU):  # type: ignore[misc]
    """`torch.nn.GRU`, batch first, with one output."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        output: Output = "sequence",
        batch_first: bool = True,
    ) -> None:
        nn.GRU.__init__(self, input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional)
        self.output = output


class RNN(_Recurrent, nn.RNN):  # type: ignore[misc]
    """`torch.nn.RNN`, batch first, with one output."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        output: Output = "sequence",
        batch_first: bool = True,
    ) -> None:
        nn.RNN.__init__(
            self, input_size, hidden_size, num_layers, nonlinearity, bias, batch_first, dropout, bidirectional
        )
        self.output = output


RECURRENT: Mapping[str, Any] = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
