"""Models and encoders from every kind of checkpoint, ours and official; what is refused, by name."""

import json
from dataclasses import replace

import pytest
import torch
from golden_data import golden, golden_config, golden_model, official_state
from safetensors.torch import save_file
from tiny import TINY_MODEL

from recon_fast.checkpoint import export_official, weights_metadata
from recon_fast.checkpoint.official import infer_architecture, read_official
from recon_fast.checkpoint.restore import find_weights, load_encoder, restore
from recon_fast.checkpoint.training import save_checkpoint
from recon_fast.errors import InputError
from recon_fast.models import Classifier, PartSegmenter, ReCon, TwoTower

DEEP = replace(TINY_MODEL, depth=3)
STATE = {
    "step": 3,
    "data": {},
    "data_name": "made",
    "teacher": {"aligned": True},
    "before": None,
    "config": {},
}


def write(model, path, teacher=None):
    save_file(model.state_dict(), path, weights_metadata(model, teacher))
    return path


def write_official(model, path, key="base_model", prefix="module."):
    torch.save(
        {key: {prefix + name: value for name, value in export_official(model).items()}, "epoch": 3}, path
    )
    return path


def same(a, b, prefix=""):
    theirs = b.state_dict()
    return all(torch.equal(v, theirs[k]) for k, v in a.state_dict().items() if k.startswith(prefix))


MODELS = {
    "recon": lambda: ReCon(replace(TINY_MODEL, single_modal=True)),
    "twotower": lambda: TwoTower(replace(TINY_MODEL, arch="twotower", text_dim=None)),
    "mlp3": lambda: Classifier(TINY_MODEL, 5),
    "linear": lambda: Classifier(TINY_MODEL, 7, "linear"),
    "segmenter": lambda: PartSegmenter(DEEP, 4, 2),
}


@pytest.mark.parametrize("kind", MODELS)
def test_both_formats_of_every_model(kind, tmp_path):
    model = MODELS[kind]()
    ours = restore(write(model, tmp_path / "model.safetensors", {"aligned": False}))
    assert type(ours.model) is type(model)
    assert ours.model.config == model.config
    assert ours.model.task == model.task
    assert ours.teacher == {"aligned": False}
    assert same(model, ours.model)

    path = write_official(
        model, tmp_path / "ckpt.pth", "model_state_dict" if kind == "segmenter" else "base_model"
    )
    official = restore(path, num_heads=2, num_group=8, group_size=8)
    assert type(official.model) is type(model)
    assert official.model.task == model.task
    assert same(model, official.model)
    assert not (official.report.missing)
    assert not (official.report.unexpected)
    assert not (official.report.other)
    config = official.model.config
    assert config.skip_near_origin
    for name in ("arch", "dim", "depth", "num_heads", "num_group", "group_size", "single_modal"):
        assert getattr(config, name) == getattr(model.config, name), name
    if kind in ("recon", "twotower"):
        assert (config.image_dim, config.text_dim) == (model.config.image_dim, model.config.text_dim)
        assert config.decoder_depth == model.config.decoder_depth


def test_what_a_task_says_beside_its_sizes_is_kept(tmp_path):
    model = Classifier(TINY_MODEL, 2)
    model.task["class_names"] = ["ball", "box"]
    assert restore(write(model, tmp_path / "model.safetensors")).model.task == model.task


def test_run_checkpoint_and_file_are_the_same(tmp_path):
    model = ReCon(TINY_MODEL)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint = save_checkpoint(tmp_path, model, optimizer, STATE, keep=2)
    for path in (tmp_path, checkpoint, checkpoint / "model.safetensors", str(tmp_path)):
        restored = restore(path)
        assert restored.file == checkpoint / "model.safetensors"
        assert restored.teacher == {"aligned": True}
        assert same(model, restored.model)


def test_metadata_from_before_there_were_tasks(tmp_path):
    model = ReCon(TINY_MODEL)
    metadata = weights_metadata(model, None)
    del metadata["task"]
    save_file(model.state_dict(), tmp_path / "model.safetensors", metadata)
    assert same(model, restore(tmp_path).model)


def test_sizes_of_official_checkpoints():
    config, _ = golden("pretrain_cdl1_smc")
    got, task = infer_architecture(
        read_official(official_state(config)), config["num_heads"], config["num_group"]
    )
    assert task == {"kind": "pretrain"}
    trained = {
        name: getattr(got, name) for name in ("chamfer", "drop_path", "mask_ratio")
    }  # weights do not tell
    assert got == replace(golden_config(config), **trained)
    config, _ = golden("partseg")  # of the official width: nothing needs to be given
    got, task = infer_architecture(read_official(official_state(config)))
    assert task == {"kind": "segmenter", "num_parts": 50, "num_categories": 16}
    assert (got.dim, got.num_heads, got.depth, got.num_group, got.group_size) == (384, 6, 12, 128, 32)


@pytest.mark.parametrize("name", ["classify_full", "classify_linear"])
def test_official_classifier_is_restored_with_its_function(name, tmp_path):
    config, want = golden(name)
    torch.save({"base_model": official_state(config)}, tmp_path / "ckpt.pth")
    sizes = {key: config[key] for key in ("num_heads", "num_group", "group_size")}
    model = restore(tmp_path / "ckpt.pth", **sizes).model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(want["pts"]), want["output"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["mlp3", "segmenter", "recon"])
@pytest.mark.parametrize("source", ["recon", "mlp3", "segmenter"])
@pytest.mark.parametrize("official", [False, True], ids=["ours", "official"])
def test_encoders_go_anywhere(source, target, official, tmp_path):
    makers = {
        "recon": lambda: ReCon(DEEP),
        "mlp3": lambda: Classifier(DEEP, 9),
        "segmenter": lambda: PartSegmenter(DEEP, 3, 5),
    }
    model, start = makers[target](), makers[source]()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = (
        write_official(start, tmp_path / "c.pth")
        if official
        else write(start, tmp_path / "model.safetensors")
    )
    report = load_encoder(path, model)
    assert not report.missing
    assert not report.unexpected
    assert same(model, start, "encoder.")
    assert all(
        torch.equal(v, before[k]) for k, v in model.state_dict().items() if not k.startswith("encoder.")
    )
    assert len(report.loaded) == sum(name.startswith("encoder.") for name in before)
    assert report.other


def test_strange_official_checkpoints(tmp_path):
    model = ReCon(TINY_MODEL)
    state = {f"module.{name}": value for name, value in export_official(model).items()}
    state["module.img_encoder.cls_token"] = torch.zeros(1)
    state = {name: v for name, v in state.items() if "MAE_decoder" not in name and "tracked" not in name}
    for name in ("mask_token", "increase_dim.0.weight", "increase_dim.0.bias"):
        del state[f"module.{name}"]
    for name in [name for name in state if "decoder_pos_embed" in name or "img_proj" in name]:
        del state[name]
    torch.save(state, tmp_path / "bare.pth")
    restored = restore(tmp_path / "bare.pth", num_heads=2, num_group=8, group_size=8)
    assert same(model.encoder, restored.model.encoder)
    assert restored.model.img_proj is None
    assert restored.report.teachers == 1
    assert "mask_token" in restored.report.missing


def refused(path, message, **sizes):
    with pytest.raises(InputError, match=message):
        restore(path, **sizes)


def test_wrong_official_checkpoints_are_refused_by_name(tmp_path):
    path, sizes = tmp_path / "ckpt.pth", {"num_heads": 2, "num_group": 8, "group_size": 8}
    state = export_official(ReCon(TINY_MODEL))

    def changed(*gone, **new):
        torch.save({"base_model": {k: v for k, v in {**state, **new}.items() if k not in gone}}, path)
        return path

    refused(changed(), "num_heads must be given for a width that is none of 384, 256, 192, got 24")
    refused(changed("MAE_encoder.cls_token"), "it has no MAE_encoder.cls_token", **sizes)
    gone = ("MAE_encoder.img_pos", "MAE_encoder.text_pos")
    refused(changed(*gone), "it has no MAE_encoder.img_pos and 1 more", **sizes)
    refused(changed("mask_token"), "it has no mask_token", **sizes)
    refused(
        changed("MAE_encoder.norm.weight"), "must hold ReCon weights such as MAE_encoder.norm.weight", **sizes
    )
    refused(
        changed(mask_token=torch.zeros(1, 1, 5)),
        r"mask_token of .* must be \(1, 1, 24\) for this model",
        **sizes,
    )
    refused(
        changed(mask_token=torch.full((1, 1, 24), torch.nan)),
        "mask_token of .* must be finite, got NaN",
        **sizes,
    )
    refused(changed(), "model.dim must be a multiple of model.num_heads, got 24 and 5", num_heads=5)
    torch.save({"fc.weight": torch.zeros(3)}, path)
    refused(path, "must hold ReCon weights such as blocks.blocks.0.norm1.weight, got fc.weight", **sizes)
    refused(
        tmp_path / "absent.pth",
        "checkpoint must be a file, a folder with one, a run's folder or",
    )


def test_wrong_encoders_are_refused_and_leave_the_model_alone(tmp_path):
    model = Classifier(TINY_MODEL, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other = {
        "wide": ReCon(replace(TINY_MODEL, dim=32)),
        "deep": ReCon(DEEP),
        "shallow": ReCon(replace(TINY_MODEL, depth=1)),
        "towers": TwoTower(replace(TINY_MODEL, arch="twotower")),
    }
    words = {
        "wide": "must be",
        "deep": "unknown to the model",
        "shallow": "it has no",
        "towers": "it has no",
    }
    for name, source in other.items():
        for path in (write(source, tmp_path / "m.safetensors"), write_official(source, tmp_path / "m.pth")):
            with pytest.raises(InputError, match=words[name]):
                load_encoder(path, model)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_metadata_that_cannot_be_read(tmp_path):
    model = ReCon(TINY_MODEL)
    path = tmp_path / "model.safetensors"
    for changes, message in (
        ({"model": '{"dmi": 3}'}, "states its model in a way unknown here: .*dmi"),
        ({"model": "{"}, "states its model in a way unknown here: Expecting"),
        ({"task": json.dumps({"kind": "detector"})}, "of a model that this version does not have"),
        ({"task": json.dumps({"kind": "classifier"})}, "of a model that this version does not have"),
    ):
        save_file(model.state_dict(), path, {**weights_metadata(model, None), **changes})
        refused(path, message)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "truncated or no safetensors file")


def test_find_weights(tmp_path):
    with pytest.raises(InputError, match="must be a file"):
        find_weights(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="must name a run folder"):
        find_weights(tmp_path)


def test_golden_pretraining_encoder_into_a_classifier(tmp_path):
    config, _ = golden("pretrain_cdl2")
    torch.save({"base_model": official_state(config)}, tmp_path / "ckpt.pth")
    model = Classifier(golden_config(config), 4)
    load_encoder(tmp_path / "ckpt.pth", model)
    assert same(golden_model(config).encoder, model.encoder)
