"""Stored sets of valid structure whose content is not: refused before anything is allocated or trained on."""

import json
from hashlib import blake2b

import h5py
import numpy as np
import pytest
from layouts import write_folder, write_modelnet, write_shapenet, write_shapenet_part
from test_packed import SMALL, made_features

from recon_fast.data.hdf5 import digest_texts
from recon_fast.data.loading import load
from recon_fast.data.open import open_source
from recon_fast.data.packed import is_packed, is_sharded, read_packed, read_shards, verify_shards
from recon_fast.data.packing import pack, partial_folder
from recon_fast.errors import InputError


@pytest.fixture(scope="module")
def packed_sets(tmp_path_factory):
    """{"pictures", "features", "parts"}: packed files that each have other optional things."""
    root = tmp_path_factory.mktemp("sets")
    shapenet = open_source(write_shapenet(root / "shapenet"))
    parts = open_source(write_shapenet_part(root / "parts"))
    pack(shapenet, root / "pictures.h5", **SMALL)
    pack(shapenet, root / "features.h5", features_fn=made_features, **SMALL)
    pack(parts, root / "parts.h5", **SMALL)
    return {name: (root / f"{name}.h5").read_bytes() for name in ("pictures", "features", "parts")}


def put(file, name, value):
    """Another dataset under a name, with the checksum that belongs to it."""
    if name in file:
        del file[name]
    dataset = file.create_dataset(name, data=value)
    texts = h5py.check_string_dtype(dataset.dtype) is not None
    dataset.attrs["blake2b"] = (
        digest_texts(dataset.asstr()[()].tolist())
        if texts
        else blake2b(np.asarray(value).tobytes(), digest_size=16).hexdigest()
    )


def changed(name, change):
    return lambda file: put(file, name, change(file[name][()]))


def at(index, value):
    """Change one number of an array."""

    def change(array):
        array[index] = value
        return array

    return change


def attribute(name, value, of="/"):
    return lambda file: file[of].attrs.__setitem__(name, value)


def teacher(value):
    return attribute("teacher", value, "features")


# What a lie does to a packed file of each kind, and what is said of it.
PICTURES = {
    "offsets past the end": (changed("offsets", at(-1, 10**12)), r"must have points \[1000000000000, 3\]"),
    "offsets below the end": (changed("offsets", at(-1, 767)), r"must have points \[767, 3\]"),
    "offsets that go back": (changed("offsets", at(3, -5)), "offsets that begin with 0 and grow"),
    "offsets not from 0": (changed("offsets", at(0, 64)), "offsets that begin with 0 and grow"),
    "offsets in floats": (changed("offsets", lambda a: a * 1.0), "whole numbers in offsets, got float64"),
    "too few offsets": (changed("offsets", lambda a: a[:-1]), r"must have offsets \[13\], got \[12\]"),
    "one offset": (changed("offsets", lambda a: a[:1]), r"must have offsets \[13\], got \[1\]"),
    "a scalar": (lambda file: put(file, "offsets", 3), r"must have offsets \[13\], got \[\]"),
    "two columns": (changed("points", lambda a: a[:, :2].copy()), r"points \[768, 3\], got \[768, 2\]"),
    "whole points": (changed("points", lambda a: a.astype(np.int32)), "real numbers in points"),
    "NaN": (changed("points", at((700, 2), np.nan)), "must have finite points"),
    "few captions": (changed("captions", lambda a: a[:5]), r"captions \[12\], got \[5\]"),
    "few keys": (changed("keys", lambda a: a[:5]), r"must have offsets \[6\], got \[13\]"),
    "equal keys": (changed("keys", lambda a: a[[0] * 12]), "keys that differ"),
    "numbers as keys": (lambda file: put(file, "keys", np.arange(12)), "texts in keys, got int64"),
    "labels above": (changed("labels", at(3, 3)), "labels from 0 to 2, got 0 to 3"),
    "labels below": (changed("labels", at(3, -1)), "labels from 0 to 2, got -1 to 2"),
    "float labels": (changed("labels", lambda a: a * 1.0), "whole numbers in labels"),
    "few labels": (changed("labels", lambda a: a[:3]), r"labels \[12\], got \[3\]"),
    "held out as numbers": (changed("held_out", lambda a: a * 1), "true or false in held_out"),
    "few held out": (changed("held_out", lambda a: a[:3]), r"held_out \[12\], got \[3\]"),
    "pictures past the end": (changed("picture_offsets", at(-1, 10**13)), r"pictures \[10000000000000\]"),
    "pictures that go back": (changed("picture_offsets", at(4, 0)), "picture_offsets that begin with 0"),
    "wide pictures": (changed("pictures", lambda a: a.astype(np.int64)), "bytes in pictures"),
    "a version that is a text": (attribute("version", "1"), "a whole number as its attribute version"),
    "versions": (attribute("version", [1, 1]), "a whole number as its attribute version"),
    "a name that is a number": (attribute("name", 3), "a text as its attribute name"),
    "two axes up": (attribute("up", ["x", "y"]), "a text as its attribute up"),
    "an axis of its own": (attribute("up", "w"), "states w as the up axis"),
    "notes that are no list": (attribute("notes", "{}"), "notes must be a list: Expected `array`"),
    "no points": (lambda file: file.__delitem__("points"), "must have an array points"),
    "a group of points": (
        lambda file: (file.__delitem__("points"), file.create_group("points")),
        "must have an array points",
    ),
}
PARTS = {
    "infinite": (changed("points", at((0, 0), np.inf)), "must have finite points"),
    "few for validation": (changed("validation", lambda a: a[:3]), r"validation \[8\], got \[3\]"),
    "parts of another class": (changed("parts", at(5, 36)), "must have parts that its classes have"),
    "few parts": (changed("parts", lambda a: a[:9]), r"parts \[512\], got \[9\]"),
    "few lists of parts": (changed("class_parts", lambda a: a[:9]), r"class_parts \[16\], got \[9\]"),
    "parts above 255": (
        changed("class_parts", at(1, "[4, 256]")),
        "whole numbers below 256: Expected `int` <",
    ),
    "parts without labels": (lambda file: file.__delitem__("labels"), "must have labels"),
}
FEATURES = {
    "few image features": (changed("features/image", lambda a: a[:5]), r"features/image \[12, V, D\]"),
    "flat image features": (changed("features/image", lambda a: a[:, 0]), r"\[12, V, D\], got \[12, 5\]"),
    "NaN features": (changed("features/image", at((0, 0, 0), np.nan)), "must have finite features/image"),
    "flat text features": (changed("features/text", lambda a: a[0]), r"features/text \[U, P, D\]"),
    "captions of no text": (changed("features/caption_index", at(3, 99)), "features/caption_index from 0"),
    "no captions of texts": (lambda file: file.__delitem__("features/caption_index"), "caption_index"),
    "NaN class texts": (changed("features/class_text", at((0, 0), np.nan)), "finite features/class_text"),
    "a teacher that is a list": (teacher("[]"), "of which teacher its features are: Expected `object`"),
    "a teacher that is no JSON": (teacher("{"), "of which teacher its features are: Expecting"),
    "a teacher that is deep": (teacher("[" * 60_000), "of which teacher .* nests too deeply"),
    "a teacher that is a number": (teacher(3), "must have a text as its attribute teacher, got 3"),
}
LIES = {"pictures": PICTURES, "features": FEATURES, "parts": PARTS}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("which", "lie"), [(which, lie) for which in LIES for lie in LIES[which]])
def test_a_packed_file_that_lies_is_one_error(tmp_path, packed_sets, which, lie, mapped):
    change, message = LIES[which][lie]
    path = tmp_path / "a.h5"
    path.write_bytes(packed_sets[which])
    assert len(read_packed(path, mapped=mapped)) in (8, 12)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InputError, match=message) as error:
        read_packed(path, mapped=mapped)
    assert str(path) in str(error.value)


def test_a_format_that_is_no_text_is_another_file(tmp_path, packed_sets):
    path = tmp_path / "a.h5"
    for value in (3, ["recon-fast packed shapes"] * 2, h5py.Empty("f4")):
        path.write_bytes(packed_sets["pictures"])
        with h5py.File(path, "a") as file:
            file.attrs["format"] = value
        assert not is_packed(path)
        with pytest.raises(InputError, match="got another HDF5 file"):
            read_packed(path)


@pytest.fixture
def shards(tmp_path):
    source = open_source(write_shapenet(tmp_path / "set"))
    pack(source, tmp_path / "shards", shard_size=5, features_fn=made_features, **SMALL)
    return tmp_path / "shards"


def shard(key, value):
    return lambda manifest: manifest["shards"][1].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.__delitem__("shards"), "missing required field `shards`"),
        (lambda m: m.__setitem__("shards", []), r"length >= 1 - at `\$.shards`"),
        (lambda m: m.__setitem__("shards", {"a": 1}), r"Expected `array`, got `object` - at `\$.shards`"),
        (lambda m: m.__setitem__("shards", [None]), r"Expected `object`, got `null` - at `\$.shards\[0\]`"),
        (lambda m: m.__setitem__("class_names", None), r"at `\$.class_names`"),
        (
            lambda m: m.__setitem__("class_names", ["other"] * 3),
            "with the manifest's classes; shard-00000.h5 does not",
        ),
        (lambda m: m.__setitem__("teacher", []), r"at `\$.teacher`"),
        (lambda m: m.__setitem__("version", None), r"Expected `int`, got `null` - at `\$.version`"),
        (lambda m: m.__setitem__("notes", {"a": 1}), r"at `\$.notes`"),
        (lambda m: m.__setitem__("name", "\ud800"), "half a surrogate pair"),
        (
            lambda m: m["shards"][1].__delitem__("file"),
            r"missing required field `file` - at `\$.shards\[1\]`",
        ),
        (shard("file", "../other.h5"), r"at `\$.shards\[\.\.\.\]\.file`|at `\$.shards\[1\].file`"),
        (shard("file", None), r"at `\$.shards\[1\].file`"),
        (shard("bytes", "1"), r"Expected `int`, got `str` - at `\$.shards\[1\].bytes`"),
        (shard("rows", -1), r"at `\$.shards\[1\].rows`"),
        (shard("blake2b", []), r"at `\$.shards\[1\].blake2b`"),
        (shard("blake2b", {"points": 1}), r"Expected `str`, got `int`"),
    ],
)
def test_a_manifest_that_lies_is_one_error(shards, change, message):
    file = shards / "manifest.json"
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=message):
        read_shards(shards)


@pytest.mark.parametrize(
    "text", ["[]", "null", "3", '"a"', "[" * 100_000, "", '{"format": []}', '{"format": "a"}']
)
def test_another_manifest_is_of_another_folder(shards, text):
    (shards / "manifest.json").write_text(text)
    assert not is_sharded(shards)
    with pytest.raises(InputError, match=r"manifest\.json must be the manifest of a sharded set: "):
        read_shards(shards)


def test_shards_of_different_features_or_with_nan_are_refused(tmp_path):
    source = open_source(write_shapenet(tmp_path / "set"))
    widths = iter((4, 5, 5))

    def features(shapes):
        made = made_features(shapes)
        made.image = np.ones((len(shapes), 2, next(widths)), np.float16)
        return made

    pack(source, tmp_path / "shards", shard_size=5, features_fn=features, **SMALL)
    with pytest.raises(InputError, match=r"hold the same of all shapes.*shard-00001\.h5 does not"):
        read_shards(tmp_path / "shards")

    def with_nan(shapes):
        made = made_features(shapes)
        made.image[0, 0, 0] = np.nan
        return made

    pack(source, tmp_path / "nan", shard_size=5, features_fn=with_nan, **SMALL)
    with pytest.raises(InputError, match=r"3 shards of .* cannot be used") as error:
        verify_shards(tmp_path / "nan")
    assert "must have finite features/image" in error.value.table


@pytest.mark.parametrize("text", ["[]", "null", "{}", '{"keys": 1}', "[" * 100_000])
def test_notes_of_shards_that_lie_are_not_believed(tmp_path, text):
    source, out = open_source(write_folder(tmp_path / "set")), tmp_path / "a.h5"

    def interrupt(shapes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, out, features_fn=interrupt, **SMALL)
    (note,) = partial_folder(out).glob("*.json")
    note.write_text(text)
    packed = pack(source, out, **SMALL)
    assert (packed.reused, packed.shapes) == (0, 8)


def test_a_shard_whose_bytes_changed_is_read_again(tmp_path):
    source, out = open_source(write_folder(tmp_path / "set")), tmp_path / "a.h5"

    def interrupt(shapes):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(source, out, features_fn=interrupt, **SMALL)
    (shard,) = partial_folder(out).glob("*.h5")
    content = bytearray(shard.read_bytes())
    content[content.find(read_packed(shard).points.tobytes()) + 9] ^= 4
    shard.write_bytes(content)
    assert pack(source, out, **SMALL).reused == 0
    pack(source, tmp_path / "b.h5", **SMALL)
    np.testing.assert_array_equal(read_packed(out).points, read_packed(tmp_path / "b.h5").points)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("captions.json", '{"ball/ball0": "\\ud800"}'),
        ("captions.json", '{"ball/ball0": null}'),
        ("captions.json", "[" * 100_000),
        ("captions.json", '["ball"]'),
    ],
)
def test_captions_that_are_no_texts(tmp_path, file, text):
    root = write_folder(tmp_path / "set")
    (root / file).write_text(text)
    with pytest.raises(InputError, match=r"captions\.json must be JSON \{key: caption\}: "):
        open_source(root)


@pytest.mark.parametrize(
    "text",
    [
        '[{"catalogue": null, "describe": "a"}]',
        '[{"catalogue": "a", "describe": "a"}]',
        '[{"catalogue": 1, "describe": "\\udc00"}]',
        '[{"catalogue": 1}]',
        "{}",
        "[" * 100_000,
    ],
)
def test_shapenet_captions_that_are_no_rows(tmp_path, text):
    root = write_shapenet(tmp_path / "set")
    (root / "shapenet55.json").write_text(text)
    with pytest.raises(InputError, match=r"shapenet55\.json must "):
        open_source(root)


def test_an_array_in_another_file_is_a_problem_of_its_file(tmp_path):
    """A set on disk may be somebody else's: what it links to must not get into a packed set."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"], file["label"] = np.ones((2, 64, 3), np.float32), [0, 1]
    root = tmp_path / "set"
    root.mkdir()
    with h5py.File(root / "a.h5", "w") as file:
        file["data"] = h5py.ExternalLink("../secret.h5", "/data")
    with h5py.File(root / "b.h5", "w") as file:
        file["data"] = np.ones((2, 64, 3), np.float32)
        file["label"] = h5py.ExternalLink("../secret.h5", "/label")
    with h5py.File(root / "c.h5", "w") as file:
        file.create_dataset("data", (10_000_000, 64, 3), np.float32)
    problems = {problem.file.name: problem.what for problem in open_source(root).problems}
    assert "data is a link into another file, ../secret.h5" in problems["a.h5"]
    assert "label is a link into another file, ../secret.h5" in problems["b.h5"]
    assert problems["c.h5"].startswith("claims 7,680,000,000 bytes in data")


def test_what_is_right_is_still_read(tmp_path):
    for write in (write_folder, write_modelnet, write_shapenet, write_shapenet_part):
        shapes, problems = load(open_source(write(tmp_path / write.__name__)), **SMALL)
        assert not problems
        assert np.isfinite(shapes.points).all()
