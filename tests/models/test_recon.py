import pytest
import torch

from recon_fast.errors import InputError
from recon_fast.models import ReCon, ReConConfig, TwoTower, build_model
from recon_fast.models.tokenizer import Masking

SMALL = {
    "dim": 24, "depth": 2, "num_heads": 2, "decoder_depth": 2, "decoder_num_heads": 2,
    "num_group": 10, "group_size": 6, "drop_path": 0.0, "image_dim": 5, "text_dim": 7,
}  # fmt: skip


def small(**changes) -> ReConConfig:
    return ReConConfig(**{**SMALL, **changes})


def batch(B=3, N=50):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(B, *shape, generator=generator) for shape in ((N, 3), (5,), (7,))]


@pytest.mark.parametrize("mask_type", ["rand", "block"])
def test_masking_is_a_partition_of_fixed_size(mask_type):
    config = small(mask_type=mask_type)
    centers = torch.randn(50, 10, 3)
    masking = Masking.sample(centers, config)
    assert masking.masked.shape == (50, 6)
    assert torch.cat(masking, 1).sort(1).values.equal(torch.arange(10).expand(50, -1))
    assert masking.masked.eq(masking.masked.sort(1).values).all()
    # every group is masked about as often as every other
    counts = Masking.sample(torch.randn(4000, 10, 3), config).masked.flatten().bincount(minlength=10) / 4000
    assert (counts - 0.6).abs().max() < 0.06


def test_block_masks_the_groups_nearest_to_one():
    centers = torch.randn(20, 10, 3)
    masked = Masking.sample(centers, small(mask_type="block")).masked
    dist = torch.cdist(centers, centers)
    for cloud in range(20):
        sets = [set(dist[cloud, g].argsort()[:6].tolist()) for g in range(10)]
        assert set(masked[cloud].tolist()) in sets


def test_masking_from_a_mask_keeps_order():
    mask = torch.tensor([[True, False, True, False], [False, False, True, True]])
    masking = Masking.from_mask(mask)
    assert masking.masked.tolist() == [[0, 2], [2, 3]]
    assert masking.visible.tolist() == [[1, 3], [0, 1]]
    with pytest.raises(ValueError, match=r"same number of groups in every row, got \[2, 1\]"):
        Masking.from_mask(torch.tensor([[True, True], [True, False]]))


@pytest.mark.parametrize("arch", ["recon", "twotower"])
def test_losses_switch_with_their_features(arch):
    model = build_model(small(arch=arch))
    points, image, text = batch()
    assert model(points).losses.keys() == {"mdm"}
    assert model(points, image).losses.keys() == {"mdm", "csc_img"}
    output = model(points, image, text)
    assert output.losses.keys() == {"mdm", "csc_img", "csc_text"}
    torch.testing.assert_close(output.loss, sum(output.losses.values()))
    assert output.rebuilt.shape == (3, 6, 6, 3)
    assert model.encode(points).local_tokens.shape == (3, 10, 24)


@pytest.mark.parametrize("arch", ["recon", "twotower"])
def test_contrast_never_disturbs_reconstruction(arch):
    model = build_model(small(arch=arch))
    points, image, text = batch()
    losses = model(points, image, text, mask=torch.tensor([[True] * 6 + [False] * 4] * 3)).losses
    (losses["csc_img"] + losses["csc_text"]).backward()
    local = ("blocks.0.attn.", "blocks.0.mlp.", "blocks.0.norm1.", "tokenizer", "encoder.pos_embed")
    for name, p in model.named_parameters():
        if name.startswith("reconstruction") or (
            name.startswith("encoder") and any(k in name for k in local)
        ):
            assert p.grad is None or p.grad.eq(0).all(), name


def test_contrast_teaches_the_local_stream_if_told_to():
    model = build_model(small(stop_gradient=False))
    points, image, text = batch()
    losses = model(points, image, text, mask=torch.tensor([[True] * 6 + [False] * 4] * 3)).losses
    (losses["csc_img"] + losses["csc_text"]).backward()
    for name in ("tokenizer.lift.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"):
        gradient = model.encoder.get_parameter(name).grad
        assert gradient is not None, name
        assert gradient.abs().max() > 0, name


def test_encode_lets_gradients_through():
    model = ReCon(small())
    model.encode(batch()[0]).global_tokens.square().sum().backward()
    assert model.encoder.tokenizer.lift.weight.grad.abs().sum() > 0


def test_last_decoder_block_at_masked_positions_alone_is_exact():
    model = ReCon(small()).double().eval()
    block = model.reconstruction.blocks[-1]
    x = torch.randn(2, 10, 24, dtype=torch.float64)
    torch.testing.assert_close(block(x, last=6), block(x)[:, -6:], rtol=1e-12, atol=1e-12)


def test_initialisation():
    torch.manual_seed(0)
    model = ReCon(ReConConfig.tiny(depth=2))
    assert model.encoder.blocks[0].mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.encoder.blocks[0].mlp.fc1.bias.eq(0).all()
    assert model.img_proj.weight.mean().item() == pytest.approx(0.02, rel=0.02)
    assert model.img_proj.weight.std().item() == pytest.approx(0.01, rel=0.02)
    bound = (6 / (192 + 768)) ** 0.5
    assert model.reconstruction.blocks[0].mlp.fc1.weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert model.encoder.cls_token.std().item() == pytest.approx(0.02, rel=0.2)


def test_xavier_start():
    torch.manual_seed(0)
    model = ReCon(small(init="xavier"))
    for name in ("pos_embed.0", "pos_embed.2", "blocks.1.attn.qkv", "blocks.0.mlp_contrast.fc1"):
        layer = model.encoder.get_submodule(name)
        bound = (6 / sum(layer.weight.shape)) ** 0.5
        assert 0.9 * bound < layer.weight.abs().max() <= bound, name
        assert layer.bias is None or not layer.bias.any()
    assert model.encoder.tokenizer.lift.weight.std() < 0.03


def test_drop_path_drops_whole_samples():
    from recon_fast.models.blocks import StochasticDepth, surviving

    x = torch.ones(4000, 2, 3)
    drop_path = StochasticDepth(0.25, depth=3, branches=2).train()
    first, *others = drop_path(x)
    assert first == (None, None)
    outs = [surviving(x, factor) for factors in others for factor in factors]
    for out, keep in zip(outs, (0.875, 0.875, 0.75, 0.75), strict=True):
        assert out.unique().tolist() == [0.0, pytest.approx(1 / keep)]
        assert (out.amax((1, 2)) == out.amin((1, 2))).all()
        assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert not any(torch.equal(outs[0], out) for out in outs[1:])
    assert surviving(x, None) is x
    assert drop_path.eval()(x) == [(None, None)] * 3
    assert StochasticDepth(0.0, depth=2, branches=1).train()(x) == [(None,)] * 2


def test_sizes():
    assert (ReConConfig.base().dim, ReConConfig.small().dim, ReConConfig.tiny().dim) == (384, 256, 192)
    model = ReCon(ReConConfig.base(text_dim=None, image_dim=None))
    assert sum(p.numel() for p in model.encoder.parameters()) / 1e6 == pytest.approx(43.2, abs=0.5)


def test_wrong_calls():
    points, image, text = batch()
    model = ReCon(small())
    with pytest.raises(
        ValueError, match=r"feature for csc_img must be \[3, 5\] by the model's config, got \(3, 7\)"
    ):
        model(points, text)
    with pytest.raises(ValueError, match="label must be given"):
        ReCon(small(single_modal=True))(points, image, text)
    with pytest.raises(ValueError, match="no such feature"):
        ReCon(small(image_dim=None))(points, image)
    with pytest.raises(ValueError, match="num_groups must be between 1 and the 5 points"):
        model(points[:, :5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 25}, "model.dim must be a multiple of model.num_heads, got 25 and 2"),
        ({"mask_ratio": 1.0}, "model.mask_ratio must hide at least one"),
        ({"mask_ratio": 0.05}, "model.mask_ratio must hide at least one"),
        ({"depth": 0}, "model.depth must be at least 1, got 0"),
        ({"drop_path": 1.0}, "model.drop_path must be in"),
        ({"arch": "twotower", "single_modal": True}, "single_modal needs the class token"),
        (
            {"arch": "twotower", "stop_gradient": False},
            "model.init and model.stop_gradient are of arch",
        ),
        ({"arch": "twotower", "init": "xavier"}, "model.init and model.stop_gradient are of arch"),
    ],
)
def test_settings_that_make_no_sense(change, message):
    with pytest.raises(InputError, match=message):
        small(**change)


def test_single_modal_loss_of_one_label_is_zero():
    from recon_fast.models.recon import single_modal

    embedding = torch.randn(4, 8, requires_grad=True)
    loss = single_modal(embedding, torch.zeros(4, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0
    assert embedding.grad.isfinite().all()


def test_compiles_without_graph_breaks():
    model = ReCon(small())
    points = batch()[0]
    mask = Masking.sample(model.group(points).centers, model.config)
    compiled = torch.compile(model.encode_visible, fullgraph=True, backend="eager")
    torch.testing.assert_close(
        compiled(model.group(points), mask)[0].local_tokens,
        model.encode_visible(model.group(points), mask)[0].local_tokens,
    )


def test_two_tower_shares_nothing():
    model = TwoTower(small(arch="twotower"))
    points, image, text = batch()
    model(points, image, text).losses["mdm"].backward()
    assert all(p.grad is None for p in model.contrast_encoder.parameters())
