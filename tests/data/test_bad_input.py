"""Broken data as a user meets it: at most a table, then one line, exit code 2, and nothing half-written."""

import errno

import h5py
import numpy as np
import pytest
from layouts import (
    TETRAHEDRON,
    cloud,
    cut,
    poison,
    write_fold,
    write_folder,
    write_modelnet,
    write_modelnet_cache,
    write_modelnet_hdf5,
    write_npy,
    write_scanobjectnn,
    write_shapenet,
    write_shapenet_part,
    write_table,
)

from recon_fast.cli import main
from recon_fast.data import hdf5, packing
from recon_fast.data.open import open_source
from recon_fast.data.packing import pack

PRETRAIN = ["--out", "run", "--data.path", "set", "--device", "cpu"]
POINTS = ["--data.num_points", "64", "--data.max_points", "128"]
SMALL_MODEL = ["--model.num_group", "8", "--model.group_size", "8"]
PACK = ["--num_points", "64", "--max_points", "128", "--features", "false", "--device", "cpu"]
KEY = "02691156-shape1"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys, arguments):
    """Run a command that must fail; (its table's lines, its message)."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    *table, message = captured.err.splitlines()
    assert message.startswith("recon-fast: error: ")
    assert "Traceback" not in captured.err
    return table, message


def absent(root):
    pass


def empty(root):
    root.mkdir()


def no_clouds(root):
    root.mkdir()
    (root / "notes.txt").write_text("hello")


def no_list(root):
    (write_shapenet(root) / "ShapeNet-55" / "train.txt").unlink()


def broken_captions(root):
    cut(write_shapenet(root) / "shapenet55.json")


def a_file(root):
    root.write_text("hello")


def several_variants(root):
    write_scanobjectnn(root)


def several_folds(root):
    for fold in range(2):
        write_fold(root / "3way_2shot" / f"{fold}.pkl")


def no_classes(root):
    (write_modelnet(root) / "modelnet40_shape_names.txt").unlink()


def no_validation_list(root):
    (write_shapenet_part(root) / "train_test_split" / "shuffled_val_file_list.json").unlink()


def cut_h5_file(root):
    """A packed file, cut, under the name that is given as the data."""
    pack(open_source(write_folder(root.with_name("clouds"))), root, num_points=64, max_points=64)
    cut(root)


WHOLE = {
    absent: "a file that holds many (.h5 .hdf5 .npz .npy .pkl .zip), got set: no such file or folder",
    empty: "with rows of numbers), got none in set",
    no_clouds: "with rows of numbers), got only 1 .txt in set",
    no_list: "set/ShapeNet-55/train.txt must list the clouds, one a line",
    broken_captions: "set/shapenet55.json must be a list of",
    a_file: "a file that holds many (.h5 .hdf5 .npz .npy .pkl .zip), got the file set",
    several_variants: "several variants in set: choose one of obj_bg, obj_only, hardest as the kind",
    several_folds: "choose one of set, for instance set/3way_2shot/0.pkl",
    no_classes: "set/modelnet40_shape_names.txt must list the classes",
    no_validation_list: "shuffled_val_file_list.json must be a list of ShapeNetPart's shapes",
    cut_h5_file: "set is damaged or not an HDF5 file",
}


@pytest.mark.parametrize("command", ["pretrain", "pack"])
@pytest.mark.parametrize("make", WHOLE, ids=lambda make: make.__name__)
def test_data_that_cannot_be_used_as_a_whole(workplace, capsys, command, make):
    make(workplace / "set")
    before = sorted(workplace.iterdir())
    arguments = [command, *PRETRAIN, *POINTS, *SMALL_MODEL] if command == "pretrain" else None
    table, message = refused(capsys, arguments or [command, "set", "out.h5", *PACK])
    assert not table
    assert WHOLE[make] in message
    assert sorted(workplace.iterdir()) == before


def truncated_npy(root):
    cut(write_shapenet(root) / "shapenet_pc" / f"{KEY}.npy")


def truncated_png(root):
    cut(write_shapenet(root) / "shapenet_img" / f"{KEY}.png")


def missing_png(root):
    (write_shapenet(root) / "shapenet_img" / f"{KEY}.png").unlink()


def missing_npy(root):
    (write_shapenet(root) / "shapenet_pc" / f"{KEY}.npy").unlink()


def truncated_h5(root):
    cut(write_modelnet_hdf5(root) / "ply_data_train0.h5")


def nan_in_h5(root):
    with h5py.File(write_modelnet_hdf5(root) / "ply_data_train0.h5", "a") as file:
        file["data"][7, 3, 0] = np.nan


def truncated_off(root):
    path = write_folder(root) / "box" / "mesh.off"
    path.write_text("OFF" + TETRAHEDRON[:20])


def nan(root):
    poison(write_shapenet(root) / "shapenet_pc" / f"{KEY}.npy")


def too_few(root):
    write_npy(write_shapenet(root) / "shapenet_pc" / f"{KEY}.npy", cloud(0, 63))


def no_text_table(root):
    (write_modelnet(root) / "bed" / "bed_0002.txt").write_text("1,2,3\n4,5\n")


def cut_cache(root):
    cut(write_modelnet_cache(root) / "modelnet40_train_8192pts_fps.dat")


def hostile_cache(root):
    path = write_modelnet_cache(root) / "modelnet40_test_8192pts_fps.dat"
    path.write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")


def other_part(root):
    path = write_shapenet_part(root) / "02773838" / "shape1.txt"
    write_table(path, np.full((64, 7), 36), " ")


def missing_caption(root):
    write_folder(root)
    (root / "captions.json").write_text('{"ball/ball0": "a ball"}')


SINGLE = {
    truncated_npy: (f"set/shapenet_pc/{KEY}.npy", "must be a whole .npy array", "1 of 12"),
    truncated_png: (f"set/shapenet_img/{KEY}.png", "must be a whole picture", "1 of 12"),
    missing_png: (f"set/shapenet_img/{KEY}.png", "got no such file", "1 of 12"),
    missing_npy: (f"set/shapenet_pc/{KEY}.npy", "got no such file", "1 of 12"),
    truncated_h5: ("set/ply_data_train0.h5", "is damaged or not an HDF5 file", "1 of 5"),
    nan_in_h5: ("set/ply_data_train0.h5", "row 7: must be finite, got NaN or inf in 1 of 64", "1 of 14"),
    truncated_off: ("set/box/mesh.off", "must be a whole .off file", "1 of 9"),
    nan: (f"set/shapenet_pc/{KEY}.npy", "got NaN or inf in 3 of 64 points", "1 of 12"),
    too_few: (f"set/shapenet_pc/{KEY}.npy", "must have at least 64 points, got 63", "1 of 12"),
    no_text_table: ("set/bed/bed_0002.txt", "must have 3 columns as in the first row", "1 of 8"),
    cut_cache: ("set/modelnet40_train_8192pts_fps.dat", "must be a whole pickle", "1 of 3"),
    hostile_cache: ("set/modelnet40_test_8192pts_fps.dat", "got os.system, which could run code", "1 of 7"),
    other_part: ("set/02773838/shape1.txt", "parts must be 4 to 5, got 36 in 64 of 64 points", "1 of 8"),
    missing_caption: ("set/ball/ball1.npy", "must have a caption", "7 of 8"),
}


@pytest.mark.parametrize("command", ["pretrain", "pack"])
@pytest.mark.parametrize("make", SINGLE, ids=lambda make: make.__name__)
def test_single_broken_files_are_listed(workplace, capsys, command, make):
    make(workplace / "set")
    arguments = [command, *PRETRAIN, *POINTS, *SMALL_MODEL] if command == "pretrain" else None
    table, message = refused(capsys, arguments or [command, "set", "out.h5", *PACK])
    file, what, share = SINGLE[make]
    assert any(file in line and what in line for line in table)
    assert f"{share} shapes in set cannot be used" in message
    assert message.endswith(
        "with --data.on_problem skip" if command == "pretrain" else "with --on_problem skip"
    )
    assert [path.name for path in workplace.iterdir()] == ["set"]


def test_pack_can_leave_broken_shapes_out_and_says_so_once(workplace, capsys):
    truncated_npy(workplace / "set")
    assert main(["pack", "set", "out.h5", *PACK, "--on_problem", "skip"]) == 0
    captured = capsys.readouterr()
    assert captured.err.count(f"{KEY}.npy") == 1
    assert "left out 1 shapes that cannot be used" in captured.err
    assert captured.out.startswith("out.h5: 11 shapes, ")
    assert sorted(path.name for path in workplace.iterdir()) == ["out.h5", "set"]


@pytest.mark.parametrize(
    ("code", "reason"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")]
)
@pytest.mark.parametrize("where", ["folder", "shard", "file"])
def test_pack_to_a_full_or_read_only_disk(workplace, capsys, monkeypatch, code, reason, where):
    write_folder(workplace / "set")

    def fail(*args, **kwargs):
        raise OSError(code, reason)

    target = {
        "folder": (packing.Path, "mkdir"),
        "shard": (hdf5, "put"),
        "file": (packing, "read_packed"),
    }[where]
    monkeypatch.setattr(*target, fail)
    table, message = refused(capsys, ["pack", "set", "out.h5", *PACK])
    assert not table
    assert f"out must be a file that can be written, got out.h5: {reason}" in message
    left = {"set"} | ({"out.h5.partial"} if where == "file" else set())
    assert {path.name for path in workplace.iterdir()} == left
    assert ("the same command continues" in message) == (where == "file")


def test_pack_over_an_existing_file(workplace, capsys):
    write_folder(workplace / "set")
    (workplace / "out.h5").write_text("precious")
    table, message = refused(capsys, ["pack", "set", "out.h5", *PACK])
    assert not table
    assert "out must be a new file, got out.h5: it exists (--overwrite true replaces it)" in message
    assert (workplace / "out.h5").read_text() == "precious"
    assert main(["pack", "set", "out.h5", *PACK, "--overwrite", "true"]) == 0


def test_pack_into_a_folder_that_does_not_exist(workplace, capsys):
    write_folder(workplace / "set")
    _, message = refused(capsys, ["pack", "set", "absent/out.h5", *PACK])
    assert "out must lie in a folder that exists, got absent/out.h5" in message


def test_pack_what_is_packed(workplace, capsys):
    write_folder(workplace / "set")
    assert main(["pack", "set", "out.h5", *PACK]) == 0
    capsys.readouterr()
    _, message = refused(capsys, ["pack", "out.h5", "again.h5", *PACK])
    assert "source must be a folder of clouds, got out.h5, which is packed already" in message


def test_packed_clouds_smaller_than_needed(workplace, capsys):
    write_folder(workplace / "clouds")
    assert main(["pack", "clouds", "set", *PACK]) == 0
    capsys.readouterr()
    _, message = refused(capsys, ["pretrain", *PRETRAIN, *SMALL_MODEL, "--data.num_points", "65"])
    assert "set must have clouds of at least 65 points, got one of 64" in message
    assert not (workplace / "run").exists()


def test_absent_teacher_weights_are_known_before_anything_is_read(workplace, capsys, monkeypatch):
    truncated_npy(workplace / "set")  # which would be found if clouds were read first
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(workplace / "no_cache"))
    teacher = ["--teacher.image_weights", "absent.safetensors"]
    _, message = refused(capsys, ["pack", "set", "out.h5", *PACK, "--features", "true", *teacher])
    assert "absent.safetensors" in message
    assert [path.name for path in workplace.iterdir()] == ["set"]
