"""What a long piece of work shows: a bar that fits a narrow terminal, a line now and then in a pipe."""

import io

from rich.console import Console

from recon_fast import console as module
from recon_fast.console import Meter


def shown(monkeypatch, seconds, **settings):
    clock = iter(range(0, 10_000, seconds))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    out = io.StringIO()
    with Meter(Console(file=out, **settings), "embedding", 52_470) as meter:
        for _ in range(4):
            meter.advance(10_000)
        meter.advance(12_470)
    return out.getvalue()


def test_a_pipe_gets_a_line_now_and_then(monkeypatch):
    lines = shown(monkeypatch, 20).splitlines()
    assert lines == [
        "embedding: 20000 of 52470, 500/s, 65 s left",
        "embedding: 40000 of 52470, 500/s, 25 s left",
    ]
    assert shown(monkeypatch, 1) == ""


def test_a_narrow_terminal_gets_whole_lines(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    text = shown(monkeypatch, 20, force_terminal=True, width=60, color_system=None)
    assert "52470/52470" in text
    assert "embedding" in text
    assert "525/s" in text
    assert "…" not in text
