"""What version 0.1.0 wrote still opens: a run, a downstream run, a packed file and a folder of shards.

tests/data/first_house.tar.xz holds them, with the 12 clouds they were made of. The runs were left after step
4, their weights rounded to seven bits of mantissa; LOSSES are those of version 0.1.0 continuing them.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from recon_fast.cli import main

LOSSES = {"run": [0.6794376969337463, 0.7081329375505447], "linear": [1.1111525297164917]}


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    with tarfile.open(Path(__file__).parent / "data" / "first_house.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("run", "command"), [("run", "pretrain"), ("linear", "linear")])
def test_runs_are_continued(old, run, command):
    assert main([command, "--resume", run]) == 0
    lines = [json.loads(line) for line in (old / run / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-len(LOSSES[run]) :] == pytest.approx(LOSSES[run], rel=1e-3)
    assert (old / run / "checkpoints").is_dir()
    assert (run != "linear") or json.loads((old / run / "result.json").read_text())["test"] == 1


@pytest.mark.parametrize("packed", ["packed.h5", "shards"])
def test_packed_sets_are_trained_on(old, packed):
    shutil.rmtree(old / "clouds")
    out = ["--out", "new", "--save.tensorboard", "false", "--optim.epochs", "2"]
    settings = ["--config", "run/config.yaml", "--data.path", packed, *out]
    assert main(["pretrain", *settings]) == 0
    found = json.loads((old / "new" / "run.json").read_text())["starts"][0]["data"]
    assert (found["shapes"], found["held_out"], found["classes"], found["points"]) == (12, 1, 3, 858)
