"""Evaluations as `evaluate` writes them, made by hand: for pages of runs that nobody evaluated."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo


def make_png(pixels: NDArray[np.uint8], text: str = "") -> bytes:
    """A PNG as Pillow writes it, with a text chunk."""
    file, info = io.BytesIO(), PngInfo()
    if text:
        info.add_text("Comment", text)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def make_uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
PICTURE = {"image": make_uri(make_png(PIXELS))}
ERRORS = [
    {"row": 7, "id": "", "truth": "3", "prediction": "8", "probability": 0.97, "input": PICTURE},
    {"row": 9, "id": "", "truth": "3", "prediction": "5", "probability": 0.9, "input": PICTURE},
]
CLASSES = {
    "kind": "classes", "classes": ["3", "5", "8"], "confusion": [[10, 1, 1], [0, 12, 0], [0, 0, 9]],
    "calibration": [
        {"low": 0.5, "high": 0.6, "rows": 10, "confidence": 0.55, "accuracy": 0.5},
        {"low": 0.9, "high": 1.0, "rows": 23, "confidence": 0.97, "accuracy": 0.99},
    ],
    "threshold": None, "errors": ERRORS,
}  # fmt: skip
TWO_CLASSES = {
    "kind": "classes", "classes": ["ham", "spam"], "confusion": [[30, 2], [1, 9]], "calibration": [],
    "threshold": {"value": 0.31, "metric": "f1", "split": "validation", "score": 0.9, "default_score": 0.85},
    "errors": [{"row": 1, "id": "sms-1", "truth": "spam", "prediction": "ham", "probability": 0.8,
                "input": {"text": "a text of more than forty characters, which is <b>not</b> HTML"}}],
}  # fmt: skip
NUMBERS = {
    "kind": "numbers", "scatter": [[1.0, 1.5], [2.0, 1.0], [3.0, 3.25]],
    "errors": [{"row": 2, "id": "", "truth": 2.0, "prediction": 1.0, "error": 1.0,
                "input": {"age": "30", "bmi": "21.5"}}],
}  # fmt: skip
LABELS = {
    "kind": "labels", "labels": ["cat", "dog"], "confusion": None, "calibration": [], "threshold": None,
    "counts": [{"true_positive": 3, "false_positive": 1, "false_negative": 1, "true_negative": 5},
               {"true_positive": 0, "false_positive": 0, "false_negative": 2, "true_negative": 8}],
    "errors": [{"row": 4, "id": "", "truth": "cat|dog", "prediction": "", "error": 0.7, "input": {"text": "x"}}],
}  # fmt: skip


def make_evaluation(**parts: Any) -> dict[str, Any]:
    """An evaluation of a test split; `parts` replace its own."""
    return {
        "format": 1, "created": "2026-05-01T12:30:05+00:00", "checkpoint": "best", "epoch": 2, "step": 20,
        "data": {"split": "test", "path": None, "rows": 33, "left_out": 0},
        "metrics": {"loss": {"value": 0.5, "low": 0.4, "high": 0.6},
                    "accuracy": {"value": 0.94, "low": 0.9, "high": 0.97}},
        "bootstrap": {"resamples": 200, "rows": 33, "seed": 0, "level": 0.95}, "by": None,
        "targets": {"digit": CLASSES},
        **parts,
    }  # fmt: skip


def write_evaluation_file(folder: Path, written: Any = None, name: str = "2026-05-01_12-30-05.json") -> Path:
    """Write an evaluation into a run's folder."""
    path = folder / "evaluations" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(make_evaluation() if written is None else written))
    return path
