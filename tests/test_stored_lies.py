"""Checkpoints, runs and feature files that were cut, edited or swapped: one error each, or what is right."""

import json
import pickle
import shutil

import h5py
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import TINY_MODEL, Lines, tiny_config, tiny_shapes

from recon_fast.checkpoint import export_official, weights_metadata
from recon_fast.checkpoint.restore import restore
from recon_fast.cli import main
from recon_fast.config.frozen import EmbedConfig
from recon_fast.errors import InputError
from recon_fast.models import Classifier, ReCon
from recon_fast.tasks.embed_files import embed_files, is_feature_file, read_features
from recon_fast.tasks.table import merged
from recon_fast.teachers.weights import read_state
from recon_fast.training.pretrain import pretrain
from recon_fast.viz.run_page import read_run

DEEP = "[" * 100_000
PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 12345\n"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run with two checkpoints."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(tiny_config(run, save__keep=2), None, Lines(), tiny_shapes())
    return run


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def newest(run):
    return sorted((run / "checkpoints").iterdir())[-1]


def edited(**changes):
    """A change of state.json: None takes a key away."""

    def change(text):
        state = json.loads(text)
        for key, value in changes.items():
            state.pop(key, None)
            if value is not None:
                state[key] = value[0]
        return json.dumps(state)

    return change


STATES = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "a list": lambda text: "[]",
    "null": lambda text: "null",
    "deep": lambda text: DEEP,
    "deep config": lambda text: text.replace('"config": {', '"config": {"a": ' + DEEP + "]" * 100_000 + ","),
    "half a character": edited(data_name=["\ud800"]),
    "no step": edited(step=None),
    "step null": edited(step=[None]),
    "step below 0": edited(step=[-1]),
    "step 1.5": edited(step=[1.5]),
    "step a text": edited(step=["3"]),
    "no data": edited(data=None),
    "config a list": edited(config=[[]]),
    "teacher null": edited(teacher=[None]),
    "before a list": edited(before=[[1, 2]]),
    "before of other scores": edited(before=[{"svm": 1.0}]),
    "skipped null": edited(skipped_in_a_row=[None]),
    "stream a text": edited(stream=["2"]),
    "best a number": edited(best=[3]),
    "checksums a list": edited(sha256=[["a"]]),
    "checksums of other files": edited(sha256=[{"../../config.yaml": "0"}]),
}


@pytest.mark.parametrize("lie", STATES)
def test_a_state_that_lies_is_a_damaged_checkpoint(run, lie):
    file = newest(run) / "state.json"
    file.write_text(STATES[lie](file.read_text()))
    with pytest.raises(InputError, match="damaged"):
        pretrain(tiny_config(run), newest(run), Lines(), tiny_shapes())
    console = Lines()  # the one before it is whole
    assert pretrain(tiny_config(run), run, console, tiny_shapes()).checkpoint.is_dir()
    assert console.has("damaged", "continuing from step-")


def tensors_of(path):
    with safe_open(path, "pt") as file:
        return load_file(path), dict(file.metadata())


METADATA = {
    "model": [
        *(
            "",
            "null",
            "[]",
            "{",
            DEEP,
            '{"dim": "a"}',
            '{"dim": null}',
            '{"dim": 0}',
            '{"dim": 24, "more": 1}',
        ),
        '{"dim": 100000000, "num_heads": 2}',
        '{"dim": 24, "depth": 100000000}',
        '{"text_dim": 1000000000000}',
    ],
    "task": [
        *("null", "[]", DEEP, "{}", '{"kind": "detector"}', '{"kind": "classifier"}', '{"kind": []}'),
        '{"kind": "classifier", "num_classes": 1000000000000, "head": "full"}',
        '{"kind": "classifier", "num_classes": "a", "head": "full"}',
        '{"kind": "segmenter", "num_parts": -3, "num_categories": 2}',
    ],
    "teacher": ["[]", "3", DEEP, "{"],
    "conventions": ["[]", '"y"', DEEP, "{"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in METADATA for value in METADATA[name]])
def test_weights_whose_metadata_lie(tmp_path, name, value):
    model, path = ReCon(TINY_MODEL), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, {**weights_metadata(model, None), name: value})
    with pytest.raises(InputError, match=str(path)):
        restore(path)


def test_weights_of_classes_that_are_not_there(tmp_path):
    model, path = Classifier(TINY_MODEL, 3), tmp_path / "model.safetensors"
    save_file(model.state_dict(), path, weights_metadata(model, None))
    assert restore(path).model.task["num_classes"] == 3
    for changed in ({"num_classes": 4}, {"num_classes": -1}, {"head": "other"}):
        task = json.dumps({**model.task, **changed})
        save_file(model.state_dict(), path, {**weights_metadata(model, None), "task": task})
        with pytest.raises(InputError, match=str(path)):
            restore(path)


@pytest.mark.parametrize("moment", ["step", "exp_avg", "exp_avg_sq"])
@pytest.mark.parametrize(
    "change", [lambda value: value.reshape(-1, 1, 1)[:1], None], ids=["shape", "missing"]
)
def test_moments_of_another_shape(run, moment, change):
    file = newest(run) / "optimizer.safetensors"
    tensors = load_file(file)
    large = [key for key, value in tensors.items() if value.ndim > 1 or moment == "step"]
    name = next(key for key in large if key.startswith(moment))
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change(tensors[name]).clone()
    save_file(tensors, file)
    state = newest(run) / "state.json"
    state.write_text(edited(sha256=None)(state.read_text()))
    with pytest.raises(InputError, match=r"optimizer\.safetensors does not belong to this model: moments of"):
        pretrain(tiny_config(run), newest(run), Lines(), tiny_shapes())


@pytest.mark.parametrize("share", [0, 0.01, 0.1, 0.3, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("legacy", [True, False])
def test_torch_files_that_were_cut(tmp_path, share, legacy):
    path = tmp_path / "ckpt.pth"
    torch.save(
        {"base_model": export_official(ReCon(TINY_MODEL))}, path, _use_new_zipfile_serialization=not legacy
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match=r"ckpt\.pth ") as error:
        restore(path)
    assert str(error.value).rstrip(": ") == str(error.value)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.h5", "a.npy", "a.ply", "a.pkl"])
@pytest.mark.parametrize(("content", "what"), [(PAGE, "an HTML page"), (POINTER, "a Git LFS pointer")])
def test_pages_and_pointers_are_named(tmp_path, capsys, name, content, what):
    (tmp_path / name).write_bytes(content)
    if name in ("a.pth", "a.safetensors"):
        with pytest.raises(InputError, match=what):
            restore(tmp_path / name)
        return
    data = tmp_path if name in ("a.npy", "a.ply") else tmp_path / name
    assert main(["pretrain", "--data.path", str(data), "--out", str(tmp_path / "run")]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "must be a whole"),
        (b"\x80", "must be a whole"),
        (PAGE, "an HTML page"),
        (POINTER, "a Git LFS pointer"),
        (pickle.dumps({1: 2}), "must "),
    ],
)
def test_weights_of_teachers_that_are_none(tmp_path, content, what):
    for name in ("a.bin", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"weight file .*{what}"):
            read_state(tmp_path / name)


def test_pickles_that_are_no_checkpoint(tmp_path):
    path = tmp_path / "ckpt.pth"
    for content in (
        pickle.dumps({"a": 1}),
        pickle.dumps([]),
        b"\x80",
        b"\x80\x02}.",
        b"PK\x03\x04",
        bytes(100),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"ckpt\.pth"):
            restore(path)


def given(name, make):
    return lambda state: state.__setitem__(name, make(state[name]))


def number_names(state):
    for i, name in enumerate(list(state)):
        state[i] = state.pop(name)


def far_block(state):
    state["MAE_encoder.blocks.blocks.10000000.norm1.weight"] = state.pop(
        "MAE_encoder.blocks.blocks.1.norm1.weight"
    )


NORM = "MAE_encoder.norm.weight"
OFFICIAL = {
    "names that are numbers": number_names,
    "a block far away": far_block,
    "a width without bytes": given(NORM, lambda value: torch.ones(1).expand(100_002)),
    "a width of its own": given(NORM, lambda value: torch.ones(100_002)),
    "a sparse weight": given(NORM, lambda value: value.to_sparse()),
    "a weight without values": given(NORM, lambda value: value.to("meta")),
    "complex weights": given(NORM, lambda value: value.to(torch.complex64)),
}


@pytest.mark.parametrize("lie", OFFICIAL)
def test_official_checkpoints_that_lie(tmp_path, lie):
    path, state = tmp_path / "ckpt.pth", export_official(ReCon(TINY_MODEL))
    torch.save({"base_model": state}, path)
    assert restore(path, num_heads=2).model.config.dim == 24
    OFFICIAL[lie](state)
    torch.save({"base_model": state}, path)
    with pytest.raises(InputError, match=r"ckpt\.pth"):
        restore(path, num_heads=2)


RECORDS = [
    *("", "null", "[]", "{}", DEEP, '{"starts": 3}', '{"starts": [null, {"end": 3}]}'),
    '{"starts": [{"data": null}]}',
    '{"starts": [{"machine": [1]}]}',
    '{"starts": [{"wall_seconds": "a"}]}',
    '{"starts": [{"energy_joules": {"cpu": "a"}}]}',
    '{"step": 1, "loss": "a", "probe_svm": "b"}',
    '{"step": 2, "loss": 1' + "0" * 400 + "}",
]


@pytest.mark.parametrize("text", RECORDS)
@pytest.mark.parametrize("name", ["run.json", "result.json", "config.yaml", "metrics.jsonl"])
def test_a_run_whose_records_lie_is_read_as_far_as_it_goes(run, name, text):
    (run / name).write_text(text)
    found = read_run(run)
    assert found.name == "run"
    assert main(["report", str(run), "--out", str(run.parent / "page.html")]) == 0
    if name in ("run.json", "result.json") and found.unread:
        assert f"damaged: {name}" in (run.parent / "page.html").read_text()
    if name != "config.yaml":
        pretrain(tiny_config(run), run, Lines(), tiny_shapes())
    else:
        assert main(["pretrain", "--resume", str(run)]) == 2
    if name == "result.json":
        with pytest.raises(InputError, match=r"result\.json must be the result of a run"):
            merged([run])


@pytest.mark.parametrize(
    "result",
    [
        {"task": "linear", "data": "a"},
        {"task": "linear", "data": "a", "accuracy": "high"},
        {"task": "fewshot", "data": "a", "settings": [{"way": 5}]},
        {"task": "fewshot", "data": "a", "settings": 3},
        {"task": "partseg", "data": "a", "instance_miou": None, "class_miou": 1},
        {"task": 3, "data": "a"},
    ],
)
def test_results_that_lie(tmp_path, result):
    (tmp_path / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"result\.json must be the result of a run: "):
        merged([tmp_path])


@pytest.fixture(scope="module")
def features(whole, tmp_path_factory):
    """{"h5", "npz"}: files of features with all that they may have."""
    root = tmp_path_factory.mktemp("features")
    for name in ("ball", "box"):
        (root / "data" / name).mkdir(parents=True)
        for i in range(3):
            np.save(root / "data" / name / f"{i}.npy", np.random.default_rng(i).standard_normal((64, 3)))
    config = EmbedConfig(checkpoint=str(whole), device="cpu")
    for kind in ("h5", "npz"):
        embed_files([root / "data"], root / f"a.{kind}", config, Lines())
    return root


FEATURES = {
    "fewer features": ("features", lambda a: a[:3]),
    "flat features": ("features", lambda a: a.ravel()),
    "NaN": ("features", lambda a: a * np.nan),
    "whole features": ("features", lambda a: a.astype(int)),
    "fewer held out": ("held_out", lambda a: a[:3]),
    "held out as numbers": ("held_out", lambda a: a.astype(int)),
    "fewer labels": ("labels", lambda a: a[:3]),
    "labels above": ("labels", lambda a: a + 1),
    "labels below": ("labels", lambda a: a - 1),
    "real labels": ("labels", lambda a: a * 1.0),
    "numbers as keys": ("keys", lambda a: np.arange(6)),
    "fewer keys": ("keys", lambda a: a[:3]),
    "numbers as classes": ("class_names", lambda a: np.arange(2)),
    "no keys": ("keys", None),
    "no features": ("features", None),
    "no attributes": ("attributes", None),
    **{
        f"attributes {text[:20]}": ("attributes", lambda a, text=text: text)
        for text in (
            "",
            "[]",
            "null",
            DEEP,
            '{"format": "other"}',
            '{"format": "recon-fast features", "kind": 3}',
        )
    },
}


@pytest.mark.parametrize("kind", ["h5", "npz"])
@pytest.mark.parametrize("lie", FEATURES)
def test_features_that_lie(features, tmp_path, kind, lie):
    name, change = FEATURES[lie]
    path = tmp_path / f"a.{kind}"
    shutil.copy(features / f"a.{kind}", path)
    assert read_features(path).class_names == ["ball", "box"]
    if kind == "h5":
        with h5py.File(path, "a") as file:
            dataset = file.pop(name, None)
            if change is not None:
                texts = name in ("keys", "class_names", "attributes")
                file[name] = change(dataset.asstr()[()] if texts else dataset[()])
    else:
        with np.load(path) as content:
            arrays = dict(content)
        value = arrays.pop(name)
        if change is not None:
            arrays[name] = np.array(change(value))
        np.savez(path, **arrays)
    with pytest.raises(InputError, match=str(path)):
        read_features(path)


def test_an_array_is_no_file_of_features(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(InputError, match="must be a file that `recon-fast embed` wrote"):
        read_features(tmp_path / "a.npz")


@pytest.mark.parametrize("kind", ["h5", "npz"])
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_features_that_were_cut(features, tmp_path, kind, share):
    path = tmp_path / f"a.{kind}"
    content = (features / f"a.{kind}").read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    is_feature_file(path)
    with pytest.raises(InputError, match=str(path)):
        read_features(path)
