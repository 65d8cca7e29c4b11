"""What a result must satisfy before its time counts: each check says in a word how strict it is."""

from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import Provider

Check = str
_REPLAYED = 1024  # samples checked one by one


def _extent(xyz: Tensor) -> Tensor:
    """Squared size of the clouds."""
    return (xyz.amax((0, 1)) - xyz.amin((0, 1))).square().sum().clamp_min(1e-12)


def _assert_within(what: str, got: Tensor, want: Tensor, slack: Tensor | float) -> None:
    worst = ((got - want).abs() - slack).max()
    assert worst <= 0, f"{what} differ by {worst.item():.3g} more than they may"


def same(got: Any, want: Any) -> Check:
    """Equal bit by bit, indices and values."""
    got, want = (x if isinstance(x, tuple) else (x,) for x in (got, want))
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b), f"differs from the reference in {(a != b).float().mean().item():.2%}"
    return "equal"


def _radii(xyz: Tensor, idx: Tensor) -> Tensor:  # [B, M - 1]
    """Distance of each sample to those before it."""
    chosen = xyz.gather(1, idx[..., None].expand(-1, -1, 3))
    apart = torch.cdist(chosen, chosen, compute_mode="donot_use_mm_for_euclid_dist")
    order = torch.arange(idx.shape[1], device=idx.device)
    return apart.masked_fill(order >= order[:, None], float("inf")).amin(-1)[:, 1:]


def _assert_farthest(xyz: Tensor, idx: Tensor) -> None:
    """Each of the first samples is a farthest point from those before it."""
    dist = torch.full(xyz.shape[:2], float("inf"), device=xyz.device)
    for m in range(min(idx.shape[1], _REPLAYED) - 1):
        center = xyz.gather(1, idx[:, m, None, None].expand(-1, 1, 3))
        dist = torch.minimum(dist, (xyz - center).square().sum(-1))
        reached = dist.gather(1, idx[:, m + 1, None])[:, 0]
        assert (reached >= (1 - 1e-5) * dist.amax(1)).all(), f"sample {m + 1} is not the farthest point"


def greedy(provider: Provider, xyz: Tensor, got: Tensor, want: Tensor) -> Check:
    """A peer may break ties its own way, or start elsewhere: then each sample is as far from those before it
    as it should be."""
    if provider.exact:
        return same(got, want)
    assert got.shape == want.shape, f"indices must be {tuple(want.shape)}, got {tuple(got.shape)}"
    if not torch.equal(got[:, 0], want[:, 0]):
        _assert_farthest(xyz, got)
        return f"greedy from another start, the first {_REPLAYED} samples"
    radii = _radii(xyz, want)
    _assert_within("distances of the samples", _radii(xyz, got), radii, 1e-5 * radii + 1e-6)
    return "equal distances"


def neighbors(
    provider: Provider,
    queries: Tensor,
    points: Tensor,
    got: tuple[Tensor, Tensor],
    want: tuple[Tensor, Tensor],
) -> Check:
    """A peer may break ties its own way: its distances and those of its indices count."""
    if provider.exact:
        return same(got, want)
    (dist, idx), exact = got, want[0]
    slack = 1e-4 * exact
    if provider.expands:
        slack = slack + 1e-6 * _extent(points)
    _assert_within("distances", dist, exact, slack)
    B, M, k = idx.shape
    found = points.gather(1, idx.reshape(B, -1, 1).expand(-1, -1, 3)).view(B, M, k, 3)
    true = (queries[:, :, None] - found).square().sum(-1).sort(-1).values
    _assert_within("distances of the indices", true, exact, slack)
    assert (idx.sort(-1).values.diff() > 0).all(), "an index comes twice"
    return "distances within 1e-6 of the extent" if provider.expands else "distances within 1e-4"


def inside(
    provider: Provider, queries: Tensor, points: Tensor, radius: float, got: Any, want: tuple[Tensor, Tensor]
) -> Check:
    """A peer may take other neighbours where there are more than k, and in any order: their number counts,
    and that all are within the radius. `got` are edges [2, E] of packed clouds, or distances and indices."""
    if provider.exact:
        return same(got, want)
    (B, M, _), N = queries.shape, points.shape[1]
    if not isinstance(got, Tensor):
        idx = got[1].flatten(0, 1)
        row = torch.arange(B * M, device=idx.device)[:, None].expand_as(idx)
        got = torch.stack([row[idx >= 0], (idx + row // M * N)[idx >= 0]]).unique(dim=1)
    row, col = got
    assert torch.equal(row.bincount(minlength=B * M), (want[1] >= 0).sum(-1).flatten()), "other numbers"
    assert torch.equal(row // M, col // N), "a neighbour of another cloud"
    dist = (queries.reshape(-1, 3)[row] - points.reshape(-1, 3)[col]).square().sum(-1)
    assert (dist <= radius**2 * (1 + 1e-5)).all(), "a neighbour outside of the radius"
    return "as many, all inside"


def close(got: tuple[Tensor, ...], want: tuple[Tensor, ...], slack: float) -> Check:
    """Each tensor within `slack` of the reference in the Euclidean norm."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.isfinite().all(), f"output {i} is not finite"
        error = (a.double() - b.double()).norm() / b.double().norm().clamp_min(1e-30)
        assert error <= slack, f"output {i} is {error.item():.3g} off, allowed is {slack:.3g}"
    return f"within {slack:.0e} in norm"
