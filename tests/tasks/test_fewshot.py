"""Few-shot: all folds of all settings, once each."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest
from test_finetune import config as finetune_config
from tiny import Lines, tiny_shapes

from recon_fast.config import OptimConfig
from recon_fast.config.downstream import FewshotConfig
from recon_fast.errors import InputError
from recon_fast.tasks import fewshot as fewshot_module
from recon_fast.tasks.fewshot import fewshot


def config(out, checkpoint, **changes):
    base = finetune_config(out, checkpoint)
    shared = {field.name: getattr(base, field.name) for field in fields(base)}
    optim = OptimConfig(epochs=2, batch_size=4, lr=1e-3, warmup_epochs=0, clip_grad=10.0)
    given = {
        "ways": [2, 3],
        "shots": [2],
        "folds": 2,
        "num_test": 3,
        "validation": 0.0,
        "votes": 0,
        "optim": optim,
    }
    return FewshotConfig(**{**shared, **given, **changes})


def shapes():
    return tiny_shapes(60, features=False)


def test_all_folds(tmp_path, pretrained):
    console, run = Lines(), tmp_path / "run"
    result = fewshot(config(run, pretrained), None, console, shapes())
    assert list(result.accuracies) == [(2, 2), (3, 2)]
    saved = json.loads((run / "result.json").read_text())
    for row in saved["settings"]:
        found = result.accuracies[row["way"], row["shot"]]
        assert row["accuracies"] == found
        assert (row["mean"], row["deviation"]) == (np.mean(found), np.std(found))
        for fold in (0, 1):
            folder = run / f"{row['way']}way_2shot" / f"fold-{fold}"
            of_fold = json.loads((folder / "result.json").read_text())
            assert (of_fold["train"], of_fold["test"]) == (2 * row["way"], 3 * row["way"])
            assert of_fold["selected_on"] == "last epoch"
            assert not (folder / "best").exists()
    assert saved["selected_on"] == "last epoch"
    assert console.has("2 way, 2 shot: ", " ± ")


def test_an_interrupted_run_continues_with_the_next_fold(tmp_path, pretrained, monkeypatch):
    whole = fewshot(config(tmp_path / "whole", pretrained), None, Lines(), shapes())
    real, calls = fewshot_module.finetune, []

    def finetune(*arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(arguments)
        return real(*arguments)

    run = tmp_path / "run"
    monkeypatch.setattr(fewshot_module, "finetune", finetune)
    with pytest.raises(KeyboardInterrupt):
        fewshot(config(run, pretrained), None, Lines(), shapes())
    monkeypatch.setattr(fewshot_module, "finetune", lambda *a: calls.append(a) or real(*a))
    resumed = fewshot(config(run, pretrained), run, Lines(), shapes())
    assert len(calls) == 4
    assert resumed.accuracies == whole.accuracies
    with pytest.raises(InputError, match="folds was 2, is 3"):
        fewshot(config(run, pretrained, folds=3), run, Lines(), shapes())
    with pytest.raises(InputError, match="new or empty folder"):
        fewshot(config(run, pretrained), None, Lines(), shapes())


def test_what_cannot_be_drawn_leaves_no_folder(tmp_path, pretrained):
    run = tmp_path / "run"
    for changes, message in (
        ({"ways": [4]}, "4"),
        ({"shots": [2, 500]}, "500"),
    ):
        with pytest.raises(InputError, match=message):
            fewshot(config(run, pretrained, **changes), None, Lines(), shapes())
        assert not run.exists(), changes
    with pytest.raises(InputError, match="nowhere"):
        fewshot(config(run, "nowhere"), None, Lines(), shapes())
    assert not run.exists()
    with pytest.raises(InputError, match="no labels"):
        fewshot(config(run, pretrained), None, Lines(), replace(shapes(), labels=None))


def test_settings_that_make_no_sense(tmp_path):
    for changes, message in (({"ways": []}, "ways"), ({"shots": [0]}, "shots"), ({"folds": 0}, "folds")):
        with pytest.raises(InputError, match=message):
            config(tmp_path, None, **changes)
