"""Files that lie: JSON of another structure, HDF5 that leads elsewhere or claims what it does not hold."""

from typing import TypedDict

import h5py
import numpy as np
import pytest

from recon_fast.errors import InputError
from recon_fast.schema import hdf5_array, hdf5_attribute, open_hdf5, parse_json, read_json


class Person(TypedDict):
    name: str
    age: int


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ('{"name": "a", "age"', "Expecting"),
        ("[]", "Expected `object`, got `array`"),
        ("null", "Expected `object`, got `null`"),
        ('{"name": "a"}', "missing required field `age`"),
        ('{"name": "a", "age": null}', r"Expected `int`, got `null` - at `\$.age`"),
        ('{"name": "a", "age": 1.5}', r"Expected `int`, got `float` - at `\$.age`"),
        ('{"name": "a", "age": NaN}', r"Expected `int`, got `float` - at `\$.age`"),
        ('{"name": "a", "age": 1' + "0" * 5000 + "}", "Exceeds the limit"),
        ('{"name": "\\ud800", "age": 1}', "half a surrogate pair"),
        ('{"name": "a", "age": 1, "more": "\\udfff"}', "half a surrogate pair"),
        ("[" * 100_000, "nests too deeply"),
        ('{"a":' * 100_000, "nests too deeply"),
    ],
)
def test_json_of_another_structure_is_one_error(tmp_path, text, message):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_json(tmp_path / "a.json", Person, "a person")
    assert str(error.value).startswith(f"{tmp_path / 'a.json'} must be a person: ")


def test_json_that_fits_is_as_it_was(tmp_path):
    text = '{"name": "\\u00e4", "age": 3, "more": {"kept": [1, null, "\\ud83d\\ude00"]}}'
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "a.json").write_text(text, encoding=encoding)
        found = read_json(tmp_path / "a.json", Person, "a person")
        assert found == {"name": "ä", "age": 3, "more": {"kept": [1, None, "\U0001f600"]}}
    assert parse_json(text, dict, "it must be a dict") == found
    with pytest.raises(InputError, match=r"b\.json must be a person: No such file"):
        read_json(tmp_path / "b.json", Person, "a person")
    (tmp_path / "c.json").write_bytes(b'{"name": "\xe4", "age": 3}')
    with pytest.raises(InputError, match=r"c\.json must be a person: .*utf-8"):
        read_json(tmp_path / "c.json", Person, "a person")


@pytest.fixture
def outside(tmp_path):
    """A file with an array that nobody asked for."""
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = np.ones((2, 64, 3), np.float32)
        file["group/data"] = np.ones((2, 64, 3), np.float32)
    return tmp_path / "secret.h5"


def link(file, outside):
    file["data"] = h5py.ExternalLink(outside.name, "/data")


def link_of_a_link(file, outside):
    file["other"] = h5py.ExternalLink(outside.name, "/data")
    file["data"] = h5py.SoftLink("/other")


def link_of_a_group(file, outside):
    file["group"] = h5py.ExternalLink(outside.name, "/group")
    file["data"] = h5py.SoftLink("/group/data")


def dead_link(file, outside):
    file["other"] = h5py.ExternalLink("absent.h5", "/data")
    file["data"] = h5py.SoftLink("/other")


def virtual(file, outside):
    layout = h5py.VirtualLayout((2, 64, 3), np.float32)
    layout[:] = h5py.VirtualSource(outside, "data", (2, 64, 3))
    file.create_virtual_dataset("data", layout)


def raw_bytes(file, outside):
    external = [(str(outside), 0, h5py.h5f.UNLIMITED)]
    file.create_dataset("data", (2, 64, 3), np.float32, external=external)


def unwritten(file, outside):
    file.create_dataset("data", (10_000_000, 64, 3), np.float32, chunks=(1, 64, 3))


def almost_unwritten(file, outside):
    data = file.create_dataset("data", (10_000_000, 64, 3), np.float32, chunks=(1, 64, 3), compression="gzip")
    data[5] = 1


def unwritten_whole(file, outside):
    file.create_dataset("data", (10_000_000, 64, 3), np.float32)


FOREIGN = {
    link: r"link into another file, secret\.h5: copy it in",
    link_of_a_link: r"lies in another file, .*secret\.h5: copy it in",
    link_of_a_group: r"lies in another file, .*secret\.h5: copy it in",
    dead_link: "is damaged: its data cannot be read",
    virtual: r"lies in other datasets, .*secret\.h5: copy it in",
    raw_bytes: r"lies in another file, .*secret\.h5: copy it in",
    unwritten: r"claims 7,680,000,000 bytes in data \[10000000, 64, 3\] and stores 0",
    almost_unwritten: r"claims 7,680,000,000 bytes in data .* and stores \d\d:",
    unwritten_whole: r"claims 7,680,000,000 bytes in data .* and stores 0",
}


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_arrays_that_are_not_in_the_file(tmp_path, outside, make):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file, outside)
    with open_hdf5(tmp_path / "a.h5") as file, pytest.raises(InputError, match=FOREIGN[make]):
        hdf5_array(file, "data", ("S", "N", "3 or more"))


def test_arrays_of_the_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["data"] = np.zeros((2, 64, 3), np.float32)
        file.create_dataset("zeros", data=np.zeros((20, 8192, 3)), compression="gzip", compression_opts=9)
        file["soft"] = h5py.SoftLink("/data")
        file["group/inner"] = np.arange(3)
        file["texts"] = ["a", "b"]
        file["nothing"] = h5py.Empty("f4")
        file["none"] = np.zeros((0, 3))
        file["pairs"] = np.zeros(2, [("a", "f4"), ("b", "f4")])
    with open_hdf5(tmp_path / "a.h5") as file:
        assert hdf5_array(file, "data", (2, "N", 3)).shape == (2, 64, 3)
        assert hdf5_array(file, "zeros", (20, "N", 3)).shape == (20, 8192, 3)
        assert hdf5_array(file, "soft", ("S", "N", 3)).shape == (2, 64, 3)
        assert hdf5_array(file, "group/inner", (3,), "iu")[()].tolist() == [0, 1, 2]
        assert hdf5_array(file, "none", ("S", 3)).shape == (0, 3)
        assert hdf5_array(file, "texts", None, "O").shape == (2,)
        for name in ("absent", "group/absent", "data/inner"):
            assert hdf5_array(file, name, None, optional=True) is None
            with pytest.raises(InputError, match=f"must have an array {name}, got data, group"):
                hdf5_array(file, name, None)
        for name, shape, kinds, message in (
            ("data", (2, 65, 3), "f", r"must have data \[2, 65, 3\], got \[2, 64, 3\]"),
            ("data", ("S", 3), "f", r"must have data \[S, 3\], got \[2, 64, 3\]"),
            ("data", None, "iu", "must have whole numbers in data, got float32"),
            ("data", None, "O", "must have texts in data, got float32"),
            ("texts", None, "f", "must have real numbers in texts, got object"),
            ("pairs", None, "fiu", "must have real numbers or whole numbers in pairs, got"),
            ("group", None, "f", "must have an array group"),
            ("nothing", ("S",), "f", "must have nothing"),
            ("nothing", None, "f", "must have nothing"),
        ):
            with pytest.raises(InputError, match=message):
                hdf5_array(file, name, shape, kinds)


def test_attributes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs.update({"text": "a", "number": 3, "list": [1, 2], "real": 1.5})
        file.attrs["none"] = h5py.Empty("f4")
    with open_hdf5(tmp_path / "a.h5") as file:
        assert hdf5_attribute(file, "text", str, "a.h5") == "a"
        assert hdf5_attribute(file, "number", int, "a.h5") == 3
        assert hdf5_attribute(file, "absent", int, "a.h5") is None
        for name, kind in (
            ("text", int),
            ("list", int),
            ("list", str),
            ("real", int),
            ("none", str),
            ("number", str),
        ):
            with pytest.raises(InputError, match=f"a.h5 must have a .* as its attribute {name}, got"):
                hdf5_attribute(file, name, kind, "a.h5")


def test_no_hdf5(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"hello")
    for path in (tmp_path / "a.h5", tmp_path / "absent.h5", tmp_path):
        with pytest.raises(InputError, match="is damaged or not an HDF5 file"), open_hdf5(path):
            pass
