"""Models by name: an ordinary module of an ordinary loop, from any checkpoint, to a folder and back."""

import copy
import pickle
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tiny import TINY_MODEL
from tiny_checkpoint import write_model

import recon_fast
from recon_fast.checkpoint import export_official
from recon_fast.checkpoint.create import HubClassifier
from recon_fast.checkpoint.restore import restore
from recon_fast.data.batches.transforms import unit_sphere
from recon_fast.errors import InputError
from recon_fast.models import Classifier, ReCon, TwoTower

TINY = {"dim": 24, "depth": 2, "num_heads": 2, "num_group": 8, "group_size": 8}
POINTS = unit_sphere(torch.randn(4, 64, 3, generator=torch.Generator().manual_seed(0)))


def tiny(**how):
    torch.manual_seed(0)
    return recon_fast.create_model("recon_tiny", **{**TINY, **how})


def test_names():
    names = ["recon_tiny", "recon_small", "recon_base", "recon_procedural"]
    assert recon_fast.list_models() == recon_fast.list_models("recon_*") == names
    assert recon_fast.list_models("*_[bs]*") == ["recon_small", "recon_base"]
    assert recon_fast.list_models(pretrained=True) == ["recon_procedural"]
    widths = [recon_fast.create_model(name, depth=1).num_features for name in names]
    assert widths == [4 * 192, 4 * 256, 4 * 384, 4 * 288]


def test_the_packaged_encoder_gives_what_embed_gives():
    model = recon_fast.create_model("recon_procedural", pretrained=True).eval()
    encoder = recon_fast.load(device="cpu", precision="fp32")
    want = encoder.embed(POINTS, "classification", normalize=False)
    torch.testing.assert_close(model(POINTS), want)
    assert model.conventions == encoder.conventions


def test_features_and_heads():
    model = tiny().eval()
    assert (model.num_classes, model.num_features) == (0, 96)
    tokens = model.forward_features(POINTS)
    assert tokens.shape == (4, 3 + 8, 24)
    feature = model.forward_head(tokens, pre_logits=True)
    assert torch.equal(feature, model(POINTS))
    model.double().reset_classifier(5, "linear")
    logits = model.eval()(POINTS.double())
    assert (logits.shape, logits.dtype) == ((4, 5), torch.float64)
    torch.testing.assert_close(model.forward_head(model.forward_features(POINTS.double())), logits)
    model.reset_classifier(7)
    assert model.task == {"kind": "classifier", "num_classes": 7, "head": "linear"}
    assert model.get_classifier()[-1].out_features == model.num_classes == 7
    with pytest.raises(ValueError, match="num_classes must be at least 0, got -1"):
        model.reset_classifier(-1)


@pytest.mark.parametrize("head", ["mlp3", "linear"])
def test_a_plain_loop_learns_and_the_state_goes_round(head, tmp_path):
    model, labels = tiny(num_classes=4, head=head, drop_path=0.0), torch.arange(4)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = F.cross_entropy(model(POINTS), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    assert all(parameter.grad is not None for parameter in model.parameters())
    want = model.eval()(POINTS)
    assert torch.equal(model(POINTS), want)
    save_file(model.state_dict(), tmp_path / "state.safetensors")
    other = tiny(num_classes=4, head=head).eval()
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    for same in (other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(same(POINTS), want)
    assert model.state_dict().keys() == Classifier(TINY_MODEL, 4, head).state_dict().keys()


def test_compiled_and_in_bfloat16():
    model = tiny(num_classes=3).eval()
    want = model(POINTS)
    torch.testing.assert_close(torch.compile(model, backend="eager")(POINTS), want)
    low = model.bfloat16()
    for points in (POINTS, POINTS.bfloat16()):
        assert low(points).dtype == torch.bfloat16
        torch.testing.assert_close(low(points).float(), want, atol=0.05, rtol=0.1)


def test_every_kind_of_checkpoint(tmp_path):
    classifier = Classifier(replace(TINY_MODEL, num_group=6), 5, "linear")
    classifier.task["class_names"] = list("abcde")
    write_model(classifier, tmp_path / "model.safetensors")
    model = tiny(pretrained=tmp_path, num_group=8)
    assert model.task == classifier.task
    assert model.config.num_group == model.encoder.config.num_group == 8
    sizes = {name: TINY[name] for name in ("dim", "depth", "num_heads")}
    model = recon_fast.create_model("recon_tiny", tmp_path / "model.safetensors", **sizes)
    assert torch.equal(model.eval()(POINTS), classifier.eval()(POINTS))
    fresh = tiny(pretrained=tmp_path, num_classes=6)
    assert (fresh.num_classes, fresh.task["head"]) == (6, "linear")
    assert torch.equal(fresh.encoder.norm.weight, classifier.encoder.norm.weight)
    wide = ReCon(replace(TINY_MODEL, dim=192, num_heads=3))  # of an official width
    torch.save({"base_model": export_official(wide)}, tmp_path / "ckpt.pth")
    model = recon_fast.create_model("recon_tiny", tmp_path / "ckpt.pth", depth=2)
    assert (model.num_classes, model.config.skip_near_origin) == (0, True)
    assert torch.equal(model.encoder.blocks[1].mlp.fc1.weight, wide.encoder.blocks[1].mlp.fc1.weight)


def test_to_a_folder_and_back(tmp_path):
    model = recon_fast.create_model("recon_procedural", pretrained=True, num_classes=3).eval()
    model.save_pretrained(tmp_path / "mine")
    back = type(model).from_pretrained(tmp_path / "mine")
    assert torch.equal(back(POINTS), model(POINTS))
    assert (back.task, back.conventions) == (model.task, model.conventions)
    assert HubClassifier.from_pretrained(str(tmp_path / "mine"), num_classes=2).num_classes == 2
    restored = restore(tmp_path / "mine")  # a checkpoint as any other
    assert torch.equal(restored.model.eval()(POINTS), model(POINTS))
    assert restored.conventions == model.conventions


def test_what_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    write_model(TwoTower(replace(TINY_MODEL, arch="twotower")), tmp_path / "towers.safetensors")
    for arguments, message in (
        (("recon_bse",), "name must be one of recon_tiny, .*, recon_procedural, got 'recon_bse'"),
        (("recon_base", True), "for recon_base, got True, which is for recon_procedural"),
        (
            ("recon_base", "procedural"),
            "must have dim 384 for recon_base, got 288 in .*procedural",
        ),
        (("recon_base", tmp_path / "empty"), "checkpoint must be a file, a folder with one, a run's"),
    ):
        with pytest.raises(InputError, match=message):
            recon_fast.create_model(*arguments)
    with pytest.raises(InputError, match=r"drop must be one of arch, .*, drop_path, group_size"):
        tiny(drop=0.1)
    with pytest.raises(ValueError, match=r"model\.arch must be 'recon' for a classifier, got 'twotower'"):
        tiny(pretrained=tmp_path / "towers.safetensors")
    with pytest.raises(ValueError, match="head must be one of"):
        tiny(head="mlp")
