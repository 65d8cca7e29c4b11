"""What learns at which rate in fine-tuning, against lists worked out by hand from the official names."""

from dataclasses import replace

import pytest
from tiny import TINY_MODEL

from recon_fast.models import Classifier, PartSegmenter
from recon_fast.training.optim import downstream_groups

HEAD = {f"head.{i}.{leaf}" for i in (0, 1, 4, 5, 8) for leaf in ("weight", "bias")}


def names_of(model, groups):
    names = {id(p): name for name, p in model.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in groups]


def test_classifier():
    model = Classifier(TINY_MODEL, 5)
    groups = downstream_groups(model, lr=2e-5, weight_decay=0.05)
    head, plain, decay = names_of(model, groups)
    assert head == HEAD | {"encoder.cls_token", "encoder.cls_pos"}
    assert head | plain | decay == {name for name, _ in model.named_parameters()}
    assert not (head & plain)
    assert not (head & decay)
    assert not (plain & decay)
    assert {
        "encoder.img_token",
        "encoder.text_token",
        "encoder.norm.weight",
        "encoder.pos_embed.0.bias",
    } <= plain
    assert {"encoder.img_pos", "encoder.text_pos", "encoder.tokenizer.lift.weight"} <= decay
    assert {name for name in decay if name.startswith("encoder.blocks.0.")} == {
        f"encoder.blocks.0.{layer}.weight"
        for layer in (
            "attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "mlp_contrast.fc1", "mlp_contrast.fc2",
            "attn_contrast.q", "attn_contrast.kv", "attn_contrast.proj",
        )
    }  # fmt: skip
    assert [group["lr"] for group in groups] == pytest.approx([2e-4, 2e-5, 2e-5])
    assert [group["lr_factor"] for group in groups] == [10, 1, 1]
    assert [group["weight_decay"] for group in groups] == [0.05, 0, 0.05]


def test_segmenter():
    model = PartSegmenter(replace(TINY_MODEL, depth=3), 4, 2)
    head, plain, decay = names_of(model, downstream_groups(model, lr=1e-4, weight_decay=0.05))
    layers = ("category.0", "category.1", "propagation.lift", "propagation.out", "mix", "narrow", "out")
    leaves = {f"{layer}.{leaf}" for layer in layers for leaf in ("weight", "bias")}
    assert head == leaves - {"category.0.bias"}
    assert {"mix_norm.weight", "narrow_norm.bias", "propagation.lift_norm.weight"} <= plain
    assert {"encoder.cls_token", "encoder.img_token"} <= plain
    assert {"encoder.cls_pos", "encoder.tokenizer.mix.weight"} <= decay
    assert head | plain | decay == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(("head", "layers"), [("mlp3", HEAD), ("linear", {"head.0.weight", "head.0.bias"})])
def test_frozen(head, layers):
    model = Classifier(TINY_MODEL, 5, head)
    groups = downstream_groups(model, lr=1e-4, weight_decay=0.05, head_factor=1, frozen=True)
    (learning,) = names_of(model, groups)
    assert learning == layers | {"encoder.cls_token", "encoder.cls_pos"}
    assert learning == {name for name, p in model.named_parameters() if p.requires_grad}
    assert groups[0]["lr"] == 1e-4
