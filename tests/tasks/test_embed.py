"""Features of clouds: the official ones, whatever form the clouds have; and what is refused."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_data import golden, official_state
from safetensors.torch import save_file
from tiny import TINY_MODEL

import recon_fast
from recon_fast.checkpoint import weights_metadata
from recon_fast.data.batches.transforms import unit_sphere
from recon_fast.errors import InputError
from recon_fast.kernels import farthest_point_sample
from recon_fast.models import Classifier, PartSegmenter, ReCon, TwoTower
from recon_fast.tasks.embed import KINDS


def written(model, path, teacher=None):
    save_file(model.state_dict(), path, weights_metadata(model, teacher))
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    torch.manual_seed(0)
    model = ReCon(replace(TINY_MODEL, image_dim=6, text_dim=6))
    path = written(model, tmp_path_factory.mktemp("weights") / "model.safetensors")
    return recon_fast.load(path, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def clouds():
    return np.random.default_rng(0).standard_normal((5, 128, 3)).astype(np.float32)


def close(a, b):
    torch.testing.assert_close(torch.as_tensor(a), torch.as_tensor(b), rtol=1e-4, atol=1e-5)


def test_importing_the_package_is_light():
    code = "import sys, recon_fast; assert 'torch' not in sys.modules and recon_fast.__version__"
    subprocess.run([sys.executable, "-c", code], check=True)
    with pytest.raises(AttributeError, match="has no attribute 'lode'"):
        recon_fast.lode  # noqa: B018


@pytest.mark.parametrize("name", ["svm", "zeroshot_full", "zeroshot_text"])
def test_official_features(name, tmp_path):
    config, want = golden(name)
    torch.save({"base_model": official_state(config)}, tmp_path / "ckpt.pth")
    sizes = {key: config[key] for key in ("num_heads", "num_group", "group_size")}
    encoder = recon_fast.load(tmp_path / "ckpt.pth", device="cpu", precision="fp32", **sizes)
    kind = {"svm": "svm", "zeroshot_full": "zeroshot", "zeroshot_text": "zeroshot_text"}[name]
    close(encoder.embed(want["pts"], kind, normalize=False), want["output"])


def test_all_kinds(encoder, clouds):
    C, model = TINY_MODEL.dim, encoder.model
    with torch.no_grad():
        encoding = model.encode(unit_sphere(torch.from_numpy(clouds)))
    cls, img, text = encoding.global_tokens.unbind(1)
    local = encoding.local_tokens
    want = {
        "svm": torch.cat([encoding.global_tokens.amax(1), local.amax(1) + local.mean(1)], 1),
        "global": torch.cat([cls, img, text], 1),
        "classification": torch.cat([cls, img, text, local.amax(1)], 1),
        "zeroshot": 0.25 * model.text_proj(text) + model.img_proj(img),
        "zeroshot_text": model.text_proj(text),
        "zeroshot_image": model.img_proj(img),
    }
    assert set(KINDS) == set(want)
    for kind, width in zip(KINDS, (2 * C, 3 * C, 4 * C, 6, 6, 6), strict=True):
        feature = encoder.embed(clouds, kind)
        assert feature.shape == (5, width)
        assert feature.dtype == np.float32
        close(feature, want[kind].detach())
    close(
        encoder.embed(clouds, "zeroshot", ratio=2.0),
        (2 * model.text_proj(text) + model.img_proj(img)).detach(),
    )


def test_any_form_of_clouds_gives_the_same(encoder, clouds):
    want = encoder.embed(clouds)
    assert isinstance(want, np.ndarray)
    tensor = torch.from_numpy(clouds)
    from_torch = encoder.embed(tensor)
    assert isinstance(from_torch, torch.Tensor)
    assert not from_torch.requires_grad
    (from_torch * torch.ones(1, requires_grad=True)).sum().backward()  # an ordinary tensor
    frozen = clouds.astype(np.float64)[:, :, ::-1].copy()[:, :, ::-1]
    frozen.flags.writeable = False
    for given in (tensor, list(clouds), tuple(tensor), tensor.double().requires_grad_(), frozen):
        close(
            encoder.embed(given).detach() if isinstance(given, torch.Tensor) else encoder.embed(given), want
        )
    close(encoder.embed(clouds[2]), want[2])
    assert encoder.embed(clouds[2]).shape == (2 * TINY_MODEL.dim,)
    close(encoder.embed(clouds, batch_size=2), want)
    whole = (clouds * 1000).astype(np.int32)
    close(encoder.embed(whole), encoder.embed(whole.astype(np.float32)))


def test_place_and_size_do_not_matter_unless_wanted(encoder, clouds):
    moved = clouds.astype(np.float64) * 37 + 1e6
    close(encoder.embed(moved), encoder.embed(clouds))
    assert not np.allclose(encoder.embed(clouds * 3, normalize=False), encoder.embed(clouds), atol=1e-2)


def test_ragged_clouds_keep_their_order(encoder):
    rng = np.random.default_rng(1)
    sizes = (40, 300, 8, 128, 40, 999, 300)
    ragged = [rng.standard_normal((n, 3)) for n in sizes]
    want = np.stack([encoder.embed(cloud) for cloud in ragged])
    close(encoder.embed(ragged, batch_size=2), want)
    close(encoder.embed(ragged), want)
    assert np.array_equal(encoder.embed(ragged), encoder.embed(ragged))


def test_large_clouds_are_sampled_farthest_first(encoder):
    cloud = torch.randn(1, 500, 3)
    cloud = unit_sphere(cloud)
    few = cloud[:, farthest_point_sample(cloud, 50)[0]]
    close(encoder.embed(cloud, num_points=50, normalize=False), encoder.embed(few, normalize=False))
    default = cloud[:, farthest_point_sample(cloud, 128)[0]]  # 16 for each of 8 groups
    close(encoder.embed(cloud, normalize=False), encoder.embed(default, normalize=False))


def test_other_models(tmp_path, clouds):
    models = {
        Classifier(TINY_MODEL, 3): "a classifier",
        PartSegmenter(replace(TINY_MODEL, depth=3), 4, 2): "a segmenter",
        ReCon(replace(TINY_MODEL, text_dim=None)): "one without",
    }
    for model, what in models.items():
        encoder = recon_fast.load(written(model, tmp_path / "model.safetensors"), "cpu", "fp32")
        assert encoder.embed(clouds).shape == (5, 2 * TINY_MODEL.dim)
        with pytest.raises(InputError, match=f"'zeroshot' needs a pretraining checkpoint .*, got {what}"):
            encoder.embed(clouds, "zeroshot")
    towers = written(TwoTower(replace(TINY_MODEL, arch="twotower")), tmp_path / "model.safetensors")
    assert recon_fast.load(towers, "cpu", "fp32").embed(clouds, "global").shape == (5, 2 * TINY_MODEL.dim)


def test_teachers_without_a_shared_space(tmp_path, clouds):
    model = ReCon(replace(TINY_MODEL, image_dim=6, text_dim=6))
    encoder = recon_fast.load(
        written(model, tmp_path / "model.safetensors", {"aligned": False}), "cpu", "fp32"
    )
    close(encoder.embed(clouds, "zeroshot"), encoder.embed(clouds, "zeroshot_text"))


def test_bf16_is_near(encoder, tmp_path, clouds):
    path = written(encoder.model, tmp_path / "model.safetensors")
    feature = recon_fast.load(path, "cpu", "bf16").embed(torch.from_numpy(clouds))
    want = encoder.embed(torch.from_numpy(clouds))
    assert torch.cosine_similarity(feature, want).min() > 0.99


BAD = {
    "shape": (np.zeros((5, 4)), {}, r"points must be \[N, 3\], got \(5, 4\); its first three columns are"),
    "dimensions": (np.zeros(3), {}, r"points must be \[B, N, 3\] or \[N, 3\], got \(3,\)"),
    "list": ([[1, 2, 3]], {}, "points must be an array, a tensor or a list of those, got list"),
    "none": ([], {}, "points must hold at least one cloud, got none"),
    "empty": (np.zeros((0, 9, 3)), {}, "points must hold at least one cloud, got none"),
    "small": (
        [np.ones((9, 3)), np.ones((7, 3))],
        {},
        r"points\[1\] must have at least 8 points for this model",
    ),
    "nan": (np.full((2, 9, 3), np.nan), {}, r"points\[0\] must be finite, got NaN or inf in 9 of 9 points"),
    "strings": (np.full((9, 3), "a"), {}, "points must be real numbers, got <U1"),
    "complex": (
        torch.zeros(9, 3, dtype=torch.complex64),
        {},
        "points must be real numbers, got torch.complex64",
    ),
    "kind": (np.ones((9, 3)), {"kind": "smv"}, "kind must be one of svm, .*, got 'smv'"),
    "batch": (np.ones((9, 3)), {"batch_size": 0}, "batch_size must be at least 1, got 0"),
    "points": (np.ones((9, 3)), {"num_points": 7}, "num_points must be at least 8 for this model, got 7"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_embedded(encoder, name):
    points, settings, message = BAD[name]
    with pytest.raises(InputError, match=message):
        encoder.embed(points, **settings)


def test_load_refuses(tmp_path):
    with pytest.raises(InputError, match="precision must be auto, fp32 or bf16, got 'fp16'"):
        recon_fast.load(tmp_path, precision="fp16")
    with pytest.raises(InputError, match="device must be one that works here, got gpu7"):
        recon_fast.load(tmp_path, device="gpu7")
    with pytest.raises(InputError, match="checkpoint must be a file"):
        recon_fast.load(tmp_path)


def test_arrays_in_the_wrong_order_and_beyond_float32_are_told_apart(encoder):
    cloud = np.random.default_rng(0).standard_normal((200, 3))
    for points, message in (
        (cloud.T, r"points must be \[N, 3\], got \(3, 200\): it looks transposed"),
        (cloud.T[None], r"points\[0\] must be \[N, 3\], got \(3, 200\): it looks transposed"),
        (np.hstack([cloud, cloud]), r"got \(200, 6\); its first three columns are"),
        (cloud * 1e200, r"points must fit into float32, got coordinates up to \d.*e\+200"),
    ):
        with pytest.raises(InputError, match=message):
            encoder.embed(points)
