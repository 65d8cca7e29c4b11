"""The part segmenter is the official one; its propagation is the plain formula."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from golden_data import downstream_config, golden, official_state
from tiny import TINY_MODEL

from recon_fast.checkpoint import export_official, load_official
from recon_fast.models import PartSegmenter
from recon_fast.models.segmentation import FeaturePropagation

SMALL = replace(TINY_MODEL, depth=3)


@torch.no_grad()
def test_log_probabilities_are_the_official_ones():
    config, want = golden("partseg")
    model = PartSegmenter(downstream_config(config), config["num_parts"], config["num_categories"]).eval()
    state = official_state(config)
    report = load_official(state, model)
    assert not report.missing
    assert not report.unexpected
    assert not report.other
    assert model.taps == [4, 8, 12]
    out = model(want["pts"], want["category"].long())
    torch.testing.assert_close(out, want["output"], rtol=1e-4, atol=1e-4)
    exported = export_official(model)
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[name], value) for name, value in state.items())


def test_propagation_is_interpolation_then_layers():
    torch.manual_seed(0)
    layer = FeaturePropagation(6, 10, 7).double().eval()
    points, centers = torch.rand(2, 30, 3).double(), torch.rand(2, 5, 3).double()
    points[:, 0] = centers[:, 2]  # at distance 0 the token of the center alone counts
    tokens = torch.randn(2, 5, 6).double()
    distance, idx = torch.cdist(points, centers).square().topk(3, largest=False)
    weight = F.normalize(1 / (distance + 1e-8), p=1, dim=-1)
    mean = (tokens[torch.arange(2)[:, None, None], idx] * weight[..., None]).sum(2)
    x = layer.lift(torch.cat([points, mean], -1))
    x = F.relu(layer.lift_norm(x.transpose(1, 2)))
    want = F.relu(layer.out_norm(layer.out(x.transpose(1, 2)).transpose(1, 2))).transpose(1, 2)
    torch.testing.assert_close(layer(points, centers, tokens), want, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("depth", "taps"), [(1, [1, 1, 1]), (2, [1, 1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4])])
def test_training_reaches_every_parameter_and_rows_are_probabilities(depth, taps):
    torch.manual_seed(0)
    model = PartSegmenter(replace(SMALL, depth=depth), num_parts=4, num_categories=2).train()
    assert model.taps == taps
    out = model(torch.rand(3, 64, 3), torch.tensor([0, 1, 1]))
    assert out.shape == (3, 64, 4)
    torch.testing.assert_close(out.exp().sum(-1), torch.ones(3, 64))
    out[..., 0].sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("config", "counts", "message"),
    [
        (replace(SMALL, arch="twotower"), (4, 2), "model.arch must be 'recon' for a part segmenter"),
        (SMALL, (4, 0), "num_parts and num_categories must be at least 1, got 4 and 0"),
    ],
)
def test_settings_that_make_no_sense(config, counts, message):
    with pytest.raises(ValueError, match=message):
        PartSegmenter(config, *counts)
