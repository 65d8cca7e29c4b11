"""ReCon is the same function as the official implementation: values, gradients, running statistics."""

from types import SimpleNamespace

import pytest
import torch
from golden_data import golden, golden_model

from recon_fast.checkpoint import export_official
from recon_fast.kernels import farthest_point_sample
from recon_fast.models.tokenizer import take_groups


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Norm of the difference over the norm of the golden value."""
    return float((ours - theirs).norm() / theirs.norm().clamp_min(1e-30))


@pytest.fixture(scope="module", params=["pretrain_cdl2", "pretrain_cdl1_smc"])
def step(request) -> SimpleNamespace:
    """One training step's forward and backward beside the recorded one."""
    config, want = golden(request.param)
    model = golden_model(config).train()
    tokens: list[torch.Tensor] = []
    model.encoder.tokenizer.register_forward_hook(lambda _module, _args, out: tokens.append(out.detach()))
    output = model(want["pts"], want["img_feature"], want["text_feature"], want.get("label"), want["mask"])
    return SimpleNamespace(model=model, output=output, tokens=tokens[0], want=want, config=config)


def test_centers_are_the_official_ones(step):
    output, want = step.output, step.want
    assert torch.equal(output.groups.center_idx, want["fps_idx"].long())
    idx = farthest_point_sample(want["pts"], want["fps_idx"].shape[1], skip_near_origin=True)
    assert torch.equal(idx, want["fps_idx"].long())


def test_losses(step):
    output, want = step.output, step.want
    terms = {key.removeprefix("loss_"): value for key, value in want.items() if key.startswith("loss_")}
    total = terms.pop("total")
    assert output.losses.keys() == terms.keys()
    for name, value in terms.items():
        torch.testing.assert_close(output.losses[name], value, rtol=1e-5, atol=0)
    torch.testing.assert_close(output.loss, total, rtol=1e-5, atol=0)


def test_intermediates(step):
    output, want = step.output, step.want
    cls, img, text = output.encoding.global_tokens.unbind(1)
    ours = {
        "center": output.groups.centers,
        "tokens": step.tokens,
        "cls_token": cls,
        "img_token": img,
        "text_token": text,
        "x_vis": output.encoding.local_tokens,
        "decoded": output.decoded,
        "rebuilt": output.rebuilt,
    }
    want["tokens"], all_tokens = take_groups(want["tokens"], output.masking.visible), want["tokens"]
    tokenizer = golden_model(step.config).train().encoder.tokenizer
    torch.testing.assert_close(tokenizer(output.groups.neighborhoods), all_tokens, rtol=1e-4, atol=1e-4)
    for name, value in ours.items():
        torch.testing.assert_close(value, want[name], rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    # Neighbours at equal distance may come in any order there, so the groups are compared as sets.
    mine, theirs = (x.sort(2).values for x in (output.groups.neighborhoods, want["neighborhood"]))
    torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-6)


# One max-pool of the second file has two points 1 ulp apart: in float32 the winner, and with it the gradient,
# depends on how the matrix product was rounded. In float64 nothing does.
@pytest.mark.parametrize(
    ("name", "dtype", "bound"),
    [
        ("pretrain_cdl2", torch.float32, 1e-3),
        ("pretrain_cdl2", torch.float64, 1e-4),
        ("pretrain_cdl1_smc", torch.float64, 1e-4),
    ],
)
def test_gradients(name, dtype, bound):
    config, want = golden(name)
    model = golden_model(config).train().to(dtype)
    inputs = (want[key].to(dtype) for key in ("pts", "img_feature", "text_feature"))
    model(*inputs, want.get("label"), want["mask"]).loss.backward()
    holder = golden_model(config)  # its export gives our gradients the official names and shapes
    for held, parameter in zip(holder.parameters(), model.parameters(), strict=True):
        held.data = parameter.grad
    ours = export_official(holder)
    theirs = {key.removeprefix("grad/"): value for key, value in want.items() if key.startswith("grad/")}
    largest = max(gradient.norm() for gradient in theirs.values())
    for key, value in theirs.items():
        if value.norm() < 1e-6 * largest:  # a bias in front of a batch norm: zero up to rounding
            assert ours[key].norm() < 1e-5 * largest, key
        else:
            assert relative(ours[key], value) < bound, key


def test_running_statistics_after_the_step(step):
    exported = export_official(step.model)
    after = {
        key.removeprefix("after/"): value for key, value in step.want.items() if key.startswith("after/")
    }
    assert after
    for name, value in after.items():
        torch.testing.assert_close(exported[name], value, rtol=1e-5, atol=1e-6)
