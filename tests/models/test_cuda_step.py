"""What a training step would launch on a GPU, traced without one: fake CUDA tensors in the base model."""

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from recon_fast.config import ReConConfig
from recon_fast.models import ReCon, TwoTower

B = 128
# Operators that give a view or memory alone: nothing is launched.
FREE = {
    *("view", "_unsafe_view", "transpose", "t", "permute", "expand", "unsqueeze", "squeeze", "select"),
    *("slice", "split", "split_with_sizes", "unbind", "detach", "alias", "as_strided", "narrow"),
    *("empty", "empty_like", "new_empty"),
}


class Launches(TorchDispatchMode):
    """Counts the operators that launch kernels, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        namespace, name = func._schema.name.split("::")
        if namespace == "recon_fast" or (namespace == "aten" and name not in FREE):
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def on_fake_cuda(model: nn.Module) -> nn.Module:
    """The model with parameters and buffers that are shapes on a GPU; within a FakeTensorMode."""
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(torch.empty_like(value, device="cuda"))
        for name, value in module._buffers.items():
            module._buffers[name] = torch.empty_like(value, device="cuda")
    return model


@pytest.fixture
def fused_attention(monkeypatch):
    """Self-attention counts as the one launch that it is on a GPU; without one, torch takes it apart."""
    calls = []

    def attend(query, key, value, scale=None):
        calls.append(query.shape)
        return torch.empty_like(query)

    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    return calls


def launches(model: nn.Module, config: ReConConfig) -> Counter[str]:
    """Of a forward pass in training; a read of data raises DataDependentOutputException."""
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        model = on_fake_cuda(model.train())
        inputs = [torch.empty(B, size) for size in (config.image_dim, config.text_dim)]
        with Launches() as traced:
            output = model(torch.empty(B, 1024, 3), *inputs, mask_noise=torch.empty(B, config.num_group)).loss
        assert output.device.type == "cuda"
    return traced.counts


@pytest.mark.filterwarnings("ignore:.*[Cc][Uu][Dd][Aa]")
def test_the_four_operators_are_one_launch_each(fused_attention):
    config = ReConConfig.base()
    counts = launches(ReCon(config), config)
    assert counts["farthest_point_sample"] == counts["group"] == counts["chamfer_pairs"] == 1
    assert counts["masked_cross_attention"] == config.depth
    assert len(fused_attention) == config.depth + config.decoder_depth
    assert counts["bernoulli"] == 2  # encoder and decoder
    assert counts["div"] <= 5
    assert counts.total() + len(fused_attention) <= 500


@pytest.mark.filterwarnings("ignore:.*[Cc][Uu][Dd][Aa]")
@pytest.mark.usefixtures("fused_attention")
def test_two_towers():
    config = ReConConfig.base(arch="twotower")
    counts = launches(TwoTower(config), config)
    assert counts["farthest_point_sample"] == counts["group"] == counts["chamfer_pairs"] == 1
    assert counts["bernoulli"] == 3


def test_the_step_is_one_graph():
    """Forward and backward without a break: what a CUDA graph needs."""
    config = ReConConfig.base(dim=32, depth=2, num_heads=2, decoder_depth=2, decoder_num_heads=2)
    model = ReCon(config).train()
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(2, 128, 3, generator=generator)
    features = [torch.randn(2, size, generator=generator) for size in (config.image_dim, config.text_dim)]

    def losses(points, *features):
        return model(points, *features).loss

    results = []
    for run in (losses, torch.compile(losses, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        loss = run(points, *features)
        results.append((loss, *torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)
