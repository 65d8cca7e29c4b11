"""Part segmentation: training, selection, resuming, evaluation, what a run leaves, what cannot start."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import TINY_MODEL, Lines, tiny_parts

from recon_fast.checkpoint import export_official, save_weights, weights_metadata
from recon_fast.checkpoint.training import list_checkpoints
from recon_fast.cli import main
from recon_fast.config import DataConfig, OptimConfig, SaveConfig
from recon_fast.config.downstream import ChangeConfig, EncoderConfig, PartsegConfig
from recon_fast.config.recipes import packaged_recipes, recipe_file
from recon_fast.errors import InputError
from recon_fast.models import PartSegmenter, ReCon, TwoTower
from recon_fast.parser import parse
from recon_fast.tasks.partseg import partseg
from recon_fast.training import loop as loop_module


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A tiny encoder, as pretraining leaves it."""
    torch.manual_seed(0)
    model = ReCon(replace(TINY_MODEL, image_dim=8, text_dim=8))
    folder = tmp_path_factory.mktemp("pretrained")
    save_weights(model, folder / "model.safetensors", weights_metadata(model, None, {"points": 512}))
    return folder


def config(out, checkpoint=None, **changes):
    base = PartsegConfig(
        out=str(out),
        checkpoint=None if checkpoint is None else str(checkpoint),
        device="cpu",
        precision="fp32",
        model=EncoderConfig(num_group=8, group_size=8, drop_path=0.1),
        data=DataConfig(num_points=64, rotate="none"),
        optim=OptimConfig(epochs=3, batch_size=6, lr=3e-4, warmup_epochs=1, clip_grad=10.0),
        validation=0.2,
        votes=2,
        pictures=2,
        save=SaveConfig(every=1, keep=20, log_every=1, tensorboard=False),
    )
    return replace(base, **changes)


def run(config, resume=None, console=None, data=None):
    return partseg(config, resume, console or Lines(), data or tiny_parts(40))


def test_a_run_learns_and_leaves_what_it_says(tmp_path, pretrained):
    console, out = Lines(), tmp_path / "run"
    optim = OptimConfig(epochs=14, batch_size=8, lr=1e-3, warmup_epochs=1, clip_grad=10.0)
    result = run(config(out, pretrained, optim=optim), console=console, data=tiny_parts(80))
    scores = result.scores
    assert scores.instance_miou > 70  # of two and three parts
    assert result.voted.instance_miou > 65
    saved = json.loads((out / "result.json").read_text())
    for name in ("instance_miou", "class_miou", "accuracy"):
        assert saved[name] == getattr(scores, name)
        assert saved["voted"][name] == getattr(result.voted, name)
    assert saved["selected_on"] == "validation"
    assert (saved["categories"], saved["parts"], saved["num_points"], saved["test"]) == (2, 5, 64, 20)
    box = saved["by_category"]["box"]
    assert box["shapes"] == 10
    assert box["miou"] == pytest.approx(100 * scores.iou[1::2].mean())
    assert box["accuracy"] == pytest.approx(100 * scores.accuracies[1::2].mean())
    rows = list(csv.reader((out / "parts.csv").read_text().splitlines()))
    assert [row[:2] for row in rows] == [["category", "shapes"], ["ball", "10"], ["box", "10"]]
    picture = np.asarray(Image.open(out / "parts.png").convert("RGB"))
    for color in ([0, 114, 178], [230, 159, 0], [0, 158, 115]):
        assert (np.abs(picture - np.array(color)).max(2) < 12).sum() > 20
    assert console.has("encoder of", "model.safetensors")
    assert console.has("2 categories, 5 parts")
    assert console.has("ball", "10", "mIoU %")
    assert console.has("instance mIoU", "voted", "chosen by: validation")
    assert not console.has("optimistic")
    assert not console.has("512")  # points that clouds need not have: they are resampled
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    selected = [line["validation_instance_miou"] for line in lines if "validation_instance_miou" in line]
    assert saved["epoch"] == 1 + int(np.argmax(selected))
    assert lines[0]["nll"] == pytest.approx(np.log(5), abs=0.7)
    # The result is of the weights in best/, and they can be tested again.
    again = run(config(tmp_path / "again", out / "best", evaluate=True), data=tiny_parts(80))
    np.testing.assert_array_equal(again.scores.iou, scores.iou)
    np.testing.assert_array_equal(again.voted.iou, result.voted.iou)
    console = Lines()
    other = EncoderConfig(num_group=16, group_size=8)
    settings = config(tmp_path / "other", out / "best", evaluate=True, model=other, votes=0, pictures=0)
    run(settings, console=console, data=tiny_parts(80))
    assert console.has("is of 8 groups of 8 points, here they are 16 of 8")
    assert not (tmp_path / "other" / "parts.png").exists()


def weights(folder):
    return {name: value.clone() for name, value in load_file(folder / "model.safetensors").items()}


def test_resume_is_bit_exact(tmp_path, pretrained, monkeypatch):
    whole = run(config(tmp_path / "whole", pretrained))
    real = loop_module.Loop.advance

    def stop(loop, *rest):
        if loop.step == 7:
            raise KeyboardInterrupt
        return real(loop, *rest)

    monkeypatch.setattr(loop_module.Loop, "advance", stop)
    with pytest.raises(KeyboardInterrupt):
        run(config(tmp_path / "run", pretrained))
    monkeypatch.undo()
    other = tiny_parts(40)
    other.parts[0] = 1 - other.parts[0]
    with pytest.raises(InputError, match="trained on tiny parts, other shapes"):
        run(config(tmp_path / "run", pretrained), resume=tmp_path / "run", data=other)
    resumed = run(config(tmp_path / "run", pretrained), resume=tmp_path / "run")
    for folder in ("best", f"checkpoints/{list_checkpoints(tmp_path / 'run')[-1].name}"):
        a, b = weights(tmp_path / "whole" / folder), weights(tmp_path / "run" / folder)
        assert all(torch.equal(a[name], b[name]) for name in a)
    np.testing.assert_array_equal(resumed.scores.iou, whole.scores.iou)


def write_lists(root):
    """A bag and a mug for testing, as many for validation, twice as many for training; 64 points each."""
    rng = np.random.default_rng(0)
    lists = {"train": range(2), "val": [2], "test": [3]}
    (root / "train_test_split").mkdir(parents=True)
    for synset, first in (("02773838", 4), ("03797390", 36)):
        (root / synset).mkdir()
        for i in range(4):
            table = np.column_stack([rng.random((64, 6)), first + np.arange(64) % 2])
            np.savetxt(root / synset / f"shape{i}.txt", table, "%.6f")
    for name, numbers in lists.items():
        keys = [f"shape_data/{synset}/shape{i}" for synset in ("02773838", "03797390") for i in numbers]
        (root / "train_test_split" / f"shuffled_{name}_file_list.json").write_text(json.dumps(keys))
    return root


def test_the_official_protocol_and_lists(tmp_path, pretrained):
    root, console = write_lists(tmp_path / "set"), Lines()
    data = DataConfig(path=str(root), num_points=100, rotate="none")  # the clouds have 64
    optim = OptimConfig(epochs=1, batch_size=3, lr=1e-4, warmup_epochs=0)
    settings = {"data": data, "optim": optim, "votes": 0, "pictures": 0}
    partseg(config(tmp_path / "honest", pretrained, **settings), None, console)
    assert console.has("4 shapes to train, 2 to select (validation), 2 to test, 16 categories, 50 parts")
    console = Lines()
    partseg(config(tmp_path / "run", pretrained, official_protocol=True, **settings), None, console)
    assert console.has("6 shapes to train, 2 to select (test), 2 to test")
    assert console.has("optimistic")
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["by_category"]["Airplane"] == {"shapes": 0, "miou": None, "accuracy": None}
    assert saved["by_category"]["Bag"]["shapes"] == saved["by_category"]["Mug"]["shapes"] == 1
    assert saved["voted"] is None


def test_an_official_segmenter_is_tested(tmp_path):
    torch.manual_seed(0)
    architecture = replace(TINY_MODEL, dim=192, num_heads=3, decoder_num_heads=3, skip_near_origin=True)
    model = PartSegmenter(architecture, 5, 2)
    file = tmp_path / "official.pth"
    torch.save({"base_model": export_official(model)}, file)
    console = Lines()
    official = run(config(tmp_path / "a", file, evaluate=True, votes=0), console=console)
    assert console.has("is of 128 groups of 32 points, here they are 8 of 8")
    save_weights(model, tmp_path / "model.safetensors", weights_metadata(model, None))
    ours = run(config(tmp_path / "b", tmp_path / "model.safetensors", evaluate=True, votes=0))
    np.testing.assert_array_equal(official.scores.iou, ours.scores.iou)


@pytest.mark.parametrize(
    ("changes", "data", "message"),
    [
        ({}, {"parts": None}, "must have a part for every point, got none in tiny parts"),
        ({}, {"class_parts": None}, "must have a part for every point"),
        ({}, {"class_parts": [[0, 1], []]}, "every category must have parts, got none of box"),
        ({}, {"class_parts": [[0, 1], [1, 2, 3, 4]]}, "got part 1 in ball and in box"),
        ({}, {"class_parts": [[0, 1], [2, 3]]}, "shape-1 of tiny parts has part 4, which box has not"),
        ({}, {"labels": None}, "must have labels"),
        ({"checkpoint": "two towers"}, {}, "checkpoint must be of arch recon, got twotower"),
        ({"evaluate": True}, {}, "with a part segmenter, got another"),
        ({"evaluate": True, "checkpoint": "segmenter"}, {}, "knows 3 categories, 5 parts, the data"),
        ({"optim": OptimConfig(epochs=1, batch_size=64, warmup_epochs=0)}, {}, "at most the 24 shapes"),
    ],
)  # fmt: skip
def test_what_cannot_start_leaves_no_folder(tmp_path, pretrained, changes, data, message):
    made = {
        "two towers": TwoTower(replace(TINY_MODEL, arch="twotower")),
        "segmenter": PartSegmenter(TINY_MODEL, 5, 3),
    }
    if model := made.get(changes.get("checkpoint")):
        file = tmp_path / "model.safetensors"
        save_weights(model, file, weights_metadata(model, None))
        changes = {**changes, "checkpoint": str(file)}
    changes = {"checkpoint": str(pretrained), **changes}
    with pytest.raises(InputError, match=message):
        run(config(tmp_path / "run", **changes), data=replace(tiny_parts(40), **data))
    assert not (tmp_path / "run").exists()


def test_settings_that_make_no_sense():
    for changes, message in (({"pictures": -1}, "pictures"), ({"votes": -1}, "votes")):
        with pytest.raises(InputError, match=message):
            config("run", **changes)
    with pytest.raises(InputError, match="scale"):
        ChangeConfig(scale=0.5)


def test_recipes():
    official = parse("partseg", ["--config", "shapenetpart", "--official-protocol"]).config
    assert official.official_protocol
    assert (official.data.num_points, official.model.num_group) == (2048, 128)
    assert official.augment.scales == pytest.approx((0.8, 1.25))
    assert official.optim == PartsegConfig().optim
    for name in packaged_recipes("partseg"):
        given = parse("partseg", ["--config", name])
        assert (given.config.command, given.resume) == ("partseg", None)
        header = recipe_file("partseg").read_text().split(f"\n{name}:\n")[0].rsplit("\n\n", 1)[1]
        for word in ("recon-fast partseg", "Hardware:", "Time:", "Expected:"):
            assert word in header


def test_the_command_runs_on_its_own_data(tmp_path, pretrained, capsys):
    arguments = (
        f"--checkpoint {pretrained} --out {tmp_path / 'run'} --device cpu --data.shapes 50 "
        "--data.num_points 64 --model.num_group 8 --model.group_size 8 --optim.epochs 1 "
        "--optim.warmup_epochs 0 --optim.batch_size 8 --validation 0 --votes 0 --pictures 1"
    )
    assert main(["partseg", *arguments.split()]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'run'}\n"
    assert "10 categories, 29 parts" in captured.err
    assert (tmp_path / "run" / "parts.png").is_file()
