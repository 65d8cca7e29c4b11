import importlib
import multiprocessing

import pytest
import torch

from recon_fast.kernels import reference
from recon_fast.kernels.triton import farthest_point_sample

fps = importlib.import_module("recon_fast.kernels.triton.fps")  # the package's attribute may be a function


def check(xyz, num_samples, **arguments):
    expected = reference.farthest_point_sample(xyz, num_samples, **arguments)
    assert torch.equal(farthest_point_sample(xyz, num_samples, **arguments), expected)


@pytest.fixture(params=["registers", "streamed"])
def path(request, device, monkeypatch):
    """Both ways to hold a cloud, whatever its size: the interpreter's one processor streams beyond a tile."""
    if request.param == "streamed":
        monkeypatch.setattr(fps, "MAX_REGISTER_POINTS", 32)
        monkeypatch.setattr(fps, "SHARED_POINTS", 32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("B", "N", "M"), [(1, 1, 1), (2, 63, 63), (3, 65, 10), (1, 130, 65)])
def test_equals_the_reference(path, device, B, N, M, dtype):
    torch.manual_seed(N)
    check(torch.randn(B, N, 3, device=device).to(dtype), M)


def test_ties_and_duplicates(path, device):
    torch.manual_seed(0)
    check(torch.randn(2, 13, 3, device=device).repeat(1, 6, 1), 70, start_index=5)
    check(torch.zeros(1, 40, 3, device=device), 40)
    check(torch.randint(0, 3, (1, 70, 3), device=device).float(), 70)


def test_lengths(path, device):
    torch.manual_seed(0)
    xyz = torch.randn(4, 40, 3, device=device)
    lengths = torch.tensor([40, 1, 33, 5], device=device)
    check(xyz, 36, lengths=lengths)
    check(xyz, 20, lengths=lengths.int(), start_index=38)


def test_not_finite_and_near_the_origin(path, device):
    torch.manual_seed(0)
    xyz = torch.randn(2, 66, 3, device=device) * 0.05
    xyz[0, 5, 1], xyz[0, 64, 0], xyz[1, 7] = float("nan"), float("inf"), -float("inf")
    check(xyz, 66, skip_near_origin=True)
    check(xyz, 66, start_index=5, lengths=torch.tensor([66, 40], device=device))
    check(xyz * 1e25, 10)  # squares overflow


def test_any_strides(path, device):
    transposed = torch.randn(3, 50, 2, device=device).transpose(0, 2)
    check(transposed, 8)
    check(torch.randn(1, 50, 3, device=device).expand(4, -1, -1), 8)
    check(torch.randn(2, 100, 6, device=device)[:, ::2, 1:4], 8)


def test_choice_of_path():
    assert fps.fps_config(128, 1024, 132) == {
        "programs": 1,
        "SHARED": False,
        "SLOTS": 1,
        "ATOMIC_READS": False,
        "STREAM": False,
        "ONE_CLOUD": True,
        "BLOCK": 1024,
        "num_warps": 4,
        "num_stages": 1,
    }
    for B, N in [(1, 10_000), (1, 100_000), (1, 1_000_000), (8, 50_000), (1, 10_000_000), (500, 20_000)]:
        config = fps.fps_config(B, N, 132)
        assert config["programs"] <= 132, "every program must be resident"
        assert config["STREAM"] or config["programs"] * config["BLOCK"] >= N


def _one_of_several(i_program, xyz, idx, slots, lengths, config):
    """One program of a launch whose programs run at the same time, as the interpreter never does."""
    from triton.runtime.interpreter import InterpreterBuilder

    set_grid_idx = InterpreterBuilder.set_grid_idx
    InterpreterBuilder.set_grid_idx = lambda self, x, y, z: set_grid_idx(self, i_program, y, z)
    InterpreterBuilder.set_grid_dim = lambda self, x, y, z: setattr(
        self, "grid_dim", (config["programs"], y, z)
    )
    B, N, _ = xyz.shape
    points = fps._morton_order(xyz) if config["STREAM"] else None
    tiles = -(-N // (config["programs"] * config["BLOCK"]))
    dist, boxes = (torch.empty(config["programs"], tiles, size) for size in (config["BLOCK"], 8))
    arguments = (xyz, lengths, idx, slots, points, dist, boxes, B, N, idx.shape[1], 0, xyz.stride())
    config = config | {"ATOMIC_READS": i_program == 0}
    fps._fps_kernel[(1,)](*arguments, SKIP_NEAR_ORIGIN=False, **config)


@pytest.mark.parametrize("stream", [False, True])
def test_programs_that_share_a_cloud_agree(device, stream):
    """The exchange between programs, each a process here, over memory they share."""
    if device.type == "cuda":
        pytest.skip("on a GPU test_shared_cloud_on_a_gpu runs the real thing")
    torch.manual_seed(0)
    xyz = torch.randn(2, 90, 3)
    xyz[:, 60:] = xyz[:, :30]  # ties between programs
    lengths = torch.tensor([90, 41])
    config = {"programs": 3, "SHARED": True, "SLOTS": 4, "STREAM": stream, "ONE_CLOUD": False}
    config["BLOCK"] = 16 if stream else 32
    idx = torch.full((2, 12), -7).share_memory_()
    slots = torch.zeros(1, 2, 3, dtype=torch.int64).share_memory_()
    context = multiprocessing.get_context("fork")
    programs = [
        context.Process(target=_one_of_several, args=(i, xyz, idx, slots, lengths, config)) for i in range(3)
    ]
    for program in programs:
        program.start()
    for program in programs:
        program.join(60)
        assert program.exitcode == 0
    assert torch.equal(idx, reference.farthest_point_sample(xyz, 12, lengths=lengths))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("B", "N", "M"),
    [
        (128, 1024, 64),
        (2, 8192, 128),
        (3, 20_000, 100),
        (1, 400_000, 500),
        (1, 1_000_000, 500),
        (1, 1_500_000, 50),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_shared_cloud_on_a_gpu(B, N, M, dtype):
    torch.manual_seed(0)
    check(torch.randn(B, N, 3, device="cuda").to(dtype), M)
