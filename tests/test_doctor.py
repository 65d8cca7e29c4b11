"""`recon-fast doctor` tells whether operators are right, and exits with 1 where one is not."""

import pytest
import torch

from recon_fast import doctor
from recon_fast.cli import main
from recon_fast.kernels import backend
from recon_fast.kernels.backend import OPERATORS

pytestmark = pytest.mark.filterwarnings("ignore:.*CUDA initialization")


@pytest.fixture(autouse=True)
def _one_call(monkeypatch):
    monkeypatch.setattr(doctor, "_SECONDS", 0)


def test_every_operator_has_a_row(capsys):
    assert main(["doctor", "--device", "cpu"]) == 0
    head, columns, *rows, _ = capsys.readouterr().out.splitlines()
    assert head.startswith("cpu: ")
    assert f"torch {torch.__version__.split('+')[0]}" in head
    assert columns.split() == ["operator", "backend", "right", "ms", "x", "plain"]
    assert {row.split()[0] for row in rows} == set(OPERATORS)
    assert all(row.split()[1:3] == ["cpu", "yes"] for row in rows)


def test_a_wrong_operator_is_named(capsys, monkeypatch):
    load = backend.load

    def wrong(name, operator, function):
        found = load(name, operator, function)
        if function != "neighbor_edges":
            return found
        return lambda idx: found(idx) + 1

    monkeypatch.setattr(backend, "load", wrong)
    assert main(["doctor", "--device", "cpu"]) == 1
    rows = [row for row in capsys.readouterr().out.splitlines() if "WRONG" in row]
    assert len(rows) == 1
    assert rows[0].startswith("neighbor_edges")
    assert rows[0].endswith("numbers differ")


def test_plain_pytorch_says_why(capsys, monkeypatch):
    monkeypatch.setenv("RECON_FAST_BACKEND", "reference")
    assert main(["doctor", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("chosen by RECON_FAST_BACKEND") == len(OPERATORS)


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("mps", "device must be one that works here, got mps: "),
        ("gpu", "device must be one that works here, got gpu: "),
        ("cuda:99", "device must be one that works here, got cuda:99: "),
    ],
)
def test_no_such_device(device, message, capsys):
    assert main(["doctor", "--device", device]) == 2
    assert message in capsys.readouterr().err
