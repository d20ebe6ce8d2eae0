"""The same workloads in Keras 3, with its functional API and `fit`. KERAS_BACKEND chooses the backend."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import torch
from keras import layers, ops
from terminal import terminal
from turns import Turns
from works import Task

if keras.backend.backend() == "torch":
    keras.config.set_image_data_format("channels_first")  # the layout that PyTorch uses by default


def train(task: Task, turns: Turns) -> None:
    """Train with `fit` on whole arrays, shuffled, with its progress bar, compiled as by default."""
    by_hand, inputs, targets = task.start()
    tokens = next((each.num_embeddings for each in by_hand.modules() if isinstance(each, torch.nn.Embedding)), 0)
    x, y = _arrays(inputs, targets)
    entry = keras.Input(x.shape[1:], dtype="float32" if x.dtype == np.float32 else "int32")
    network = keras.Model(entry, NETWORKS[task.name.split("_")[0]](entry, tokens))
    network.compile(optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-8), loss=_loss(task.name))

    class Watch(keras.callbacks.Callback):  # type: ignore[misc]
        loss = math.nan

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            turns.next(self.loss)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.loss = logs["loss"]

    with terminal():
        network.fit(x, y, batch_size=task.work.batch_size, epochs=task.most_epochs, callbacks=[Watch()])


def _arrays(inputs: torch.Tensor, targets: torch.Tensor) -> tuple[Any, Any]:
    x, y = inputs.numpy(), targets.numpy()
    if x.ndim == 4 and keras.config.image_data_format() == "channels_last":
        x = x.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def _loss(name: str) -> Any:
    if name == "text_lstm":
        return keras.losses.BinaryCrossentropy(from_logits=True)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _cnn(x: Any, _: int) -> Any:
    return layers.Dense(10)(layers.Flatten()(layers.Conv2D(32, 3, activation="relu")(x)))


def _text(x: Any, tokens: int) -> Any:
    return layers.Dense(1)(layers.LSTM(100)(layers.Embedding(tokens, 100)(x)))


def _mlp(x: Any, _: int) -> Any:
    return layers.Dense(10)(layers.Dense(128, activation="relu")(layers.Flatten()(x)))


def _resnet18(x: Any, _: int) -> Any:
    channels = 1 if keras.config.image_data_format() == "channels_first" else -1

    def convolved(x: Any, width: int, size: int, stride: int) -> Any:
        x = layers.Conv2D(width, size, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(channels, momentum=0.9, epsilon=1e-5)(x)

    def block(x: Any, width: int, stride: int) -> Any:
        body = layers.ReLU()(convolved(x, width, 3, stride))
        body = convolved(body, width, 3, 1)
        shortcut = x if stride == 1 and x.shape[channels] == width else convolved(x, width, 1, stride)
        return layers.ReLU()(layers.Add()([body, shortcut]))

    x = layers.ReLU()(convolved(x, 64, 3, 1))
    for index, width in enumerate((64, 128, 256, 512)):
        x = block(block(x, width, 2 if index else 1), width, 1)
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


class _Positions(layers.Layer):  # type: ignore[misc]
    """Add a learned vector to each step."""

    def build(self, shape: Any) -> None:
        self.weight = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, x: Any) -> Any:
        return x + self.weight


class _Head(layers.Layer):  # type: ignore[misc]
    """Compute logits with the weights of the embedding."""

    def __init__(self, embedding: layers.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def call(self, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))


def _gpt(x: Any, tokens: int) -> Any:
    width, heads = 128, 4
    embedding = layers.Embedding(tokens, width, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02))
    x = _Positions()(embedding(x))
    for _ in range(4):
        y = layers.LayerNormalization(epsilon=1e-5, center=False)(x)
        x = x + layers.MultiHeadAttention(heads, width // heads, use_bias=False)(y, y, use_causal_mask=True)
        y = layers.LayerNormalization(epsilon=1e-5, center=False)(x)
        y = layers.Dense(4 * width, activation="gelu", use_bias=False)(y)
        x = x + layers.Dense(width, use_bias=False)(y)
    return _Head(embedding)(layers.LayerNormalization(epsilon=1e-5, center=False)(x))


NETWORKS = {"cnn": _cnn, "text": _text, "mlp": _mlp, "resnet18": _resnet18, "gpt": _gpt}
