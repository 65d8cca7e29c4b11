"""Fine-tuning: splits, training, selection, resuming, what a run leaves."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import Lines, tiny_shapes

from recon_fast.checkpoint.restore import restore
from recon_fast.checkpoint.training import list_checkpoints
from recon_fast.config import DataConfig, OptimConfig, SaveConfig
from recon_fast.config.downstream import AugmentConfig, EncoderConfig, FinetuneConfig
from recon_fast.errors import InputError
from recon_fast.models import Classifier
from recon_fast.tasks.finetune import finetune
from recon_fast.training import loop as loop_module
from recon_fast.training.downstream import choose_splits


def config(out, checkpoint=None, **changes):
    base = FinetuneConfig(
        out=str(out),
        checkpoint=None if checkpoint is None else str(checkpoint),
        device="cpu",
        precision="fp32",
        model=EncoderConfig(num_group=8, group_size=8, drop_path=0.1),
        data=DataConfig(num_points=64, rotate="none"),
        optim=OptimConfig(epochs=4, batch_size=6, lr=1e-3, warmup_epochs=1, clip_grad=10.0),
        validation=0.2,
        votes=2,
        save=SaveConfig(every=1, keep=20, log_every=1, tensorboard=False),
    )
    return replace(base, **changes)


def shapes(count=60):
    return tiny_shapes(count, features=False)


def run(config, resume=None, console=None, data=None):
    return finetune(config, resume, console or Lines(), data or shapes())


def test_a_run_learns_and_leaves_what_it_says(tmp_path, pretrained):
    console, out = Lines(), tmp_path / "run"
    changes = {"optim": OptimConfig(epochs=12, batch_size=12, lr=2e-3, warmup_epochs=1, clip_grad=10.0)}
    result = run(config(out, pretrained, **changes), console=console, data=shapes(160))
    assert result.scores.accuracy > 80  # of three classes
    saved = json.loads((out / "result.json").read_text())
    assert saved["accuracy"] == result.scores.accuracy
    assert saved["voted_accuracy"] == result.voted.accuracy
    assert saved["selected_on"] == "validation"
    assert saved["test"] == result.scores.confusion.sum() == 40
    assert list(saved["by_class"]) == ["ball", "box", "stick"]
    rows = list(csv.reader((out / "confusion.csv").read_text().splitlines()))
    assert [row[0] for row in rows[1:]] == ["ball", "box", "stick"]
    assert np.array(rows[1:])[:, 1:].astype(int).sum() == 40
    assert np.asarray(Image.open(out / "confusion.png").convert("L")).std() > 10
    assert console.has("learn", "to select (validation)")
    assert not console.has("optimistic")
    # The result is of the weights in best/, and they can be tested again.
    again = run(config(tmp_path / "again", out / "best", evaluate=True), data=shapes(160))
    np.testing.assert_array_equal(again.scores.confusion, result.scores.confusion)
    np.testing.assert_array_equal(again.voted.confusion, result.voted.confusion)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    selected = [line["validation_accuracy"] for line in lines if "validation_accuracy" in line]
    assert len(selected) == 12
    assert saved["epoch"] == 1 + int(np.argmax(selected))  # the first of the best


def test_the_encoder_comes_from_the_checkpoint(tmp_path, pretrained):
    console = Lines()
    run(config(tmp_path / "run", pretrained, optim=OptimConfig(
        epochs=1, batch_size=6, lr=1e-12, min_lr=1e-13, warmup_epochs=0)), console=console)  # fmt: skip
    assert console.has("encoder of", "model.safetensors")
    model = restore(tmp_path / "run" / "best").model
    assert isinstance(model, Classifier)
    before = restore(pretrained).model.state_dict()
    for name, value in model.encoder.named_parameters():
        torch.testing.assert_close(value, before[f"encoder.{name}"], msg=name)


def test_a_frozen_encoder_stays_but_for_the_class_token(tmp_path, pretrained):
    run(config(tmp_path / "run", pretrained, protocol="linear"))
    model = restore(tmp_path / "run" / "best").model
    assert model.task["head"] == "linear"
    assert model.task["class_names"] == ["ball", "box", "stick"]
    before = restore(pretrained).model.state_dict()
    changed = {
        name for name, value in model.encoder.named_parameters()
        if not torch.equal(value, before[f"encoder.{name}"])
    }  # fmt: skip
    assert changed == {"cls_token", "cls_pos"}


def test_the_size_of_groups_is_the_checkpoints_where_none_is_given(tmp_path, pretrained):
    known = restore(pretrained).model.config.group_size
    once, default = OptimConfig(epochs=1, batch_size=6, warmup_epochs=0), EncoderConfig(num_group=8)
    result = run(config(tmp_path / "run", pretrained, model=default, optim=once))
    assert restore(tmp_path / "run" / "best").model.config.group_size == known != 32
    again = run(config(tmp_path / "again", tmp_path / "run" / "best", evaluate=True, model=default))
    np.testing.assert_array_equal(again.scores.confusion, result.scores.confusion)
    few = DataConfig(num_points=known - 1)
    for checkpoint, evaluate in ((pretrained, False), (tmp_path / "run" / "best", True)):
        changes = {"evaluate": evaluate, "model": EncoderConfig(num_group=2), "data": few}
        with pytest.raises(InputError, match="group_size must be at most"):
            run(config(tmp_path / "few", checkpoint, **changes))
    assert not (tmp_path / "few").exists()


def test_groups_may_be_others_than_in_pretraining(tmp_path, pretrained):
    groups = EncoderConfig(num_group=16, group_size=4, drop_path=0.1)
    once = OptimConfig(epochs=1, batch_size=6, warmup_epochs=0)
    result = run(config(tmp_path / "run", pretrained, model=groups, optim=once))
    model = restore(tmp_path / "run" / "best").model
    assert (model.config.num_group, model.config.group_size) == (16, 4)
    again = run(config(tmp_path / "again", tmp_path / "run" / "best", evaluate=True, model=groups))
    np.testing.assert_array_equal(again.scores.confusion, result.scores.confusion)
    regrouped = restore(pretrained, num_group=16, group_size=4).model.eval()
    points = torch.randn(2, 64, 3)
    assert regrouped.encode(points).local_tokens.shape[1] == 16
    assert regrouped.encoder.encode(points).local_tokens.shape[1] == 16


def weights(folder):
    return {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}


def test_resume_is_bit_exact(tmp_path, pretrained, monkeypatch):
    whole = run(config(tmp_path / "whole", pretrained))
    real = loop_module.Loop.advance

    def stop(loop, *rest):
        if loop.step == 17:
            raise KeyboardInterrupt
        return real(loop, *rest)

    monkeypatch.setattr(loop_module.Loop, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path / "run", pretrained))
    monkeypatch.undo()
    assert not (tmp_path / "run" / "result.json").exists()
    resumed = run(config(tmp_path / "run", pretrained), resume=tmp_path / "run")
    for folder in ("best", f"checkpoints/{list_checkpoints(tmp_path / 'run')[-1].name}"):
        a, b = weights(tmp_path / "whole" / folder), weights(tmp_path / "run" / folder)
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert resumed.scores.accuracy == whole.scores.accuracy
    with pytest.raises(InputError, match=r"validation was 0\.2, is 0\.3"):
        run(config(tmp_path / "run", pretrained, validation=0.3), resume=tmp_path / "run")


def test_splits():
    data = shapes()
    train, held_out = np.flatnonzero(~data.held_out), np.flatnonzero(data.held_out)
    splits = choose_splits(data, config("run"))
    assert splits.selected_on == "validation"
    assert sorted([*splits.train, *splits.select]) == train.tolist()
    assert len(splits.select) == 9
    assert np.bincount(data.labels[splits.select]).tolist() == [3, 3, 3]
    assert splits.test.tolist() == held_out.tolist()
    official = choose_splits(data, config("run", official_protocol=True))
    assert official.selected_on == "test"
    assert official.train.tolist() == train.tolist()
    assert official.select.tolist() == held_out.tolist()
    assert choose_splits(data, config("run", validation=0.0)).select is None
    listed = replace(data, validation=np.arange(len(data)) % 8 == 1)
    assert choose_splits(listed, config("run")).select.tolist() == np.flatnonzero(listed.validation).tolist()


def test_official_protocol_says_that_it_is_optimistic(tmp_path, pretrained):
    console = Lines()
    run(config(tmp_path / "run", pretrained, official_protocol=True, votes=0), console=console)
    assert console.has("optimistic")
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["selected_on"] == "test"
    assert saved["voted_accuracy"] is None


def test_without_validation_the_last_epoch_counts(tmp_path, pretrained):
    run(config(tmp_path / "run", pretrained, validation=0.0))
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (saved["selected_on"], saved["epoch"]) == ("last epoch", 4)
    newest = list_checkpoints(tmp_path / "run")[-1]
    a, b = weights(newest), weights(tmp_path / "run" / "best")
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("changes", "data", "message"),
    [
        ({}, {"labels": None}, "must have labels"),
        ({}, {"held_out": np.zeros(60, bool)}, "shapes to test on"),
        ({}, {"held_out": np.ones(60, bool)}, "shapes to train on"),
        ({"optim": OptimConfig(epochs=1, batch_size=64, warmup_epochs=0)}, {}, "at most the 36 shapes"),
        ({"checkpoint": "no/such/run"}, {}, "no/such/run"),
        ({"evaluate": True, "checkpoint": "pretrained"}, {}, "with a classifier"),
        ({"model": EncoderConfig(size="base", num_group=8, group_size=8), "checkpoint": "pretrained"}, {},
         "width 24"),
    ],
)  # fmt: skip
def test_what_cannot_start_leaves_no_folder(tmp_path, pretrained, changes, data, message):
    if changes.get("checkpoint") == "pretrained":
        changes = {**changes, "checkpoint": str(pretrained)}
    with pytest.raises(InputError, match=message):
        run(config(tmp_path / "run", **changes), data=replace(shapes(), **data))
    assert not (tmp_path / "run").exists()


def test_settings_that_make_no_sense():
    for changes, message in (
        ({"votes": -1}, "votes"),
        ({"validation": 1.0}, "validation"),
        ({"head_factor": 0.0}, "head_factor"),
        ({"evaluate": True}, "needs a checkpoint"),
        ({"model": EncoderConfig(num_group=128)}, "num_group must be at most data.num_points"),
    ):
        with pytest.raises(InputError, match=message):
            config("run", **changes)
    with pytest.raises(InputError, match="scale"):
        AugmentConfig(scale=0.5)


def test_a_run_starts_at_random_without_a_checkpoint(tmp_path):
    console = Lines()
    run(config(tmp_path / "run"), console=console)
    assert console.has("starts untrained: 2 blocks of width 288, as the packaged one")
    trained = restore(tmp_path / "run" / "best").model.config
    assert (trained.dim, trained.depth) == (288, 2)
