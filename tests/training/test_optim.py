import json
from dataclasses import replace

import pytest
import torch
from golden_data import FOLDER

from recon_fast.config import OptimConfig
from recon_fast.errors import InputError
from recon_fast.models import ReCon, ReConConfig
from recon_fast.training.optim import build_optimizer, learning_rate, num_epochs, parameter_groups


def test_official_schedule_is_the_recorded_one():
    recorded = json.loads((FOLDER / "recipe.json").read_text())["pretrain_lr_by_epoch"]
    config = OptimConfig(schedule="official")
    assert num_epochs(config) == len(recorded)
    steps_per_epoch = 7
    for epoch, lr in enumerate(recorded):
        for step in (epoch * steps_per_epoch, (epoch + 1) * steps_per_epoch - 1):
            assert learning_rate(config, step, steps_per_epoch) == pytest.approx(lr, rel=1e-9)


def test_cosine_schedule():
    config = OptimConfig(epochs=20, warmup_epochs=2, lr=1.0, min_lr=0.1)
    rates = [learning_rate(config, step, 10) for step in range(200)]
    assert rates[0] == pytest.approx(0.1 + 0.9 / 20)
    assert rates[19] == pytest.approx(1.0)
    assert rates[109] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1)
    assert rates[:20] == sorted(rates[:20])
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert learning_rate(replace(config, warmup_epochs=0), 0, 10) == pytest.approx(1.0, rel=1e-3)


def test_groups_are_the_official_ones():
    model = ReCon(ReConConfig.tiny(depth=2, decoder_depth=1))
    names = {id(p): name for name, p in model.named_parameters()}
    plain, decay = (({names[id(p)] for p in group["params"]}) for group in parameter_groups(model, 0.05))
    assert plain | decay == set(names.values())
    assert not plain & decay
    assert {
        "encoder.cls_token",
        "encoder.img_token",
        "encoder.text_token",
        "reconstruction.mask_token",
    } <= plain
    assert {"encoder.cls_pos", "img_proj.weight", "encoder.tokenizer.lift.weight"} <= decay
    assert {"encoder.norm.weight", "encoder.tokenizer.lift_norm.weight", "img_proj.bias"} <= plain
    assert [g["weight_decay"] for g in parameter_groups(model, 0.05)] == [0, 0.05]


def test_decay_acts_on_its_group_alone():
    model = torch.nn.Linear(2, 2)
    optimizer = build_optimizer(model, OptimConfig(lr=0.1, weight_decay=0.5))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model.weight.detach(), before["weight"] * 0.95)
    assert torch.equal(model.bias.detach(), before["bias"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "optim.epochs must be at least 1, got 0"),
        ({"batch_size": 10, "accumulate": 3}, "multiple of optim.accumulate, got 10 and 3"),
        ({"warmup_epochs": 300}, "optim.warmup_epochs must be in"),
        ({"lr": 0.0}, "optim.lr must be above 0, got 0.0"),
        ({"clip_grad": -1.0}, "optim.clip_grad must be above 0 or null, got -1.0"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(InputError, match=message):
        OptimConfig(**change)
