"""Features of files: any sources, whole or not at all, and what is refused."""

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
from tiny import TINY_MODEL, Lines, tiny_shapes
from tiny_checkpoint import write_checkpoint, write_folder, write_model

import recon_fast
from recon_fast.cli import main
from recon_fast.config import PackConfig
from recon_fast.config.frozen import EmbedConfig, ReadingConfig
from recon_fast.data.loading import DataProblems
from recon_fast.errors import InputError
from recon_fast.models import Classifier
from recon_fast.tasks import embed_files as module
from recon_fast.tasks.cloud_sets import open_clouds
from recon_fast.tasks.embed_files import embed_files, read_features
from recon_fast.tasks.pack import pack_shapes

CPU = EmbedConfig(device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "data")


def embed(checkpoint, clouds, out, console=None, **changes):
    settings = replace(CPU, checkpoint=str(checkpoint), **changes)
    return embed_files(clouds, out, settings, console or Lines())


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".npz"])
@pytest.mark.parametrize("kind", ["svm", "zeroshot_text"])
def test_a_folder(checkpoint, folder, tmp_path, suffix, kind):
    console, out = Lines(), tmp_path / f"features{suffix}"
    done = embed(checkpoint, [folder], out, console, kind=kind, batch_size=4)
    found, shapes = read_features(out), tiny_shapes(24, features=False)
    assert (done.shapes, done.dim) == found.features.shape
    clouds = {f"{key}": shapes.cloud(i) for i, key in enumerate(shapes.keys)}
    names = [key.rsplit("/", 1)[-1] for key in found.keys]
    assert sorted(names) == sorted(shapes.keys)
    want = recon_fast.load(checkpoint, "cpu", "fp32").embed([clouds[name] for name in names], kind)
    # the tiny checkpoint's fitted projection has large weights, and the batches are other ones
    np.testing.assert_allclose(found.features, want, rtol=1e-3, atol=1e-3)
    assert found.features.dtype == np.float32
    assert [found.class_of(i) for i in range(24)] == [name.split("-")[0] for name in names]
    assert found.captions == [name.split("-")[0] for name in names]
    assert found.held_out.tolist() == [key.startswith("test/") for key in found.keys]
    assert found.attributes["kind"] == kind
    assert found.attributes["checkpoint"] == str(checkpoint)
    assert found.attributes["teacher"]["text"] == "tiny"
    assert "torch" in found.attributes["versions"]
    assert console.has("24 clouds of data")
    assert console.has("which axis is up in data is not known")
    if suffix != ".npz":
        with h5py.File(out) as file:
            assert file.attrs["kind"] == kind
            assert json.loads(file.attrs["versions"])["python"]
    assert not list(tmp_path.glob(".*"))


def test_packed_sets_and_shards_and_their_up_axis(checkpoint, folder, tmp_path):
    config = PackConfig(num_points=64, dtype="fp32", features=False, up="z")
    pack_shapes(folder, tmp_path / "packed.h5", config, Lines())
    pack_shapes(folder, tmp_path / "shards", replace(config, shard_size=7), Lines())
    files = []
    for name in ("packed.h5", "shards", "data"):
        files.append(tmp_path / f"{name}.npz")
        embed(checkpoint, [tmp_path / name], files[-1], data=ReadingConfig(up="z"))
    first, *others = map(read_features, files)
    for other in others:
        assert other.keys == first.keys
        np.testing.assert_allclose(other.features, first.features, rtol=1e-4, atol=1e-5)
    embed(checkpoint, [tmp_path / "data"], tmp_path / "lying.npz", data=ReadingConfig(turn_up="none"))
    assert not np.allclose(read_features(tmp_path / "lying.npz").features, first.features, atol=1e-2)


def test_single_files_and_several_sets(checkpoint, folder, tmp_path):
    other = write_folder(tmp_path / "other", tiny_shapes(12, seed=1, features=False))
    single = np.random.default_rng(0).standard_normal((200, 3))
    np.save(tmp_path / "a.npy", single)
    np.savetxt(tmp_path / "b.txt", single)
    sources = [folder, tmp_path / "a.npy", other, tmp_path / "b.txt", folder]
    found = open_clouds(sources, ReadingConfig(), 8, Lines())
    assert len(found) == 2 + 24 + 12
    assert found.shapes.keys[:2] == [str(tmp_path / "a.npy"), str(tmp_path / "b.txt")]
    assert found.shapes.keys[2].startswith(f"{folder}/")
    assert found.shapes.labels is None  # the single files have none
    order = [37, 0, 5, 1, 30, 6]
    alone = [next(found.read([row])) for row in order]
    for cloud, want in zip(found.read(order), alone, strict=True):
        np.testing.assert_array_equal(cloud, want)
    np.testing.assert_allclose(alone[1], alone[3], atol=1e-5)
    sets = open_clouds([folder, other], ReadingConfig(), 8, Lines()).shapes
    assert sets.class_names == ["ball", "box", "stick"]
    assert [sets.class_names[i] for i in sets.labels] == [key.split("/")[-2] for key in sets.keys]
    embed(checkpoint, sources, tmp_path / "out.h5")
    assert read_features(tmp_path / "out.h5").labels is None


def test_all_problems_are_told_before_anything_is_encoded(checkpoint, folder, tmp_path, monkeypatch):
    np.save(folder / "train" / "box" / "nan.npy", np.full((99, 3), np.nan))
    np.save(folder / "train" / "box" / "few.npy", np.ones((5, 3)))
    (folder / "test" / "ball" / "cut.ply").write_text("ply")
    np.save(folder / "train" / "box" / "fine.npy", np.random.default_rng(0).random((99, 3)))  # no caption
    calls = []
    monkeypatch.setattr(module, "embed_in_turn", lambda *_, **__: calls.append(1))
    with pytest.raises(DataProblems, match=r"3 of 28 shapes .* --data.on_problem skip") as raised:
        embed(checkpoint, [folder], tmp_path / "out.h5")
    for word in ("nan.npy", "few.npy", "cut.ply", "NaN or inf in 99 of 99", "at least 8 points, got 5"):
        assert word in raised.value.table
    assert not calls
    monkeypatch.undo()
    console = Lines()
    embed(checkpoint, [folder], tmp_path / "out.h5", console, data=ReadingConfig(on_problem="skip"))
    assert len(read_features(tmp_path / "out.h5").keys) == 25
    assert console.has("left out 3 shapes")


def test_whole_or_not_at_all(checkpoint, folder, tmp_path, monkeypatch):
    out = tmp_path / "out.h5"
    embed(checkpoint, [folder], out)
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"it exists \(--overwrite true replaces it\)"):
        embed(checkpoint, [folder], out)

    def broken(*_, **__):
        yield np.zeros((4, 48), np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "embed_in_turn", broken)
    for name in ("out.h5", "new.npz"):
        with pytest.raises(KeyboardInterrupt):
            embed(checkpoint, [folder], tmp_path / name, overwrite=True)
    assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.h5"]


def test_what_is_refused(checkpoint, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.fbx").write_text("solid")
    for sources, message in (
        ([tmp_path / "empty"], "must be a folder with clouds"),
        ([tmp_path / "no.npy"], "clouds must be files or folders, got .*no.npy: no such file"),
        ([tmp_path / "a.fbx"], r"clouds must be files of one kind of .* \.txt .*, or folders, got .*a\.fbx"),
    ):
        with pytest.raises(InputError, match=message):
            embed(checkpoint, sources, tmp_path / "out.h5")
    for out, message in (
        ("out.csv", "out must be a file .h5, .hdf5 or .npz"),
        ("no/out.h5", "out must lie in a folder that exists"),
    ):
        with pytest.raises(InputError, match=message):
            embed(checkpoint, [folder], tmp_path / out)
    classifier = write_model(Classifier(TINY_MODEL, 3), tmp_path / "classifier.safetensors")
    with pytest.raises(InputError, match="needs a pretraining checkpoint with an image projection"):
        embed(classifier, [folder], tmp_path / "out.h5", kind="zeroshot_image")
    assert not (tmp_path / "out.h5").exists()
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    for name in ("other.npz", "data/train/ball/ball-0.npy"):
        with pytest.raises(
            InputError, match=r"must be a file that `recon-fast embed` wrote|not an HDF5 file"
        ):
            read_features(tmp_path / name)


def test_command(checkpoint, folder, tmp_path, capsys):
    out = tmp_path / "out.npz"
    arguments = ["embed", str(folder), str(out), "--checkpoint", str(checkpoint), "--device", "cpu"]
    assert main(arguments) == 0
    assert "24 shapes, 48 numbers each" in capsys.readouterr().out
    assert main(arguments) == 2
    assert main([*arguments, "--overwrite", "--kind", "global"]) == 0
    assert main([*arguments, "--overwrite", "false"]) == 2
    assert main(["embed", str(out)]) == 2
    capsys.readouterr()
    assert main([*arguments, "--on_problem", "skip"]) == 2
    assert "did you mean data.on_problem?" in capsys.readouterr().err
