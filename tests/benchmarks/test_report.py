"""The table, the plot and the fits, on a small recorded run and on a results file of our own."""

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks import history, plot, report
from benchmarks.scaling import fit_exponent

RECORDED = Path(__file__).parent / "recorded.json"


@pytest.fixture
def recorded():
    return report.load(RECORDED)


def results_of_gpu(recorded, tmp_path):
    path = tmp_path / "results.json"
    content = {"schema": 1, "head": recorded.head, "rows": recorded.rows, "tests": {"outcome": "3 passed"}}
    path.write_text(json.dumps(content))
    return report.load(path)


def row(provider, median, **more):
    base = {"operator": "fps", "shape": "1x8 to 4", "data": "cube", "pass": "forward"}
    return base | {"provider": provider, "median": median, "low": median, "high": median} | more


def test_the_same_table_from_either_file(recorded, tmp_path):
    ours = results_of_gpu(recorded, tmp_path)
    assert ours.rows == recorded.rows
    table = report.markdown(recorded)
    assert report.markdown(ours).replace("tests: 3 passed  \n", "") == table
    assert "| provider | median | quartiles | ratio | memory |" in table


def test_ratio_is_over_ours_and_a_loss_is_named():
    rows = [row("slow", 3e-3), row("ours", 1e-3, memory_mib=0.25), row("fast", 5e-4, setting="h=5")]
    assert report.ratios(rows) == [pytest.approx(3), None, pytest.approx(0.5)]
    table = report.markdown(report.Results({}, rows))
    assert "| fps | 1x8 to 4 | cube | forward | fast (h=5) | 500 µs | 500 µs to 500 µs | 0.50 |  |" in table
    assert "| ours | 1.00 ms | 1.00 ms to 1.00 ms |  | 0.2 MiB |" in table
    assert "fastest at 0 of 1 inputs" in table
    assert "- fps, 1x8 to 4, cube, forward: fast, ratio 0.50" in table


def test_no_ratio_without_ours():
    assert report.ratios([row("a", 1.0), row("b", 2.0)]) == [None, None]
    assert "fastest" not in report.markdown(report.Results({}, [row("a", 1.0)]))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3.21e-6, "3.21 µs"),
        (0.000123456, "123 µs"),
        (0.9996e-3, "1.00 ms"),
        (12.0, "12.0 s"),
        (250.0, "250 s"),
    ],
)
def test_durations(seconds, text):
    assert report.duration(seconds) == text


def test_rows_without_contenders(recorded):
    alone = [r for r in recorded.rows if r["operator"] == "procedural"]
    assert [r["shape"] for r in alone] == ["clouds"]


def test_exponent():
    exponent, off = fit_exponent([1000, 10_000, 100_000], [1e-3, 1e-1, 10])
    assert exponent == pytest.approx(2)
    assert off == pytest.approx(1)
    exponent, off = fit_exponent([1, 10, 100], [1, 20, 100])
    assert exponent == pytest.approx(1)
    assert off == pytest.approx(2 ** (2 / 3))
    assert all(map(math.isnan, fit_exponent([1000], [1e-3])))


def test_exponents_of_series():
    rows = [row("ours", n * 1e-6, series="s", size=n) for n in (1024, 8192)] + [row("other", 1.0)]
    rows.append(row("reference", 1.0, series="s", size=1024))  # one size has no exponent
    ((name, provider, exponent, _, sizes),) = report.exponents(rows)
    assert (name, provider, sizes) == ("s", "ours", [1024, 8192])
    assert exponent == pytest.approx(1)
    assert "| s | ours | 1.00 | 1.00 times | 1024 to 8192 |" in report.markdown(report.Results({}, rows))


class Checker(HTMLParser):
    """Tags in order; raises nothing itself, the test looks for what must not be there."""

    def __init__(self):
        super().__init__()
        self.tags = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


def test_page_is_escaped_and_loads_nothing(recorded):
    evil = "<script>alert(1)</script>&"
    recorded.rows.append(row(evil, 1.0, data=evil))
    recorded.rows += [row(evil, n * 1e-6, series=evil, size=n) for n in (10, 1000)]
    text = plot.page([report.Results(recorded.head | {"cpu": evil}, recorded.rows)])
    checker = Checker()
    checker.feed(text)
    assert "script" not in checker.tags
    assert not {"link", "img", "iframe"} & set(checker.tags)
    assert "http" not in text
    assert checker.tags.count("svg") >= 3
    assert "&lt;script&gt;" in text


def test_history_of_a_device_over_commits():
    def results(when, commit, ours, other, **head):
        return report.Results(
            {"cpu": "CPU", "threads": 2, "when": when, "commit": commit} | head,
            [row("ours", ours), row("peer", other), row("ours", 1.0, shape=when)],
        )

    new, old = results("2026-02-01", "b" * 40, 2e-3, 3e-3), results("2026-01-01", "a" * 40, 1e-3, 4e-3)
    devices = history.by_device([new, old, results("2026-01-01", "a", 1e-3, 1e-3, gpu="GPU")])
    assert {name: len(files) for name, files in devices.items()} == {"CPU, 2 threads": 2, "GPU": 1}
    assert devices["CPU, 2 threads"] == [old, new]
    ((key, line),) = history.history([old, new])
    assert key == ("fps", "1x8 to 4", "cube", "forward")
    assert [(point.median, round(point.ratio, 2)) for point in line] == [(1e-3, 4), (2e-3, 1.5)]
    text = plot.page([new, old])
    for part in ("2026-01-01 aaaaaaa", '<b class="lost">+100 %</b>, ratio 1.50', "slower at 0 of 1 inputs"):
        assert part in text
    assert history.table([old]) == ""
    assert history.overview([report.Results({}, [row("peer", 1.0)])]) == ""


def test_command(recorded, tmp_path, capsys):
    report.main([str(RECORDED), "--out", str(tmp_path / "out")])
    table = capsys.readouterr().out
    assert (tmp_path / "out/report.md").read_text() == table
    assert (tmp_path / "out/report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("text", ["{}", "[]", "no json"])
def test_a_file_of_another_kind(text, tmp_path):
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(SystemExit, match=r"benchmarks\.report"):
        report.main([str(path)])
