"""The clouds that are measured: two ordinary surfaces, and the ones on which pruning has least to skip."""

import torch
import torch.nn.functional as F
from torch import Tensor

SURFACES = ("sphere", "cube")
WORST = ("clustered", "equal", "outlier", "line")


def cloud(kind: str, B: int, N: int, *, seed: int = 0, device: str = "cpu") -> Tensor:  # [B, N, 3]
    """Float32 points of one kind; the same on every device.

    sphere: a bumpy sphere, like a scanned object. cube: uniform. clustered: 99 % in ten tiny cubes.
    equal: one point N times. outlier: a sphere with one point at 1e4, which stretches any grid. line: on a
    straight line, in random order.
    """
    random = torch.Generator().manual_seed(seed)
    if kind == "cube":
        xyz = torch.rand(B, N, 3, generator=random)
    elif kind == "clustered":
        middle = torch.rand(B, 10, 3, generator=random)
        which = torch.randint(10, (B, N, 1), generator=random).expand(-1, -1, 3)
        xyz = middle.gather(1, which) + 1e-3 * torch.rand(B, N, 3, generator=random)
        loose = torch.rand(B, N, 1, generator=random) < 0.01
        xyz = torch.where(loose, torch.rand(B, N, 3, generator=random), xyz)
    elif kind == "equal":
        xyz = torch.full((B, N, 3), 0.5)
    elif kind == "line":
        xyz = torch.rand(B, N, 1, generator=random) * torch.tensor([1.0, 2.0, -1.0])
    elif kind in ("sphere", "outlier"):
        direction = F.normalize(torch.randn(B, N, 3, generator=random), dim=-1)
        xyz = direction * (1 + 0.2 * (5 * direction).sin().prod(-1, keepdim=True))
        if kind == "outlier":
            xyz[:, N // 2] = 1e4
    else:
        raise ValueError(f"kind must be one of {SURFACES + WORST}, got {kind!r}")
    return xyz.to(device)
