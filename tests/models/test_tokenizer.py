"""The tokenizer's shortcuts against the layers they stand for."""

import pytest
import torch
import torch.nn.functional as F

from recon_fast.models.tokenizer import Tokenizer, take_groups


def plainly(tokenizer: Tokenizer, neighborhoods: torch.Tensor) -> torch.Tensor:
    """Layer by layer, as Point-BERT writes it; norms with the batch's own statistics."""

    def norm(layer, x):
        flat = x.flatten(0, 2)
        return F.batch_norm(flat, None, None, layer.weight, layer.bias, training=True).view_as(x)

    local = tokenizer.local(F.relu(norm(tokenizer.lift_norm, tokenizer.lift(neighborhoods))))
    whole = local.amax(2, keepdim=True).expand_as(local)
    mixed = tokenizer.mix(torch.cat([whole, local], -1))
    return tokenizer.out(F.relu(norm(tokenizer.mix_norm, mixed))).amax(2)


@pytest.fixture
def tokenizer():
    torch.manual_seed(0)
    tokenizer = Tokenizer(24)
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return tokenizer


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 1, 7), (3, 4, 1), (1, 2, 1)])
def test_equals_the_layers_one_by_one(tokenizer, shape):
    tokenizer = tokenizer.double()
    neighborhoods = torch.randn(*shape, 3, dtype=torch.float64)
    got, want = tokenizer(neighborhoods), plainly(tokenizer, neighborhoods)
    torch.testing.assert_close(got, want)
    grads = [torch.autograd.grad(x.square().sum(), list(tokenizer.parameters())) for x in (got, want)]
    for (name, _), a, b in zip(tokenizer.named_parameters(), *grads, strict=True):
        # The bias in front of a norm has no influence; what autograd finds there is rounding.
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_points_that_are_all_equal(tokenizer):
    tokens = tokenizer(torch.full((2, 3, 4, 3), 0.3))
    assert tokens.isfinite().all()
    (grad,) = torch.autograd.grad(tokens.sum(), [tokenizer.out.weight])
    assert grad.isfinite().all()


def test_bf16_keeps_the_statistics(tokenizer):
    """Rounded sums would show in the running statistics; bf16 activations alone leave them at 2^-8."""
    exact = Tokenizer(24)
    exact.load_state_dict(tokenizer.state_dict())
    neighborhoods = 0.1 * torch.randn(4, 16, 32, 3) + 0.05
    exact.double()(neighborhoods.double())
    with torch.autocast("cpu", torch.bfloat16):
        tokenizer(neighborhoods)
    for name in ("lift_norm", "mix_norm"):
        got, want = getattr(tokenizer, name), getattr(exact, name)
        for statistic in ("running_mean", "running_var"):
            a, b = getattr(got, statistic).double(), getattr(want, statistic)
            start = 0 if statistic == "running_mean" else 0.9  # what momentum leaves of the initial value
            assert (a - b).norm() < 2**-8 * (b - start).norm(), (name, statistic)


def test_wanted_groups_alone_are_as_among_all():
    torch.manual_seed(0)
    tokenizer = Tokenizer(24).train()
    groups, wanted = torch.randn(3, 8, 6, 3), torch.tensor([[0, 2, 7], [1, 2, 3], [4, 5, 6]])
    buffers = {name: value.clone() for name, value in tokenizer.named_buffers()}
    some = tokenizer(groups, wanted)
    gradient = torch.autograd.grad(some.square().sum(), list(tokenizer.parameters()))
    after = {name: value.clone() for name, value in tokenizer.named_buffers()}
    tokenizer.load_state_dict(buffers, strict=False)
    every = take_groups(tokenizer(groups), wanted)
    torch.testing.assert_close(some, every)
    for got, want in zip(
        gradient, torch.autograd.grad(every.square().sum(), list(tokenizer.parameters())), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    for name, value in tokenizer.named_buffers():
        torch.testing.assert_close(after[name], value)
