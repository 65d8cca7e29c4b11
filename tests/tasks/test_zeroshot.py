"""Zero-shot: features, teachers that must agree, names, what a run leaves, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import CLASSES, TINY_MODEL, Lines, tiny_shapes
from tiny_checkpoint import TEACHER, class_texts, write_checkpoint, write_folder, write_model

import recon_fast
from recon_fast.cli import main
from recon_fast.config.frozen import QueryTeacherConfig, ZeroShotConfig
from recon_fast.errors import InputError
from recon_fast.models import Classifier, ReCon
from recon_fast.tasks.frozen import zero_shot
from recon_fast.training.probe import nearest_texts, zero_shot_accuracy


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path, monkeypatch):
    """No test sees what this machine's caches hold."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Features of texts, so that each is computed once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def config(store):
    def made(checkpoint, out, teacher=None, **changes):
        teacher = replace(teacher or QueryTeacherConfig(), store=str(store))
        settings = {"device": "cpu", "precision": "fp32", "teacher": teacher, **changes}
        return ZeroShotConfig(checkpoint=str(checkpoint), out=str(out), **settings)

    return made


def shapes(count=96):
    return tiny_shapes(count, features=False)


def test_classes_are_found_by_their_names(config, checkpoint, tmp_path):
    console = Lines()
    result = zero_shot(config(checkpoint, tmp_path / "run"), console, shapes())
    rows = shapes().rows("test")
    features = recon_fast.load(checkpoint, "cpu", "fp32").embed(
        [shapes().cloud(i) for i in rows], "zeroshot_text"
    )
    want = 100 * zero_shot_accuracy(features, class_texts(), shapes().labels[rows], np.arange(3))
    assert result.scores.accuracy == pytest.approx(want)
    assert result.top[1] == result.scores.accuracy > 60  # of three classes
    assert result.top[3] == 100
    assert 5 not in result.top
    assert result.feature == "text"
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["top"]["1"] == result.top[1]
    assert list(saved["by_class"]) == CLASSES
    assert saved["teacher"] == {"text": "tiny", "weights": "random", "prompts": 60}
    assert (saved["on"], saved["test"], saved["centered"]) == ("test", 24, False)
    assert (tmp_path / "run" / "confusion.png").is_file()
    assert console.has("random weights")


def test_all_shapes_and_standardized_predictions(config, tmp_path):
    weights = write_checkpoint(tmp_path / "model.safetensors", standardized=True)
    result = zero_shot(config(weights, tmp_path / "test"), Lines(), shapes())
    assert result.top[1] > 60
    pooled = zero_shot(config(weights, tmp_path / "all", on="all"), Lines(), shapes())
    assert pooled.scores.confusion.sum() == 96
    assert pooled.top[1] > 60
    # A mean that all predictions share is taken away.
    encoder = recon_fast.load(weights, "cpu", "fp32")
    with torch.no_grad():
        encoder.model.text_proj.bias.add_(50.0)
    write_model(encoder.model, weights, encoder.teacher)
    moved = zero_shot(config(weights, tmp_path / "moved"), Lines(), shapes())
    np.testing.assert_array_equal(moved.scores.confusion, result.scores.confusion)


def test_names_may_be_changed_and_underscores_are_spaces(config, checkpoint, tmp_path):
    data = replace(shapes(24), class_names=["ball", "wooden_box", "stick"])
    zero_shot(config(checkpoint, tmp_path / "run"), Lines(), data)
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert list(saved["by_class"]) == ["ball", "wooden box", "stick"]
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    renamed = config(checkpoint, tmp_path / "renamed", names=str(tmp_path / "names.txt"))
    strange = replace(shapes(), class_names=["x", "y", "z"])
    assert zero_shot(renamed, Lines(), strange).top[1] > 60
    (tmp_path / "names.txt").write_text("one\ntwo")
    with pytest.raises(InputError, match=r"names must be one name for each of 3 classes .*, got 2"):
        zero_shot(replace(renamed, out=str(tmp_path / "new")), Lines(), strange)


def test_features_of_aligned_teachers(config, tmp_path):
    torch.manual_seed(0)
    model = ReCon(replace(TINY_MODEL, text_dim=256, image_dim=256)).eval()
    weights = write_model(model, tmp_path / "model.safetensors", {**TEACHER, "aligned": True})
    encoder, data = recon_fast.load(weights, "cpu", "fp32"), shapes(24)
    clouds = [data.cloud(i) for i in data.rows("test")]
    text, image = (encoder.embed(clouds, f"zeroshot_{kind}") for kind in ("text", "image"))
    for feature, ratio, want in (
        ("auto", 0.25, 0.25 * text + image),
        ("full", 2.0, 2 * text + image),
        ("text", 0.25, text),
        ("img", 0.25, image),
    ):
        run = config(weights, tmp_path / f"{feature}{ratio}", feature=feature, ratio=ratio)
        guess = nearest_texts(want, class_texts())[:, 0]
        confusion = np.zeros((3, 3), int)
        np.add.at(confusion, (data.labels[data.rows("test")], guess), 1)
        np.testing.assert_array_equal(zero_shot(run, Lines(), data).scores.confusion, confusion)


def test_another_teacher_is_refused(config, checkpoint, tmp_path):
    def run(path=checkpoint, **teacher):
        return zero_shot(
            config(path, tmp_path / "run", teacher=QueryTeacherConfig(**teacher)), Lines(), shapes(24)
        )

    with pytest.raises(InputError, match=r"teacher.text must be what .* tiny, got ViT-B-32: leave --teacher"):
        run(text="ViT-B-32")
    with pytest.raises(InputError, match=r"teacher.weights must be what .* random, got local"):
        run(weights="local")
    with pytest.raises(InputError, match=r"teacher.seed must be what .* 0, got 7"):
        run(seed=7)
    encoder = recon_fast.load(checkpoint, "cpu", "fp32")
    unknown = write_model(encoder.model, tmp_path / "model.safetensors", {**TEACHER, "weights": "made"})
    with pytest.raises(InputError, match="features of unknown origin"):
        run(unknown)
    silent = write_model(encoder.model, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"no weights for teacher.text 'ViT-B-32': looked for .*random"):
        run(silent)
    assert run(silent, text="tiny", weights="random").top[3] == 100  # it does not say, so the user may
    narrow = write_model(
        ReCon(replace(TINY_MODEL, text_dim=6, image_dim=5)), tmp_path / "narrow.safetensors", TEACHER
    )
    (tmp_path / "run").rename(tmp_path / "old")
    with pytest.raises(InputError, match=r"text teacher must have features of 6 numbers .*, got 256 of tiny"):
        run(narrow)
    assert not (tmp_path / "run").exists()


def test_other_weights_of_the_same_teacher_are_refused(config, checkpoint, tmp_path):
    from safetensors.torch import save_file

    from recon_fast.teachers import random_teacher_config
    from recon_fast.teachers.text import TextTeacher

    tower = TextTeacher(random_teacher_config()).model.state_dict()
    save_file({name: value.contiguous() for name, value in tower.items()}, tmp_path / "text.safetensors")
    told = {**TEACHER, "weights": "local", "text_sha256": "0123456789abcdef"}
    encoder = recon_fast.load(checkpoint, "cpu", "fp32")
    weights = write_model(encoder.model, tmp_path / "model.safetensors", told)
    teacher = QueryTeacherConfig(text_weights=str(tmp_path / "text.safetensors"))
    with pytest.raises(InputError, match=r"SHA-256 must begin with 0123456789abcdef, got .*text_weights"):
        zero_shot(config(weights, tmp_path / "run", teacher=teacher), Lines(), shapes(24))


def test_checkpoints_without_projections_are_refused(config, checkpoint, tmp_path):
    path = write_model(Classifier(TINY_MODEL, 3), tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="needs a pretraining checkpoint with a text projection, got a clas"):
        zero_shot(config(path, tmp_path / "run"), Lines(), shapes(24))
    for feature in ("full", "img"):
        with pytest.raises(InputError, match=f"feature {feature} needs teachers that share a space"):
            zero_shot(config(checkpoint, tmp_path / "run", feature=feature), Lines(), shapes(24))


def test_command(checkpoint, tmp_path, capsys):
    data = write_folder(tmp_path / "data")
    arguments = ["zeroshot", "--checkpoint", str(checkpoint), "--data.path", str(data), "--device", "cpu"]
    assert main([*arguments, "--out", str(tmp_path / "run"), "--on", "all"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "run")
    assert "top 1" in err
    assert (data / ".recon_fast").is_dir()  # texts are kept beside the data
    assert main([*arguments, "--faeture", "text"]) == 2
    assert "unknown setting faeture (did you mean feature?)" in capsys.readouterr().err
