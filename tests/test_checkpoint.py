import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from golden_data import golden, golden_config, golden_model, official_state

from recon_fast.checkpoint import export_official, load_official, official_name
from recon_fast.errors import InputError
from recon_fast.models import ReCon, ReConConfig, TwoTower


@pytest.fixture
def config():
    return golden("pretrain_cdl1_smc")[0]


def test_export_is_the_inverse_of_load(config):
    state = official_state(config)
    exported = export_official(golden_model(config))
    assert exported.keys() == state.keys()
    for name, value in state.items():
        assert torch.equal(exported[name], value), name


def test_file_with_module_prefix_teachers_and_metrics(config, tmp_path):
    state = {f"module.{name}": value for name, value in official_state(config).items()}
    state["module.img_encoder.blocks.0.weight"] = torch.zeros(2)
    path = tmp_path / "ckpt-last.pth"
    contents = {
        "base_model": state,
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 300,
        "metrics": {"acc": np.float64(91.2)},
        "best_metrics": {"acc": np.float32(91.2)},
    }
    torch.save(contents, path)
    model = ReCon(golden_config(config))
    report = load_official(path, model)
    assert not report.missing
    assert not report.unexpected
    assert report.teachers == 1
    assert torch.equal(export_official(model)["mask_token"], state["module.mask_token"])


def test_report_names_missing_and_unexpected(config):
    state = official_state(config)
    del state["mask_token"]
    state["something.else"] = torch.zeros(1)
    report = load_official(state, ReCon(golden_config(config)))
    assert report.missing == ["mask_token"]
    assert report.unexpected == ["something.else"]
    assert str(report) == f"{len(state) - 1} loaded, 1 missing, 1 unexpected"


def test_two_tower_names():
    model = TwoTower(ReConConfig.tiny(arch="twotower", depth=1, decoder_depth=1))
    names = {official_name(name) for name in model.state_dict()}
    assert {
        "Dis_encoder.img_token",
        "Dis_encoder.text_pos",
        "Dis_encoder.blocks.blocks.0.attn.qkv.weight",
    } <= names
    assert {"MAE_encoder.encoder.first_conv.0.weight", "Dis_encoder.encoder.second_conv.3.bias"} <= names
    again = TwoTower(model.config)
    report = load_official(export_official(model), again)
    assert not report.missing
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_another_architecture(config):
    model = ReCon(ReConConfig.tiny(depth=2, decoder_depth=1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(
        InputError, match=r"mask_token of the given state dict must be \(1, 1, 192\) for this model, got"
    ):
        load_official(official_state(config), model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(InputError, match="must hold ReCon weights such as"):
        load_official({"fc.weight": torch.zeros(1)}, model)
    with pytest.raises(InputError, match=r"must hold ReCon weights such as .*, got epoch"):
        load_official({"epoch": 3}, model)


def test_odd_keys_and_values_are_passed_over(config):
    state = official_state(config)
    model = ReCon(golden_config(config))
    report = load_official({**state, 3: torch.zeros(1), "epoch": 300, "mask_token": None}, model)
    assert report.missing == ["mask_token"]
    assert not report.unexpected


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    "writer", [torch.save, lambda what, path: path.write_bytes(pickle.dumps(what, protocol=2))]
)
def test_a_malicious_pickle_does_not_run(tmp_path, writer):
    marker, path = tmp_path / "ran", tmp_path / "ckpt.pth"
    writer({"base_model": {"mask_token": torch.zeros(1, 1, 4)}, "metrics": Malicious(marker)}, path)
    with pytest.raises(
        InputError, match=r"ckpt.pth must hold only tensors and plain values, got [\w.]+, which could run"
    ):
        load_official(path, ReCon(ReConConfig.tiny(depth=1)))
    assert not marker.exists()


def test_a_torchscript_archive_is_refused(tmp_path):
    module = torch.nn.Linear(1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.zeros(1)).save(tmp_path / "ckpt.pth")
    with pytest.raises(InputError, match=r"ckpt\.pth must hold only tensors; it is a TorchScript archive"):
        load_official(tmp_path / "ckpt.pth", ReCon(ReConConfig.tiny(depth=1)))


def test_files_that_are_none(tmp_path):
    model = ReCon(ReConConfig.tiny(depth=1))
    with pytest.raises(InputError, match="checkpoint must be a file"):
        load_official(tmp_path / "absent.pth", model)
    path = tmp_path / "ckpt.pth"
    torch.save({"base_model": export_official(model)}, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"ckpt.pth cannot be read"):
        load_official(path, model)
    other = tmp_path / "ckpt.safetensors"
    other.write_bytes(b"short")
    with pytest.raises(InputError, match="truncated or no safetensors file"):
        load_official(other, model)
