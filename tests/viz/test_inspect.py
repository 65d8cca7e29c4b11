"""What `recon-fast inspect` finds in a data set, and its page."""

import numpy as np
import pytest
from pages import NASTY, page_data
from tiny import tiny_shapes

from recon_fast.cli import main
from recon_fast.data.shapes import Conventions
from recon_fast.viz.data_page import class_counts, data_page, duplicates, histogram, inspect_data


def cup(rng, axis):
    """A cloud that is round about `axis` and has a bottom and no lid."""
    angle = rng.uniform(0, 2 * np.pi, 400)
    height = rng.uniform(0, 1, 400) ** 2
    return np.roll(np.stack([height, np.cos(angle), np.sin(angle)], 1), axis, axis=1)


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "set"
    for kind in ("cup", "jug"):
        for split in ("train", "test"):
            (root / kind / split).mkdir(parents=True)
            for i in range(4):
                np.save(root / kind / split / f"{kind}{split}{i}.npy", cup(rng, 2) + 5)
    np.save(root / "cup/test/copy.npy", np.load(root / "cup/train/cuptrain0.npy"))
    (root / "jug/train/broken.npy").write_bytes(b"no array")
    mesh = "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
    for name in ("a", "b"):
        (root / f"jug/train/{name}.off").write_text(mesh)
    return root


def test_everything_of_a_folder(folder):
    found = inspect_data(str(folder))
    assert len(found.shapes) == 19
    assert [problem.key for problem in found.problems] == ["jug/train/broken"]
    keys = [sorted(found.shapes.keys[i] for i in group) for group in found.duplicates]
    assert sorted(keys) == [["cup/test/copy", "cup/train/cuptrain0"], ["jug/train/a", "jug/train/b"]]
    assert [sorted(found.shapes.keys[i] for i in group) for group in found.across()] == [keys[0]]
    assert (found.up.axis, found.up.sure) == ("z", True)
    assert set(found.sizes.tolist()) == {400, 8192}
    assert {name: counts for name, *counts in class_counts(found.shapes)} == {
        "jug": [6, 4],
        "cup": [4, 5],
    }
    text = data_page(found)
    for part in (
        "must be a whole .npy array",
        "both sides of the split",
        "guess",
        "jug/train/a, jug/train/b",
    ):
        assert part in text
    assert page_data(text)["thumbnails"]["shape"] == [19, 300, 3]


def test_one_side_up_and_the_other_stated_is_a_warning(folder):
    found = inspect_data(str(folder))
    assert "17 of 19 shapes look as if z were up" in data_page(found)
    assert "Which axis is up is not known" not in data_page(found)
    found.shapes.conventions = Conventions("y")
    assert "y is stated to be up, 17 of 19 shapes look as if z were up." in data_page(found)
    found.shapes.conventions, found.up = Conventions(), found.up._replace(sure=False)
    assert "Which axis is up is not known" in data_page(found)


def test_a_set_without_a_usable_shape(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"")
    found = inspect_data(str(tmp_path))
    assert found.shapes is None
    assert "1 shapes cannot be used" in data_page(found)


def test_points_are_compared_in_memory_too():
    shapes = tiny_shapes(6).take(np.array([0, 1, 2, 1]))
    assert duplicates(shapes) == [[1, 3]]


def test_histograms():
    assert histogram(np.array([7, 7, 9])) == [("7", 2), ("9", 1)]
    wide = histogram(np.geomspace(1, 1e6, 100))
    assert len(wide) == 12
    assert wide[0][0] == "1 to 3.162"
    assert sum(count for _, count in wide) == 100


def test_inspect(clouds, tmp_path, capsys):
    out = tmp_path / "data.html"
    assert main(["inspect", str(clouds), "--out", str(out), "--thumbnails", "5"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    text = out.read_text()
    assert NASTY not in text
    assert page_data(text)["captions"] == [NASTY] * 5
    assert len(text) < 60_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such file or folder"),
        (["nowhere", "--thumbnails", "-1"], "thumbnails must be at least 0"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert main(["inspect", *arguments]) == 2
    assert message in capsys.readouterr().err
