"""Progress where there is a terminal, of any width, and where there is none."""

import io

import pytest
from rich.console import Console

from recon_fast import console as module
from recon_fast.console import ProgressBars, duration, rate_text


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when the test says so."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def piped():
    return Console(file=io.StringIO(), width=60)


@pytest.mark.parametrize("width", [60, 80, 160])
def test_a_bar_is_one_row_with_count_rate_and_remaining_time(width):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=width, color_system=None, legacy_windows=False)
    now = [0.0]
    bars = ProgressBars(console)
    bars.progress.get_time = lambda: now[0]
    name = "reading shapes of a set with a long name that does not fit"
    for done in range(0, 1201, 100):
        bars(name, done, 12_000)
        now[0] += 1.0
    with console.capture() as capture:
        console.print(bars.progress.get_renderable())
    rows = capture.get().rstrip("\n").split("\n")
    assert len(rows) == 1
    assert len(rows[0]) <= width
    for part in ("reading", "1200/12000", "/s", "0"):
        assert part in rows[0]
    assert "100/s" in rows[0]
    assert rows[0].rstrip()[-5:].count(":") == 1


def test_short_tasks_say_nothing_in_a_pipe(clock):
    console = piped()
    with ProgressBars(console) as bars:
        for done in range(11):
            bars("reading", done, 10)
            clock(0.5)
    assert console.file.getvalue() == ""


def test_long_tasks_say_a_line_now_and_then_in_a_pipe(clock):
    console = piped()
    with ProgressBars(console) as bars:
        bar = bars.bar("reading [shapes]")
        for done in range(500, 1001, 10):
            bar(done, 1000)
            clock(0.5)
        bar(1000, 1000)
    lines = console.file.getvalue().splitlines()
    assert lines == [
        "reading [shapes]: 700/1000, 70 %, 20/s, 0:15 left",
        "reading [shapes]: 900/1000, 90 %, 20/s, 0:05 left",
        "reading [shapes]: 1000/1000, 100 %, 20/s, took 0:25",
    ]


def test_a_task_that_begins_again_is_timed_anew(clock):
    console = piped()
    with ProgressBars(console) as bars:
        for _ in range(2):
            for done in (0, 6, 12, 12):
                bars("reading", done, 12)
                clock(12)
    lines = console.file.getvalue().splitlines()
    assert (
        lines
        == ["reading: 6/12, 50 %, 2 s each, 0:12 left", "reading: 12/12, 100 %, 2 s each, took 0:24"] * 2
    )


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(0, ""), (0.02, "50 s each"), (0.5, "2 s each"), (0.96, "1.0/s"), (9.96, "10/s"), (5700.4, "5700/s")],
)
def test_rates(per_second, text):
    assert rate_text(per_second) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (62.6, "1:03"), (3723, "1:02:03")])
def test_durations(seconds, text):
    assert duration(seconds) == text
