"""Checkpoints there and back: tensors, names, report, and what is refused."""

import json

import pytest
import torch
from golden_data import golden, official_state
from safetensors import safe_open
from tiny import TINY_MODEL, Lines, tiny_config, tiny_shapes

from recon_fast.checkpoint import export_official, save_weights, weights_metadata
from recon_fast.checkpoint.convert import convert
from recon_fast.checkpoint.restore import restore
from recon_fast.cli import main
from recon_fast.config import ConvertConfig
from recon_fast.errors import InputError
from recon_fast.models import ReCon
from recon_fast.training.pretrain import pretrain


@pytest.mark.parametrize("name", ["pretrain_cdl1_smc", "classify_full", "classify_linear", "partseg"])
def test_there_and_back(name, tmp_path):
    config, _ = golden(name)
    state = official_state(config)
    torch.save(
        {"base_model": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "theirs.pth"
    )
    sizes = ConvertConfig(*(config[key] for key in ("num_heads", "num_group", "group_size")))
    written, line = convert(tmp_path / "theirs.pth", tmp_path / "ours", sizes)
    assert written == tmp_path / "ours" / "model.safetensors"
    assert f"{len(state)} loaded, 0 missing, 0 unexpected" in line
    report = json.loads((tmp_path / "ours" / "conversion.json").read_text())
    assert sorted(report["keys"]["loaded"]) == sorted(state)
    assert report["model"]["num_group"] == config["num_group"]

    again, _ = convert(tmp_path / "ours", tmp_path / "again.pth")
    contents = torch.load(again, weights_only=True)
    assert ("model_state_dict" in contents) == (name == "partseg")
    assert again.stat().st_size < 1.1 * (tmp_path / "theirs.pth").stat().st_size
    back = contents["base_model"]
    assert back.keys() == state.keys()
    assert all(torch.equal(back[k], v) for k, v in state.items())
    assert sorted(p.name for p in tmp_path.rglob(".*")) == []


def test_command(tmp_path, capsys):
    model = ReCon(TINY_MODEL)
    torch.save(export_official(model), tmp_path / "theirs.pth")
    arguments = ["convert", str(tmp_path / "theirs.pth"), str(tmp_path / "ours")]
    assert main(arguments) == 2
    assert "num_heads must be given" in capsys.readouterr().err
    arguments += ["--num_heads", "2", "--num_group", "8"]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert out.strip() == str(tmp_path / "ours" / "model.safetensors")
    assert err.startswith("pretrain (recon, width 24, depth 2, 8 groups): ")
    assert torch.equal(restore(tmp_path / "ours").model.encoder.cls_token, model.encoder.cls_token)

    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("recon-fast: error: out must not exist yet (or give --overwrite true), got ")
    assert err.count("\n") == 1
    assert main([*arguments, "--overwrite", "true"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.pth", "out"], "checkpoint must be a file, a folder with one, a run's folder or"),
        (["no.pth", "out", "--num_group", "0"], "num_group must be at least 1 or null, got 0"),
        (["no.pth", "out", "--num_heds", "3"], "unknown setting num_heds (did you mean num_heads?)"),
        (["no.pth", "here.txt"], "out must be a folder or a file .pth, .pt, .safetensors, got here.txt"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").write_text("")
    assert main(["convert", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_a_refused_source_leaves_nothing(tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "wrong.pth")
    with pytest.raises(InputError, match="must hold ReCon weights"):
        convert(tmp_path / "wrong.pth", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "ours").write_text("")
    torch.save(export_official(ReCon(TINY_MODEL)), tmp_path / "right.pth")
    with pytest.raises(InputError, match="cannot be written"):
        convert(
            tmp_path / "right.pth", tmp_path / "ours" / "deep.pth", ConvertConfig(num_heads=2, num_group=8)
        )


def test_the_decoder_says_the_size_of_a_group(tmp_path):
    pretrain(
        tiny_config(tmp_path / "run", optim__epochs=1, optim__warmup_epochs=0), None, Lines(), tiny_shapes()
    )
    with pytest.raises(InputError, match="group_size must be 8, that of the decoder"):
        convert(tmp_path / "run", tmp_path / "out", ConvertConfig(group_size=4))
    assert not (tmp_path / "out").exists()


def test_half_precision_with_a_card(tmp_path):
    model = ReCon(TINY_MODEL)
    save_weights(model, tmp_path / "model.safetensors", weights_metadata(model, None))
    (tmp_path / "card.md").write_text("what it is", encoding="utf-8")
    config = ConvertConfig(dtype="fp16", card=str(tmp_path / "card.md"))
    written, _ = convert(tmp_path / "model.safetensors", tmp_path / "half.safetensors", config)
    assert written == tmp_path / "half.safetensors"
    assert written.stat().st_size < 0.6 * (tmp_path / "model.safetensors").stat().st_size
    with safe_open(written, framework="pt") as file:
        assert file.metadata()["card"] == "what it is"
        assert file.get_tensor("encoder.norm.weight").dtype == torch.float16
    half = restore(written).model
    for name, value in half.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-3, atol=1e-6)
    with pytest.raises(InputError, match=r"card must be a text file, got .*none.md"):
        convert(written, tmp_path / "again", ConvertConfig(card=str(tmp_path / "none.md")))
