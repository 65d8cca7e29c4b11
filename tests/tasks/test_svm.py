"""SVM and kNN on frozen features: what they say, what a run leaves, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import Lines, tiny_shapes
from tiny_checkpoint import write_checkpoint, write_folder

import recon_fast
from recon_fast.cli import main
from recon_fast.config.frozen import FrozenConfig, SvmConfig
from recon_fast.errors import InputError
from recon_fast.tasks.frozen import knn_predictions, svm_probe
from recon_fast.training.probe import svm_accuracy


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "model.safetensors")


def config(checkpoint, out, **changes):
    return SvmConfig(
        checkpoint=None if checkpoint is None else str(checkpoint),
        out=str(out),
        device="cpu",
        precision="fp32",
        **changes,
    )


def test_a_run_says_what_the_features_are_worth(checkpoint, tmp_path):
    shapes, console = tiny_shapes(60, features=False), Lines()
    result = svm_probe(config(checkpoint, tmp_path / "run", k=5), console, shapes)
    encoder = recon_fast.load(checkpoint, "cpu", "fp32")
    train, test = (
        encoder.embed([shapes.cloud(i) for i in shapes.rows(split)]) for split in ("trainval", "test")
    )
    labels = shapes.labels[shapes.rows("trainval")], shapes.labels[shapes.rows("test")]
    assert result.svm.accuracy == 100 * svm_accuracy(train, labels[0], test, labels[1])
    guess = knn_predictions(train, labels[0], test, 3, 5)
    assert result.knn.accuracy == 100 * (guess == labels[1]).mean()
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["accuracy"] == result.svm.accuracy > 50
    assert saved["knn"]["accuracy"] == result.knn.accuracy > 50
    assert saved["C"] == 0.075
    assert saved["knn"]["k"] == 5
    assert (saved["train"], saved["test"], saved["num_points"], saved["seed"]) == (45, 15, 128, 0)
    assert saved["test_by_class"] == {"ball": 5, "box": 5, "stick": 5}
    assert saved["checkpoint"] == str(checkpoint)
    assert len(saved["checkpoint_sha256"]) == 64
    assert "torch" in saved["versions"]
    assert (tmp_path / "run" / "config.yaml").is_file()
    with Image.open(tmp_path / "run" / "confusion.png") as picture:
        assert picture.size[0] > 100
    assert (tmp_path / "run" / "confusion.csv").read_text().count("\n") == 4
    assert console.has("45 shapes train, 15 test, 3 classes")


def test_votes_are_weighted_by_cosine():
    train = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6], [0, 1]], np.float32)
    labels = np.array([0, 1, 1, 2])
    query = np.array([[2, 0], [0.1, 3]], np.float32)
    assert knn_predictions(train, labels, query, 3, k=3).tolist() == [0, 2]  # one near against two far
    assert knn_predictions(train, labels, query, 3, k=3, temperature=1e3).tolist() == [1, 2]  # plain majority
    assert knn_predictions(train, labels, query, 3, k=99, temperature=1e-6).tolist() == [0, 2]


def test_without_a_checkpoint_it_says_so(tmp_path):
    console, shapes = Lines(), tiny_shapes(12, features=False)
    model = FrozenConfig(size="tiny", num_group=8, group_size=8)
    runs = [
        svm_probe(config("random", tmp_path / str(i), model=model, seed=3), console, shapes) for i in range(2)
    ]
    assert console.has("the encoder is untrained")
    saved = json.loads((tmp_path / "0" / "result.json").read_text())
    assert saved["checkpoint"] is None
    assert saved["width"] == 192
    np.testing.assert_array_equal(runs[0].svm.confusion, runs[1].svm.confusion)  # a function of the seed


def test_command(checkpoint, tmp_path, capsys):
    data = write_folder(tmp_path / "data")
    arguments = ["svm", "--checkpoint", str(checkpoint), "--data.path", str(data)]
    arguments += ["--device", "cpu", "--precision", "fp32"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "run")
    assert "linear SVM, C 0.075" in err
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 2
    assert "out must be a new or empty folder" in capsys.readouterr().err
    np.save(data / "train" / "box" / "bad.npy", np.full((99, 3), np.nan))
    (data / "train" / "box" / "bad.txt").write_text("box")
    assert main([*arguments, "--out", str(tmp_path / "new")]) == 2
    err = capsys.readouterr().err
    assert "must be finite, got NaN or inf in 99 of 99 points" in err
    assert not (tmp_path / "new").exists()
    again = [*arguments, "--data.on_problem", "skip", "--out", str(tmp_path / "new")]
    assert main(again) == 0


def test_what_is_refused(checkpoint, tmp_path):
    shapes = tiny_shapes(24, features=False)
    one_class = replace(shapes, labels=np.zeros(24, np.int64))
    bad = {
        "must have labels": replace(shapes, labels=None),
        "must have shapes to test on": replace(shapes, held_out=np.zeros(24, bool)),
        "must have shapes to train on": replace(shapes, held_out=np.ones(24, bool)),
        "must have at least two classes to train on": one_class,
    }
    for message, data in bad.items():
        with pytest.raises(InputError, match=message):
            svm_probe(config(checkpoint, tmp_path / "run"), Lines(), data)
    with pytest.raises(InputError, match="checkpoint must be a file"):
        svm_probe(config(tmp_path / "no", tmp_path / "run"), Lines(), shapes)
    assert not (tmp_path / "run").exists()
    for changes, message in (
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"seed": -1}, "seed must be in"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            config(None, "x", **changes)
