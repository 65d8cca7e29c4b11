"""Exported files give what the model gives, of standard operators alone, and nothing else is left."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny import TINY_MODEL
from tiny_checkpoint import write_model

import recon_fast
from recon_fast.cli import main
from recon_fast.config import ExportConfig
from recon_fast.errors import InputError
from recon_fast.models import Classifier, PartSegmenter, ReCon, TwoTower
from recon_fast.tasks import export as module
from recon_fast.tasks.export import METADATA, Program, export

ROOT = Path(__file__).parents[2]
SIZES = [(1, 8), (3, 60), (2, 128), (1, 129), (2, 300)]  # 128 points are what larger clouds are reduced to


def clouds(batch, count, seed=0):
    """Clouds far from the origin, of any scale."""
    generator = torch.Generator().manual_seed(seed)
    return 30 * torch.randn(batch, count, 3, generator=generator) + 5


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A classifier, and both its files."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("export")
    model = Classifier(replace(TINY_MODEL, depth=1, skip_near_origin=True), 3)
    for norm in (layer for layer in model.modules() if hasattr(layer, "running_mean")):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    model.task["class_names"] = ["ball", "box", "stick"]
    checkpoint = write_model(model, folder / "model.safetensors", conventions={"up": "y", "points": 64})
    assert main(["export", str(checkpoint), str(folder / "program")]) == 0
    return checkpoint


def run_onnx(file, points):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"points": points.numpy()})[0])


def logits(checkpoint, points):
    encoder = recon_fast.load(checkpoint, "cpu", "fp32")
    with torch.no_grad():
        return encoder.model.head(encoder.embed(points, "classification"))


def same(got, want):
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_onnx_gives_the_logits_of_any_batch_and_size(classifier):
    file = classifier.parent / "program.onnx"
    for size in SIZES:
        same(run_onnx(file, clouds(*size)), logits(classifier, clouds(*size)))


def test_onnx_breaks_ties_and_takes_duplicates_as_the_model_does(classifier):
    grid = torch.cartesian_prod(*[torch.arange(4.0)] * 3)[None]  # all distances come many times
    twice = clouds(1, 5).repeat(1, 4, 1)  # fewer points than groups
    for points in (grid, twice, grid.repeat(1, 3, 1)):
        same(run_onnx(classifier.parent / "program.onnx", points), logits(classifier, points))


def domains(graph):
    for node in graph.node:
        yield node.domain
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from domains(attribute.g)


def test_onnx_is_of_standard_operators_and_states_what_it_is(classifier):
    model = onnx.load(classifier.parent / "program.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert set(domains(model.graph)) == {""}
    assert not model.functions
    (metadata,) = [entry.value for entry in model.metadata_props if entry.key == "recon-fast"]
    metadata = json.loads(metadata)
    assert metadata["output"] == "logits"
    assert metadata["class_names"] == ["ball", "box", "stick"]
    assert (metadata["dim"], metadata["groups"], metadata["up"]) == (3, 8, "y")
    assert (metadata["least_points"], metadata["num_points"]) == (8, 128)
    assert metadata["checkpoint"] == str(classifier)
    assert len(metadata["checkpoint_sha256"]) == 64


def test_no_file_names_the_folder_of_the_code(classifier):
    for suffix in (".pt2", ".onnx"):
        assert str(ROOT).encode() not in classifier.with_name(f"program{suffix}").read_bytes()


ALONE = """
import json, sys
import numpy as np, torch
import recon_fast.kernels
files = {{"{key}": ""}}
program = torch.export.load("program.pt2", extra_files=files).module()
assert json.loads(files["{key}"])["class_names"] == ["ball", "box", "stick"]
given = np.load("clouds.npz")
np.savez("out.npz", **{{name: program(torch.from_numpy(given[name])).numpy() for name in given}})
others = {{"h5py", "timm", "msgspec", "rich", "safetensors", "onnx", "recon_fast.models", "recon_fast.tasks"}}
assert not others & set(sys.modules), others & set(sys.modules)
"""


def test_an_archive_runs_with_torch_and_the_kernels_alone(classifier):
    folder = classifier.parent
    np.savez(folder / "clouds.npz", **{f"{batch}-{count}": clouds(batch, count) for batch, count in SIZES})
    code = ALONE.format(key=METADATA)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, env={"PYTHONPATH": str(ROOT)})
    found = np.load(folder / "out.npz")
    for batch, count in SIZES:
        want = logits(classifier, clouds(batch, count))
        same(torch.from_numpy(found[f"{batch}-{count}"]), want)


MODELS = {
    "zeroshot": lambda: ReCon(replace(TINY_MODEL, depth=1, image_dim=8, text_dim=8)),
    "svm": lambda: TwoTower(replace(TINY_MODEL, arch="twotower")),
    "global": lambda: PartSegmenter(replace(TINY_MODEL, depth=3), 4, 2),
    "classification": lambda: Classifier(TINY_MODEL, 3),
}


@pytest.mark.parametrize("kind", MODELS)
def test_features_of_every_model(kind, tmp_path):
    checkpoint = write_model(MODELS[kind](), tmp_path / "model.safetensors")
    program = Program(recon_fast.load(checkpoint, "cpu", "fp32"), kind)
    assert not any("reconstruction" in name or "head" in name for name in program.state_dict())
    if kind == "zeroshot":
        (file,) = export(checkpoint, tmp_path / "program.pt2", ExportConfig(kind=kind))
        program = torch.export.load(file).module()
    want = recon_fast.load(checkpoint, "cpu", "fp32").embed(clouds(2, 140), kind)
    same(program(clouds(2, 140)), want)


def test_what_is_refused_leaves_what_was_there(classifier, tmp_path, monkeypatch, capsys):
    nothing = SimpleNamespace(graph_module=torch.nn.Identity())
    monkeypatch.setattr(torch.export, "export", lambda *_, **__: nothing)
    out = tmp_path / "a.pt2"
    out.write_text("before")
    for arguments, message in (
        ([out], "out must not exist yet (or give --overwrite true), got"),
        ([tmp_path / "a.pt"], "out must be a file .pt2 or .onnx, or a name without suffix, got"),
        ([tmp_path / "no" / "a.pt2"], "out must lie in a folder that exists, got"),
        ([out, "--overwrite", "--kind", "zeroshot"], "needs a pretraining checkpoint with a text projection"),
        ([out, "--overwrite", "--num_heads", "5"], "model.dim must be a multiple of model.num_heads"),
    ):
        assert main(["export", str(classifier), *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.setattr(module, "_WRITERS", {".pt2": (lambda *_: lambda points: points.sum(), ())})
    with pytest.raises(InputError, match=r"a\.pt2 must give what the model gives"):
        export(classifier, out, ExportConfig(overwrite=True))
    monkeypatch.setattr(module, "_WRITERS", {".onnx": (None, ("no_such_package",))})
    with pytest.raises(InputError, match=r"no_such_package: pip install 'recon-fast\[export\]'"):
        export(classifier, tmp_path / "a.onnx")
    assert out.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.pt2"]
