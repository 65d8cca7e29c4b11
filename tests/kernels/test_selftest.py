"""Whether the kernels of a device are right, and that "auto" asks before it takes Triton's on a GPU."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from recon_fast.kernels import backend, selftest
from recon_fast.kernels.backend import OPERATORS, backend_in_use

CPU = torch.device("cpu")


def load_cpu(operator):
    return lambda function: backend.load("cpu", operator, function)


@pytest.fixture
def gpu(monkeypatch, tmp_path):
    """The CPU, taken for a GPU that has just been plugged in."""
    properties = SimpleNamespace(name="Card", major=9, minor=0, multi_processor_count=1)
    for name, value in {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "is_current_stream_capturing": lambda: False,
        "get_device_name": lambda device: "Card",
        "get_device_properties": lambda device: properties,
        "device": lambda device: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(selftest, "verdicts", {})
    monkeypatch.setattr(selftest, "_warned", set())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return properties


@pytest.mark.parametrize("operator", selftest.CASES)
def test_cpu_kernels_pass(operator):
    assert selftest.run_cases(operator, CPU, load_cpu(operator)) == ""


def test_every_operator_has_cases():
    assert set(selftest.CASES) == set(OPERATORS)


@pytest.mark.parametrize("operator", selftest.CASES)
def test_a_wrong_kernel_is_found(operator):
    """Each function of each operator in turn is off in one number, or raises."""
    for case in list(selftest.CASES[operator](CPU, torch.Generator().manual_seed(0))):
        function = backend.load("cpu", operator, case.function)
        if function is None:
            continue

        def wrong(*arguments, function=function, **keywords):
            results = function(*arguments, **keywords)
            first = results if isinstance(results, torch.Tensor) else results[0]
            first.view(-1)[-1] += 1
            return results

        found = selftest.run_cases(
            operator, CPU, lambda name, case=case, wrong=wrong: wrong if name == case.function else None
        )
        assert found.startswith(f"{case.function}: "), found

    def broken(*arguments, **keywords):
        raise RuntimeError("PassManager::run failed\nand a long story")

    assert selftest.run_cases(operator, CPU, lambda name: broken) == "RuntimeError: PassManager::run failed"


def test_what_passes_is_remembered(gpu, monkeypatch):
    runs = []
    monkeypatch.setattr(selftest, "run_cases", lambda operator, *rest: runs.append(operator) or "")
    for _ in range(2):
        assert selftest.failure("knn", CPU, load_cpu("knn")) == ""
        assert selftest.failure("ball_query", CPU, load_cpu("ball_query")) == ""
    assert runs == ["knn", "ball_query"]
    selftest.verdicts.clear()  # a new process
    assert selftest.failure("knn", CPU, load_cpu("knn")) == ""
    assert runs == ["knn", "ball_query"]
    selftest.verdicts.clear()
    gpu.name = "Another card"
    assert selftest.failure("knn", CPU, load_cpu("knn")) == ""
    assert runs[2:] == ["knn"]
    selftest.verdicts.clear()
    selftest._passed_file().write_text("{")  # cut off
    assert selftest.failure("knn", CPU, load_cpu("knn")) == ""
    assert runs[3:] == ["knn"]


@pytest.mark.usefixtures("gpu")
def test_what_fails_is_said_once_and_tried_again_by_the_next_process(monkeypatch):
    monkeypatch.setattr(selftest, "run_cases", lambda operator, *rest: "RuntimeError: no such GPU")
    with pytest.warns(RuntimeWarning, match=r"knn is left to plain PyTorch on Card.*no such GPU"):
        selftest.failure("knn", CPU, load_cpu("knn"))
    for operator in ("knn", "ball_query"):
        assert selftest.failure(operator, CPU, load_cpu(operator)) == "RuntimeError: no such GPU"
    assert not selftest._passed_file().exists()


@pytest.mark.usefixtures("gpu")
def test_a_cache_that_cannot_be_written_is_done_without(monkeypatch, tmp_path):
    monkeypatch.setattr(selftest, "run_cases", lambda *rest: "")
    (tmp_path / "recon-fast").write_text("a file where the folder would be")
    assert selftest.failure("knn", CPU, load_cpu("knn")) == ""


@pytest.mark.usefixtures("gpu")
def test_no_verdict_while_a_graph_is_captured_or_memory_is_full(monkeypatch):
    def full(*rest):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    monkeypatch.setattr(selftest, "run_cases", full)
    for _ in range(2):
        assert selftest.failure("knn", CPU, load_cpu("knn")) is None
        assert backend_in_use("knn", "cuda")[0] == "reference"
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(selftest, "run_cases", lambda *rest: "")
    assert backend_in_use("knn", "cuda") == ("triton", "Triton kernels for cuda tensors")


@pytest.mark.usefixtures("gpu")
def test_auto_takes_triton_where_it_is_right(monkeypatch):
    wrong = "result 1: 3 of 2000 numbers differ"
    monkeypatch.setattr(selftest, "run_cases", lambda operator, *rest: wrong if operator == "knn" else "")
    with pytest.warns(RuntimeWarning, match="knn is left to plain PyTorch"):
        assert backend_in_use("knn", "cuda") == ("reference", wrong)
    assert backend_in_use("ball_query", "cuda:0") == ("triton", "Triton kernels for cuda tensors")
    monkeypatch.setenv("RECON_FAST_BACKEND", "triton")  # who asks for it gets it
    assert backend_in_use("knn", "cuda") == ("triton", "chosen by RECON_FAST_BACKEND")


@pytest.mark.usefixtures("gpu")
def test_without_triton_a_gpu_gets_plain_pytorch(monkeypatch):
    found = backend.find_spec
    monkeypatch.setattr(backend, "find_spec", lambda name: None if name == "triton" else found(name))
    backend.absent.cache_clear()
    backend._warn_without_triton.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="triton is not installed; on a GPU plain PyTorch is used"):
            assert backend_in_use("knn", "cuda") == ("reference", "triton is not installed")
        assert backend_in_use("ball_query", "cuda")[0] == "reference"
    finally:
        backend.absent.cache_clear()
