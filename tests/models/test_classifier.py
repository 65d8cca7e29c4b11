"""The classifier is the official one: logits, loss, gradients; what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from golden_data import downstream_config, golden, official_state
from tiny import TINY_MODEL

from recon_fast.checkpoint import export_official, load_official
from recon_fast.models import Classifier, ReConConfig


@pytest.fixture(params=["classify_full", "classify_linear"])
def golden_classifier(request):
    config, want = golden(request.param)
    head = "linear" if config["type"] == "linear" else "mlp3"
    model = Classifier(downstream_config(config), config["cls_dim"], head)
    report = load_official(official_state(config), model)
    assert not report.missing
    assert not report.unexpected
    assert not report.other
    return model.eval(), want


def test_logits_loss_and_gradients_are_the_official_ones(golden_classifier):
    model, want = golden_classifier
    logits = model(want["pts"])
    torch.testing.assert_close(logits, want["output"], rtol=1e-4, atol=1e-4)
    loss = F.cross_entropy(logits, want["label"].long())
    torch.testing.assert_close(loss, want["loss"], rtol=1e-5, atol=0)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.data = gradients[name]
    ours = export_official(model)  # gives the gradients the official names and shapes
    theirs = {key.removeprefix("grad/"): value for key, value in want.items() if key.startswith("grad/")}
    assert theirs.keys() == {key for key in ours if "running" not in key and "tracked" not in key}
    largest = max(gradient.norm() for gradient in theirs.values())
    for key, value in theirs.items():
        assert (ours[key] - value).norm() <= 1e-4 * value.norm() + 1e-6 * largest, key


def test_features_are_what_the_head_sees():
    model = Classifier(TINY_MODEL, 5).eval()
    points = torch.rand(2, 64, 3)
    feature = model.features(points)
    assert feature.shape == (2, 4 * TINY_MODEL.dim)
    torch.testing.assert_close(model.head(feature), model(points))


def test_training_reaches_every_parameter():
    torch.manual_seed(0)
    model = Classifier(TINY_MODEL, 5).train()
    model(torch.rand(4, 64, 3)).logsumexp(1).sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((ReConConfig(arch="twotower"), 5), "model.arch must be 'recon' for a classifier, got 'twotower'"),
        ((TINY_MODEL, -1), "num_classes must be at least 0, got -1"),
        ((TINY_MODEL, 5, "mlp"), "head must be one of .*, got 'mlp'"),
    ],
)
def test_settings_that_make_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        Classifier(*arguments)
