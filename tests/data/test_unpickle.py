"""What a pickle may hold, what it may not, and what a broken or hostile one does: nothing but an error."""

import os
import pickle
import struct

import numpy as np
import pytest

from recon_fast.data.readers.clouds import BadFile
from recon_fast.data.readers.pickled import read_pickle

BIG = np.arange(6000, dtype=np.float32).reshape(1000, 6)
ARRAYS = [
    BIG,
    np.asfortranarray(BIG),
    BIG[::2, :3],
    BIG.astype(">f8"),
    BIG[:8].reshape(2, 4, 6).transpose(1, 2, 0),
    np.array([3], np.int32),
    np.array(4, np.uint8),
    np.zeros((0, 3), np.float16),
    np.array([True, False]),
    np.array(["bed", "sofa"]),
]
PLAIN = ["a", "ü" * 2000, 1, -(2**70), 2.5, None, True, b"", b"\xff", b"x" * 3000, (1, (2, [3])), {"k": [{}]}]


def written(tmp_path, content):
    path = tmp_path / "a.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_values_of_every_protocol(tmp_path, protocol):
    scalars = [np.float32(0.5), np.int64(-3), np.str_("chair")]
    content = {"arrays": ARRAYS, "again": (BIG, BIG), "plain": PLAIN, "scalars": scalars}
    read = read_pickle(written(tmp_path, pickle.dumps(content, protocol)))
    for expected, got in zip(ARRAYS, read["arrays"], strict=True):
        assert type(got) is np.ndarray
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert read["again"][0] is read["again"][1]
    assert read["plain"] == PLAIN
    assert read["scalars"] == scalars
    assert [type(value) for value in read["scalars"]] == [np.float32, np.int64, np.str_]


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
def test_old_and_new_names_of_numpy(tmp_path, core):
    own = np.float64(0).__reduce__()[0].__module__.removesuffix(".multiarray").encode()
    content = pickle.dumps([BIG, np.float32(2)], 2).replace(own + b".", core.encode() + b".")
    array, number = read_pickle(written(tmp_path, content))
    np.testing.assert_array_equal(array, BIG)
    assert number == 2


@pytest.mark.parametrize("points", [2, 500], ids=["short", "long"])
def test_python_2(tmp_path, points):
    """Texts of bytes for dtypes and data, as cPickle of Python 2 writes them in protocol 2."""
    array = BIG[:points]
    data = array.tobytes()
    length = b"U" + bytes([len(data)]) if len(data) < 256 else b"T" + struct.pack("<i", len(data))
    content = (
        b"\x80\x02]q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87R"
        b"(K\x01M" + struct.pack("<H", points) + b"K\x06\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + length + data + b"tbaU\x03bed\x86."
    )
    (read,), name = read_pickle(written(tmp_path, content))
    np.testing.assert_array_equal(read, array)
    assert name == "bed"


def test_large_arrays_are_views_of_the_file(tmp_path):
    (array,) = read_pickle(written(tmp_path, pickle.dumps([BIG], 4)))
    assert not array.flags.writeable
    assert not array.flags.owndata


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def marked():
    raise AssertionError("code of a pickle was run")


HOSTILE = {
    "system": (pickle.dumps(Calls(os.system, "exit 1")), f"{os.system.__module__}.system"),
    "eval": (pickle.dumps(Calls(eval, "1")), "builtins.eval"),
    "eval-2": (pickle.dumps(Calls(eval, "1"), 2), "__builtin__.eval"),
    "getattr": (pickle.dumps([Calls(getattr, BIG, "dump")]), "builtins.getattr"),
    "import": (pickle.dumps(Calls(__import__, "os")), "builtins.__import__"),
    "numpy": (pickle.dumps({"train": Calls(np.load, "x.npy")}), ".load"),
    "fromfile": (pickle.dumps(Calls(np.fromfile, "/etc/passwd")), ".fromfile"),
    "own": (pickle.dumps([BIG, (1, {"k": [Calls(marked)]})]), ".marked"),
    "dotted": (b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.dump\x93.", "numpy.ndarray.dump"),
    "instance": (b"(S'exit 1'\nios\nsystem\n.", "os.system"),
    "object": (b"(cos\nsystem\nS'exit 1'\no.", "os.system"),
    "newobj": (b"\x80\x02cnumpy\nndarray\nK\x01\x85\x85\x81.", "instruction b'\\x81'"),
    "persistent": (b"Pname\n.", "instruction b'P'"),
    "extension": (b"\x80\x02\x82\x01.", "instruction b'\\x82'"),
    "objects": (pickle.dumps([np.array([1, "a", None], object)]), "numpy dtype 'O"),
    "fields": (pickle.dumps(np.zeros(2, [("x", "f4"), ("y", "O")])), "numpy dtype 'V"),
    "comma": (b"cnumpy\ndtype\n(S'f4,O'\nI00\nI01\ntR.", "numpy dtype 'f4,O'"),
    "field-state": (
        b"cnumpy\ndtype\n(S'f4'\nI00\nI01\ntR(I3\nS'<'\nN(S'x'\nt}I8\nI8\nI0\ntb.",
        "a structured numpy dtype",
    ),
    "codec": (pickle.dumps(Calls(__import__("_codecs").encode, "x", "rot13"), 2), "encode to 'rot13'"),
    "bytes": (b"c__builtin__\nbytes\n(I9999999999\ntR.", "bytes of something"),
    "call": (b"I3\n(tR.", "a call of a int"),
    "change-function": (b"cnumpy\ndtype\n(dS'call'\nI1\nsb.", "a change of a _Global"),
    "change-array": (pickle.dumps(BIG)[:-1] + b"I0\nI1\ns.", "a change of a _Array"),
    "append-to-text": (b"S'a'\nI1\na.", "a change of a str"),
    "function": (b"cnumpy\ndtype\n.", "a function or a type as a value"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_by_name(tmp_path, name):
    content, culprit = HOSTILE[name]
    path = written(tmp_path, content)
    with pytest.raises(BadFile) as error:
        read_pickle(path)
    assert str(error.value).startswith(f"{path}: must be a pickle of arrays and plain values alone, got ")
    assert culprit in str(error.value)


def array_state(shape, data=b"\x00" * 8, order=b"\x89"):
    """A protocol-2 pickle of one array with a state of our own."""
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01" + shape + b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb" + order + b"U" + bytes([len(data)]) + data + b"tb."
    )


HUGE = b"\x8a\x06\x00\x00\x00\x00\x00\x01"  # 2^40
BROKEN = {
    "empty": (b"", "empty file"),
    "text": (b"hello", "must be a whole pickle"),
    "no-end": (b"]", "1 bytes announced, 0 left"),
    "shape": (array_state(HUGE + b"\x85"), "in 8 bytes"),
    "negative": (array_state(b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86"), "shape of whole numbers"),
    "shape-of-text": (array_state(b"U\x012\x85"), "shape of whole numbers"),
    "no-data": (b"cnumpy\nndarray\n(tR.", "an array without its data"),
    "bytes-8": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"ab.", f"{2**62} bytes announced"),
    "bytearray-8": (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"ab.", f"{2**40} bytes announced"),
    "unicode-8": (b"\x80\x04\x8d" + struct.pack("<Q", 2**40) + b"ab.", f"{2**40} bytes announced"),
    "negative-text": (b"T\xff\xff\xff\xffab.", "-1 bytes announced"),
    "long": (b"\x80\x02\x8b\xff\xff\xff\x7fab.", f"{2**31 - 1} bytes announced"),
    "memo": (b"\x80\x02Nh\x07.", "Memo value not found"),
    "nested": (b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "RecursionError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_pickles_and_huge_claims(tmp_path, name):
    content, what = BROKEN[name]
    path = written(tmp_path, content)
    with pytest.raises(BadFile) as error:
        read_pickle(path)
    assert str(error.value).startswith(f"{path}: must be a whole pickle")
    assert what in str(error.value)


def test_a_huge_place_in_the_memo_takes_no_memory(tmp_path):
    assert read_pickle(written(tmp_path, b"\x80\x02K\x05r\xff\xff\xff\xff.")) == 5


def test_lists_of_shared_lists_take_no_time(tmp_path):
    content = b"\x80\x02]q\x00"
    for i in range(60):
        content += b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1])
    read = read_pickle(written(tmp_path, content + b"."))
    assert read[0] is read[1]


def test_one_long_text_many_times_is_one_object(tmp_path):
    content = b"\x80\x03]q\x00(B" + struct.pack("<I", 2**20) + bytes(2**20) + b"q\x01" + b"h\x01" * 10_000
    read = read_pickle(written(tmp_path, content + b"e."))
    assert len(read) == 10_001
    assert all(value is read[0] for value in read)


@pytest.mark.parametrize("make", ["encode", "array"])
def test_copies_of_one_long_text_are_refused(tmp_path, make):
    text = b"X" + struct.pack("<I", 2**20) + b"a" * 2**20 + b"q\x01"
    if make == "encode":
        call = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    else:
        dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        call = b"cnumpy._core.numeric\n_frombuffer\n(h\x01" + dtype + b"J\x00\x00\x10\x00\x85U\x01CtR"
    assert len(read_pickle(written(tmp_path, b"\x80\x02](" + text + call + b"e."))) == 2
    with pytest.raises(BadFile, match="got copies of its data, more than it holds"):
        read_pickle(written(tmp_path, b"\x80\x02](" + text + call * 5 + b"e."))


def test_a_list_that_holds_itself(tmp_path):
    loop: list = [1]
    loop.append((loop,))
    read = read_pickle(written(tmp_path, loop))
    assert read[1][0] is read


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_cut_anywhere_is_an_error(tmp_path, protocol):
    content = pickle.dumps([[BIG[:3], BIG[:300]], [np.array([1], np.int32)]], protocol)
    for end in [*range(0, len(content), 97), len(content) - 1]:
        with pytest.raises(BadFile):
            read_pickle(written(tmp_path, content[:end]))


def test_a_missing_file(tmp_path):
    with pytest.raises(BadFile, match=r"a\.pkl: cannot be read: No such file"):
        read_pickle(tmp_path / "a.pkl")
