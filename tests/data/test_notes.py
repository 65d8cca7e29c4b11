"""What of a data set is not used is said: before training, by inspect, and in run.json."""

import io
import json

import h5py
import pytest
from layouts import (
    cloud,
    write_folder,
    write_modelnet,
    write_modelnet_hdf5,
    write_npy,
    write_shapenet,
    write_shapenet_part,
    write_table,
)
from rich.console import Console
from tiny import Lines, tiny_config

from recon_fast.cli import main
from recon_fast.config import DataConfig, PackConfig
from recon_fast.data import packing
from recon_fast.data.loading import load
from recon_fast.data.open import open_source, prepare_shapes
from recon_fast.data.packed import read_shards
from recon_fast.data.packing import pack
from recon_fast.errors import InputError
from recon_fast.tasks.pack import pack_shapes
from recon_fast.training.pretrain import pretrain

SMALL = {"num_points": 64, "max_points": 128}
CLOUDS = (
    "clouds are .npy .ply .off .obj .stl .glb .gltf .pcd .las .laz .xyz .pts .h5 .hdf5 .npz, and .txt .csv "
    "with rows of numbers"
)


def notes(path, kind="auto"):
    return load(open_source(path, kind), **SMALL)[0].notes


def test_a_folder_that_is_used_whole_has_no_notes(tmp_path):
    root = write_folder(tmp_path / "set")
    for name in ("README.md", "LICENSE", "ball/ball0.txt", "ball/.hidden.pcd"):
        (root / name).write_text("a ball")
    for name in ("ball/ball1", "ball/ball2", "ball/ball3", *(f"box/box{i}" for i in range(4))):
        (root / f"{name}.txt").write_text("a thing")
    assert notes(root) == []
    for write in (write_shapenet, write_modelnet_hdf5):
        assert notes(write(tmp_path / write.__name__)) == []


def test_other_files_are_counted(tmp_path):
    root = write_folder(tmp_path / "set")
    for name in ("a.fbx", "ball/b.blend", "box/c.dae", "box/d.fbx", "textures.png", "Makefile"):
        (root / name).touch()
    assert notes(root) == [f"not used: 2 .fbx, 1 .blend, 1 .dae, 1 .png, 1 without suffix; {CLOUDS}"]


def test_labels_that_are_lost(tmp_path):
    one_class = write_folder(tmp_path / "one", classes=("chair",))
    assert notes(one_class) == ["no labels: all shapes lie in one class, chair"]
    outside = write_folder(tmp_path / "outside")
    write_npy(outside / "stray.npy", cloud())
    assert notes(outside) == ["no labels: 1 shapes lie in no folder of a class"]
    named = write_modelnet_hdf5(tmp_path / "named")
    for split in ("train", "test"):
        with h5py.File(named / f"ply_data_{split}0.h5", "a") as file:
            file.move("label", "kinds")
            file["normal"] = file["data"][()]
    assert notes(named) == ["not used: `kinds`, `normal` of ply_data_test0.h5 and more"]
    half = write_modelnet_hdf5(tmp_path / "half")
    with h5py.File(half / "ply_data_test0.h5", "a") as file:
        del file["label"]
    assert notes(half) == ["no labels: 1 of 2 files have no `label`, such as ply_data_test0.h5"]
    mixed = write_folder(tmp_path / "mixed")
    with h5py.File(mixed / "ball" / "many.h5", "w") as file:
        file["data"], file["label"] = cloud()[None], [3]
    assert notes(mixed) == ["not used: labels of many.h5, since beside other files folders are the classes"]


def test_lists_that_are_missing_and_clouds_that_are_not_listed(tmp_path):
    root = write_shapenet(tmp_path / "shapenet")
    write_npy(root / "shapenet_pc" / "02691156-more.npy", cloud())
    assert notes(root) == ["not used: 1 clouds in no list, such as shapenet_pc/02691156-more.npy"]
    for file in (root / "ShapeNet-55").iterdir():
        file.unlink()
    (root / "ShapeNet-55").rmdir()
    assert any(note.startswith("no official split and no classes: shapenet_pc") for note in notes(root))
    modelnet = write_modelnet(tmp_path / "modelnet")
    write_table(modelnet / "bed" / "bed_0099.txt", cloud(columns=6))
    assert notes(modelnet)[0] == "not used: 1 clouds in no list, such as bed/bed_0099.txt"
    parts = write_shapenet_part(tmp_path / "parts")
    (parts / "02773838" / "more.txt").write_text("0 0 0 0 0 1 4\n")
    assert notes(parts)[0] == "not used: 1 clouds in no list, such as 02773838/more.txt"


def test_captions_of_no_shape(tmp_path):
    root = write_folder(tmp_path / "set")
    keys = [f"{name}/{name}{i}" for name in ("ball", "box") for i in range(4)]
    (root / "captions.json").write_text(json.dumps(dict.fromkeys((*keys, "cone/cone0"), "a thing")))
    assert notes(root) == ["not used: 1 of captions.json that belong to no shape, such as cone/cone0"]


@pytest.mark.parametrize("shards", [None, 3])
def test_colours_and_normals_and_what_packing_left_out(tmp_path, shards):
    root = write_folder(tmp_path / "set")
    write_npy(root / "ball" / "ball0.npy", cloud(columns=6))
    ply = "ply\nformat ascii 1.0\nelement vertex 64\nproperty float x\nproperty float y\nproperty float z\n"
    rows = "".join(" ".join(map(str, row)) + " 9\n" for row in cloud().tolist())
    (root / "box" / "more.ply").write_text(ply + "property uchar red\nend_header\n" + rows)
    (root / "box" / "same.ply").write_text(ply + "end_header\n" + rows.replace(" 9\n", "\n"))
    (root / "box" / "a.fbx").touch()
    expected = [
        f"not used: 1 .fbx; {CLOUDS}",
        "not used: what points have beside x, y, z (normals, colours), of 2 clouds",
    ]
    assert notes(root) == expected
    console = Console(file=io.StringIO(), width=200)
    out = tmp_path / ("shards" if shards else "a.h5")
    config = PackConfig(num_points=64, max_points=128, features=False, device="cpu", shard_size=shards)
    pack_shapes(root, out, config, console)
    again = prepare_shapes(DataConfig(path=str(out), num_points=64), 0, console)
    assert again.notes == expected
    assert all(console.file.getvalue().count(note) == 2 for note in expected)


def test_an_interrupted_packing_keeps_its_notes(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "set")
    write_npy(root / "ball" / "ball0.npy", cloud(columns=6))
    with monkeypatch.context() as patch:
        patch.setattr(packing, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack(open_source(root), tmp_path / "out", shard_size=3, **SMALL)
    packed = pack(open_source(root), tmp_path / "out", shard_size=3, **SMALL)
    assert packed.reused == 3
    assert packed.notes == read_shards(tmp_path / "out").notes
    assert packed.notes == ["not used: what points have beside x, y, z (normals, colours), of 1 cloud"]


def test_names_that_are_no_utf8(tmp_path):
    root = write_folder(tmp_path / "set")
    (root / "ball" / "ball0.npy").rename(root / "ball" / "caf\udce9.npy")
    with pytest.raises(InputError, match=r"must hold names in UTF-8, got b'caf\\xe9.npy'"):
        open_source(root)


def test_run_json_inspect_and_the_screen_tell(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_folder(tmp_path / "set")
    (root / "a.fbx").touch()
    note = f"not used: 1 .fbx; {CLOUDS}"
    console, run = Lines(), tmp_path / "run"
    data = DataConfig(path=str(root), num_points=64, max_points=64)
    pretrain(tiny_config(run, data=data, optim__epochs=2), None, console)
    assert console.has("set: ", note)
    starts = json.loads((run / "run.json").read_text())["starts"]
    assert starts[0]["data"]["notes"] == [note]
    assert main(["inspect", str(root), "--out", str(tmp_path / "page.html")]) == 0
    assert note in capsys.readouterr().err.replace("\n", " ")
    assert "Not used: 1 .fbx" in (tmp_path / "page.html").read_text()
