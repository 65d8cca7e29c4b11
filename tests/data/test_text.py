import numpy as np
import pytest
from layouts import cloud, write_npy, write_table

from recon_fast.data.open import open_source
from recon_fast.data.readers.clouds import BadFile, load_cloud, read_cloud, read_table


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


ROWS = [[0.5, -1, 2], [3, 4.5, -6], [7, 8, 9]]


@pytest.mark.parametrize(
    "text",
    [
        "0.5 -1 2 255 0 0\n3 4.5 -6 0 0 0\n7 8 9 1 1 1\n",
        "0.5\t-1\t2\n3\t4.5\t-6\n7\t8\t9\n",
        "3\n0.5 -1 2\n3 4.5 -6\n7 8 9\n",
        "x,y,z\n0.5,-1,2\n3,4.5,-6\n7,8,9\n",
        'id,"Z (m)","X (m)","Y (m)",class\n1,2,0.5,-1,7\n2,-6,3,4.5,7\n3,9,7,8,7\n',
        '"Points:0","Points:1","Points:2","f"\n0.5,-1,2,0\n3,4.5,-6,0\n7,8,9,0\n',
        "//X Y Z R G B\n0.5 -1 2 1 1 1\n3 4.5 -6 1 1 1\n7 8 9 1 1 1\n",
        "# made by a scanner\n\n# x y z\n0.5 -1 2\n3 4.5 -6\n# a comment\n7 8 9\n",
        "0.5;-1;2\n3;4.5;-6\n7;8;9\n",
        "0.5; -1; 2;\n3; 4.5; -6;\n7; 8; 9;\n",
        "x;y;z\n0,5;-1;2\n3;4,5;-6\n7;8;9\n",
        "\ufeff3\r\nX Y Z\r\n0.5 -1 2\r\n3 4.5 -6\r\n7 8 9\r\n",
        "name of an object\n0.5 -1 2\n3 4.5 -6\n7 8 9\n",
        "Red,Green,x,y,z,x_normal\n1,1,0.5,-1,2,0\n1,1,3,4.5,-6,0\n1,1,7,8,9,0\n",
        "# id,x,y,z\n1,0.5,-1,2\n2,3,4.5,-6\n3,7,8,9\n",
        "//R G B X Y Z\n1 1 1 0.5 -1 2\n1 1 1 3 4.5 -6\n1 1 1 7 8 9\n",
        "id,x,y,z\n-,m,m,m\n1,0.5,-1,2\n2,3,4.5,-6\n3,7,8,9\n",
        '"x","y","z"\n"0.5","-1","2"\n"3","4.5","-6"\n"7","8","9"\n',
        "0,1,2\n0.5,-1.0,2.0\n3.0,4.5,-6.0\n7.0,8.0,9.0\n",
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".csv"])
def test_tables_with_heads_counts_comments_and_semicolons(tmp_path, text, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text(text, encoding="utf-8", newline="")
    np.testing.assert_array_equal(read_table(path)[0], ROWS)
    assert load_cloud(path).more == (read_table(path)[1] > 3)


WRONG = {  # what must not be read silently from other columns, or as other numbers
    "id,coord_x,coord_y,coord_z\n1,0.5,1,2\n": "got 4 columns and the names id, coord_x, coord_y, coord_z",
    "x_vel,y_vel,z_vel,t\n1.5,0.5,1,2\n": "one x, one y and one z among them, got 4 columns and",
    "x,y,z\n1,0.5,1,2\n": "got 4 columns and the names x, y, z",
    "x\ty\tz\tq\n1.5\t\t2.5\t7\n4.5\t\t6.5\t8\n": "must be rows of numbers",
    "nan nan nan\n1 2 3\n4 5 6\n": "got 'nan nan nan' in line 1",
    "x,y,z\nNaN,NaN,NaN\n1,2,3\n": "got 'NaN,NaN,NaN' in line 2",
    "1.5D+00 2.5D+00 3.5D+00\n1 2 3\n": "got '1.5D+00 2.5D+00 3.5D+00' in line 1",
    "1,5,2,5,3,5\n4,5,5,5,6,5\n": "commas that may be decimal ones",
    "x;y;z\n1,234;2,500;3,500\n": "commas that may be decimal ones",
    "2\n\n8 1.5 2.5 3.5\n1 0.5 0.5 0.5\n": "got whole numbers first: '8 1.5 2.5 3.5' in line 3",
    "0,1.5,2.5,3.5\n1,4.5,5.5,6.5\n": "got whole numbers first",
}


@pytest.mark.parametrize("text", WRONG)
def test_tables_that_may_mean_something_else_are_refused(tmp_path, text):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(BadFile) as error:
        read_table(tmp_path / "a.csv")
    assert WRONG[text] in str(error.value)


def write_rows(path, count=8):
    path.write_text("".join(f"{i} {i / 2} {i % 3}\n" for i in range(count)))


def test_text_files_are_told_from_captions(tmp_path):
    (tmp_path / "tables" / "chair").mkdir(parents=True)
    for name in ("a.txt", "b.csv", "chair/c.txt"):
        write_rows(tmp_path / "tables" / name)
    (tmp_path / "tables" / "labels.csv").write_text("name,class\na,1\n" * 9)
    write_rows(tmp_path / "tables" / "pose.txt", 4)
    source = open_source(tmp_path / "tables")
    assert [entry.key for entry in source.entries] == ["a", "b", "chair/c"]
    assert source.notes[0].startswith("not used: 1 .csv, 1 .txt; clouds are")
    (tmp_path / "clouds").mkdir()
    write_npy(tmp_path / "clouds" / "c.npy", cloud())
    write_npy(tmp_path / "clouds" / "d.npy", cloud())
    (tmp_path / "clouds" / "c.txt").write_text("a chair with 4 legs\n")
    write_rows(tmp_path / "clouds" / "d.txt")
    write_rows(tmp_path / "clouds" / "split.csv")
    source = open_source(tmp_path / "clouds")
    assert [(e.cloud.name, e.caption) for e in source.entries] == [
        ("c.npy", "a chair with 4 legs"),
        ("d.npy", None),
    ]
    few = "not used: 2 files with rows of numbers, such as d.txt, beside clouds in other formats"
    assert source.notes == [few]
