"""Maximum over groups of a linear layer, against the dense form."""

import pytest
import torch
from torch.autograd import gradcheck

from recon_fast.kernels import linear_max, reference

each_backend = pytest.mark.usefixtures("backend")


def problem(G, K, C, O, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (G, K, C), (O, C), (O,), (G, O)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]


def with_gradients(function, x, weight, bias, grad):
    inputs = [t.detach().requires_grad_() for t in (x, weight, bias)]
    out = function(*inputs)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


@each_backend
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 1), (5, 7, 33, 19), (17, 32, 16, 40), (40, 3, 70, 250), (0, 4, 3, 2), (19, 6, 256, 33)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_equals_the_dense_form(shape, dtype):
    x, weight, bias, grad = problem(*shape, dtype)
    values = torch.nn.functional.linear(x, weight, bias)
    idx = values.max(1).indices
    got = with_gradients(linear_max, x, weight, bias, grad)
    assert torch.equal(got[0], values.max(1).values)
    # In float64 from the same choice of members: rounding may decide that one otherwise.
    exact = [t.double() for t in (x, weight, grad)]
    want = reference.linear_max_backward(exact[2], idx.to(torch.int32), *exact[:2])
    slack = {torch.float32: 1e-5, torch.bfloat16: 2**-8, torch.float16: 2**-10}[dtype]
    for a, b in zip(got[1:], want, strict=True):
        assert a.dtype == dtype
        torch.testing.assert_close(
            a.double(), b, rtol=slack, atol=slack * float(b.abs().max()) if b.numel() else 0
        )


@each_backend
def test_first_of_equal_members_and_nan():
    x, weight, bias, grad = problem(3, 4, 8, 5, torch.float32)
    x[:] = x[:, :1]
    _, to_x, *_ = with_gradients(linear_max, x, weight, bias, grad)
    assert to_x[:, 1:].eq(0).all()
    x[1, 2] = float("nan")
    out, to_x, *_ = with_gradients(linear_max, x, weight, bias, grad)
    assert out[1].isnan().all()
    assert out[[0, 2]].isfinite().all()
    assert to_x[1, 2].ne(0).any()


@each_backend
def test_strides_autocast_and_compile():
    x, weight, bias, grad = problem(6, 5, 12, 9, torch.float32)
    want = with_gradients(linear_max, x, weight, bias, grad)
    turned = x.transpose(0, 1).contiguous().transpose(0, 1), weight.T.contiguous().T, bias, grad
    for a, b in zip(with_gradients(linear_max, *turned), want, strict=True):
        torch.testing.assert_close(a, b)
    compiled = torch.compile(linear_max, fullgraph=True, backend="aot_eager")
    for a, b in zip(with_gradients(compiled, x, weight, bias, grad), want, strict=True):
        torch.testing.assert_close(a, b)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear_max(x, weight, bias).dtype == torch.bfloat16
    operation = torch.ops.recon_fast.linear_max.default
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(operation, [t.requires_grad_() for t in (x, weight, bias)], test_utils=checks)


def test_float64_is_differentiable_twice():
    inputs = [t.requires_grad_() for t in problem(3, 4, 5, 6)[:3]]
    assert gradcheck(linear_max, inputs)
    assert torch.autograd.gradgradcheck(linear_max, inputs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 4)}, r"x must be \[G, K, C\]"),
        ({"x": torch.zeros(3, 0, 5)}, "members in each group"),
        ({"weight": torch.zeros(6, 4)}, r"weight must be \[O, 5\]"),
        ({"bias": torch.zeros(5)}, r"bias must be \[6\]"),
        ({"bias": torch.zeros(6, dtype=torch.int64)}, "one floating point dtype"),
    ],
)
def test_bad_arguments(change, message):
    arguments = {"x": torch.zeros(3, 4, 5), "weight": torch.zeros(6, 5), "bias": torch.zeros(6)} | change
    with pytest.raises(ValueError, match=message):
        linear_max(**arguments)
