"""torch.compile is tried, compared, and left out where it fails."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import Lines, tiny_config, tiny_shapes

from recon_fast.training import compiled
from recon_fast.training.pretrain import pretrain


def run(folder, monkeypatch, backend, **changes):
    """A run whose `compile: on` goes to another backend than inductor, which takes a minute."""
    real, calls = compiled.compile_terms, []

    def compile_terms(*arguments):
        calls.append(real(*arguments, backend=backend))
        return calls[-1]

    monkeypatch.setattr(compiled, "compile_terms", compile_terms)
    console = Lines()
    config = tiny_config(folder, compile="on", **changes)
    result = pretrain(config, None, console, tiny_shapes())
    return load_file(result.checkpoint / "model.safetensors"), calls, console


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

    weights, calls, console = run(tmp_path / "run", monkeypatch, backend)
    assert calls == [True]
    assert len(graphs) == 1  # the whole model, and never compiled again
    assert console.has("the step is compiled")
    for name, value in plain.items():
        torch.testing.assert_close(weights[name], value, msg=name)


def test_a_compiler_that_fails_is_left_out(tmp_path, monkeypatch, plain):
    def backend(_graph, _inputs):
        raise RuntimeError("no compiler\nand a long trace")

    weights, calls, console = run(tmp_path / "run", monkeypatch, backend)
    assert calls == [False]
    assert console.has("torch.compile is left out", "no compiler")
    assert all(torch.equal(weights[name], value) for name, value in plain.items())


def test_a_compiler_that_is_wrong_is_left_out(tmp_path, monkeypatch, plain):
    def backend(graph, _inputs):
        return lambda *inputs: [2 * value for value in graph(*inputs)]

    weights, calls, console = run(tmp_path / "run", monkeypatch, backend)
    assert calls == [False]
    assert console.has("torch.compile is left out", "instead of", "mdm")
    assert all(torch.equal(weights[name], value) for name, value in plain.items())


def test_auto_compiles_on_gpus_alone():
    assert compiled.wants_compile("auto", torch.device("cuda"))
    assert not compiled.wants_compile("auto", torch.device("cpu"))
    assert compiled.wants_compile("on", torch.device("cpu"))
    assert not compiled.wants_compile("off", torch.device("cuda"))
