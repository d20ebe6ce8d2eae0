"""MLP-Mixer, ConvMixer, gMLP and ResMLP: the published numbers of parameters, and a Mixer by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

import dlspec

MIXER = """
params: {dim: 512, patch: 16, steps: 196, tokens_dim: 256, channels_dim: 2048, depth: 8}
blocks:
  mixer:
    layers:
      - Residual:
          - LayerNorm
          - {Formula: "transpose(_, 1, 2)", layout: sequence}
          - Linear: $tokens_dim
          - GELU
          - Linear: $steps
          - {Formula: "transpose(_, 1, 2)", layout: sequence}
      - Residual: [LayerNorm, {Linear: $channels_dim}, GELU, {Linear: $dim}]
layers:
  - Conv2d: {out_channels: $dim, kernel_size: $patch, stride: $patch}
  - Formula: transpose(flatten(_, 2), 1, 2)
  - mixer: {}
    repeat: $depth
  - LayerNorm
  - Mean
  - Linear: ${data.num_outputs}
"""
CONVMIXER = """
params: {dim: 768, patch: 7, kernel: 7, depth: 32}
layers:
  - Conv2d: {out_channels: $dim, kernel_size: $patch, stride: $patch}
  - GELU
  - BatchNorm2d
  - repeat: $depth
    Sequential:
      - Residual: [{Conv2d: {out_channels: $dim, kernel_size: $kernel, groups: $dim, padding: same}}, GELU, BatchNorm2d]
      - Conv2d: {out_channels: $dim, kernel_size: 1}
      - GELU
      - BatchNorm2d
  - AdaptiveAvgPool2d: 1
  - Flatten
  - Linear: ${data.num_outputs}
"""
GMLP = """
params: {dim: 256, patch: 16, steps: 196, ratio: 6, depth: 30}
blocks:
  gate:
    inputs: [x]
    layers:
      - Formula: split(x, $(dim * ratio // 2), dim=-1)[1]
      - LayerNorm
      - {Formula: "transpose(_, 1, 2)", layout: sequence}
      - Linear: $steps
      - {Formula: "transpose(_, 1, 2) * split(x, $(dim * ratio // 2), dim=-1)[0]", layout: sequence}
layers:
  - Conv2d: {out_channels: $dim, kernel_size: $patch, stride: $patch}
  - Formula: transpose(flatten(_, 2), 1, 2)
  - repeat: $depth
    Residual: [LayerNorm, {Linear: $(dim * ratio)}, GELU, gate, {Linear: $dim}]
  - LayerNorm
  - Mean
  - Linear: ${data.num_outputs}
"""
RESMLP = """
params: {dim: 384, patch: 16, steps: 196, depth: 12}
blocks:
  affine:
    inputs: [x]
    layers:
      - Parameter: {shape: [$dim], init: ones_, name: scale}
      - Parameter: {shape: [$dim], init: zeros_, name: shift}
      - Formula: x * scale + shift
  scaled:
    inputs: [x]
    layers: [{Parameter: {shape: [$dim], init: ones_, name: gamma}}, {Formula: x * gamma}]
layers:
  - Conv2d: {out_channels: $dim, kernel_size: $patch, stride: $patch}
  - Formula: transpose(flatten(_, 2), 1, 2)
  - repeat: $depth
    Sequential:
      - Residual:
          - affine
          - {Formula: "transpose(_, 1, 2)", layout: sequence}
          - Linear: $steps
          - {Formula: "transpose(_, 1, 2)", layout: sequence}
          - scaled
      - Residual: [affine, {Linear: $(4 * dim)}, GELU, {Linear: $dim}, scaled]
  - affine
  - Mean
  - Linear: ${data.num_outputs}
"""
# As in the papers and in timm: mixer_s16_224, convmixer_768_32, gmlp_s16_224, resmlp_12_224.
PUBLISHED = {"mixer": (MIXER, 18_528_264), "convmixer": (CONVMIXER, 21_110_248), "gmlp": (GMLP, 19_422_656),
             "resmlp": (RESMLP, 15_350_872)}  # fmt: skip


@pytest.mark.soak
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_number_of_parameters_is_the_published_one(name: str, work: Path, dlspec: Any, capsys: Any) -> None:
    text, count = PUBLISHED[name]
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/m.yaml").write_text(text)
    said = dlspec("summary", "model=m", "data=random", "data.shape=[3,224,224]", "data.num_classes=1000").out
    found = re.search(r"^([\d,]+) parameters", said, re.MULTILINE)
    assert found and int(found[1].replace(",", "")) == count


class MixerByHand(nn.Module):
    """A Mixer of one block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norms = nn.Conv2d(3, 8, 4, 4), nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.tokens = nn.Sequential(nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 4))
        self.channels = nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.Linear(6, 8))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).mT
        x = x + self.tokens(self.norms[0](x).mT).mT
        x = x + self.channels(self.norms[1](x))
        output: Tensor = self.head(self.norms[2](x).mean(dim=1))
        return output


def test_a_mixer_equals_one_by_hand() -> None:
    model = yaml.safe_load(MIXER)
    model["params"] = {"dim": 8, "patch": 4, "steps": 4, "tokens_dim": 5, "channels_dim": 6, "depth": 1}
    network = dlspec.build({"model": model}, data={"shape": [3, 8, 8], "num_classes": 3})
    by_hand, x = MixerByHand(), torch.randn(5, 3, 8, 8)
    order = ["stem", "norms.0", "tokens.0", "tokens.2", "norms.1", "channels.0", "channels.2", "norms.2", "head"]
    names = [f"{each}.{kind}" for each in order for kind in ("weight", "bias")]
    by_hand.load_state_dict(dict(zip(names, network.state_dict().values(), strict=True)))
    torch.testing.assert_close(network(x), by_hand(x), rtol=1e-5, atol=1e-6)
    network(x).square().sum().backward()
    by_hand(x).square().sum().backward()
    ours, theirs = network.get_parameter(next(iter(network.state_dict()))).grad, by_hand.stem.weight.grad
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
