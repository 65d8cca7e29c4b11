"""Checkpoints as people have them: wrappers, containers, objects beside the weights; what has no weights."""

import argparse
import collections
import functools
import pathlib
import subprocess
import types

import numpy as np
import pytest
import torch
from tiny import TINY_MODEL
from torch import nn

from recon_fast.checkpoint import export_official
from recon_fast.checkpoint.restore import find_weights, restore
from recon_fast.cli import main
from recon_fast.errors import InputError
from recon_fast.models import Classifier, ReCon
from recon_fast.tasks.embed import load

SIZES = {"num_heads": 2, "num_group": 8, "group_size": 8}
MODEL = ReCon(TINY_MODEL)
STATE = export_official(MODEL)


class Attributes(dict):
    """As Lightning's AttributeDict and EasyDict are: a dict whose keys are attributes."""

    def __init__(self, **entries):
        super().__init__(entries)
        self.__dict__.update(entries)


class Metric:
    """As the official code's metrics are."""

    def __init__(self, acc):
        self.acc = acc


def official_module(state=STATE):
    """A module whose state dict has official names."""
    root = nn.Module()
    for name, value in state.items():
        *folders, leaf = name.split(".")
        module = root
        for folder in folders:
            if folder not in module._modules:
                module.add_module(folder, nn.Module())
            module = module._modules[folder]
        module.register_buffer(leaf, value)
    return root


def holder(**modules):
    """A module with others in it, as a LightningModule has."""
    outer = nn.Module()
    for name, module in modules.items():
        outer.add_module(name, module)
    return outer


def compiled(module):
    return torch.compile(module, backend="eager")


STATES = {
    "compiled": lambda: compiled(official_module()).state_dict(),
    "parallel twice": lambda: nn.DataParallel(nn.DataParallel(official_module())).state_dict(),
    "compiled in parallel": lambda: nn.DataParallel(compiled(official_module())).state_dict(),
    "a part compiled": lambda: holder(model=holder(
        MAE_encoder=compiled(official_module().MAE_encoder))).state_dict() | {
        f"model.{k}": v for k, v in STATE.items() if not k.startswith("MAE_encoder")},
    "of Lightning": lambda: holder(model=official_module(), loss=nn.Linear(1, 1)).state_dict(),
    "a part in parallel": lambda: holder(MAE_encoder=nn.DataParallel(
        official_module().MAE_encoder)).state_dict() | {
        k: v for k, v in STATE.items() if not k.startswith("MAE_encoder")},
    "in net": lambda: holder(net=holder(encoder=official_module())).state_dict(),
    "ours": lambda: MODEL.state_dict(),
    "ours, compiled": lambda: compiled(MODEL).state_dict(),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_names_of_wrapped_models(name, tmp_path):
    torch.save({"epoch": 3, "state_dict": STATES[name]()}, tmp_path / "last.ckpt")
    same(restore(tmp_path, **SIZES).model)  # the folder has one file of weights


def same(model):
    for name, value in model.state_dict().items():
        assert torch.equal(value, MODEL.state_dict()[name]), name


def test_our_own_classifier_as_a_state_dict(tmp_path):
    model = Classifier(TINY_MODEL, 5)
    torch.save(nn.DataParallel(model).state_dict(), tmp_path / "m.pth")
    restored = restore(tmp_path / "m.pth", **SIZES)
    assert restored.model.task == model.task
    assert not restored.model.config.skip_near_origin
    assert restored.conventions == {}
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in restored.model.state_dict().items())


OTHERS = {
    "args": argparse.Namespace(lr=0.1, items=3, keys=[1], out=pathlib.Path("runs")),
    "hyper_parameters": Attributes(width=384, nested=Attributes(depth=2)),
    "metrics": Metric(np.float64(91.2)),
    "best": [np.float32(1.5), np.arange(3.0), np.int64(3), np.array(["a"])],
    "history": collections.defaultdict(list, loss=[1.0]),
    "made": types.SimpleNamespace(norm=functools.partial(sorted, reverse=True)),
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"best": torch.zeros(1)}},
    "lr_schedulers": [{"base_lrs": [0.1], "_step_count": 3}],
}


@pytest.mark.parametrize("zipped", [True, False])
def test_objects_beside_the_weights_are_passed_over(zipped, tmp_path, capsys):
    path = tmp_path / "last.ckpt"
    state = {f"model.{name}": value for name, value in STATE.items()}
    torch.save({**OTHERS, "state_dict": state}, path, _use_new_zipfile_serialization=zipped)
    restored = restore(path, **SIZES)
    same(restored.model)
    assert str(restored.report).endswith(" and 5 more passed over")
    assert "objects of argparse.Namespace, " in str(restored.report)
    with pytest.warns(UserWarning, match=r"last\.ckpt: objects of argparse.Namespace, "):
        assert load(path, **SIZES).notes == restored.notes
    sizes = [f"--{name}={size}" for name, size in SIZES.items()]
    assert main(["convert", str(path), str(tmp_path / "ours"), *sizes]) == 0
    assert "objects of argparse.Namespace, " in capsys.readouterr().err


def test_numbers_of_numpy_are_no_news(tmp_path):
    torch.save({"base_model": STATE, "best": OTHERS["best"]}, tmp_path / "m.pth")
    assert restore(tmp_path / "m.pth", **SIZES).report.notes == []


@pytest.mark.parametrize("key", ["net", "encoder", "state_dict_ema", "anything"])
def test_weights_under_any_key(key, tmp_path):
    content = {key: STATE, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}
    torch.save({"epoch": 1, "inner": content}, tmp_path / "m.pth")
    same(restore(tmp_path / "m.pth", **SIZES).model)


def test_of_several_models_the_moving_average_is_taken_or_none(tmp_path):
    path, other = tmp_path / "m.pth", {name: torch.zeros_like(value) for name, value in STATE.items()}
    torch.save({"state_dict": other, "state_dict_ema": STATE}, path)
    restored = restore(path, **SIZES)
    same(restored.model)
    assert restored.report.notes == ["took state_dict_ema, the moving average, not state_dict"]
    torch.save({"base_model": STATE, "model_state_dict": STATE}, path)  # twice the same
    assert restore(path, **SIZES).report.notes == []
    torch.save(holder(student=official_module(), teacher=official_module(other)).state_dict(), path)
    with pytest.raises(InputError, match=r"must hold one model, got student, teacher: write the one"):
        restore(path, **SIZES)


def test_a_folder_names_its_one_file(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "ckpt-last.pth").write_bytes(b"")
    assert find_weights(tmp_path) == tmp_path / "ckpt-last.pth"
    (tmp_path / "version_0" / "checkpoints").mkdir(parents=True)
    (tmp_path / "version_0" / "checkpoints" / "epoch=3.ckpt").write_bytes(b"")
    assert find_weights(tmp_path / "version_0").name == "epoch=3.ckpt"
    (tmp_path / "ckpt-best.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"must be one file of .*, which has ckpt-best.pth, ckpt-last.pth"):
        find_weights(tmp_path)


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_runs(tmp_path):
    path, marker = tmp_path / "m.pth", tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w')"
    for call, named in (
        (Calls(exec, code), "builtins.exec"),
        (Calls(eval, code), "builtins.eval"),
        (Calls(subprocess.Popen, ["touch", str(marker)]), "commands.Popen"),  # its name in Python 2
    ):
        torch.save({"base_model": STATE, "args": call}, path)
        with pytest.raises(InputError, match=rf"plain values, got {named}, which could run code"):
            restore(path, **SIZES)
    torch.save({"base_model": STATE, "args": Calls(marker.touch)}, path)  # a method, through getattr
    with pytest.raises(InputError, match=r"objects of builtins.getattr, pathlib.PosixPath: keep its weights"):
        restore(path, **SIZES)
    assert not marker.exists()


def test_files_without_weights_say_what_they_hold(tmp_path):
    path = tmp_path / "m.pth"
    for content, message in (
        ({"epoch": 3, "args": OTHERS["args"]}, "got epoch, args; objects of argparse.Namespace, .* passed"),
        ({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, "got fc.weight, fc.bias$"),
        ([1, 2], "got list$"),
        ({}, "got nothing$"),
        (Metric(1), "got nothing; objects of test_foreign_checkpoints.Metric passed over"),
    ):
        torch.save(content, path)
        with pytest.raises(InputError, match=rf"must hold ReCon weights such as .*, {message}"):
            restore(path, **SIZES)
    torch.save({"base_model": STATE, "args": OTHERS["args"]}, path)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(InputError, match=r"m\.pth cannot be read"):
        restore(path, **SIZES)
    torch.save({"base_model": STATE, "losses": collections.deque([1])}, path)
    with pytest.raises(InputError, match=r"objects of collections.deque: keep its weights alone"):
        restore(path, **SIZES)
