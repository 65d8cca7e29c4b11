"""pointnet2_ops' names against the published definitions, point by point."""

import copy

import pytest
import torch
import torch.nn.functional as F

from recon_fast.compat import pointnet2 as utils
from recon_fast.compat.pointnet2 import PointnetFPModule, PointnetSAModule, PointnetSAModuleMSG


def clouds(B=2, N=60, C=4):
    generator = torch.Generator().manual_seed(N)
    return torch.rand(B, N, 3, generator=generator), torch.randn(B, C, N, generator=generator)


def test_farthest_points_pass_over_the_origin():
    """The first is point 0, then the farthest of those with |p|^2 > 1e-3."""
    xyz, _ = clouds()
    xyz[0, 5] = 0
    xyz[1] = xyz[1] * 0.02 + torch.tensor([5.0, 0, 0])
    xyz[1, 7] = torch.tensor([0.02, 0, 0])  # the farthest, but near the origin
    idx = utils.furthest_point_sample(xyz, 12)
    assert idx.dtype == torch.int32
    for points, got in zip(xyz, idx.tolist(), strict=True):
        reach, want = torch.full((60,), float("inf")), [0]
        while len(want) < 12:
            reach = torch.minimum(reach, (points - points[want[-1]]).square().sum(-1))
            want.append(int(reach.masked_fill(points.square().sum(-1) <= 1e-3, -1).argmax()))
        assert got == want
    assert 7 not in idx[1]


def test_ball_query_by_definition():
    xyz, _ = clouds()
    new_xyz = xyz[:, :9].clone()
    new_xyz[0, 0] = 9.0
    idx = utils.ball_query(0.3, 8, xyz, new_xyz)
    assert idx.dtype == torch.int32
    for b in range(2):
        for m in range(9):
            d2 = (xyz[b] - new_xyz[b, m]).square().sum(-1)
            inside = d2.lt(0.09).nonzero()[:8, 0].tolist()
            filler = inside[0] if inside else 0
            assert idx[b, m].tolist() == inside + [filler] * (8 - len(inside))


def test_three_nearest_and_interpolation():
    known, features = clouds(N=30)
    unknown, _ = clouds(N=50)
    dist, idx = utils.three_nn(unknown, known)
    want, want_idx = torch.cdist(unknown.double(), known.double()).topk(3, largest=False)
    assert idx.dtype == torch.int32
    assert torch.equal(idx.long(), want_idx)
    torch.testing.assert_close(dist.double(), want, rtol=1e-5, atol=1e-6)
    weight = F.normalize(1 / (dist + 1e-8), p=1, dim=2).requires_grad_()
    out = utils.three_interpolate(features.requires_grad_(), idx, weight)
    rows = features[torch.arange(2)[:, None, None], :, idx.long()]  # [B, n, 3, C]
    torch.testing.assert_close(out, (rows * weight[..., None]).sum(2).mT)
    grad = torch.randn(out.shape)
    (to_features,) = torch.autograd.grad(out, features, grad, retain_graph=True)
    (wanted,) = torch.autograd.grad((rows * weight[..., None]).sum(2).mT, features, grad)
    torch.testing.assert_close(to_features, wanted)
    assert torch.autograd.grad(out, weight, grad, allow_unused=True) == (None,)


def test_gathering_and_grouping_with_gradients():
    _, features = clouds()
    idx = torch.randint(0, 60, (2, 7, 5), dtype=torch.int32)
    batch = torch.arange(2)[:, None, None]
    features.requires_grad_()
    wanted = features[batch, :, idx.long()].permute(0, 3, 1, 2)
    grad = torch.randn(wanted.shape)
    for apply in (utils.grouping_operation, utils.GroupingOperation.apply):
        out = apply(features, idx)
        assert torch.equal(out, wanted)
        (got,) = torch.autograd.grad(out, features, grad)
        torch.testing.assert_close(got, torch.autograd.grad(wanted, features, grad, retain_graph=True)[0])
    assert torch.equal(utils.gather_operation(features, idx[..., 0]), wanted[..., 0])


def test_groupers():
    xyz, features = clouds()
    new_xyz = xyz[:, :6]
    idx = utils.ball_query(0.4, 5, xyz, new_xyz).long()
    relative = xyz[torch.arange(2)[:, None, None], idx] - new_xyz[:, :, None]
    out = utils.QueryAndGroup(0.4, 5)(xyz, new_xyz, features)
    assert torch.equal(out[:, :3], relative.permute(0, 3, 1, 2))
    assert torch.equal(out[:, 3:], utils.grouping_operation(features, idx))
    assert torch.equal(utils.QueryAndGroup(0.4, 5)(xyz, new_xyz), out[:, :3])
    assert torch.equal(utils.QueryAndGroup(0.4, 5, use_xyz=False)(xyz, new_xyz, features), out[:, 3:])
    with pytest.raises(AssertionError, match="Cannot have not features"):
        utils.QueryAndGroup(0.4, 5, use_xyz=False)(xyz, new_xyz)
    everything = utils.GroupAll()(xyz, new_xyz, features)
    assert torch.equal(everything, torch.cat([xyz.mT, features], 1)[:, :, None])


def test_modules():
    xyz, features = clouds(N=80)
    spec = [4, 8, 16]
    layer = PointnetSAModuleMSG(20, [0.2, 0.5], [4, 8], [spec, [4, 8]])
    assert spec == [7, 8, 16]
    assert "mlps.0.0.weight" in layer.state_dict()
    assert "mlps.1.1.running_mean" in layer.state_dict()
    centers, out = layer(xyz, features.requires_grad_())
    assert centers.shape == (2, 20, 3)
    assert out.shape == (2, 24, 20)
    new_xyz, whole = PointnetSAModule([24, 32])(centers, out)
    assert new_xyz is None
    assert whole.shape == (2, 32, 1)
    back = PointnetFPModule([24 + 4, 10])(xyz, centers, features, out)
    assert back.shape == (2, 10, 80)
    assert PointnetFPModule([32, 5])(xyz, None, None, whole).shape == (2, 5, 80)
    back.sum().backward()
    assert features.grad.isfinite().all()


def test_a_module_compiles_into_one_graph():
    xyz, features = clouds(N=80)
    torch.manual_seed(0)
    layer, head = PointnetSAModule([4, 8], 20, 0.3, 6), PointnetFPModule([12, 6])

    def run(layer, head):
        centers, out = layer(xyz, features)
        return head(xyz, centers, features, out)

    twins = copy.deepcopy(layer), copy.deepcopy(head)
    want = run(*twins)
    got = torch.compile(run, fullgraph=True, backend="aot_eager")(layer, head)
    torch.testing.assert_close(got, want)
    got.sum().backward()
    want.sum().backward()
    torch.testing.assert_close(layer.mlps[0][0].weight.grad, twins[0].mlps[0][0].weight.grad)
