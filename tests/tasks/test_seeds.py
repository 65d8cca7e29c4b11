"""A task for several seeds: one folder, resumed where it was stopped, one row of a table."""

import csv
import io
import json
import os
import signal
import statistics
from dataclasses import replace
from functools import partial

import pytest
import test_fewshot
import test_finetune
import yaml
from tiny import TINY_MODEL, Lines, tiny_shapes
from tiny_checkpoint import write_folder, write_model

from recon_fast.cli import main
from recon_fast.config import OptimConfig
from recon_fast.errors import InputError
from recon_fast.models import ReCon
from recon_fast.parser import parse
from recon_fast.tasks.fewshot import fewshot
from recon_fast.tasks.finetune import finetune
from recon_fast.tasks.seeds import read_seeds, run_seeds
from recon_fast.tasks.table import collect, merged
from recon_fast.training.loop import Loop

SHAPES = tiny_shapes(60, features=False)
TASK = partial(finetune, shapes=SHAPES)
ONCE = OptimConfig(epochs=2, batch_size=12, lr=1e-3, warmup_epochs=0)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    return write_model(ReCon(TINY_MODEL), tmp_path_factory.mktemp("pretrained") / "model.safetensors")


def config(out, pretrained, **changes):
    return test_finetune.config(out, pretrained, protocol="linear", optim=ONCE, votes=0, **changes)


def accuracies(run):
    files = sorted(run.glob("seed-*/result.json"))
    return {file.parent.name: json.loads(file.read_text())["accuracy"] for file in files}


def test_seeds_as_text():
    assert read_seeds("0..3") == [0, 1, 2, 3]
    assert read_seeds("5,0..2") == [5, 0, 1, 2]
    for text in ("8", "3..1", "0,0", "0..2,1", "a", "0..", "-1..2", "0...3", "0..9999999999999", "1.5,2", ""):
        with pytest.raises(InputError, match=r"seeds must be 2 to 1000 different ones, as 0\.\.7 or 0,3,5"):
            read_seeds(text)


def test_stopped_and_continued(tmp_path, pretrained, monkeypatch):
    whole, run, console = tmp_path / "whole", tmp_path / "run", Lines()
    assert run_seeds(TASK, config(whole, pretrained), "0,2", Lines()).stopped_by is None
    real, steps = Loop.advance, []

    def advance(loop, *rest):
        steps.append(loop.step)
        if len(steps) == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(loop, *rest)

    monkeypatch.setattr(Loop, "advance", advance)
    assert run_seeds(TASK, config(run, pretrained), "0,2", console).stopped_by == "SIGTERM"
    assert accuracies(run).keys() == {"seed-0"}
    assert run_seeds(TASK, config(run, pretrained), "0,2", console).stopped_by is None
    assert steps == [*range(6), *range(4), *range(4, 6)]
    assert accuracies(run) == accuracies(whole)
    assert run_seeds(TASK, config(run, pretrained), "0,2", console).run == run
    assert console.has("seeds 0,2, 2 of 2 done | run ")
    assert len(steps) == 12


def test_what_is_no_folder_of_these_seeds(tmp_path, pretrained):
    run = tmp_path / "run"
    with pytest.raises(InputError, match="no/such/run"):
        run_seeds(TASK, config(run, "no/such/run"), "0,1", Lines())
    assert not run.exists()
    run_seeds(TASK, config(run, pretrained), "0,1", Lines())
    for changes, message in (
        ({"validation": 0.3}, r"validation was 0\.2, is 0\.3"),
        ({"checkpoint": "x"}, "checkpoint was .*, is x"),
    ):
        with pytest.raises(InputError, match=message):
            run_seeds(TASK, replace(config(run, pretrained), **changes), "0,1", Lines())
    with pytest.raises(InputError, match=r"out must be a new folder or one of seeds, got .*seed-0"):
        run_seeds(TASK, config(run / "seed-0", pretrained), "0,1", Lines())


def test_few_shot(tmp_path, pretrained):
    run, task = tmp_path / "fewshot", partial(fewshot, shapes=SHAPES)
    settings = test_fewshot.config(
        run, pretrained, folds=1, optim=OptimConfig(epochs=1, batch_size=4, warmup_epochs=0)
    )
    run_seeds(task, settings, "0,1", Lines())
    (run / "seed-1" / "result.json").unlink()  # it was stopped after its folds
    run_seeds(task, settings, "0,1", Lines())
    rows = collect([run], published=False)
    assert [row.data for row in rows] == ["tiny set 2 way 2 shot", "tiny set 3 way 2 shot"]
    assert all(row.result.endswith(" (2 seeds)") for row in rows)


def result(folder, seed, accuracy, **changes):
    folder.mkdir(parents=True)
    settings = {"seed": seed, "out": str(folder), "optim": {"lr": 0.1}, **changes}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    content = {"task": "svm", "data": "set", "accuracy": accuracy, "voted_accuracy": accuracy + 1,
               "knn": {"accuracy": 50.0 + seed}, "note": f"kNN {50.0 + seed:.2f}",
               "checkpoint": "x"}  # fmt: skip
    (folder / "result.json").write_text(json.dumps(content))
    return folder


def test_a_row_of_a_table(tmp_path, capsys):
    numbers = [90.0, 92.0, 91.0]
    for seed, number in enumerate(numbers):
        result(tmp_path / "a" / f"seed-{seed}", seed, number)
    other = result(tmp_path / "other", 3, 80.0, optim={"lr": 0.2})
    again = result(tmp_path / "again", 0, 90.0, device="cuda")
    rows = collect([tmp_path / "a", other, again], published=False)
    assert [row.result for row in rows] == ["91.00 ± 1.00 (3 seeds)", "80.00", "90.00"]
    twice = collect([tmp_path / "a", tmp_path / "a" / "seed-0"], published=False)
    assert [row.result for row in twice] == ["91.00 ± 1.00 (3 seeds)"]
    assert statistics.stdev(numbers) == 1
    assert rows[0].note == "92.00 ± 1.00 (3 seeds) voted; kNN 51.00 ± 1.00 (3 seeds)"
    assert rows[0].run == f"{tmp_path / 'a' / 'seed-0'} and 2 more"
    assert merged([other])[0].note == "81.00 voted; kNN 53.00"
    best = ["table", str(tmp_path / "a"), "--published", "false", "--best"]
    for form, text in (("markdown", "| set | 92.00 (best of 3) |"), ("latex", "set & 92.00 (best of 3) &")):
        assert main([*best, "--format", form]) == 0
        assert text in capsys.readouterr().out
    assert main([*best, "--format", "csv"]) == 0
    assert list(csv.reader(io.StringIO(capsys.readouterr().out)))[1][2] == "92.00 (best of 3)"
    assert main([*best[:-1], "--format", "latex"]) == 0
    assert r"91.00 $\pm$ 1.00 (3 seeds)" in capsys.readouterr().out


def test_command(tmp_path, pretrained, monkeypatch, capsys):
    data, run = write_folder(tmp_path / "data"), tmp_path / "run"
    arguments = ["svm", "--data.path", str(data), "--data.num_points", "64", "--checkpoint", str(pretrained)]
    arguments += ["--out", str(run), "--seeds"]
    assert main([*arguments, "0,1"]) == 0
    assert capsys.readouterr().out == f"{run}\n"
    assert yaml.safe_load((run / "config.yaml").read_text())["seeds"] == "0,1"
    (run / "seed-1" / "result.json").unlink()
    assert main([*arguments, "0..2"]) == 0
    assert len(accuracies(run)) == 3
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["linear", "--seeds", "0..2"]) == 2
    assert "seeds run in one process, got 2 of torchrun" in capsys.readouterr().err


def test_resume_takes_the_seeds_of_the_folder(tmp_path):
    settings = parse("linear", ["--seeds", "0..2"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({**settings.config.to_dict(), "seeds": "0..2"}))
    again = parse("linear", ["--resume", str(tmp_path)])
    assert again.options == settings.options == {"seeds": "0..2"}
    assert again.config.out == str(tmp_path)
