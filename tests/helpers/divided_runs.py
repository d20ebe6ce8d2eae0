"""Small runs whose batches can be divided: among processes, or into several batches of one update."""

from __future__ import annotations

from pathlib import Path

from helpers.command_line import QUIET

SHORT = (*QUIET, "trainer.progress=none", "trainer.test=last")
TEXTS = "text,label\n" + "\n".join(
    f"{' '.join(f'word{(row * k) % 11}' for k in range(1 + row % 9))},{'abc'[row % 3]}" for row in range(90)
)
CHARACTERS = "".join(chr(97 + (number * number) % 23) for number in range(4000))
# Words of a run; the batch size and the number of batches follow.
RUNS: dict[str, tuple[str, ...]] = {
    "mlp": ("model=mlp", "data=digits", "trainer.epochs=2", "trainer.clip_grad_norm=0.5", "trainer.average=EMA"),
    "cnn": ("model=cnn", "data=digits", "trainer.epochs=1", "model.params.channels=4"),
    "text_lstm": ("model=text_lstm", "data=text_csv", "data.path=texts.csv", "trainer.epochs=2",
                  "loss=CrossEntropyLoss", "loss.weight=[1,3,0.5]", "model.params.hidden_size=8"),
    "gpt_small": ("model=gpt_small", "data=text", "data.path=text.txt", "data.length=16", "model.params.length=16",
                  "model.params.width=16", "model.params.depth=2", "trainer.epochs=1"),
}  # fmt: skip
RUNS["seven samples"] = ("model=linear", "data=breast_cancer", "data.limit=7", "trainer.epochs=2",
                         "metrics=[Accuracy,AUROC,F1Score]")  # fmt: skip
LIMITS = {"mlp": 9, "cnn": 5}  # batches of an epoch; else all to the odd last one
EVALUATION_SIZES = {"seven samples": 4}


def list_words(name: str, parts: int) -> list[str]:
    """The words of a run whose batches are cut into a number of parts."""
    limits = [f"trainer.limit_batches={LIMITS[name] * parts}"] if name in LIMITS else []
    accumulate = [f"trainer.accumulate={parts}"] if parts > 1 else []
    return [*SHORT, *RUNS[name], f"trainer.batch_size={16 // parts}", *limits, *accumulate,
            f"trainer.eval_batch_size={EVALUATION_SIZES.get(name, 64) // parts}"]  # fmt: skip


def write_data(folder: Path) -> None:
    """Write the texts that the runs read."""
    (folder / "texts.csv").write_text(TEXTS)
    (folder / "text.txt").write_text(CHARACTERS)
