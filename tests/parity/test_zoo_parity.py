"""ResNet, ViT, GPT-2, Llama and BERT with weights of transformers give what those give, gradients included."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dlspec

pytestmark = pytest.mark.skipif(find_spec("transformers") is None, reason="wants transformers: pip install '.[parity]'")
FEW = {"size": 4, "validation": 0, "test": 0}


@dataclass(frozen=True)
class Pair:
    """A configuration of transformers, and what dlspec is told for the same network, its head included."""

    make: Callable[[], nn.Module]
    overrides: Sequence[str]
    data: Mapping[str, Any]
    batch: Callable[[], dict[str, Tensor]]
    classes: tuple[int, ...]  # the targets' shape


def params(**values: Any) -> list[str]:
    return [f"model.params.{name}={value}" for name, value in values.items()]


def head(pattern: str) -> list[str]:
    """The file's own head in place of a fresh one."""
    return [f"weights.rename={{{pattern}: head.*}}", "weights.fresh=[]"]


def resnet(sizes: tuple[int, ...], depths: tuple[int, ...], kind: str, side: int, classes: int) -> Pair:
    model, wider = ("resnet50", 4) if kind == "bottleneck" else ("resnet18", 1)

    def make() -> nn.Module:
        from transformers import ResNetConfig, ResNetForImageClassification

        more = {"embedding_size": sizes[0] // wider, "layer_type": kind, "num_labels": classes}
        return ResNetForImageClassification(ResNetConfig(hidden_sizes=list(sizes), depths=list(depths), **more))

    return Pair(
        make,
        [
            "experiment=resnet_huggingface",
            f"model={model}",
            *params(width=sizes[0] // wider, depths=list(depths)),
            *head("classifier.1.*"),
        ],
        {"shape": [3, side, side], "num_classes": classes},
        lambda: {"pixel_values": torch.randn(3, 3, side, side)},
        (3,),
    )


def gpt2(width: int, depth: int, heads: int, length: int, vocab_size: int) -> Pair:
    def make() -> nn.Module:
        from transformers import GPT2Config, GPT2LMHeadModel

        end = {"bos_token_id": 0, "eos_token_id": 0}
        sizes = {"n_embd": width, "n_layer": depth, "n_head": heads, "n_positions": length, "vocab_size": vocab_size}
        return GPT2LMHeadModel(GPT2Config(**sizes, **end))

    return Pair(
        make,
        ["experiment=gpt2_huggingface", *params(width=width, depth=depth, heads=heads, length=length)],
        {"vocab_size": vocab_size, "length": length, "num_classes": None},
        lambda: {"input_ids": torch.randint(vocab_size, (3, length - 3))},
        (3, length - 3),
    )


def llama(width: int, depth: int, heads: int, kv_heads: int, hidden: int, length: int) -> Pair:
    def make() -> nn.Module:
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = {"hidden_size": width, "num_hidden_layers": depth, "intermediate_size": hidden, "vocab_size": 50}
        more = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "rms_norm_eps": 1e-5}
        return LlamaForCausalLM(LlamaConfig(**sizes, **more))

    sizes = params(width=width, depth=depth, heads=heads, kv_heads=kv_heads, hidden=hidden)
    return Pair(
        make,
        ["experiment=llama_huggingface", *sizes],
        {"vocab_size": 50, "length": length, "num_classes": None},
        lambda: {"input_ids": torch.randint(50, (3, length - 3))},
        (3, length - 3),
    )


def bert(width: int, depth: int, heads: int, length: int, vocab_size: int, separator: int) -> Pair:
    def make() -> nn.Module:
        from transformers import BertConfig, BertForSequenceClassification

        sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "num_labels": 3}
        more = {"intermediate_size": 4 * width, "max_position_embeddings": length, "vocab_size": vocab_size}
        return BertForSequenceClassification(BertConfig(**sizes, **more))

    def batch() -> dict[str, Tensor]:
        tokens = torch.randint(separator + 1, vocab_size, (3, length - 3))
        tokens[:, length // 2] = tokens[0, -1] = separator  # two texts a sample
        segments = (torch.arange(length - 3) > length // 2).long().expand(3, -1)
        return {"input_ids": tokens, "token_type_ids": segments}

    sizes = params(width=width, depth=depth, heads=heads, length=length, separator=separator)
    return Pair(
        make,
        ["experiment=bert_huggingface", *sizes, *head("classifier.*")],
        {"vocab_size": vocab_size, "length": length, "num_classes": 3},
        batch,
        (3,),
    )


def vit(width: int, depth: int, heads: int, patch: int, side: int, classes: int) -> Pair:
    def make() -> nn.Module:
        from transformers import ViTConfig, ViTForImageClassification

        sizes = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "num_labels": classes}
        more = {"intermediate_size": 4 * width, "image_size": side, "patch_size": patch}
        return ViTForImageClassification(ViTConfig(**sizes, **more))

    overrides = ["data=random", "freeze=[]", "optimizer.groups=[]", *head("classifier.*")]
    return Pair(
        make,
        ["experiment=finetune_vit", *params(width=width, depth=depth, heads=heads, patch=patch), *overrides],
        {"shape": [3, side, side], "num_classes": classes},
        lambda: {"pixel_values": torch.randn(3, 3, side, side)},
        (3,),
    )


SMALL = {
    "ResNet, basic": resnet((8, 16, 32, 64), (2, 1, 2, 1), "basic", 32, 5),
    "ResNet, bottleneck": resnet((16, 32, 64, 128), (1, 2, 1, 1), "bottleneck", 32, 5),
    "GPT-2": gpt2(32, 2, 4, 16, 50),
    "Llama": llama(32, 2, 4, 4, 48, 16),
    "Llama, grouped heads": llama(32, 2, 4, 2, 48, 16),
    "ViT": vit(32, 2, 4, 8, 32, 5),
    "BERT": bert(32, 2, 4, 16, 50, 7),
}
FULL = {
    "ResNet-18": resnet((64, 128, 256, 512), (2, 2, 2, 2), "basic", 224, 1000),
    "ResNet-50": resnet((256, 512, 1024, 2048), (3, 4, 6, 3), "bottleneck", 224, 1000),
    "GPT-2 small": gpt2(768, 12, 12, 256, 50257),
    "ViT-B/16": vit(768, 12, 12, 16, 224, 1000),
    "BERT base": bert(768, 12, 12, 256, 30522, 102),
}
CASES = [*SMALL, *(pytest.param(each, marks=pytest.mark.soak) for each in FULL)]


@pytest.mark.parametrize("name", CASES)
def test_equals_transformers(work: Path, name: str) -> None:
    pair = (SMALL | FULL)[name]
    torch.manual_seed(0)
    theirs, batch = shaken(pair.make(), 0.1 if name in SMALL else 0.01).eval(), pair.batch()
    theirs.save_pretrained("theirs")
    ours = built(pair, "theirs").eval()
    wanted, found = theirs(**batch).logits, ours(next(iter(batch.values())))
    assert difference(found, wanted) < 1e-5
    targets = torch.randint(found.shape[-1], pair.classes)
    for output in (wanted, found):
        cross_entropy(output.flatten(0, -2), targets.flatten()).backward()
    save_gradients(theirs, "gradients")
    turned = dict(built(pair, "gradients").named_parameters())  # their gradients, under our names
    largest = max(each.abs().max() for each in turned.values()).item()
    far = {name: difference(each.grad, turned[name], largest / 1000) for name, each in ours.named_parameters()}
    assert {name: each for name, each in far.items() if each > 1e-4} == {}


def test_bert_leaves_padding_out(work: Path) -> None:
    pair = SMALL["BERT"]
    torch.manual_seed(0)
    theirs, tokens, lengths = shaken(pair.make(), 0.1).eval(), pair.batch()["input_ids"], torch.tensor([13, 5, 9])
    theirs.save_pretrained("theirs")
    mask = (torch.arange(13) < lengths[:, None]).long()
    tokens = torch.where(mask.bool(), tokens, 0)
    tokens[0, 0] = 49  # the last of the vocabulary
    data = {"text": tokens.numpy(), "text_lengths": lengths.numpy(), "target": torch.arange(3).numpy()}
    ours = dlspec.build([*pair.overrides, "weights.path=theirs", "data.validation=0", "data.test=0"], data).eval()
    segments = torch.zeros_like(tokens).masked_fill((tokens == 7).cumsum(1) - (tokens == 7).long() > 0, 1)
    wanted = theirs(input_ids=tokens, token_type_ids=segments, attention_mask=mask).logits
    assert difference(ours(tokens, lengths), wanted) < 1e-5


def shaken(network: nn.Module, deviation: float) -> nn.Module:
    """Without zeros and ones, which would hide that one stands in another's place."""
    with torch.no_grad():
        for each in network.state_dict().values():  # not the angles of rotary embeddings, which no file has
            if each.is_floating_point():
                each.add_(torch.randn_like(each) * deviation)
    return network


def built(pair: Pair, path: str) -> nn.Module:
    return dlspec.build([*pair.overrides, f"weights.path={path}"], {**pair.data, **FEW})


def save_gradients(network: nn.Module, folder: str) -> None:
    """Save the gradients as transformers saves weights, whose names differ from those in memory."""
    with torch.no_grad():
        for each in network.parameters():
            each.copy_(torch.zeros_like(each) if each.grad is None else each.grad)
    network.save_pretrained(folder)


def difference(one: Tensor | None, other: Tensor, least: float = 0.0) -> float:
    """The largest, over the largest number or `least`: the gradient of a key's bias is nothing but rounding."""
    assert one is not None and one.shape == other.shape
    return ((one - other).abs().max() / other.abs().max().clamp(min=least)).item()
