"""Operators among streams, devices, graphs and compilers."""

import shutil
import subprocess
import sys

import pytest
import torch
from operations import NAMES, operations, random

from recon_fast import kernels
from recon_fast.kernels import reference, selftest, use_backend
from recon_fast.kernels.backend import backend_in_use

each_operator = pytest.mark.parametrize("name", NAMES)


def plain(name, device, dtype=torch.float32):
    with use_backend("reference"):
        return operations(device, dtype)[name]()


def assert_same(got, want, tolerance=1e-5):
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(b.abs().max())))


@each_operator
def test_right(name, device):
    assert_same(operations(device)[name](), plain(name, device))


@each_operator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(name, device, dtype):
    assert_same(operations(device, dtype)[name](), plain(name, device, dtype), tolerance=0.02)


@each_operator
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast(name, device, dtype):
    with torch.autocast(device.type, dtype):
        got = operations(device)[name]()
    tolerance = 1e-5
    if "attention" in name:
        assert got[0].dtype == dtype
        got, tolerance = (got[0].float(), *got[1:]), 0.02
    assert_same(got, plain(name, device), tolerance)


@each_operator
def test_many_runs_have_the_same_bits(name, device):
    call = operations(device)[name]
    want = call()
    for _ in range(1000 if device.type == "cuda" else 20):
        assert all(torch.equal(a, b) for a, b in zip(call(), want, strict=True))


@each_operator
def test_compiled(name, device):
    """As one graph, by inductor on a GPU."""
    call = operations(device)[name]
    if "farthest" not in name and name != "ball_query":
        call = _forward(name, device)
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    assert_same(torch.compile(call, fullgraph=True, backend=backend)(), call())
    torch.compiler.reset()


def _forward(name, device):
    """The call without its gradient, which is no part of a graph."""
    closure = dict(
        zip(operations(device)[name].__code__.co_freevars, operations(device)[name].__closure__, strict=True)
    )
    function, leaves = closure["function"].cell_contents, closure["leaves"].cell_contents
    return lambda: (function(*leaves),)


@each_operator
def test_stream(name, gpu):
    """On a stream of its own, with what it reads written there just before."""
    stream = torch.cuda.Stream()
    want = plain(name, gpu)
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)
        got = operations(gpu)[name]()
    stream.synchronize()
    assert_same(got, want)


@each_operator
def test_graph(name, gpu):
    """Captured once, replayed with other points: as if it were called."""
    call = operations(gpu)[name]
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            want = call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        got = call()
    for _ in range(3):
        for result in got:
            result.fill_(7)
        graph.replay()
        torch.cuda.synchronize()
        assert_same(got, want)


@each_operator
def test_second_device(name, gpu):
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    other = torch.device("cuda", 1)
    assert_same(operations(other)[name](), plain(name, other))
    assert torch.cuda.current_device() == 0


def test_auto_trusts_every_operator(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(selftest, "verdicts", {})
    with use_backend("auto"):
        for operator in selftest.CASES:
            name, why = backend_in_use(operator, gpu)
            assert name == "triton" or "left to plain PyTorch" in why, (operator, why)


def test_more_than_two_to_the_31_elements(gpu):
    """Offsets into points, features and keys that int32 does not hold."""
    free, _ = torch.cuda.mem_get_info()
    if free < 40 << 30:
        pytest.skip("needs 40 GiB of free GPU memory")
    far = torch.zeros(3, 250_000_000, 3, device=gpu)  # 2.25e9 elements
    far[:, 1:] += 100
    far[-1, :1000] = random(1000, 3, device=gpu)
    near = far[-1:, :1000].contiguous()
    dist, idx = kernels.nearest_neighbor(far[:, :1000], far[:, :2000])
    assert torch.equal(dist[-1], reference.nearest_neighbor(near, far[-1:, :2000])[0][0])
    assert torch.equal(
        kernels.farthest_point_sample(far[:, :1000], 20)[-1], reference.farthest_point_sample(near, 20)[0]
    )
    assert torch.equal(
        kernels.knn(far[:, :50], far[:, :1000], 5)[1][-1], reference.knn(near[:, :50], near, 5)[1][0]
    )
    del far, dist, idx
    features = torch.zeros(3, 1, 800_000_000, dtype=torch.bfloat16, device=gpu)
    features[-1, 0, -1] = 5
    last = torch.full((3, 2), 800_000_000 - 1, device=gpu)
    assert kernels.gather_features(features, last)[-1, 0].tolist() == [5, 5]


def test_compute_sanitizer(gpu):
    if shutil.which("compute-sanitizer") is None:
        pytest.skip("compute-sanitizer is not installed")
    code = (
        "import torch\n"
        "from recon_fast.kernels import backend, selftest\n"
        "device = torch.device('cuda')\n"
        "for operator in selftest.CASES:\n"
        "    if operator not in backend._PLAIN_ON_GPU:\n"
        "        load = lambda name: backend.load('triton', operator, name)\n"
        "        found = selftest.run_cases(operator, device, load)\n"
        "        assert not found, found\n"
    )
    for tool in ("memcheck", "racecheck"):
        command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "3", sys.executable, "-c", code]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
