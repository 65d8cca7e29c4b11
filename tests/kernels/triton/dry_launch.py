"""Every launcher goes all the way to the launch, for a GPU that is not here: run by test_aot.py.

What Triton makes of the very arguments (sizes and strides of 1, strides of 0, None, tuples) is compiled for
sm_90; only the launch itself is left out. Printed: how many compilations of each kernel many sizes took.
"""

import importlib
import json
from collections import defaultdict

import torch
import triton
from torch import Tensor, randn
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from recon_fast.kernels import triton as kernels


class AbsentGPU:
    """As much of a Triton driver as compiling takes."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


def clouds(xyz: Tensor, lengths: Tensor | None) -> None:
    first = torch.zeros(xyz.shape[0], 1, dtype=torch.int64)
    kernels.farthest_point_sample(xyz, 1, lengths=lengths)
    kernels.knn(xyz[:, :1], xyz, 1, lengths=lengths)
    kernels.group(xyz, first, 1, lengths=lengths)
    for padding in ("none", "first"):
        kernels.ball_query(xyz[:, :1], xyz, 0.2, 1, lengths=lengths, padding=padding)
    kernels.nearest_neighbor(xyz, xyz, src_lengths=lengths, dst_lengths=lengths)
    for needed in [(False, False), (True, False), (True, True)]:
        kernels.chamfer_pairs(xyz, xyz, lengths, lengths, "l1", *needed)
    kernels.chamfer_pairs(xyz, xyz[:, :1].float(), lengths)
    idx = torch.zeros(*xyz.shape[:2], 1, dtype=torch.int64)
    for grad in (randn(1, 1, 1).expand(idx.shape), randn(idx.shape)):
        kernels.distance_backward(grad, xyz, xyz, idx)
    kernels.group_backward(None, randn(xyz.shape[0], 1, 1, 3), first, first[..., None], xyz.shape[1])


def features(rows: Tensor, idx: Tensor, weights: Tensor | None) -> None:
    out = kernels.sum_features(rows, idx, weights)
    kernels.scatter_features(out, idx, weights, rows.shape[2])
    kernels.match_features(out, rows, idx)


def attention(query: Tensor, key: Tensor, mask: Tensor | None) -> None:
    out, lse = kernels.masked_cross_attention_forward(query, key, key, mask, 1)
    for need_key_grad in (True, False):
        kernels.masked_cross_attention_backward(out, query, key, key, mask, 1, out, lse, need_key_grad)


def sizes() -> None:
    """Shapes that differ in what a user's batches differ in, between the same powers of two."""
    for i in range(1, 40):
        B, N, M, k = 1 + i % 5, 512 + 13 * i, 64 + i, 16 + i % 16 + 1
        xyz = randn(B, N, 3)
        kernels.farthest_point_sample(xyz, M, start_index=i)
        kernels.farthest_point_sample(randn(1, 70_000 + 1490 * i, 3), M)
        kernels.knn(xyz[:, :M], xyz, k)
        kernels.group(xyz, torch.zeros(B, M, dtype=torch.int64), k)
        kernels.ball_query(xyz[:, :M], xyz, 0.01 * i, k)
        kernels.nearest_neighbor(xyz, xyz[:, :M])
        kernels.chamfer_pairs(xyz, xyz[:, :M])
        kernels.chamfer_pairs(randn(9 * i, 16 + i % 16 + 1, 3), randn(9 * i, 16 + i % 15 + 1, 3))
        features(randn(B, i, N), torch.zeros(B, M, k, dtype=torch.int64), randn(B, M, k))
        tokens = randn(B, i, 32 + i % 32 + 1, 64).bfloat16()
        attention(tokens[:, :, : 1 + i % 16], tokens, None)


def main() -> None:
    triton.runtime.driver.set_active(AbsentGPU())
    run = JITFunction.run
    made: dict[str, set[str]] = defaultdict(set)

    def compile_only(self: JITFunction, *args: object, warmup: bool, grid: tuple, **kwargs: object) -> object:
        assert max(grid[1:], default=1) <= 65535, f"a GPU's grid is no larger along y and z: {grid}"
        kernel = run(self, *args, warmup=True, grid=grid, **kwargs)
        made[f"{self.__module__.rpartition('.')[2]}.{self.__name__}"].add(kernel.hash)
        return kernel

    JITFunction.run = compile_only
    for name in ("fps", "knn", "nearest"):
        importlib.import_module(f"recon_fast.kernels.triton.{name}").num_processors = lambda device: 132

    clouds(randn(1, 1, 3), torch.tensor([1], dtype=torch.int32))
    clouds(randn(3, 50, 2).transpose(0, 2), torch.tensor([3, 50]))
    clouds(randn(1, 40, 3).half().expand(2, -1, -1), None)
    clouds(randn(2, 40_000, 3).bfloat16(), torch.tensor([3, 40_000]))
    kernels.farthest_point_sample(randn(1, 1_200_000, 3), 9)

    features(randn(1, 1, 1), torch.zeros(1, 1, 1, dtype=torch.int32), None)
    some = torch.zeros(2, 30, 3, dtype=torch.int64)
    features(randn(2, 50, 9).bfloat16(), some, randn(2, 30, 3))
    features(randn(9, 50, 2).transpose(0, 2), some.int(), randn(2, 30, 3).half())

    attention(randn(1, 1, 1, 1), randn(1, 1, 1, 1), None)
    attention(
        randn(2, 6, 3, 64).bfloat16(),
        randn(2, 26, 6, 64).bfloat16().transpose(1, 2),
        torch.ones(2, 26, dtype=torch.bool),
    )
    attention(randn(1, 1, 100, 8), randn(1, 1, 8, 100).mT, torch.ones(1, 200, dtype=torch.bool)[:, ::2])

    many = 70_000
    clouds(randn(many, 2, 3), None)
    features(randn(many, 1, 2), torch.zeros(many, 1, 1, dtype=torch.int64), None)
    attention(randn(many, 1, 1, 8), randn(many, 1, 1, 8), None)

    made.clear()
    sizes()
    print(json.dumps({name: len(hashes) for name, hashes in made.items()}))


if __name__ == "__main__":
    main()
