"""Which backend runs, and how the CPU kernels are started."""

import logging
import multiprocessing
import subprocess
import sys
import threading

import pytest
import torch

from recon_fast import kernels
from recon_fast.kernels import backend
from recon_fast.kernels.backend import OPERATORS, backend_in_use, use_backend
from recon_fast.kernels.cpu import launch


def test_auto_takes_what_suits_the_tensor():
    for operator in OPERATORS:
        assert backend_in_use(operator) == ("cpu", "numba kernels for cpu tensors")
        assert backend_in_use(operator, dtype=torch.float64) == (
            "reference",
            "float64 is left to plain PyTorch",
        )
        assert backend_in_use(operator, "mps") == ("reference", "there are no kernels for mps")
    with use_backend("triton"):
        dense = ("reference", "a dense matrix product is left to plain PyTorch")
        assert backend_in_use("linear_max", "cuda") == dense


def test_use_backend_precedes_the_environment(monkeypatch):
    monkeypatch.setenv("RECON_FAST_BACKEND", "reference")
    assert backend_in_use("knn") == ("reference", "chosen by RECON_FAST_BACKEND")
    with use_backend("cpu"):
        assert backend_in_use("knn") == ("cpu", "chosen by use_backend")
        with use_backend("reference"):
            assert backend_in_use("knn") == ("reference", "chosen by use_backend")
        assert backend_in_use("knn")[0] == "cpu"
    assert backend_in_use("knn")[0] == "reference"


def test_the_choice_reaches_the_operators(monkeypatch):
    called = []
    monkeypatch.setattr(backend, "load", lambda *names: called.append(names))
    cloud = torch.randn(1, 8, 3)
    kernels.knn(cloud, cloud, 2)
    assert called == [("cpu", "knn", "knn")]
    with use_backend("reference"):
        kernels.knn(cloud, cloud, 2)
    kernels.knn(cloud.double(), cloud.double(), 2)
    assert len(called) == 1


def test_errors(monkeypatch):
    with pytest.raises(ValueError, match=r"name must be one of .*, got 'cuda'"), use_backend("cuda"):
        pass
    with pytest.raises(ValueError, match=r"operator must be one of .*, got 'sort'"):
        backend_in_use("sort")
    with use_backend("cpu"), pytest.raises(RuntimeError, match="cannot run knn: it takes no cuda tensors"):
        backend_in_use("knn", "cuda")
    monkeypatch.setenv("RECON_FAST_BACKEND", "fast")
    with pytest.raises(ValueError, match=r"RECON_FAST_BACKEND must be one of .*, got 'fast'"):
        kernels.farthest_point_sample(torch.zeros(1, 2, 3), 1)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    backend.absent.cache_clear()
    try:
        assert backend_in_use("knn") == ("reference", "numba is not installed")
        with pytest.raises(RuntimeError, match="'cpu' cannot be used: numba is not installed"):
            use_backend("cpu").__enter__()
    finally:
        backend.absent.cache_clear()


def test_torch_threads_wants_the_kernels(monkeypatch):
    monkeypatch.setattr(backend, "absent", lambda *names: "numba is not installed")
    with kernels.torch_threads() as shared:
        assert not shared


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
def test_threads_follow_torch_and_do_not_change_the_result():
    xyz = torch.randn(7, 300, 3)
    many = kernels.sample_and_group(xyz, 40, 9)
    assert len(launch._threads) >= 2
    torch.set_num_threads(1)
    one = kernels.sample_and_group(xyz, 40, 9)
    assert all(torch.equal(a, b) for a, b in zip(many, one, strict=True))


@pytest.mark.usefixtures("three_threads")
def test_many_callers_at_once():
    clouds = [torch.randn(3, 100, 3) for _ in range(6)]
    want = [kernels.farthest_point_sample(xyz, 20) for xyz in clouds]
    wrong = []

    def call(xyz, idx):
        for _ in range(20):
            if not torch.equal(kernels.farthest_point_sample(xyz, 20), idx):
                wrong.append(xyz)

    callers = [threading.Thread(target=call, args=pair) for pair in zip(clouds, want, strict=True)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def _in_child(xyz, idx, result):
    torch.set_num_threads(2)
    result.put(torch.equal(kernels.farthest_point_sample(xyz, 20), idx))


@pytest.mark.usefixtures("three_threads")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_runs_in_a_forked_child():
    xyz = torch.randn(4, 100, 3)
    idx = kernels.farthest_point_sample(xyz, 20)
    context = multiprocessing.get_context("fork")
    result = context.SimpleQueue()
    child = context.Process(target=_in_child, args=(xyz, idx, result))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert result.get()


def test_helpers_end_with_the_interpreter():
    code = """
import atexit, threading
atexit.register(lambda: print([t.name for t in threading.enumerate() if t.name.startswith("recon_fast")]))
import torch
from recon_fast import kernels
from recon_fast.kernels.cpu import launch
torch.set_num_threads(3)
kernels.farthest_point_sample(torch.rand(7, 100, 3), 20)
print(len(launch._threads))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["2", "[]"]


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_a_helper_reaches_the_caller(monkeypatch):
    caller = threading.current_thread()
    begun = threading.Event()

    def kernel(counter, items):
        if items and threading.current_thread() is caller:
            assert begun.wait(10)
        elif items:
            begun.set()
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        launch.run(kernel, 5)


@pytest.mark.usefixtures("three_threads")
def test_kernels_run_on_the_threads_of_torch():
    xyz = torch.randn(7, 300, 3)
    want = kernels.sample_and_group(xyz, 40, 9)
    seen = set()

    def kernel(counter, items):
        if items:
            seen.add(threading.get_native_id())

    with kernels.torch_threads() as shared:
        assert shared == torch.backends.openmp.is_available()
        with kernels.torch_threads():
            got = kernels.sample_and_group(xyz, 40, 9)
        launch.run(kernel, 5)
        first = set(seen)
        launch.run(kernel, 5)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    if shared:
        assert len(first) == 3
        assert seen == first  # the same ones again
        assert seen.isdisjoint(thread.native_id for thread in launch._threads)
    seen.clear()
    launch.run(kernel, 5)  # on our own again
    assert seen <= {threading.get_native_id(), *(thread.native_id for thread in launch._threads)}


@pytest.mark.usefixtures("three_threads")
def test_an_error_on_a_thread_of_torch_reaches_the_caller():
    caller = threading.current_thread()

    def kernel(counter, items):
        if items and threading.current_thread() is not caller:
            raise MemoryError("no room")

    with kernels.torch_threads() as shared:
        if shared:
            with pytest.raises(MemoryError, match="no room"):
                launch.run(kernel, 5)
        assert kernels.farthest_point_sample(torch.randn(4, 100, 3), 20).shape == (4, 20)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_other_threads_and_children_of_a_torch_threads_block_use_their_own(monkeypatch):
    xyz = torch.randn(4, 100, 3)
    with kernels.torch_threads():
        idx = kernels.farthest_point_sample(xyz, 20)
        test_runs_in_a_forked_child()
        monkeypatch.setattr(launch, "_run_on_torch_threads", None)
        result = []
        thread = threading.Thread(target=lambda: result.append(kernels.farthest_point_sample(xyz, 20)))
        thread.start()
        thread.join(60)
    assert torch.equal(result[0], idx)


def test_without_openmp_kernels_run_on_their_own_threads(monkeypatch):
    monkeypatch.setattr(launch.ctypes, "CDLL", lambda path: object())
    launch._parallel_of_torch.cache_clear()
    monkeypatch.setattr(launch, "_run_on_torch_threads", None)
    with kernels.torch_threads() as shared:
        assert not shared
        kernels.farthest_point_sample(torch.randn(4, 100, 3), 20)
    monkeypatch.undo()
    launch._parallel_of_torch.cache_clear()


def test_a_long_compilation_says_so(monkeypatch, caplog):
    finished = threading.Event()
    monkeypatch.setattr(launch, "_PATIENCE", 0.01)
    monkeypatch.setattr(launch.log, "warning", lambda text: (caplog.records.append(text), finished.set()))

    def _slow(counter, items):
        assert items or finished.wait(10)

    launch.run(_slow, 1)
    assert caplog.records == ["compiling the CPU kernel slow (a few seconds, once per machine)"]
    launch.run(_slow, 1)
    assert len(caplog.records) == 1
    assert launch.log.name == logging.getLogger("recon_fast.kernels.cpu.launch").name


def test_importing_is_light():
    code = """
import sys, time, torch
start = time.perf_counter()
import recon_fast.kernels
assert time.perf_counter() - start < 0.3, time.perf_counter() - start
heavy = {"timm", "open_clip", "h5py", "sklearn", "rich", "numba", "triton"} & set(sys.modules)
assert not heavy - {"triton"}, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
