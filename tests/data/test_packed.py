import errno
import io
import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from layouts import cut, poison, write_folder, write_modelnet_hdf5, write_npy, write_shapenet
from rich.console import Console

from recon_fast.config import DataConfig, PackConfig
from recon_fast.data import loading, packing
from recon_fast.data.loading import DataProblems, load
from recon_fast.data.open import open_source, prepare_shapes
from recon_fast.data.packed import is_packed, read_packed
from recon_fast.data.packing import pack, partial_folder
from recon_fast.data.readers.pictures import FilePictures
from recon_fast.data.shapes import Features
from recon_fast.errors import InputError
from recon_fast.tasks.pack import pack_shapes
from recon_fast.teachers import compute_features, random_teacher_config

SMALL = {"num_points": 64, "max_points": 128}
QUIET = Console(file=io.StringIO())


def made_features(shapes):
    count = len(shapes)
    texts = sorted(set(shapes.captions))
    index = np.array([texts.index(text) for text in shapes.captions])
    image = np.arange(count * 2 * 5, dtype=np.float16).reshape(count, 2, 5)
    text = np.ones((len(texts), 3, 4), np.float16)
    return Features(image, text, index, text[:, 0].astype(np.float32), {"weights": "made", "seed": 3})


def assert_same(one, two):
    assert (one.keys, one.class_names, one.captions) == (two.keys, two.class_names, two.captions)
    for name in ("points", "offsets", "held_out", "labels"):
        a, b = getattr(one, name), getattr(two, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_packed_is_what_was_loaded_with_pictures(tmp_path, dtype):
    source = open_source(write_shapenet(tmp_path / "set"))
    packed = pack(source, tmp_path / "a.h5", dtype=dtype, **SMALL)
    loaded, _ = load(source, dtype=dtype, **SMALL)
    again = read_packed(tmp_path / "a.h5", num_points=64)
    assert_same(again, loaded)
    assert again.name == loaded.name
    assert again.features is None
    for i in (0, 5, 11):
        assert again.pictures.digest(i) == loaded.pictures.digest(i)  # so stored features are found again
        np.testing.assert_array_equal(again.pictures[i], loaded.pictures[i])
    assert len(again.pictures) == 12
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5", "set"]
    assert "12 shapes, 3 of them held out, 3 classes, captions, pictures; 768 points" in packed.summary()


@pytest.mark.parametrize("write", [write_folder, write_modelnet_hdf5])
def test_sets_without_pictures_captions_or_labels(tmp_path, write):
    source = open_source(write(tmp_path / "set"))
    pack(source, tmp_path / "a.h5", dtype=np.float32, **SMALL)
    assert_same(read_packed(tmp_path / "a.h5"), load(source, **SMALL)[0])
    write_npy(tmp_path / "one" / "x.npy", np.ones((64, 3)))
    pack(open_source(tmp_path / "one"), tmp_path / "one.h5", **SMALL)
    one = read_packed(tmp_path / "one.h5")
    assert (one.labels, one.captions, one.pictures, one.class_names) == (None, None, None, [])


def test_features_are_packed_instead_of_pictures(tmp_path):
    source = open_source(write_shapenet(tmp_path / "set"))
    pack(source, tmp_path / "a.h5", features_fn=made_features, **SMALL)
    shapes = read_packed(tmp_path / "a.h5")
    assert shapes.pictures is None
    made = made_features(shapes)
    for name in ("image", "text", "caption_index", "class_text"):
        np.testing.assert_array_equal(getattr(shapes.features, name), getattr(made, name))
        assert getattr(shapes.features, name).dtype == getattr(made, name).dtype
    assert shapes.features.teacher == made.teacher


def test_packing_for_training_gives_the_features_of_the_folder(tmp_path):
    root = write_shapenet(tmp_path / "set")
    teacher = random_teacher_config(image_size=32, prompts=2)
    config = PackConfig(num_points=64, max_points=128, device="cpu", teacher=teacher)
    line = pack_shapes(root, tmp_path / "a.h5", config, QUIET)
    assert "features of the teachers" in line
    assert not partial_folder(tmp_path / "a.h5").exists()
    data = DataConfig(num_points=64, max_points=128)
    packed, folder = (
        prepare_shapes(DataConfig(**{**data.__dict__, "path": str(path)}), 0, QUIET)
        for path in (tmp_path / "a.h5", root)
    )
    expected = compute_features(folder, teacher)
    np.testing.assert_array_equal(packed.features.image, expected.image)
    np.testing.assert_array_equal(packed.features.text, expected.text)
    np.testing.assert_array_equal(packed.features.class_text, expected.class_text)


@pytest.fixture
def small_shards(monkeypatch):
    """Shards of 4 shapes, and a list that gets the keys of every block that is read."""
    read: list[str] = []
    original = loading.read_block

    def counted(entries, reading):
        read.extend(entry.key for entry in entries)
        return original(entries, reading)

    monkeypatch.setattr(loading, "read_block", counted)
    monkeypatch.setattr(packing, "_SHARD", 4)
    return read


def interrupt_after(count):
    def progress(done, total):
        if done >= count:
            raise KeyboardInterrupt

    return progress


def test_interrupted_packing_continues(tmp_path, small_shards):
    source, out = open_source(write_shapenet(tmp_path / "set")), tmp_path / "a.h5"
    with pytest.raises(KeyboardInterrupt):
        pack(source, out, progress=interrupt_after(8), **SMALL)
    assert not out.exists()
    assert len(small_shards) == 8
    parts = sorted(partial_folder(out).iterdir())
    cut(parts[0])  # a damaged shard is read again
    small_shards.clear()
    assert pack(source, out, **SMALL).reused == 1
    assert len(small_shards) == 8
    assert not partial_folder(out).exists()
    assert_same(read_packed(out), load(source, dtype=np.float16, **SMALL)[0])


@pytest.mark.parametrize("change", ["cloud", "settings"])
def test_what_changed_since_the_interruption_is_read_again(tmp_path, small_shards, change):
    root, out = write_shapenet(tmp_path / "set"), tmp_path / "a.h5"
    with pytest.raises(KeyboardInterrupt):
        pack(open_source(root), out, progress=interrupt_after(12), **SMALL)
    settings = SMALL
    if change == "cloud":
        write_npy(open_source(root).entries[0].cloud, np.ones((65, 3)))
    else:
        settings = {"num_points": 64, "max_points": 64}
    small_shards.clear()
    pack(open_source(root), out, **settings)
    assert len(small_shards) == (4 if change == "cloud" else 12)
    assert_same(read_packed(out), load(open_source(root), dtype=np.float16, **settings)[0])


def test_a_file_that_was_killed_while_written_is_cleared_away(tmp_path):
    source, out = open_source(write_shapenet(tmp_path / "set")), tmp_path / "a.h5"
    partial_folder(out).mkdir()
    (partial_folder(out) / "writing-0").write_bytes(b"half of it")
    pack(source, out, **SMALL)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5", "set"]


def test_problems_stop_it_before_anything_is_left(tmp_path):
    root, out = write_shapenet(tmp_path / "set"), tmp_path / "a.h5"
    poison(root / "shapenet_pc" / "02691156-shape1.npy")
    (root / "shapenet_img" / "03001627-shape0.png").unlink()
    with pytest.raises(DataProblems, match="--on_problem skip") as error:
        pack(open_source(root), out, **SMALL)
    assert len(error.value.problems) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["set"]
    packed = pack(open_source(root), out, on_problem="skip", **SMALL)
    assert len(packed.problems) == 2
    loaded, _ = load(open_source(root), on_problem="skip", dtype=np.float16, **SMALL)
    again = read_packed(out)
    assert_same(again, loaded)
    assert [again.pictures.digest(i) for i in range(10)] == [loaded.pictures.digest(i) for i in range(10)]


def test_a_full_disk_leaves_no_output_and_the_same_command_continues(tmp_path, monkeypatch):
    source, out = open_source(write_shapenet(tmp_path / "set")), tmp_path / "a.h5"
    out.write_bytes(b"older")

    def full(self, index):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(FilePictures, "content", full)
        with pytest.raises(InputError, match=r"a\.h5: No space left on device; the same command continues"):
            pack(source, out, overwrite=True, **SMALL)
    assert out.read_bytes() == b"older"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5", "a.h5.partial", "set"]
    assert pack(source, out, overwrite=True, **SMALL).reused == 1
    assert len(read_packed(out)) == 12


def test_output_must_be_new_and_its_folder_exist(tmp_path):
    source = open_source(write_folder(tmp_path / "set"))
    (tmp_path / "a.h5").touch()
    for out, message in (
        ("a.h5", r"it exists \(--overwrite true"),
        ("set", "it is a folder"),
        ("absent/a.h5", "must lie in a folder that exists"),
    ):
        with pytest.raises(InputError, match=message):
            pack(source, tmp_path / out, **SMALL)
    pack(source, tmp_path / "a.h5", overwrite=True, **SMALL)
    assert len(read_packed(tmp_path / "a.h5")) == 8


def test_a_packed_file_among_its_clouds_is_not_one_of_them(tmp_path):
    root = write_folder(tmp_path)
    pack(open_source(root), root / "ball" / "packed.h5", **SMALL)
    assert len(open_source(root).entries) == 8


@pytest.fixture
def packed_file(tmp_path) -> Path:
    pack(open_source(write_shapenet(tmp_path / "set")), tmp_path / "a.h5", **SMALL)
    return tmp_path / "a.h5"


def test_a_packed_file_that_is_not_used_is_named(tmp_path):
    root = write_folder(tmp_path)
    pack(open_source(root), root / "ball" / "packed.h5", **SMALL)
    assert open_source(root).notes == ["not used: packed.h5, which `recon-fast pack` wrote"]


def test_only_packed_files_are_packed(tmp_path, packed_file):
    assert is_packed(packed_file)
    assert not is_packed(tmp_path / "set" / "shapenet55.json")
    root = write_modelnet_hdf5(tmp_path / "modelnet")
    assert not is_packed(root / "ply_data_test0.h5")
    with pytest.raises(InputError, match="got another HDF5 file"):
        read_packed(root / "ply_data_test0.h5")
    (tmp_path / "empty.h5").touch()
    assert not is_packed(tmp_path / "empty.h5")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_truncated_files_are_refused(packed_file, share):
    cut(packed_file, share)
    for use in (is_packed, read_packed):
        with pytest.raises(InputError, match=r"a\.h5 is damaged"):
            use(packed_file)


@pytest.mark.parametrize("name", ["points", "labels", "held_out", "pictures", "captions", "keys"])
def test_every_dataset_is_verified(packed_file, name):
    with h5py.File(packed_file, "a") as file:
        values = file[name][()]
        values[0] = "changed" if values.dtype == object else values[0] + 1
        file[name][...] = values
    with pytest.raises(InputError, match=rf"a\.h5 is damaged: the checksum of its {name} does not match"):
        read_packed(packed_file)


def test_missing_datasets_other_versions_and_small_clouds_are_refused(packed_file):
    with pytest.raises(InputError, match="at least 65 points, got one of 64"):
        read_packed(packed_file, num_points=65)
    with h5py.File(packed_file, "a") as file:
        del file["held_out"]
    with pytest.raises(InputError, match="must have an array held_out, got captions"):
        read_packed(packed_file)
    with h5py.File(packed_file, "a") as file:
        file.attrs["version"] = 99
    with pytest.raises(InputError, match="must be of format version 1, got 99"):
        read_packed(packed_file)


def test_a_file_without_teacher_pictures_serves_the_teachers(packed_file):
    teacher = random_teacher_config(image_size=32, prompts=2, views=1)
    features = compute_features(read_packed(packed_file), teacher)
    assert features.image.shape[:2] == (12, 1)
    json.dumps(features.teacher)
