"""Speed of generated text: the cost of late tokens, and tokens per second next to transformers.

    python benchmarks/generate.py [--rounds 5]

Contenders take turns within one run, on one core with one thread. Times are those of the CPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

from measuring import ONE_THREAD, machine, pin, spread, table

os.environ |= ONE_THREAD

CONTEXT, TOKENS = 1_024, 200
WIDTH, DEPTH, HEADS, BYTES = 128, 4, 4, 256
EARLY, LATE = range(5, 16), range(990, 1_011)  # positions around 10 and 1,000
ROTARY = {
    "layers": [
        {"Embedding": WIDTH},
        {"block": {"repeat": DEPTH}},
        "RMSNorm",
        {"Linear": "${data.vocab_size}"},
    ],
    "blocks": {
        "block": {
            "layers": [
                {"Residual": ["RMSNorm", {"Attention": {"num_heads": HEADS, "is_causal": True, "rotary": True}}]},
                {"Residual": ["RMSNorm", {"Linear": 4 * WIDTH}, "GELU", {"Linear": WIDTH}]},
            ]
        }
    },
}
TRAINER = {"max_steps": 1, "progress": "none", "device": "cpu", "curves": False, "pictures": False}


def main() -> None:
    """Measure and print the tables."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    rounds = arguments.parse_args().rounds
    pin()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        Path("text.txt").write_bytes(bytes(range(32, 127)) * 200)
        _measure_late_tokens(rounds)
        _measure_beside_transformers(rounds)


def _measure_late_tokens(rounds: int) -> None:
    import torch

    import dlspec

    data = {"type": "text", "path": "text.txt", "unit": "bytes", "length": CONTEXT}
    result = dlspec.train({"model": ROTARY, "data": data, "trainer": {**TRAINER, "batch_size": 1}}, folder="rotary")
    assert result.folder is not None
    generator = dlspec.predictor(result.folder).text_generator
    assert not generator.problem, generator.problem
    early, late = [], []
    for _ in range(rounds):
        context = generator.contexts.make_context({})
        new, seconds = torch.full((1, 1), 65), []
        for _ in range(LATE.stop):
            began = process_time()
            new = context.extend(new).argmax(1)[:, None]
            seconds.append(process_time() - began)
        early.append(1e3 * statistics.median(seconds[at] for at in EARLY))
        late.append(1e3 * statistics.median(seconds[at] for at in LATE))
    ratios = [two / one for one, two in zip(early, late, strict=True)]
    print(f"\nA rotary network of {DEPTH} blocks, {WIDTH} channels, context {CONTEXT:,}: milliseconds a token\n")
    print(
        table(["position 10", "position 1,000", "ratio"], [[f"{spread(each):.2f}" for each in (early, late, ratios)]])
    )


def _measure_beside_transformers(rounds: int) -> None:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    import dlspec

    torch.manual_seed(0)
    sizes = {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": HEADS, "n_positions": CONTEXT, "vocab_size": BYTES}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    theirs.generation_config.eos_token_id, theirs.generation_config.pad_token_id = None, 0
    theirs.save_pretrained("theirs")
    named = {"width": WIDTH, "depth": DEPTH, "heads": HEADS, "length": CONTEXT}
    words = ["experiment=gpt2_huggingface", "weights.path=theirs", "optimizer.lr=0", "data=text", "data.path=text.txt",
             "data.unit=bytes", f"data.length={CONTEXT}", "trainer.batch_size=1"]  # fmt: skip
    words += [f"model.params.{name}={value}" for name, value in named.items()]
    words += [f"trainer.{name}={value}".replace("False", "false") for name, value in TRAINER.items()]
    result = dlspec.train(words, folder="gpt2")
    assert result.folder is not None
    model, prompt = dlspec.predictor(result.folder), "the quick brown"
    ids = torch.tensor([list(prompt.encode())])

    def generate() -> Any:
        return model.generate(prompt, temperature=0, max_length=TOKENS)

    def generate_theirs() -> Any:
        with torch.inference_mode():
            tokens = theirs.generate(ids, max_new_tokens=TOKENS, do_sample=False)[0, ids.shape[1] :]
        return bytes(tokens.tolist()).decode("utf-8", "replace")

    assert generate() == generate_theirs()
    ours, others = [], []
    for _ in range(rounds):
        ours.append(TOKENS / _time(generate))
        others.append(TOKENS / _time(generate_theirs))
    ratios = [one / other for one, other in zip(ours, others, strict=True)]
    print(f"\nGPT-2 of {DEPTH} blocks, {WIDTH} channels, {TOKENS} tokens, greedy: tokens per second\n")
    print(
        table(
            ["dlspec", "transformers", "ratio"],
            [[f"{spread(ours):.0f}", f"{spread(others):.0f}", f"{spread(ratios):.2f}"]],
        )
    )


def _time(call: Callable[[], Any]) -> float:
    began = process_time()
    call()
    return process_time() - began


if __name__ == "__main__":
    main()
