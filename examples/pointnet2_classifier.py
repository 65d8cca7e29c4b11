"""A PointNet++ classifier written for pointnet2_ops, trained on five shapes: no compiler, no GPU.

    python examples/pointnet2_classifier.py [--steps 80]

The first two lines are all that differs from code for the compiled package.
"""

import recon_fast.compat

recon_fast.compat.install()

import argparse
import math

import torch
import torch.nn.functional as F
from pointnet2_ops.pointnet2_modules import PointnetSAModule, PointnetSAModuleMSG
from torch import Tensor, nn

SHAPES = ("sphere", "cube", "cylinder", "torus", "disc")


def shapes(count: int, points: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clouds [count, points, 3] on surfaces, turned about the vertical, and their classes [count]."""
    label = torch.arange(count) % len(SHAPES)
    u, v, w = torch.rand(3, count, points, generator=random)
    a, b = 2 * math.pi * u, 2 * math.pi * v
    height = 2 * v - 1
    ring, tube = (1 - height.square()).sqrt(), 0.7 + 0.3 * b.cos()
    side = torch.stack([2 * u - 1, height, torch.where(w < 0.5, -1, 1)], -1)
    faces = torch.stack([side, side.roll(1, -1), side.roll(2, -1)])
    face = (3 * torch.rand(count, points, generator=random)).long()
    kinds = torch.stack(
        [
            torch.stack([ring * a.cos(), height, ring * a.sin()], -1),
            faces.gather(0, face[None, ..., None].expand(1, -1, -1, 3))[0] * 0.7,
            torch.stack([0.6 * a.cos(), height, 0.6 * a.sin()], -1),
            torch.stack([tube * a.cos(), 0.3 * b.sin(), tube * a.sin()], -1),
            torch.stack([v.sqrt() * a.cos(), 0.05 * w, v.sqrt() * a.sin()], -1),
        ]
    )
    xyz = kinds[label, torch.arange(count)]
    turn = 2 * math.pi * torch.rand(count, 1, generator=random)
    x, y, z = xyz.unbind(-1)
    xyz = torch.stack([x * turn.cos() - z * turn.sin(), y, x * turn.sin() + z * turn.cos()], -1)
    return xyz + 0.02 * torch.randn(xyz.shape, generator=random), label


class Classifier(nn.Module):
    """Two scales around 64 centers, then all of them as one group, then a linear head."""

    def __init__(self, classes: int):
        super().__init__()
        self.local = PointnetSAModuleMSG(64, [0.25, 0.5], [16, 32], [[0, 32, 64], [0, 32, 64]])
        self.whole = PointnetSAModule([128, 128, 256])
        self.head = nn.Linear(256, classes)

    def forward(self, xyz: Tensor) -> Tensor:  # [B, N, 3] -> [B, classes]
        centers, features = self.local(xyz)
        _, features = self.whole(centers, features)
        return self.head(features[..., 0])


def main(steps: int = 80) -> float:
    """Accuracy on clouds that were not trained on."""
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    model = Classifier(len(SHAPES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        xyz, label = shapes(20, 256, random)
        loss = F.cross_entropy(model(xyz), label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        xyz, label = shapes(100, 256, random)
        accuracy = (model(xyz).argmax(1) == label).float().mean().item()
    print(f"accuracy {accuracy:.1%} (chance {1 / len(SHAPES):.0%})")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=80)
    main(parser.parse_args().steps)
