"""Costs by part, and memory."""

import json
import time
from dataclasses import replace

import pytest
import torch
from tiny import TINY_MODEL, Lines, tiny_config, tiny_shapes

from recon_fast.config import ReConConfig
from recon_fast.device import peak_memory
from recon_fast.models import build_model
from recon_fast.training.losses import recompute_blocks
from recon_fast.training.pretrain import pretrain
from recon_fast.training.profile import PARTS, Parts


def test_a_part_inside_another_takes_its_share_out_of_it():
    now = [0.0]
    parts = Parts(lambda: now[0])
    with parts("outer"):
        now[0] += 1
        with parts("inner"):
            now[0] += 10
        now[0] += 2
    now[0] += 100
    with parts("inner"):
        now[0] += 5
    assert parts.totals == {"outer": 3, "inner": 15}


@pytest.mark.parametrize("arch", ["recon", "twotower"])
def test_profile_of_a_run(tmp_path, arch):
    console, run = Lines(), tmp_path / "run"
    config = tiny_config(run, model=replace(TINY_MODEL, arch=arch))
    began = time.perf_counter()
    costs = pretrain(config, None, console, tiny_shapes(), profile_steps=2).profile
    seconds = time.perf_counter() - began
    assert costs is not None
    assert tuple(costs.parts_ms) == PARTS
    assert all(value > 0 for value in costs.parts_ms.values())
    assert sum(costs.parts_ms.values()) * 2 < 1e3 * seconds
    assert console.has("a step as trained", "of 2 steps")
    assert json.loads((run / "profile/profile.json").read_text())["parts_ms"] == costs.parts_ms
    events = json.loads((run / "profile/trace.json").read_text())["traceEvents"]
    assert {event["name"] for event in events} >= set(PARTS)
    assert not (run / "checkpoints").exists()


def test_operations_of_the_tokenizer_are_counted(tmp_path):
    config = tiny_config(tmp_path / "run")
    costs = pretrain(config, None, Lines(), tiny_shapes(), profile_steps=1).profile
    assert costs is not None
    B, c = config.optim.batch_size, config.model
    rows, groups = B * c.num_group * c.group_size, B * c.num_group
    visible = B * (c.num_group - c.num_masked) * c.group_size
    of_all = rows * (3 * 128 + 128 * 256) + groups * 256 * 512  # lift, local, mix of the maximum
    of_visible = visible * (128 * 512 + 512 * c.dim)  # mix with local in it, out
    statistics = rows * 128 * 128 + groups * 512 * 128 + 512 * 128 * 128
    composed = 512 * 256 * 128  # the weight of mix with local in it
    expected = 2 * (of_all + of_visible + statistics + composed) / 1e9
    assert costs.parts_gflop["tokenizer"] == pytest.approx(expected, rel=0.01)
    assert costs.parts_gflop["backward"] > costs.parts_gflop["encoder"]


@pytest.mark.parametrize("arch", ["recon", "twotower"])
def test_recomputed_blocks_have_the_same_gradients_and_hold_less(arch):
    config = ReConConfig(
        arch=arch, dim=128, depth=6, num_heads=2, decoder_depth=2, decoder_num_heads=2, drop_path=0.5,
        image_dim=8, text_dim=8, num_group=16, group_size=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model(config).train()
    batch = torch.randn(8, 64, 3), torch.randn(8, 8), torch.randn(8, 8)
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def gradients():
        model.load_state_dict(state)
        model.zero_grad()
        torch.manual_seed(1)
        held = 0

        def pack(tensor):
            nonlocal held
            held += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = model(*batch).loss
        loss.backward()
        return [None if p.grad is None else p.grad.clone() for p in model.parameters()], held

    want, held = gradients()
    recompute_blocks(model)
    got, held_now = gradients()
    for a, b in zip(want, got, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
    assert held_now < 0.6 * held


def test_peak_memory_of_a_process_is_plausible():
    peak = peak_memory(torch.device("cpu"))
    assert peak is None or 50e6 < peak < 1e12


def test_tokenizing_visible_groups_alone_sees_only_them():
    torch.manual_seed(0)
    config = replace(TINY_MODEL, tokenize_visible=True, image_dim=None, text_dim=None)
    model = build_model(config).train()
    seen = []
    model.encoder.tokenizer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape))
    loss = model(torch.randn(4, 64, 3)).loss
    loss.backward()
    assert seen == [(4, config.num_group - config.num_masked, config.group_size, 3)]
    # In evaluation nothing is masked, and the option changes nothing.
    other = build_model(replace(config, tokenize_visible=False))
    other.load_state_dict(model.state_dict())
    points = torch.randn(2, 64, 3)
    assert torch.equal(model.eval().encode(points).local_tokens, other.eval().encode(points).local_tokens)
