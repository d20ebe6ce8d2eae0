"""The same works in Keras 3, by its functional API and `fit`; KERAS_BACKEND says on what it computes."""

from __future__ import annotations

import os
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from contenders import BASE, Meter, _terminal
from keras import layers, ops
from works import WORKS, Result, Task, resident, start


def train(task: Task) -> Result:
    """An epoch of `fit` on whole arrays, shuffled, with its progress bar; the first one compiles and is not counted."""
    name, work = task.work, WORKS[task.work]
    if name not in MODELS:
        inputs, targets, network = _data(name)
        MODELS[name] = (inputs, targets, network)
        BASE.append(resident())
        network.compile(optimizer=keras.optimizers.Adam(1e-3), loss=LOSSES[_kind(name)])
        with _terminal():
            network.fit(inputs, targets, batch_size=work.batch_size, epochs=1)  # compiles for each size of a batch
    inputs, targets, network = MODELS[name]
    with _terminal():
        if task.is_short:
            return Meter().result(0.0)
        meter = Meter()
        history = network.fit(inputs, targets, batch_size=work.batch_size, epochs=1)
        return meter.result(history.history["loss"][0])


MODELS: dict[str, Any] = {}
LOSSES = {
    "classes": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    "yes or no": keras.losses.BinaryCrossentropy(from_logits=True),
}


def _kind(name: str) -> str:
    return "yes or no" if name == "text_lstm" else "classes"


def _data(name: str) -> tuple[Any, Any, Any]:
    work = WORKS[name]
    _, inputs, targets = start(name)
    x, y = inputs[: work.samples].numpy(), targets[: work.samples].numpy()
    if x.ndim == 4:
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1))  # Keras' own layout
    if name == "text_lstm":
        y = y.astype("float32")[:, None]
    entry = keras.Input(x.shape[1:], dtype="int32" if name in ("text_lstm", "gpt_small") else "float32")
    return x, y, keras.Model(entry, NETWORKS[name.split("_")[0]](entry))


def _cnn(x: Any) -> Any:
    return layers.Dense(10)(layers.Flatten()(layers.Conv2D(32, 3, activation="relu")(x)))


def _text(x: Any) -> Any:
    return layers.Dense(1)(layers.LSTM(100)(layers.Embedding(20_000, 100)(x)))


def _mlp(x: Any) -> Any:
    return layers.Dense(10)(layers.Dense(128, activation="relu")(layers.Dense(128, activation="relu")(x)))


def _resnet18(x: Any) -> Any:
    def convolved(x: Any, width: int, size: int, stride: int) -> Any:
        x = layers.Conv2D(width, size, strides=stride, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)

    def block(x: Any, width: int, stride: int) -> Any:
        body = layers.ReLU()(convolved(x, width, 3, stride))
        body = convolved(body, width, 3, 1)
        shortcut = x if stride == 1 and x.shape[-1] == width else convolved(x, width, 1, stride)
        return layers.ReLU()(layers.Add()([body, shortcut]))

    x = layers.ReLU()(convolved(x, 64, 3, 1))
    for index, width in enumerate((64, 128, 256, 512)):
        x = block(block(x, width, 2 if index else 1), width, 1)
    return layers.Dense(10)(layers.GlobalAveragePooling2D()(x))


class _Head(layers.Layer):
    """Logits by the embedding's own weights."""

    def __init__(self, embedding: layers.Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def call(self, x: Any) -> Any:
        return ops.matmul(x, ops.transpose(self.embedding.embeddings))


def _gpt(x: Any) -> Any:
    width, heads, length = 128, 4, x.shape[1]
    tokens = layers.Embedding(_vocabulary(), width)
    x = tokens(x) + layers.Embedding(length, width)(ops.arange(length))
    for _ in range(4):
        y = layers.LayerNormalization(epsilon=1e-5, center=False)(x)
        x = x + layers.MultiHeadAttention(heads, width // heads, use_bias=False)(y, y, use_causal_mask=True)
        y = layers.LayerNormalization(epsilon=1e-5, center=False)(x)
        y = layers.Dense(4 * width, activation="gelu", use_bias=False)(y)
        x = x + layers.Dense(width, use_bias=False)(y)
    return _Head(tokens)(layers.LayerNormalization(epsilon=1e-5, center=False)(x))


def _vocabulary() -> int:
    network, _, _ = start("gpt_small")
    return int(network.tokens.num_embeddings)  # type: ignore[union-attr, arg-type]


NETWORKS = {"cnn": _cnn, "text": _text, "mlp": _mlp, "resnet18": _resnet18, "gpt": _gpt}
