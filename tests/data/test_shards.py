"""Sets in many files: the same shapes as in one, packed whole or not at all, and refused where damaged."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from layouts import cut, poison, write_folder, write_shapenet
from rich.console import Console
from test_packed import SMALL, assert_same, made_features

from recon_fast.cli import main
from recon_fast.config import DataConfig, PackConfig
from recon_fast.data import packing as pack_module
from recon_fast.data.loading import DataProblems
from recon_fast.data.open import fingerprint, open_source, prepare_shapes, verify_shards_of
from recon_fast.data.packed import is_sharded, read_packed, read_shards, verify_shards
from recon_fast.data.packing import pack, partial_folder
from recon_fast.data.shapes import Joined, Shapes
from recon_fast.errors import InputError
from recon_fast.tasks.pack import pack_shapes
from recon_fast.teachers import random_teacher_config

QUIET = Console(file=io.StringIO())


def in_memory(shapes: Shapes) -> Shapes:
    return replace(shapes, points=shapes.points[: len(shapes.points)])


@pytest.fixture
def shards(tmp_path) -> Path:
    """Twelve shapes in shards of 5, 5 and 2."""
    source = open_source(write_shapenet(tmp_path / "set"))
    packed = pack(source, tmp_path / "shards", shard_size=5, features_fn=made_features, **SMALL)
    assert (packed.shards, packed.shapes, packed.held_out) == (3, 12, 3)
    return tmp_path / "shards"


def test_joined_arrays_are_one():
    parts = [np.arange(6).reshape(3, 2), np.arange(6, 8).reshape(1, 2), np.arange(8, 14).reshape(3, 2)]
    joined, whole = Joined(parts), np.concatenate(parts)
    assert joined.shape == whole.shape
    for start in range(8):
        for stop in range(9):
            np.testing.assert_array_equal(joined[start:stop], whole[start:stop])
    assert joined[4:6].base is not None  # a view


@pytest.mark.parametrize("with_features", [True, False])
def test_shards_are_the_shapes_of_one_file(tmp_path, with_features):
    source = open_source(write_shapenet(tmp_path / "set"))
    fn = made_features if with_features else None
    pack(source, tmp_path / "one.h5", features_fn=fn, **SMALL)
    pack(source, tmp_path / "many", shard_size=5, features_fn=fn, **SMALL)
    one, many = read_packed(tmp_path / "one.h5"), read_shards(tmp_path / "many", num_points=64)
    assert isinstance(many.points, Joined)
    assert_same(in_memory(many), one)
    assert fingerprint(many) == fingerprint(one)
    assert not partial_folder(tmp_path / "many").exists()
    assert sorted(file.name for file in (tmp_path / "many").iterdir()) == [
        "manifest.json", "shard-00000.h5", "shard-00001.h5", "shard-00002.h5",
    ]  # fmt: skip
    verify_shards(tmp_path / "many")
    if with_features:
        assert many.pictures is None
        assert many.features.image.shape == one.features.image.shape
        text = many.features.text[:100][many.features.caption_index]
        np.testing.assert_array_equal(text, one.features.text[one.features.caption_index])
        assert many.features.teacher == one.features.teacher
    else:
        assert many.features is None
        for i in (0, 4, 5, 11):
            assert many.pictures.digest(i) == one.pictures.digest(i)
            np.testing.assert_array_equal(many.pictures[i], one.pictures[i])
        assert len(many.pictures) == 12


def test_command_and_teachers(tmp_path, capsys):
    root = write_shapenet(tmp_path / "set")
    teacher = random_teacher_config(image_size=32, prompts=2)
    config = PackConfig(num_points=64, max_points=128, device="cpu", teacher=teacher, shard_size=7)
    assert "12 shapes in 2 shards" in pack_shapes(root, tmp_path / "many", config, QUIET)
    pack_shapes(root, tmp_path / "one.h5", replace(config, shard_size=None), QUIET)
    data = DataConfig(path=str(tmp_path / "many"), num_points=64)
    verify_shards_of(data, QUIET)
    many, one = prepare_shapes(data, 0, QUIET), read_packed(tmp_path / "one.h5")
    for name, found in (("image", many.features.image[:12]), ("class_text", many.features.class_text)):
        # batches of other sizes round otherwise
        np.testing.assert_allclose(found, getattr(one.features, name), rtol=2e-3, atol=1e-3)
    argv = ["pack", str(root), str(tmp_path / "cli"), "--num_points=64", "--shard_size=7", "--features=false"]
    assert main(argv) == 0
    assert "in 2 shards" in capsys.readouterr().out
    assert main(argv) == 2
    assert "out must be a new folder" in capsys.readouterr().err
    assert main([*argv, "--overwrite=true"]) == 0
    assert main(["pack", str(tmp_path / "cli"), str(tmp_path / "x.h5")]) == 2
    assert "packed already" in capsys.readouterr().err


def test_shards_that_hold_different_things_are_refused(tmp_path):
    source = open_source(write_folder(tmp_path / "set"))
    source.entries[:3] = [replace(entry, caption="a ball") for entry in source.entries[:3]]
    with pytest.raises(InputError, match="captions and labels of all shapes or of none"):
        pack(source, tmp_path / "many", shard_size=3, **SMALL)


def test_a_shard_without_shapes_for_validation_joins_those_that_have_some(tmp_path):
    source = open_source(write_folder(tmp_path / "set"))
    source.entries[1] = replace(source.entries[1], validation=True, held_out=False)
    pack(source, tmp_path / "many", shard_size=3, **SMALL)
    assert read_shards(tmp_path / "many").validation.tolist() == [i == 1 for i in range(8)]


def test_all_problems_are_shown_at_once(tmp_path):
    root = write_shapenet(tmp_path / "set")
    source = open_source(root)
    bad = [root / "shapenet_pc" / f"{entry.key}.npy" for entry in source.entries[:5] + source.entries[11:]]
    for file in bad:
        poison(file)
    with pytest.raises(DataProblems) as caught:
        pack(source, tmp_path / "many", shard_size=5, **SMALL)
    assert len(caught.value.problems) == 6
    assert not partial_folder(tmp_path / "many").exists()
    packed = pack(source, tmp_path / "many", shard_size=5, on_problem="skip", **SMALL)
    assert (packed.shards, packed.shapes, len(packed.problems)) == (2, 6, 6)  # of the first, nothing is left
    assert len(read_shards(tmp_path / "many")) == 6


def test_an_interrupted_packing_continues(tmp_path, monkeypatch):
    source = open_source(write_shapenet(tmp_path / "set"))
    real = pack_module.write_packed

    def interrupted(file, *of):
        if file.name == "shard-00002.h5":
            raise KeyboardInterrupt
        return real(file, *of)

    monkeypatch.setattr(pack_module, "write_packed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(source, tmp_path / "many", shard_size=5, **SMALL)
    assert not (tmp_path / "many").exists()
    monkeypatch.setattr(pack_module, "write_packed", real)
    poison(source.entries[0].cloud, 7.0)  # the first shard's files have changed
    packed = pack(source, tmp_path / "many", shard_size=5, **SMALL)
    assert packed.reused == 1
    pack(source, tmp_path / "one.h5", **SMALL)
    assert_same(in_memory(read_shards(tmp_path / "many")), read_packed(tmp_path / "one.h5"))


def test_damaged_missing_and_foreign_shards_are_one_table(tmp_path, shards):
    other = write_folder(tmp_path / "other")
    foreign = pack(open_source(other), tmp_path / "foreign.h5", **SMALL).out
    (shards / "shard-00000.h5").unlink()
    cut(shards / "shard-00001.h5")
    shutil.copy(foreign, shards / "shard-00002.h5")
    manifest = json.loads((shards / "manifest.json").read_text())
    manifest["shards"][2]["bytes"] = foreign.stat().st_size
    (shards / "manifest.json").write_text(json.dumps(manifest))
    for read in (read_shards, verify_shards):
        with pytest.raises(DataProblems, match=r"3 shards of .* cannot be used") as caught:
            read(shards)
        for said in ("it is missing", "bytes, and has", "a shard of another set"):
            assert said in caught.value.table


def test_changed_bytes_are_found_by_verification(shards):
    file = shards / "shard-00001.h5"
    content = bytearray(file.read_bytes())
    points = read_packed(file).points.tobytes()
    content[content.find(points) + 9] ^= 4
    file.write_bytes(content)
    with pytest.raises(DataProblems) as caught:
        verify_shards(shards)
    assert "checksum of its points does not match" in caught.value.table
    assert [problem.key for problem in caught.value.problems] == ["shard-00001.h5"]


@pytest.mark.parametrize("text", ["{", '{"format": "recon-fast sharded shapes"}', "[]"])
def test_damaged_manifest(shards, text):
    (shards / "manifest.json").write_text(text)
    if is_sharded(shards):
        with pytest.raises(InputError, match=r"manifest.json is damaged"):
            read_shards(shards)


def test_other_versions_and_small_clouds_are_refused(shards):
    with pytest.raises(InputError, match="at least 65 points, got one of 64"):
        read_shards(shards, num_points=65)
    manifest = json.loads((shards / "manifest.json").read_text())
    (shards / "manifest.json").write_text(json.dumps({**manifest, "version": 2}))
    with pytest.raises(InputError, match="must be of format version 1, got 2"):
        read_shards(shards)
