"""Known networks written by hand in plain PyTorch, to compare with those that dlspec builds from conf/model/.

The ResNets have the layers and names of torchvision's, so that its checkpoints fit. All layers keep PyTorch's
initialization. Layers are created in the order in which they run, with a block's shortcut last, as in dlspec.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResNet(nn.Module):
    """(N, 3, H, W) to (N, classes). He et al., 2015, Deep residual learning for image recognition.

    `small` starts as in the paper for 32x32 images: a 3x3 convolution, and no downsampling before the stages.
    """

    def __init__(
        self, block: type[Basic] | type[Bottleneck], depths: Sequence[int], classes: int = 1000, small: bool = False
    ) -> None:
        super().__init__()
        size, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(3, 64, kernel_size=size, stride=stride, padding=size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, depths[1], stride=2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, depths[2], stride=2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * block.expansion, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Basic(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    expansion = 1

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(given, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        body = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(body + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions with a shortcut. The output has 4 * width channels."""

    expansion = 4

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, width, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU()
        self.downsample = _shortcut(given, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        body = self.relu(self.bn1(self.conv1(x)))
        body = self.relu(self.bn2(self.conv2(body)))
        body = self.bn3(self.conv3(body))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(body + shortcut)


def _stage(block: type[Basic] | type[Bottleneck], given: int, width: int, depth: int, stride: int) -> nn.Sequential:
    """A stage of `depth` blocks. With `stride` 2, the first one halves the image."""
    first = block(given, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(depth - 1)))


def _shortcut(given: int, wanted: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and given == wanted:
        return None
    return nn.Sequential(nn.Conv2d(given, wanted, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(wanted))


def resnet18(classes: int = 1000, small: bool = False) -> ResNet:
    """11,689,512 parameters for 1000 classes."""
    return ResNet(Basic, (2, 2, 2, 2), classes, small)


def resnet50(classes: int = 1000) -> ResNet:
    """25,557,032 parameters for 1000 classes."""
    return ResNet(Bottleneck, (3, 4, 6, 3), classes)


class GPT(nn.Module):
    """Tokens (N, T) to logits (N, T, vocab_size). Radford et al., 2019, GPT-2: the head shares the embedding's weight.

    `plain` is nanoGPT's configuration for a CPU: no biases, and the exact GELU instead of its tanh approximation.
    """

    def __init__(
        self,
        vocab_size: int,
        length: int,
        width: int,
        depth: int,
        heads: int,
        dropout: float = 0.1,
        plain: bool = False,
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = Positions(length, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(TransformerBlock(width, heads, dropout, plain) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, bias=not plain)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.dropout(self.positions(self.tokens(tokens)))
        return self.head(self.norm(self.blocks(x)))


class Positions(nn.Module):
    """Add a learned vector to each step of (N, T, C)."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, width))
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight[: x.shape[1]]


class TransformerBlock(nn.Module):
    """Causal attention, then two linear layers. Both have a LayerNorm first and are added to their input."""

    def __init__(self, width: int, heads: int, dropout: float, plain: bool) -> None:
        super().__init__()
        bias = not plain
        self.norm1 = nn.LayerNorm(width, bias=bias)
        self.attention = CausalAttention(width, heads, dropout, bias)
        self.norm2 = nn.LayerNorm(width, bias=bias)
        self.wide = nn.Linear(width, 4 * width, bias=bias)
        self.gelu = nn.GELU(approximate="none" if plain else "tanh")
        self.narrow = nn.Linear(4 * width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.narrow(self.gelu(self.wide(self.norm2(x)))))


class CausalAttention(nn.Module):
    """(N, T, C) to (N, T, C): each step attends to itself and to earlier steps.

    On a CPU, one matrix product for queries, keys and values takes as long as three (measured at widths 128 and 768).
    """

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=bias)
        self.key = nn.Linear(width, width, bias=bias)
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        query, key, value = (self._split(each) for each in (self.query(x), self.key(x), self.value(x)))
        mixed = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (N, heads, T, C / heads)


def gpt2() -> GPT:
    """GPT-2 small, 124,439,808 parameters."""
    return GPT(vocab_size=50257, length=1024, width=768, depth=12, heads=12)


def small_gpt(dropout: float = 0.1) -> GPT:
    """A GPT for characters: 4 layers of width 128, 818,048 parameters."""
    return GPT(vocab_size=65, length=128, width=128, depth=4, heads=4, dropout=dropout)


class TextLSTM(nn.Module):
    """Tokens (N, T) to (N, 1): an embedding, an LSTM, and one linear layer on its last hidden state."""

    def __init__(self, vocab_size: int = 20_000, size: int = 100) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, size)
        self.lstm = nn.LSTM(size, size, batch_first=True)
        self.head = nn.Linear(size, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(self.embedding(tokens))
        return self.head(hidden[-1])
