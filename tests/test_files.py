import pytest

from recon_fast.errors import InputError
from recon_fast.files import names_in, read_lines, whole_file, whole_folder


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("older")
    with pytest.raises(UnicodeEncodeError), whole_file(path) as aside:
        aside.write_text("half of it \ud800", encoding="utf-8")
    assert path.read_text() == "older"
    with whole_file(path, tmp_path / "writing") as aside:
        assert aside == tmp_path / "writing"
        aside.write_text("newer")
        assert path.read_text() == "older"
    assert path.read_text() == "newer"
    assert names_in(tmp_path) == {"a.txt"}


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "best"
    with whole_folder(path) as aside:
        (aside / "a.txt").write_text("older")
        assert not path.exists()

    def fail():
        with whole_folder(path) as aside:
            (aside / "a.txt").write_text("half of it")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (path / "a.txt").read_text() == "older"
    with whole_folder(path) as aside:
        (aside / "b.txt").write_text("newer")
    assert names_in(path) == {"b.txt"}
    assert names_in(path.parent) == {"best"}


def test_lists(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n\n two \n")
    assert read_lines(tmp_path / "a.txt") == ["one", "two"]
    assert names_in(tmp_path / "absent") is None
    with pytest.raises(InputError, match=r"absent\.txt must list the classes, one a line: "):
        read_lines(tmp_path / "absent.txt", "classes")
