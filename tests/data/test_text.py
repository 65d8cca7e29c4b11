import numpy as np
import pytest
from layouts import write_table

from recon_fast.data.readers.clouds import BadFile, read_cloud, read_table


@pytest.mark.parametrize("separator", [",", " ", ", ", "\t", "   "])
@pytest.mark.parametrize("columns", [3, 4, 6, 7])
def test_first_and_last_columns(tmp_path, separator, columns):
    table = np.random.default_rng(0).uniform(-1, 1, (130, columns))
    path = write_table(tmp_path / "a.txt", table, separator)
    expected = np.array([[f"{value:.6f}" for value in row] for row in table]).astype(np.float32)
    np.testing.assert_array_equal(read_table(path)[0].astype(np.float32), expected[:, :3])
    assert read_table(path)[1] == columns
    if columns > 3:
        np.testing.assert_array_equal(
            read_table(path, last=True)[0].astype(np.float32), expected[:, [0, 1, 2, -1]]
        )
    np.testing.assert_array_equal(read_cloud(path), expected[:, :3])


def test_numbers_are_those_of_python(tmp_path):
    rng = np.random.default_rng(0)
    numbers = rng.standard_normal((3000, 3)) * 10.0 ** rng.integers(-30, 30, (3000, 3))
    texts = [[str(float(value)) for value in row] for row in numbers]
    texts[:3] = [["1", "+2.5e+3", "-.5"], ["7.", "1E2", "00012"], ["0", "-0.0", "1234567890123456789012345"]]
    (tmp_path / "a.txt").write_text("\n".join(" ".join(row) for row in texts))
    expected = np.array([[float(text) for text in row] for row in texts], np.float32)
    np.testing.assert_array_equal(read_table(tmp_path / "a.txt")[0].astype(np.float32), expected)


def test_line_ends_and_empty_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\r\n1,2,3,9\r\n\n  4, 5,\t6, 9 \n\n7,8,9,9")
    np.testing.assert_array_equal(read_table(tmp_path / "a.txt")[0], np.arange(1, 10).reshape(3, 3))
    (tmp_path / "b.txt").write_bytes(b"\n")
    assert read_table(tmp_path / "b.txt")[0].shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1,2,3\n1,x,3\n", "must be rows of numbers, got '1,x,3' in line 2"),
        ("1,2,3\n1,2,3x\n", "got '1,2,3x' in line 2"),
        ("1,2,nan\n", "in line 1"),
        ("1,2,3e\n", "in line 1"),
        ("1,,2,3\n", "in line 1"),
        ("1,2,-\n", "in line 1"),
        ("1 2 3\n\uff11 2 3\n", "in line 2"),  # a digit of no ASCII
        ("v 1 2 3\n", "in line 1"),
        ("1,2\n3,4\n", "must have 3 or more columns, got another number in line 1"),
        ("1,2,3,4\n\n1,2,3\n", "must have 4 columns as in the first row, got another number in line 3"),
        ("1,2,3\n1,2,3,4\n", "must have 3 columns as in the first row, got another number in line 2"),
        ("1,2,3,4\n1,2,3,4\n1,2", "got another number in line 3"),
        ("0,5 1,5 2,5\n", "got commas that may be decimal ones: '0,5 1,5 2,5' in line 1"),
        ("1 2 3\n1 2 3,5\n", "got commas that may be decimal ones: '1 2 3,5' in line 2"),
        ("1,32, 2,39, 0,51\n", "may be decimal ones"),
        ("1,32\t2\t0,51\n1,3\t2,5\t0,51\n", "may be decimal ones"),
        ("1.0 2,5 3\n", "may be decimal ones"),
        ("1,032.5;2,39;0,51\n", "may be decimal ones: '1,032.5;2,39;0,51' in line 1"),
        ("4\n1 2 3\n4 5 6\n", "must have the 4 points that it announces, got 2 rows"),
        ("3\nwater\nO 0 0 0\nH 0 0 1\nH 0 1 0\n", "must be rows of numbers, got 'O 0 0 0' in line 3"),
    ],
)
def test_what_is_no_table_says_where(tmp_path, text, what):
    path = tmp_path / "a.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadFile) as error:
        read_table(path)
    assert str(error.value).startswith(f"{path}: ")
    assert what in str(error.value)


@pytest.mark.parametrize(
    "text", ["0.5,1.5,2.5 9 9\n", "0.5,1.5, 2.5,9,9\n", "\ufeff0.5 1.5 2.5 9 9\n", "5e-1,15e-1,25e-1,9,9\n"]
)
def test_separators_that_cannot_be_decimal(tmp_path, text):
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    table, columns = read_table(tmp_path / "a.txt")
    np.testing.assert_array_equal(table, [[0.5, 1.5, 2.5]])
    assert columns == 5


def test_utf16_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3\n", encoding="utf-16")
    with pytest.raises(BadFile, match="must be text in UTF-8 or ASCII, got UTF-16"):
        read_table(tmp_path / "a.txt")


def test_the_last_column_must_be_one_of_its_own(tmp_path):
    (tmp_path / "a.txt").write_text("1 2 3\n")
    with pytest.raises(BadFile, match="must have 4 or more columns, got another number in line 1"):
        read_table(tmp_path / "a.txt", last=True)
    with pytest.raises(BadFile, match="cannot be read: No such file"):
        read_table(tmp_path / "b.txt")
