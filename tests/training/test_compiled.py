"""torch.compile is tried, compared, and left out where it fails."""

from contextlib import suppress

import pytest
import torch
from safetensors.torch import load_file
from tiny import Lines, tiny_config, tiny_shapes

from recon_fast.training.losses import compile_losses
from recon_fast.training.pretrain import pretrain


def run(folder, monkeypatch, backend, **changes):
    """A run whose `compile: on` goes to another backend than inductor, which takes a minute."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda losses, options: real(losses, backend=backend))
    console = Lines()
    config = tiny_config(folder, compile="on", **changes)
    result = pretrain(config, None, console, tiny_shapes())
    return load_file(result.checkpoint / "model.safetensors"), console


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    result = pretrain(tiny_config(folder / "run"), None, Lines(), tiny_shapes())
    return load_file(result.checkpoint / "model.safetensors")


def test_a_compiled_run_is_the_same_run(tmp_path, monkeypatch, plain):
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    weights, console = run(tmp_path / "run", monkeypatch, backend)
    assert len(graphs) == 1  # the whole model, and never compiled again
    assert console.has("the step is compiled")
    for name, value in plain.items():
        torch.testing.assert_close(weights[name], value, msg=name)


def test_a_compiler_that_fails_is_left_out(tmp_path, monkeypatch, plain):
    def backend(_graph, _inputs):
        raise RuntimeError("no compiler\nand a long trace")

    weights, console = run(tmp_path / "run", monkeypatch, backend)
    assert console.has("torch.compile is left out", "no compiler")
    assert all(torch.equal(weights[name], value) for name, value in plain.items())


def test_a_compiler_that_is_wrong_is_left_out(tmp_path, monkeypatch, plain):
    def backend(graph, _inputs):
        return lambda *inputs: [2 * value for value in graph(*inputs)]

    weights, console = run(tmp_path / "run", monkeypatch, backend)
    assert console.has("torch.compile is left out", "instead of", "mdm")
    assert all(torch.equal(weights[name], value) for name, value in plain.items())


@pytest.mark.parametrize(
    ("setting", "device", "wanted"),
    [("auto", "cuda", True), ("auto", "cpu", False), ("on", "cpu", True), ("off", "cuda", False)],
)
def test_auto_compiles_on_gpus_alone(tmp_path, setting, device, wanted):
    tried = []

    def first_batch():
        tried.append(True)
        raise KeyboardInterrupt

    config = tiny_config(tmp_path, compile=setting)
    with suppress(KeyboardInterrupt):
        compile_losses(None, config, first_batch, torch.device(device), torch.float32, Lines())
    assert bool(tried) == wanted
