"""Point completion written for the Chamfer extension, pointnet2_ops and knn_cuda: no compiler, no GPU.

    python examples/completion.py [--steps 80]

A network sees the points of a shape in front of a plane and is trained to give all of it. The first two lines
are all that differs from code for the compiled packages.
"""

import recon_fast.compat

recon_fast.compat.install()

import argparse

import torch
from extensions.chamfer_dist import ChamferDistanceL1, ChamferDistanceL2
from knn_cuda import KNN
from pointnet2_ops.pointnet2_utils import furthest_point_sample, gather_operation
from torch import Tensor, nn


def ellipsoids(count: int, points: int, random: torch.Generator) -> Tensor:
    """Clouds [count, points, 3] on ellipsoids of three random half-axes."""
    direction = torch.randn(count, points, 3, generator=random)
    axes = 0.3 + 0.7 * torch.rand(count, 1, 3, generator=random)
    return axes * direction / direction.norm(dim=-1, keepdim=True)


def visible(xyz: Tensor, points: int, random: torch.Generator) -> Tensor:
    """The half of each cloud nearest to a random viewpoint, thinned to `points` by farthest points."""
    view = torch.randn(len(xyz), 1, 3, generator=random)
    view = 2 * view / view.norm(dim=-1, keepdim=True)
    _, idx = KNN(k=xyz.shape[1] // 2, transpose_mode=True)(xyz, view)  # [B, 1, N / 2]
    half = xyz.gather(1, idx[:, 0, :, None].expand(-1, -1, 3))
    chosen = furthest_point_sample(half, points)
    return gather_operation(half.transpose(1, 2).contiguous(), chosen).transpose(1, 2)


class Completion(nn.Module):
    """The largest feature of the seen points, turned into moves of a fixed sphere of points."""

    def __init__(self, points: int, width: int = 128):
        super().__init__()
        template = torch.randn(points, 3)
        self.register_buffer("template", template / template.norm(dim=-1, keepdim=True))
        self.encoder = nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, width))
        self.decoder = nn.Sequential(nn.Linear(width + 3, width), nn.ReLU(), nn.Linear(width, 3))

    def forward(self, partial: Tensor) -> Tensor:  # [B, N, 3] -> [B, points, 3]
        code = self.encoder(partial).amax(1)
        template = self.template.expand(len(partial), -1, -1)
        code = code[:, None].expand(-1, template.shape[1], -1)
        return template + self.decoder(torch.cat([template, code], -1))


def main(steps: int = 80) -> tuple[float, float]:
    """Chamfer distance (L1) on clouds that were not trained on, before and after."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    model, loss_l1, loss_l2 = Completion(256), ChamferDistanceL1(), ChamferDistanceL2()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    held_out = ellipsoids(32, 512, random)
    partial = visible(held_out, 128, random)

    def score() -> float:
        with torch.no_grad():
            return loss_l1(model(partial), held_out).item()

    before = score()
    for step in range(steps):
        whole = ellipsoids(16, 512, random)
        completed = model(visible(whole, 128, random))
        loss = loss_l1(completed, whole) + loss_l2(completed, whole)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.4f}")
    after = score()
    print(f"Chamfer distance of held-out shapes: {before:.4f} before, {after:.4f} after")
    return before, after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=80)
    main(parser.parse_args().steps)
