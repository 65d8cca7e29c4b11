"""The written-out branches against the modules that they stand for, and against finite differences."""

import pytest
import torch
from torch import nn

from recon_fast.models.blocks import Block, CrossAttention, Linear, Mlp, ReConBlock, SelfAttention
from recon_fast.models.branches import softmax

B, S, Q, C, H = 3, 5, 2, 8, 2


def randomise(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_()
    return module


def use_copies(block, dtype):
    """Let it compute with copies of its weights; the copies by the name of what they are of."""
    copies = {}
    for prefix, module in block.named_modules():
        if isinstance(module, Linear):
            own = {name: p.detach().to(dtype).requires_grad_() for name, p in module.named_parameters()}
            module.copies = own["weight"], own.get("bias")
            copies.update({f"{prefix}.{name}": kept for name, kept in own.items()})
    return copies


def values(block, inputs, weights, **options):
    """Outputs of a block and the gradients of a weighted sum of them, of its inputs and parameters."""
    inputs = [x.clone().requires_grad_() for x in inputs]
    torch.manual_seed(1)  # of stochastic depth
    outputs = block(*inputs, **options)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True)).backward()
    return outputs, [x.grad for x in inputs]


def factors(rate, samples, branches, dtype):
    """Of stochastic depth, one for each branch."""
    kept = torch.arange(samples * branches).view(branches, samples, 1, 1) % 3 > 0
    return ((kept if rate else torch.ones_like(kept)).to(dtype) / (1 - rate)).unbind(0)


BLOCKS = [
    (Block, [(B, S, C)], {}),
    (Block, [(B, S, C)], {"last": 2}),
    (ReConBlock, [(B, Q, C), (B, S, C)], {"stop_gradient": False}),
    (ReConBlock, [(B, Q, C), (B, S, C)], {"stop_gradient": True}),
]


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
@pytest.mark.parametrize(("kind", "shapes", "options"), BLOCKS)
def test_blocks_are_the_same_with_copies(kind, shapes, options, drop_path):
    torch.manual_seed(0)
    block = randomise(kind(C, H).double())
    options = options | {"factors": factors(drop_path, B, block.branches, torch.float64)}
    inputs = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    shapes = [(B, options["last"], C)] if "last" in options else shapes
    weights = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    want, want_grads = values(block, inputs, weights, **options)
    parameter_grads = {name: p.grad for name, p in block.named_parameters()}
    block.zero_grad()
    copies = use_copies(block, torch.float64)
    got, got_grads = values(block, inputs, weights, **options)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got_grads, want_grads)
    assert all(out.grad_fn.name().endswith("BranchBackward") for out in got)
    for name, parameter in block.named_parameters():
        assert (parameter.grad is None) == (name in copies)
        grad = copies[name].grad if name in copies else parameter.grad
        torch.testing.assert_close(grad, parameter_grads[name], msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(("kind", "shapes", "options"), BLOCKS)
def test_bfloat16_values_are_those_of_autocast_to_the_bit(kind, shapes, options):
    torch.manual_seed(0)
    block = randomise(kind(64, H))
    options = options | {"factors": factors(0.3, B, block.branches, torch.bfloat16)}
    inputs = [torch.randn(*shape[:2], 64) for shape in shapes]
    inputs[-1] = inputs[-1].bfloat16()  # as of the tokenizer; queries are float32 in the first block
    results = []
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            results.append(block(*inputs, **options))
        use_copies(block, torch.bfloat16)
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_a_block_in_part_frozen_computes_with_its_modules():
    torch.manual_seed(0)
    block = randomise(Block(C, H))
    want = block(torch.ones(B, S, C))
    use_copies(block, torch.float32)
    block.attn.proj.copies = None
    got = block(torch.ones(B, S, C))
    assert torch.equal(got, want)
    assert "Branch" not in got.grad_fn.name()


@pytest.mark.parametrize("keep_normed", [True, False])
@pytest.mark.parametrize("kind", [Mlp, SelfAttention, CrossAttention])
def test_gradients_are_those_of_finite_differences(kind, keep_normed):
    torch.manual_seed(0)
    module = randomise(kind(C) if kind is Mlp else kind(C, H)).double()
    norm = randomise(nn.LayerNorm(C)).double()
    use_copies(module, torch.float64)
    x, queries = (torch.randn(2, n, C, dtype=torch.float64, requires_grad=True) for n in (3, 2))
    (survives,) = factors(0.5, 2, 1, torch.float64)

    def branch(x, queries):
        if kind is CrossAttention:
            return module.branch(queries, x, norm, survives)
        return module.branch(x, norm, survives, keep_normed=keep_normed)

    torch.autograd.gradcheck(branch, (x, queries), nondet_tol=1e-12)


@pytest.mark.parametrize("size", [1, 26, 32, 33, 64])
def test_softmax_is_that_of_torch_to_the_bit(size):
    scores = (5 * torch.randn(7, 3, size)).bfloat16()
    assert torch.equal(softmax(scores), scores.softmax(-1))
    scores = scores.double()
    assert torch.equal(softmax(scores), scores.softmax(-1))
