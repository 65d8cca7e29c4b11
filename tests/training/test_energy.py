"""Counters of energy, all of them made here."""

import ctypes
import json
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_config, tiny_shapes

from recon_fast.training import record as energy_module
from recon_fast.training.pretrain import pretrain
from recon_fast.training.record import EnergyMeter

GPU, CPU = torch.device("cuda:0"), torch.device("cpu")


@pytest.fixture
def rapl(tmp_path, monkeypatch):
    """Two processors and a part of one; sets a processor's counter."""
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "max_energy_range_uj").write_text("10000000\n")
        (tmp_path / name / "energy_uj").write_text("9000000\n")
    monkeypatch.setattr(energy_module, "_POWERCAP", tmp_path)
    return lambda name, value: (tmp_path / name / "energy_uj").write_text(f"{value}\n")


class FakeNvml:
    """Counts up by 1.5 J whenever it is asked."""

    def __init__(self, code=0):
        self.code, self.millijoules, self.uuid = code, 70_000, None

    def nvmlInit_v2(self):
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid, handle):
        self.uuid = uuid
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle, value):
        self.millijoules += 1500
        ctypes.cast(value, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return self.code


def with_nvml(monkeypatch, nvml):
    monkeypatch.setattr(energy_module.ctypes, "CDLL", lambda name: nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1f2e"))


def test_processors_are_summed_over_a_full_counter(rapl):
    meter = EnergyMeter(CPU)
    assert meter.read() == {"gpu": None, "cpu": 0}
    rapl("intel-rapl:0", 500_000)  # started again from 0: 1.5 J
    rapl("intel-rapl:0:0", 9_900_000)
    assert meter.read() == {"gpu": None, "cpu": 1.5}
    rapl("intel-rapl:1", 9_250_000)
    assert meter.read() == {"gpu": None, "cpu": 1.75}


def test_a_gpu_is_found_by_its_uuid(rapl, monkeypatch):
    nvml = FakeNvml()
    with_nvml(monkeypatch, nvml)
    meter = EnergyMeter(GPU)
    assert nvml.uuid == b"GPU-1f2e"
    assert meter.read() == {"gpu": 1.5, "cpu": 0}
    assert meter.read()["gpu"] == 3


def test_counters_that_tell_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(energy_module, "_POWERCAP", tmp_path / "none")
    assert EnergyMeter(GPU).read() == {"gpu": None, "cpu": None}  # no driver here, or no GPU
    with_nvml(monkeypatch, FakeNvml(code=3))  # not supported
    assert EnergyMeter(GPU).read() == {"gpu": None, "cpu": None}
    (tmp_path / "none" / "intel-rapl:0").mkdir(parents=True)
    (tmp_path / "none" / "intel-rapl:0" / "max_energy_range_uj").write_text("1")
    assert EnergyMeter(CPU).read() == {"gpu": None, "cpu": None}


def test_run_json_tells_energy_and_placement(tmp_path, rapl):
    pretrain(tiny_config(tmp_path / "run", optim__epochs=1, optim__warmup_epochs=0), shapes=tiny_shapes())
    start = json.loads((tmp_path / "run/run.json").read_text())["starts"][0]
    assert start["energy_joules"] == {"gpu": None, "cpu": 0}
    data = start["data"]
    assert (data["placement"], data["storage"]) == ("device", "float32")
    assert data["bytes"] > 18 * 96 * 3 * 4
