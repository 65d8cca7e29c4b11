"""Prompts, models and weight files."""

import os
import pickle
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recon_fast.errors import InputError
from recon_fast.teachers import TeacherConfig, describe_weights, prompts, random_teacher_config
from recon_fast.teachers.image import ImageTeacher
from recon_fast.teachers.text import TextTeacher

CONFIG = random_teacher_config()
TEXTS = ["a red chair.", "a castle tower!", "A point cloud of a sword with white background."]


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what this machine's caches hold."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def plain(*colour: int, size: int = 40) -> np.ndarray:
    return np.broadcast_to(np.uint8(colour), (size, size, 3)).copy()


def contiguous(teacher: ImageTeacher | TextTeacher) -> dict[str, torch.Tensor]:
    return {k: v.contiguous() for k, v in teacher.model.state_dict().items()}


def views(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8)


def test_prompts_are_the_60_of_recon() -> None:
    every = prompts("chair")
    assert len(every) == len(set(every)) == 60
    assert every[:4] == ["chair.", "chair with white background.", "chair with black context.", "A chair."]
    assert every[-1] == "A 3D rendering image of a chair with black context."
    assert "A point cloud model of a chair." in every


@pytest.mark.parametrize("count", [1, 2, 8, 20, 59])
def test_fewer_prompts_are_spread(count: int) -> None:
    some = prompts("chair", count)
    assert len(set(some)) == count
    assert set(some) <= set(prompts("chair"))
    assert some[0] == "chair."
    assert len({p.partition("chair")[2] for p in some}) == min(count, 3)
    assert len({p.partition("chair")[0] for p in some}) >= min(count, 15)


def test_import_needs_no_model_library() -> None:
    code = "import sys, recon_fast.teachers; print({'torch', 'timm', 'open_clip'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


@pytest.mark.parametrize("kind", [ImageTeacher, TextTeacher])
def test_random_weights_come_from_the_seed_alone(kind: type) -> None:
    before = torch.random.get_rng_state()
    first = kind(CONFIG).model.state_dict()
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(7)
    second, other = kind(CONFIG).model.state_dict(), kind(replace(CONFIG, seed=1)).model.state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_features_do_not_depend_on_the_batch() -> None:
    image, text, batch = ImageTeacher(CONFIG), TextTeacher(CONFIG), views()
    whole = image(batch)
    assert whole.shape == (4, 512)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(torch.cat([image(batch[i : i + 1]) for i in (2, 0)]), whole[[2, 0]])
    torch.testing.assert_close(torch.cat([text([t]) for t in TEXTS[::-1]]), text(TEXTS).flip(0))


def test_cutting_padding_changes_nothing() -> None:
    text = TextTeacher(CONFIG)
    cut = text(TEXTS)
    assert text.mask is not None
    text.model.attn_mask, text.mask = text.mask, None
    torch.testing.assert_close(text(TEXTS), cut)


def test_channel_order_is_rgb() -> None:
    teacher = ImageTeacher(CONFIG)
    red, blue = plain(255, 0, 0), plain(0, 0, 255)
    seen: list[torch.Tensor] = []
    teacher.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features = teacher(np.stack([teacher.view(p, b"x", 0) for p in (red, blue)]))
    assert not torch.allclose(features[0], features[1], rtol=0.05)
    torch.testing.assert_close(seen[0][0, 0, 0, 0].item(), (1 - 0.485) / 0.229)
    torch.testing.assert_close(seen[0][0, 2, 0, 0].item(), -0.406 / 0.225)


def test_views_depend_on_content_index_and_seed() -> None:
    teacher, picture = ImageTeacher(CONFIG), views(1)[0]
    assert np.array_equal(teacher.view(picture, b"a", 3), teacher.view(picture, b"a", 3))
    distinct = [teacher.view(picture, b"a", i) for i in range(12)] + [teacher.view(picture, b"b", 1)]
    distinct.append(ImageTeacher(replace(CONFIG, seed=1)).view(picture, b"a", 1))
    assert len({v.tobytes() for v in distinct}) == len(distinct)
    assert all(v.shape == (64, 64, 3) and v.dtype == np.uint8 for v in distinct)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224.augreg_in21k", "tiny", "ViT-S-32"])
def test_weight_files_round_trip(
    name: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("image", "text"):  # the same precision for both, whatever the CPU multiplies fast
        monkeypatch.setattr(f"recon_fast.teachers.{module}.autocast", lambda *_: nullcontext())
    file = tmp_path / f"weights{suffix}"
    is_text = name in ("tiny", "ViT-S-32")
    random = replace(CONFIG, **({"text": name} if is_text else {"image": name}))
    local = replace(random, weights="local", seed=9, image_weights=str(file), text_weights=str(file))
    kind = TextTeacher if is_text else ImageTeacher
    teacher = kind(random)
    state = contiguous(teacher)
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, file)
    else:
        save_file(
            state | ({} if is_text else {"fc.weight": torch.zeros(5, 512)} if "res" in name else {}), file
        )
    loaded = kind(local)
    batch = TEXTS if is_text else views()
    torch.testing.assert_close(loaded(batch), teacher(batch))
    assert all(torch.equal(v, state[k]) for k, v in loaded.model.state_dict().items())


def as_npz(state: dict[str, torch.Tensor], heads: int) -> dict[str, np.ndarray]:
    """A timm ViT's state dict in the layout of the original JAX weights."""
    w = {k: v.numpy() for k, v in state.items()}
    out = {"embedding/kernel": w["patch_embed.proj.weight"].transpose(2, 3, 1, 0), "cls": w["cls_token"]}
    out |= {"embedding/bias": w["patch_embed.proj.bias"]}
    out |= {"Transformer/posembed_input/pos_embedding": w["pos_embed"]}
    out |= {
        f"Transformer/encoder_norm/{a}": w[f"norm.{b}"] for a, b in (("scale", "weight"), ("bias", "bias"))
    }
    for i in range(sum(k.endswith("norm1.weight") for k in w)):
        block, name = f"blocks.{i}.", f"Transformer/encoderblock_{i}/"
        for norm, there in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            out |= {
                f"{name}{there}/scale": w[f"{block}{norm}.weight"],
                f"{name}{there}/bias": w[f"{block}{norm}.bias"],
            }
        attention = f"{name}MultiHeadDotProductAttention_1/"
        weights, biases = np.split(w[f"{block}attn.qkv.weight"], 3), np.split(w[f"{block}attn.qkv.bias"], 3)
        for part, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
            out[f"{attention}{part}/kernel"] = weight.T.reshape(len(weight), heads, -1)
            out[f"{attention}{part}/bias"] = bias.reshape(heads, -1)
        projection = w[f"{block}attn.proj.weight"]
        out[f"{attention}out/kernel"] = projection.T.reshape(heads, -1, len(projection))
        out[f"{attention}out/bias"] = w[f"{block}attn.proj.bias"]
        for r in range(2):
            out[f"{name}MlpBlock_3/Dense_{r}/kernel"] = w[f"{block}mlp.fc{r + 1}.weight"].T
            out[f"{name}MlpBlock_3/Dense_{r}/bias"] = w[f"{block}mlp.fc{r + 1}.bias"]
    return out


def test_original_vit_weights(tmp_path: Path) -> None:
    random = replace(CONFIG, image="vit_tiny_patch16_224.augreg_in21k", image_size=None)
    state = ImageTeacher(random).model.state_dict()
    np.savez(tmp_path / "vit.npz", **as_npz(state, heads=3))
    loaded = ImageTeacher(replace(random, weights="local", seed=9, image_weights=str(tmp_path / "vit.npz")))
    assert all(torch.equal(v, state[k]) for k, v in loaded.model.state_dict().items())
    np.savez(tmp_path / "bad.npz", **{"embedding/kernel": np.array([{}], dtype=object)})
    with pytest.raises(InputError, match=r"bad\.npz does not fit"):
        ImageTeacher(replace(random, weights="local", image_weights=str(tmp_path / "bad.npz")))


def test_both_clip_towers_read_one_file(tmp_path: Path) -> None:
    config = replace(CONFIG, image="open_clip:ViT-S-32", text="ViT-S-32", image_size=64)
    image, text = ImageTeacher(config), TextTeacher(config)
    assert image(views()).shape == text(TEXTS * 2)[:4].shape == (4, 384)
    state = {f"visual.{k}": v for k, v in image.model.state_dict().items()} | text.model.state_dict()
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "clip.safetensors")
    file = str(tmp_path / "clip.safetensors")
    local = replace(config, weights="local", image_weights=file, text_weights=file)
    for kind, teacher in ((ImageTeacher, image), (TextTeacher, text)):
        assert all(
            torch.equal(v, teacher.model.state_dict()[k]) for k, v in kind(local).model.state_dict().items()
        )


@pytest.mark.parametrize(
    ("kind", "argument", "hint"),
    [
        (
            ImageTeacher,
            "teacher.image",
            "hf download timm/vit_base_patch16_224.augreg_in21k model.safetensors",
        ),
        (
            TextTeacher,
            "teacher.text",
            "hf download timm/vit_base_patch32_clip_224.openai open_clip_model.safetensors",
        ),
    ],
)
def test_absent_weights_say_where_and_how(kind: type, argument: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        kind(TeacherConfig())
    message = str(caught.value)
    assert argument in message
    assert hint in message
    assert f"--{argument}_weights FILE" in message
    assert "--teacher.weights random" in message
    assert str(tmp_path / "hub") in message
    assert str(tmp_path / ("torch" if kind is ImageTeacher else "home")) in message
    assert dict(describe_weights(TeacherConfig()))[
        f"{argument} {TeacherConfig().__dict__[argument[8:]]}"
    ].startswith("not found: ")


def test_weights_are_found_in_the_hugging_face_cache(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--timm--resnet10t.c3_in1k"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    save_file(contiguous(ImageTeacher(CONFIG)), snapshot / "model.safetensors")
    config = replace(CONFIG, weights="local", text=None)
    assert describe_weights(config) == [("teacher.image resnet10t", str(snapshot / "model.safetensors"))]
    assert ImageTeacher(config)(views()).shape == (4, 512)


class _Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_a_pickle_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "it_ran"
    local = replace(CONFIG, weights="local", image_weights=str(tmp_path / "bad.pth"))
    torch.save({"conv1.weight": _Payload(marker)}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"bad\.pth"):
        ImageTeacher(local)
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(_Payload(marker)))
    with pytest.raises(InputError, match=r"bad\.pth"):
        ImageTeacher(local)
    assert not marker.exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "ViT-B-32.pt", "w") as archive:
        archive.writestr("ViT-B-32/constants.pkl", b"")
    config = TeacherConfig(text_weights=str(tmp_path / "ViT-B-32.pt"))
    with pytest.raises(InputError, match="TorchScript archive, which holds code"):
        TextTeacher(config)


def test_a_wrong_file_names_itself_and_the_key(tmp_path: Path) -> None:
    state = contiguous(ImageTeacher(CONFIG))
    file = tmp_path / "w.safetensors"
    local = replace(CONFIG, weights="local", image_weights=str(file))
    save_file({k: v for k, v in state.items() if k != "bn1.weight"}, file)
    with pytest.raises(
        InputError, match=r"w\.safetensors of resnet10t is no checkpoint of this model: it has no bn1\.weight"
    ):
        ImageTeacher(local)
    save_file(state | {"bn1.weight": torch.zeros(3)}, file)
    with pytest.raises(InputError, match=r"bn1\.weight of .* must be \(64,\) for this model, got \(3,\)"):
        ImageTeacher(local)
    save_file(state | {"layer9.0.weight": torch.zeros(3)}, file)
    with pytest.raises(InputError, match=r"it has layer9\.0\.weight, unknown to the model"):
        ImageTeacher(local)
    save_file(state, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"w\.safetensors must be a whole"):
        ImageTeacher(local)
    with pytest.raises(InputError, match="no file at all"):
        ImageTeacher(replace(local, image_weights=str(tmp_path / "none.pth")))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"image": "resnet999"}, "teacher.image must be a timm model"),
        ({"image": "hf-hub:timm/resnet18"}, "teacher.image must be a timm model"),
        ({"image": "resnet18.nobody"}, "teacher.image must be a model and tag that timm knows"),
        ({"text": "hf-hub:a/b"}, "teacher.text must name an open_clip model"),
        ({"text": "ViT-Z-1"}, "teacher.text must name an open_clip model"),
        ({"text": "ViT-B-16-SigLIP"}, "would have to be downloaded"),
        ({"text": "roberta-ViT-B-32"}, "would have to be downloaded"),
    ],
)
def test_wrong_names(changes: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        (ImageTeacher if "image" in changes else TextTeacher)(replace(CONFIG, **changes))


@pytest.mark.parametrize("changes", [{"views": 0}, {"prompts": 61}, {"batch_size": 0}, {"weights": "any"}])
def test_wrong_settings(changes: dict) -> None:
    with pytest.raises(InputError, match=f"teacher.{next(iter(changes))}"):
        random_teacher_config(**changes)
