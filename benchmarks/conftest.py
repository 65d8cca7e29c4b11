"""What the benchmarks share: who runs, on which device, for how long, and what the run prints about it."""

import time

import pytest
import torch

from benchmarks import report
from benchmarks.environment import describe
from benchmarks.measure import Bench, clock
from benchmarks.providers import providers, roll_call

_ROWS = pytest.StashKey[list]()
_BEGIN = pytest.StashKey[float]()


def pytest_addoption(parser):
    group = parser.getgroup("recon-fast benchmarks")
    group.addoption("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    group.addoption("--row-seconds", type=float, default=0.3, help="how long a row is timed")
    group.addoption("--stop-after", type=float, default=float("inf"), help="skip rows after so many seconds")
    group.addoption("--rows-to", default="", help="append each row to this file, as JSON lines")


def _kind(config) -> str:
    return config.getoption("--device", None) or ("cuda" if torch.cuda.is_available() else "cpu")


def pytest_configure(config):
    config.addinivalue_line("markers", "operator(name): whose providers a benchmark runs")
    config.stash[_ROWS], config.stash[_BEGIN] = [], time.monotonic()


def pytest_report_header(config):
    head = describe(_kind(config))
    return [*report.headline(head), *roll_call(_kind(config))]


@pytest.hookimpl(trylast=True)  # after the marks, so that providers of one input run side by side
def pytest_generate_tests(metafunc):
    if "provider" in metafunc.fixturenames:
        operator = metafunc.definition.get_closest_marker("operator").args[0]
        contenders = getattr(metafunc.module, "contenders", providers)
        metafunc.parametrize("provider", contenders(operator, _kind(metafunc.config)), ids=lambda p: p.name)


def pytest_collection_modifyitems(items):
    for item in items:
        if "bench" in item.fixturenames:
            item.add_marker(pytest.mark.benchmark(timer=clock))
            item.add_marker(pytest.mark.filterwarnings("default"))  # other packages' warnings are theirs
            item.add_marker(pytest.mark.filterwarnings("ignore:Benchmark fixture was not used"))


@pytest.fixture
def bench(request, benchmark):
    config = request.config
    if time.monotonic() - config.stash[_BEGIN] > config.getoption("--stop-after", float("inf")):
        pytest.skip("out of time (--stop-after)")
    seconds, rows_to = config.getoption("--row-seconds", 0.3), config.getoption("--rows-to", "")
    return Bench(benchmark, _kind(config), seconds, rows_to, config.stash[_ROWS])


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info.pop("node", None)
    machine_info["recon_fast"] = describe(_kind(config))


def pytest_terminal_summary(terminalreporter, config):
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("medians and ratios")
        terminalreporter.write_line(report.markdown(report.Results(describe(_kind(config)), rows)))
