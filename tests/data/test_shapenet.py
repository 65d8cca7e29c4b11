import json

import pytest
from layouts import SYNSETS, write_shapenet

from recon_fast.data.open import open_source
from recon_fast.data.readers.listed import SHAPENET_CLASSES, is_shapenet, list_shapenet
from recon_fast.errors import InputError


def test_class_names_are_those_of_all_55_synsets():
    assert len(SHAPENET_CLASSES) == 55
    assert len(set(SHAPENET_CLASSES.values())) == 55
    assert all(len(synset) == 8 for synset in SHAPENET_CLASSES)


def test_both_lists_with_labels_captions_and_pictures(tmp_path):
    root = write_shapenet(tmp_path)
    assert is_shapenet(root)
    source = open_source(root)
    assert not source.problems
    assert source.class_names == ["airplane", "chair", "castle door"]  # unknown synsets by their description
    assert [entry.held_out for entry in source.entries] == [False] * 9 + [True] * 3
    for entry in source.entries:
        synset = entry.key[:8]
        assert entry.label == sorted(SYNSETS).index(synset)
        assert entry.caption == SYNSETS[synset]  # although the file's number lost its leading zero
        assert entry.cloud == root / "shapenet_pc" / f"{entry.key}.npy"
        assert entry.picture == root / "shapenet_img" / f"{entry.key}.png"


def test_without_any_picture_or_caption_there_are_none_and_no_problem(tmp_path):
    source = list_shapenet(write_shapenet(tmp_path, pictures=False, captions=False))
    assert not source.problems
    assert (
        {entry.picture for entry in source.entries} == {entry.caption for entry in source.entries} == {None}
    )
    assert source.class_names == ["airplane", "chair", "09000001"]


def test_captions_may_be_keyed_by_text(tmp_path):
    root = write_shapenet(tmp_path)
    rows = [{"catalogue": synset, "describe": text} for synset, text in SYNSETS.items()]
    (root / "shapenet55.json").write_text(json.dumps(rows))
    assert [entry.caption for entry in list_shapenet(root).entries[:1]] == ["airplane,plane"]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    root = write_shapenet(tmp_path)
    for file in (root / "ShapeNet-55" / "train.txt", root / "shapenet55.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert not list_shapenet(root).problems


def test_single_missing_files_are_problems(tmp_path):
    root = write_shapenet(tmp_path)
    cloud = root / "shapenet_pc" / "02691156-shape0.npy"
    picture = root / "shapenet_img" / "03001627-shape1.png"
    cloud.unlink()
    picture.unlink()
    rows = json.loads((root / "shapenet55.json").read_text())
    (root / "shapenet55.json").write_text(json.dumps(rows[:2]))
    with (root / "ShapeNet-55" / "test.txt").open("a") as file:
        file.write("02691156-shape1.npy\n")
    problems = {(p.key, p.file) for p in list_shapenet(root).problems}
    assert problems == {
        ("02691156-shape0", cloud),
        ("03001627-shape1", picture),
        ("02691156-shape1", root / "ShapeNet-55" / "test.txt"),
        *((f"09000001-shape{i}", root / "shapenet55.json") for i in range(4)),
    }


def break_json(root):
    (root / "shapenet55.json").write_text('[{"catalogue": 1}]')


def empty_lists(root):
    for split in ("train", "test"):
        (root / "ShapeNet-55" / f"{split}.txt").write_text("\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "ShapeNet-55" / "test.txt").unlink(), r"test\.txt must list the clouds"),
        (lambda root: (root / "shapenet_pc").rename(root / "pc"), "must have a folder shapenet_pc"),
        (break_json, r"shapenet55\.json must be a list"),
        (empty_lists, "must list clouds in its train.txt and test.txt"),
    ],
)
def test_a_layout_that_cannot_be_used_says_why(tmp_path, change, message):
    root = write_shapenet(tmp_path)
    change(root)
    for kind in ("auto", "shapenet"):
        with pytest.raises(InputError, match=message):
            open_source(root, kind)
