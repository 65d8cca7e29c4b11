"""What is seen of a cloud, against the model's own output; the page and the PNGs made of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pages import NASTY, page_data, write_model
from PIL import Image
from tiny import TINY_MODEL, Lines

from recon_fast.checkpoint.restore import Restored
from recon_fast.cli import main
from recon_fast.config import ShowConfig
from recon_fast.errors import InputError
from recon_fast.kernels import chamfer_distance
from recon_fast.models import Classifier, TwoTower, build_model
from recon_fast.models.blocks import CrossAttention, merge_heads, split_heads
from recon_fast.tasks.embed import PointEncoder
from recon_fast.viz.clouds import pick_clouds, spread
from recon_fast.viz.reconstruction import attention_weights, encode_and_attend, look
from recon_fast.viz.show_page import nearest, read_captions, show


def encoder_of(model) -> PointEncoder:
    return PointEncoder(Restored(model, None, None, None, {}), torch.device("cpu"), torch.float32)


@pytest.fixture
def points(model):
    return encoder_of(model).sampled(np.random.default_rng(1).standard_normal((150, 3)))


@pytest.mark.parametrize(("C", "H", "Q", "S"), [(24, 2, 3, 8), (18, 1, 1, 1), (30, 5, 3, 63)])
def test_weights_give_the_output_of_the_module(C, H, Q, S):
    torch.manual_seed(C)
    attention = CrossAttention(C, H).double()
    queries, x = torch.randn(2, Q, C).double(), torch.randn(2, S, C).double()
    weights = attention_weights(attention, queries, x)
    assert weights.shape == (2, H, Q, S)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, H, Q))
    value = split_heads(attention.kv(x).chunk(2, -1)[1], H)
    out = attention.proj(merge_heads(weights.double() @ value))
    torch.testing.assert_close(out, attention(queries, x), atol=1e-6, rtol=1e-6)


def test_attention_of_all_blocks_is_of_what_they_were_given(model, points):
    encoding, found = encode_and_attend(model, points)
    torch.testing.assert_close(encoding.global_tokens, model.encode(points).global_tokens)
    assert found.shape == (2, 1, 2, 3, 8)
    groups = model.group(points)
    encoder = model.encoder
    first = next(encoder.layers(encoder.tokenizer(groups.neighborhoods), groups.centers, False))
    block = encoder.blocks[1]
    queries_pos = torch.cat([encoder.cls_pos, encoder.img_pos, encoder.text_pos], 1)
    queries = block.norm1_contrast(first.global_tokens + queries_pos)
    x = block.norm1(first.local_tokens + encoder.pos_embed(groups.centers))
    torch.testing.assert_close(found[1], attention_weights(block.attn_contrast, queries, x))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_seen_is_what_the_model_computes(model, points):
    seen = look(model, points, seed=3)
    assert points.shape == (1, 128, 3)  # 16 points a group
    assert seen.groups.shape == (8, 8)
    assert seen.masked.shape == (4,)
    noise = torch.rand(1, 8, generator=torch.Generator().manual_seed(3))
    output = model(points, mask_noise=noise)
    np.testing.assert_array_equal(seen.masked, output.masking.masked[0])
    assert seen.chamfer.mean() == pytest.approx(float(output.losses["mdm"].detach()), rel=1e-5)
    true = torch.from_numpy(seen.points[seen.groups[seen.masked]])
    again = chamfer_distance(torch.from_numpy(seen.rebuilt), true, reduction="none")
    np.testing.assert_allclose(seen.chamfer, again, rtol=1e-4)
    assert not np.array_equal(look(model, points, seed=4).masked, seen.masked)


def test_models_without_a_decoder_or_without_cross_attention(points):
    classifier = look(Classifier(TINY_MODEL, 3).eval(), points)
    assert classifier.rebuilt is None
    assert classifier.attention.shape == (2, 2, 3, 8)
    towers = look(TwoTower(TINY_MODEL).eval(), points)
    assert towers.attention is None
    assert towers.rebuilt.shape == (4, 8, 3)


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (np.zeros((5, 3)), "c must have at least 8 points for this model, got 5"),
        (np.zeros((50, 2)), r"c must be \[N, 3\], got \(50, 2\)"),
        (np.full((50, 3), np.nan), "c must be finite"),
    ],
)
def test_clouds_that_a_model_cannot_take(model, cloud, message):
    with pytest.raises(InputError, match=message):
        encoder_of(model).sampled(cloud, "c")


def test_clouds_by_file_by_set_and_procedural(clouds):
    file = next(clouds.rglob("*.npy"))
    picked, captions = pick_clouds([str(file), str(clouds)], 3)
    assert picked[0].name == file.name
    assert [cloud.caption for cloud in picked] == [NASTY] * 4
    assert captions == [NASTY]
    assert len(picked) == 4
    assert all("/test/" in cloud.name for cloud in picked[1:])
    procedural, captions = pick_clouds(["procedural"], 5)
    assert len({cloud.label for cloud in procedural}) == 5
    assert len(captions) > 50
    with pytest.raises(InputError, match="clouds must be files"):
        pick_clouds(["nowhere"], 3)
    np.testing.assert_array_equal(spread(np.arange(10), 4), [0, 3, 6, 9])


def test_page_and_pictures(checkpoint, clouds, tmp_path, capsys):
    out, png = tmp_path / "show.html", tmp_path / "png"
    options = ["--count", "2", "--out", str(out), "--png", str(png)]
    assert main(["show", str(clouds), "--checkpoint", str(checkpoint), *options]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text()
    assert NASTY not in text
    data = page_data(text)
    assert [cloud["caption"] for cloud in data["clouds"]] == [NASTY] * 2
    assert data["clouds"][0]["rebuilt"]["shape"] == [4, 8, 3]
    pictures = sorted(png.iterdir())
    assert len(pictures) == 4
    for picture in pictures:
        with Image.open(picture) as image:
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_a_classifier_is_shown_without_a_reconstruction(clouds, tmp_path):
    torch.manual_seed(0)
    file = write_model(tmp_path / "model.safetensors", Classifier(TINY_MODEL, 3))
    console = Lines()
    config = ShowConfig(out=str(tmp_path / "show.html"), count=1, device="cpu")
    text = show([str(clouds)], replace(config, checkpoint=str(file)), console).read_text()
    assert console.has("classifier, which rebuilds nothing")
    assert 'id="queries"' in text
    assert 'id="views"' not in text


def test_nearest_captions(tmp_path):
    features = np.eye(3, dtype=np.float32)
    found = nearest(np.array([[0.1, 2, 0]], np.float32), features, ["a", "b", "c"], 2)
    assert [text for text, _ in found[0]] == ["b", "a"]
    file = tmp_path / "captions.txt"
    file.write_text("a chair\n\na table\na chair\n")
    assert read_captions(file) == ["a chair", "a table"]
    file.write_text("\n")
    with pytest.raises(InputError, match="which is empty"):
        read_captions(file)


def test_captions_of_a_random_teacher(model, clouds, tmp_path):
    torch.manual_seed(0)
    wide = build_model(replace(TINY_MODEL, text_dim=256))
    teacher = {"text": "tiny", "weights": "random", "prompts": 2, "seed": 0, "standardized": True}
    file = write_model(tmp_path / "model.safetensors", wide, teacher)
    captions = tmp_path / "captions.txt"
    captions.write_text(f"a chair\n{NASTY}\na round table\n")
    config = ShowConfig(out=str(tmp_path / "s.html"), count=1, device="cpu", captions=str(captions))
    text = show([str(clouds)], replace(config, checkpoint=str(file)), Lines()).read_text()
    found = page_data(text)["clouds"][0]["nearest"]
    assert sorted(caption for caption, _ in found) == sorted(["a chair", NASTY, "a round table"])
    assert "random" in text
    assert "was taken off" not in text
    many = [str(cloud) for cloud in clouds.rglob("*.npy")]
    assert (
        "the mean of all clouds was taken off"
        in show(many, replace(config, checkpoint=str(file)), Lines()).read_text()
    )


def test_captions_of_a_teacher_that_is_not_here(clouds, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    torch.manual_seed(0)
    wide = build_model(replace(TINY_MODEL, text_dim=512))
    file = write_model(tmp_path / "model.safetensors", wide, {"text": "ViT-B-32", "weights": "local"})
    console = Lines()
    config = ShowConfig(out=str(tmp_path / "s.html"), count=1, device="cpu")
    text = show([str(clouds)], replace(config, checkpoint=str(file)), console).read_text()
    assert console.has("No nearest captions:")
    assert "No nearest captions:" in text
    assert page_data(text)["clouds"][0]["nearest"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["procedural", "--checkpoint", "no.pth"], "checkpoint must be a file"),
        (["procedural", "--count", "0"], "count must be at least 1, got 0"),
        (["procedural", "--coutn", "3"], "did you mean count?"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert main(["show", *arguments]) == 2
    assert message in capsys.readouterr().err
