from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_data import downstream_config, golden, official_state
from tiny import TINY_MODEL, tiny_shapes

from recon_fast.checkpoint import load_official
from recon_fast.data.batches.resident import ResidentShapes
from recon_fast.models import ReCon
from recon_fast.training.probe import (
    ProbeData,
    encode_shapes,
    probe,
    svm_accuracy,
    svm_feature,
    zero_shot_accuracy,
    zero_shot_feature,
)


def golden_encoder(config) -> ReCon:
    """A model with an official downstream model's encoder and projections."""
    model = ReCon(downstream_config(config))
    report = load_official(official_state(config), model)
    assert not report.unexpected
    assert not [key for key in report.missing if key.startswith("MAE_encoder")]
    return model.eval()


@torch.no_grad()
def test_svm_feature_is_the_official_one():
    config, want = golden("svm")
    feature = svm_feature(golden_encoder(config).encode(want["pts"]))
    torch.testing.assert_close(feature, want["output"], rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("name", "aligned"), [("zeroshot_text", False), ("zeroshot_full", True)])
def test_zero_shot_feature_is_the_official_one(name, aligned):
    config, want = golden(name)
    model = golden_encoder(config)
    feature = zero_shot_feature(model, model.encode(want["pts"]), aligned)
    torch.testing.assert_close(feature, want["output"], rtol=1e-4, atol=1e-4)


def test_svm_accuracy_of_separable_and_of_random_labels():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    features = rng.standard_normal((200, 8)) + 4 * labels[:, None]
    assert svm_accuracy(features[:100], labels[:100], features[100:], labels[100:]) == 1
    shuffled = rng.permutation(labels)
    assert 0.3 < svm_accuracy(features[:100], shuffled[:100], features[100:], shuffled[100:]) < 0.7
    features[3] = np.nan
    assert np.isnan(svm_accuracy(features[:100], labels[:100], features[100:], labels[100:]))


def test_centered_zero_shot_takes_the_mean_prediction_away():
    shapes = tiny_shapes()
    torch.manual_seed(0)
    model = ReCon(replace(TINY_MODEL, image_dim=8, text_dim=8))
    rows = np.arange(len(shapes))
    sides = [
        ResidentShapes(shapes, None, rows[shapes.held_out == out], torch.device("cpu")) for out in (0, 1)
    ]
    data = ProbeData("tiny", *sides, shapes.features.class_text, aligned=False, centered=True)
    before = probe(model, data, 64, torch.float32)
    with torch.no_grad():
        model.text_proj.bias.add_(4.0)  # one direction for all shapes
    assert probe(model, data, 64, torch.float32) == before
    assert probe(model, replace(data, centered=False), 64, torch.float32).zero_shot <= before.chance


def test_zero_shot_accuracy_chooses_among_present_classes():
    class_text = np.eye(3, dtype=np.float32)
    features = np.array([[3, 0, 0], [0, 0.1, 0], [0, 0, 2], [0, 0, 1]], np.float32)
    assert zero_shot_accuracy(features, class_text, np.array([0, 1, 2, 2]), np.arange(3)) == 1
    assert zero_shot_accuracy(features, class_text, np.array([0, 1, 2, 1]), np.array([0, 1])) == 0.5


def test_probe_leaves_model_and_generators_as_found():
    shapes = tiny_shapes()
    rows = np.arange(len(shapes))
    sides = [ResidentShapes(shapes, None, side, torch.device("cpu")) for side in (rows[:16], rows[16:])]
    model = ReCon(TINY_MODEL).train()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    data = ProbeData("tiny", *sides, class_text=None, aligned=False)
    first = probe(model, data, 64, torch.float32, batch_size=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert first.zero_shot is None
    assert first.chance == pytest.approx(100 / 3)
    assert probe(model, data, 64, torch.float32, batch_size=5) == first
    features, _ = encode_shapes(model, sides[0], 64, torch.float32, batch_size=5, aligned=False)
    assert features.shape == (16, 2 * TINY_MODEL.dim)
