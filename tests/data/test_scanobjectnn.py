import h5py
import numpy as np
import pytest
from layouts import cloud, write_scanobjectnn

from recon_fast.data.loading import load
from recon_fast.data.open import open_source
from recon_fast.errors import InputError

SMALL = {"num_points": 64, "max_points": 128}
FILES = {
    "obj_bg": "main_split/objectdataset.h5",
    "obj_only": "main_split_nobg/objectdataset.h5",
    "hardest": "main_split/objectdataset_augmentedrot_scale75.h5",
}


@pytest.mark.parametrize("variant", FILES)
@pytest.mark.parametrize("folder", ["", "h5_files"])
def test_a_variant_by_name(tmp_path, variant, folder):
    write_scanobjectnn(tmp_path / folder)
    shapes, problems = load(open_source(tmp_path, variant), **SMALL)
    assert not problems
    assert shapes.name == f"ScanObjectNN {variant}"
    assert len(shapes.class_names) == 15
    assert shapes.class_names[:2] == ["bag", "bin"]
    assert shapes.conventions.up == "y"
    assert sorted(shapes.labels.tolist()) == [0, 0, 1, 1, 2, 2, 3, 4, 5]
    train, test = (shapes.cloud(int(shapes.rows(split)[0])) for split in ("train", "test"))
    np.testing.assert_array_equal(train, cloud(len(FILES[variant])))  # another first cloud in each file
    np.testing.assert_array_equal(test, train)
    assert len(shapes.rows("test")) == 3


def test_several_variants_and_no_word_which(tmp_path):
    write_scanobjectnn(tmp_path)
    with pytest.raises(InputError) as error:
        open_source(tmp_path)
    assert "choose one of obj_bg, obj_only, hardest as the kind" in str(error.value)
    assert "--data.kind" in str(error.value)
    with pytest.raises(InputError, match="choose one of obj_bg, hardest as the kind"):
        open_source(tmp_path / "main_split")
    assert open_source(tmp_path / "main_split_nobg").name == "ScanObjectNN obj_only"
    assert open_source(tmp_path / "main_split", "hardest").name == "ScanObjectNN hardest"


def test_the_only_variant_needs_no_name_and_others_are_not_there(tmp_path):
    write_scanobjectnn(tmp_path, FILES["hardest"])
    assert open_source(tmp_path).name == "ScanObjectNN hardest"
    with pytest.raises(InputError) as error:
        open_source(tmp_path, "obj_only")
    assert (
        "obj_only must be main_split_nobg/training_objectdataset.h5 and "
        "main_split_nobg/test_objectdataset.h5, got only hardest in" in str(error.value)
    )
    other = write_scanobjectnn(tmp_path / "other", "main_split/objectdataset_augmentedrot.h5")
    with pytest.raises(InputError, match=r"got only test_objectdataset_augmentedrot\.h5, training_.* in"):
        open_source(other)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="got no variant in"):
        open_source(tmp_path / "empty", "scanobjectnn")


@pytest.mark.parametrize("place", ["", "scans"])
def test_files_are_known_in_folders_of_any_name(tmp_path, place):
    root = tmp_path / "mine"
    for name in (FILES["obj_bg"], FILES["hardest"]):
        write_scanobjectnn(root, f"{place or '.'}/{name.removeprefix('main_split/')}")
    with pytest.raises(InputError, match="choose one of obj_bg, hardest as the kind"):
        open_source(root)
    assert [len(open_source(root, kind).entries) for kind in ("obj_bg", "hardest")] == [9, 9]


def test_main_split_comes_before_other_splits_and_those_need_their_name(tmp_path):
    for folder in ("split1", "split2", "main_split", "split1_nobg", "split2_nobg"):
        write_scanobjectnn(tmp_path / "h5_files", f"{folder}/objectdataset.h5")
    source = open_source(tmp_path, "obj_bg")
    assert {entry.cloud.parent.name for entry in source.entries} == {"main_split"}
    with pytest.raises(
        InputError, match=r"obj_only is in several folders: name one of .*split1_nobg, .*split2_nobg"
    ):
        open_source(tmp_path, "obj_only")
    assert open_source(tmp_path / "h5_files" / "split2_nobg").name == "ScanObjectNN obj_only"


def test_a_missing_file_a_wrong_label_and_no_labels(tmp_path):
    folder = write_scanobjectnn(tmp_path, FILES["obj_bg"]) / "main_split"
    with h5py.File(folder / "training_objectdataset.h5", "a") as file:
        file["label"][4] = 15
    (folder / "test_objectdataset.h5").unlink()
    problems = open_source(tmp_path).problems
    assert [(p.file.name, p.what) for p in problems] == [
        ("test_objectdataset.h5", "must be there, as obj_bg has two files"),
        ("training_objectdataset.h5", "row 4: label must be below 15, got 15"),
    ]
    with h5py.File(folder / "training_objectdataset.h5", "a") as file:
        del file["label"]
    assert "must have `label`" in open_source(tmp_path).problems[1].what


def test_a_file_without_labels_leaves_those_of_the_other(tmp_path):
    folder = write_scanobjectnn(tmp_path, FILES["obj_bg"]) / "main_split"
    with h5py.File(folder / "training_objectdataset.h5", "a") as file:
        del file["label"]
    source = open_source(tmp_path)
    assert [problem.file.name for problem in source.problems] == ["training_objectdataset.h5"]
    assert [entry.label for entry in source.entries if entry.held_out] == [0, 1, 2]
