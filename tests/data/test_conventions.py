import io
from dataclasses import replace

import h5py
import numpy as np
import pytest
from layouts import cloud, write_folder, write_modelnet, write_modelnet_hdf5, write_npy, write_shapenet
from rich.console import Console

from recon_fast.config import DataConfig, PackConfig
from recon_fast.data.conventions import (
    asymmetry,
    check_conventions,
    guess_up,
    radii,
    scale_of,
    state_up,
    training_conventions,
    turn_up,
)
from recon_fast.data.loading import load
from recon_fast.data.open import open_source, prepare_shapes
from recon_fast.data.packed import read_packed
from recon_fast.data.packing import pack
from recon_fast.data.shapes import Conventions, Joined
from recon_fast.errors import InputError
from recon_fast.tasks.pack import pack_shapes

SMALL = {"num_points": 64, "max_points": 128}
QUIET = Console(file=io.StringIO())


def standing(tmp_path, up):
    """A folder whose clouds are longest, and above the origin, along one axis."""
    for i in range(4):
        points = cloud(i) * 0.1
        points[:, "xyz".index(up)] += np.linspace(0, 5, 64, dtype=np.float32)
        write_npy(tmp_path / "set" / f"{i}.npy", points)
    return tmp_path / "set"


def prepared(path, **settings):
    return prepare_shapes(DataConfig(path=str(path), num_points=64, **settings), 0, QUIET)


def cup(rng, axis):
    """A cloud that is round about `axis` and has a bottom and no lid."""
    angle = rng.uniform(0, 2 * np.pi, 400)
    height = rng.uniform(0, 1, 400) ** 2
    return np.roll(np.stack([height, np.cos(angle), np.sin(angle)], 1), axis, axis=1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_up_is_where_shapes_are_unlike_their_mirror_images(axis):
    rng = np.random.default_rng(axis)
    assert asymmetry(cup(rng, axis)).argmax() == axis
    assert asymmetry(np.zeros((5, 3))).tolist() == [0, 0, 0]
    guess = guess_up(cup(rng, axis) for _ in range(12))
    assert guess.axis == "xyz"[axis]
    assert guess.sure == (axis != 0)
    assert guess.votes[axis] == guess.votes.sum() == 12
    few = guess_up(cup(rng, 2) for _ in range(3))
    mixed = guess_up(cup(rng, 1 + i % 2) for i in range(40))
    assert not few.sure
    assert not mixed.sure


def test_a_guess_is_said_and_followed_where_it_is_sure(tmp_path):
    rng, lines = np.random.default_rng(0), io.StringIO()
    for i in range(10):
        write_npy(tmp_path / f"{i}.npy", cup(rng, 2))
    config = DataConfig(path=str(tmp_path), num_points=64)
    shapes = prepare_shapes(config, 0, Console(file=lines, width=200))
    assert shapes.conventions.up == "y"
    assert "10 of 10 shapes look as if z were up, which is taken for true" in lines.getvalue()
    stated = prepare_shapes(replace(config, up="z"), 0, QUIET)
    np.testing.assert_array_equal(shapes.points, stated.points)
    assert prepare_shapes(replace(config, up="y"), 0, QUIET).conventions.up == "y"
    for i in range(3, 10):
        (tmp_path / f"{i}.npy").unlink()
    few = prepare_shapes(config, 0, Console(file=lines, width=200))
    assert few.conventions.up == "unknown"
    assert " is not known (3 of 3 shapes look as if z were up, too few to tell)" in lines.getvalue()


@pytest.mark.parametrize("to", "xyz")
@pytest.mark.parametrize("up", "xyz")
def test_clouds_are_turned_and_not_mirrored(tmp_path, up, to):
    shapes = state_up(load(open_source(standing(tmp_path, up)), **SMALL)[0], up)
    turned = turn_up(shapes, to)
    assert turned.conventions.up == to
    assert turned.cloud(0).mean(0).argmax() == "xyz".index(to)
    np.testing.assert_array_equal(turned.points[:, "xyz".index(to)], shapes.points[:, "xyz".index(up)])
    basis = replace(shapes, points=np.eye(3, dtype=np.float32))
    assert np.linalg.det(turn_up(basis, to).points) == 1
    np.testing.assert_array_equal(np.abs(turn_up(turned, up).points), np.abs(shapes.points))
    mapped = replace(shapes, points=Joined([shapes.points[:5], shapes.points[5:]]))
    np.testing.assert_array_equal(turn_up(mapped, to).points[2:9], turned.points[2:9])
    again = turn_up(turn_up(mapped, to), up)
    np.testing.assert_array_equal(again.points[:], turn_up(turned, up).points)


def test_what_the_user_states_is_turned_to_y_and_the_unknown_stays(tmp_path):
    path = standing(tmp_path, "z")
    raw = load(open_source(path), **SMALL)[0].points
    for settings, up, points in (
        ({}, "unknown", raw),
        ({"up": "y"}, "y", raw),
        ({"up": "z"}, "y", np.stack([raw[:, 0], raw[:, 2], -raw[:, 1]], 1)),
        ({"up": "z", "turn_up": "none"}, "z", raw),
    ):
        shapes = prepared(path, **settings)
        assert shapes.conventions.up == up
        np.testing.assert_array_equal(shapes.points, points)


@pytest.mark.parametrize(
    ("write", "up"),
    [
        (write_shapenet, "y"),
        (write_modelnet, "y"),
        (write_modelnet_hdf5, "unknown"),
        (write_folder, "unknown"),
    ],
)
def test_layouts_state_their_up_axis(tmp_path, write, up):
    assert prepared(write(tmp_path)).conventions.up == up
    assert prepared(tmp_path, up="y").conventions.up == "y"


def test_scale_is_measured(tmp_path):
    for i in range(3):
        points = cloud(i)
        write_npy(tmp_path / f"{i}.npy", points / np.linalg.norm(points, axis=1).max())
    assert load(open_source(tmp_path), **SMALL)[0].conventions.scale == "unit sphere"
    write_npy(tmp_path / "3.npy", cloud(3))
    assert load(open_source(tmp_path), **SMALL)[0].conventions.scale == "raw"
    assert load(open_source(tmp_path), **SMALL, dtype=np.float16)[0].conventions.scale == "unit sphere"
    assert scale_of(np.zeros(0, np.float32)) == "unknown"


def test_radii_of_clouds_of_any_size():
    clouds = [cloud(i, (0, 5, 70)[i % 3]) for i in range(1100)]
    sizes = np.array([len(c) for c in clouds])
    expected = [np.linalg.norm(c, axis=1).max() if len(c) else 0 for c in clouds]
    np.testing.assert_allclose(radii(np.concatenate(clouds), sizes), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["fp16", "fp32"])
def test_packed_files_state_their_conventions(tmp_path, dtype):
    path, out = standing(tmp_path, "z"), tmp_path / "a.h5"
    pack_shapes(path, out, PackConfig(up="z", dtype=dtype, features=False, **SMALL), QUIET)
    with h5py.File(out) as file:
        assert file.attrs["up"] == "z"
        assert file.attrs["scale"] == ("unit sphere" if dtype == "fp16" else "raw")
        assert file.attrs["points_per_cloud"].tolist() == [64, 64]
    packed = read_packed(out)
    assert packed.conventions == Conventions("z", "unit sphere" if dtype == "fp16" else "raw")
    turned = prepared(out)
    assert turned.conventions.up == "y"
    np.testing.assert_array_equal(turned.points[:][:, 1], packed.points[:][:, 2])


def test_packed_files_from_before_conventions_know_none(tmp_path):
    pack(open_source(write_folder(tmp_path / "set")), tmp_path / "a.h5", **SMALL)
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file.attrs["up"], file.attrs["scale"]
    assert read_packed(tmp_path / "a.h5").conventions == Conventions()
    with h5py.File(tmp_path / "a.h5", "a") as file:
        file.attrs["up"] = "north"
    with pytest.raises(InputError, match=r"a\.h5 is damaged: it states north as the up axis"):
        read_packed(tmp_path / "a.h5")


def test_what_a_checkpoint_does_not_know_is_said_with_the_cure(tmp_path):
    shapes = load(open_source(write_folder(tmp_path)), **SMALL)[0]
    y, z = state_up(shapes, "y"), state_up(shapes, "z")
    trained = training_conventions(y, 64)
    assert trained == {"up": "y", "scale": "unit sphere", "points": 64}
    assert check_conventions(y, trained) == check_conventions(y, {}) == []
    assert check_conventions(shapes, trained) == []  # it was asked for when the shapes were read
    (text,) = check_conventions(z, trained)
    assert text.endswith("are z up, the checkpoint was trained on y up: --data.turn_up y turns them")
    (text,) = check_conventions(z, training_conventions(shapes, 64))
    assert "which axis was up in training is not known: state it with --data.up" in text
    assert check_conventions(shapes, training_conventions(shapes, 64)) == []
    scale, points = check_conventions(y, {"up": "y", "scale": "raw", "points": 1024})
    assert "the checkpoint was trained on clouds of their own scale" in scale
    assert "has 64 points, the checkpoint was trained on 1024: take denser clouds" in points
