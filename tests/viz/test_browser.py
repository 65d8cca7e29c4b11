"""The pages in a real Chromium: nothing complains, WebGL draws, controls answer, no sideways scrolling."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pages import NASTY, write_model, write_run
from tiny import Lines

from benchmarks import plot
from benchmarks.report import load
from recon_fast.config import InspectConfig, ReportConfig, ShowConfig
from recon_fast.viz.data_page import inspect
from recon_fast.viz.run_page import report
from recon_fast.viz.show_page import show

pytestmark = pytest.mark.slow


def colors(picture):
    """Number of distinct colours."""
    return len(np.unique(picture.reshape(-1, 3), axis=0))


def open_page(browser, path, **look):
    browser.look(**look)
    browser.complaints()
    browser.open(path)
    browser.until("return document.documentElement.dataset.ready === 'yes'")


def check_width(browser):
    wide = browser.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1]


def settled(browser, selector, other=None):
    """A picture of an element once it shows more than its background, and something else than `other`."""
    for _ in range(60):
        picture = browser.picture(selector)
        if colors(picture) > 8 and (other is None or not np.array_equal(picture, other)):
            return picture
        time.sleep(0.25)
    raise AssertionError(f"{selector} stays as it is")


@pytest.fixture(scope="module")
def show_page(checkpoint, clouds, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "show.html"
    config = ShowConfig(checkpoint=str(checkpoint), out=str(out), count=3, device="cpu")
    return show([str(clouds)], config, Lines())


def test_show_draws_turns_and_selects(browser, show_page):
    open_page(browser, show_page, width=1280, height=1300)
    check_width(browser)
    assert browser.run("return document.querySelectorAll('#views .plot canvas').length") > 4
    first = settled(browser, "#views .card:nth-child(1) .plot")
    rebuilt = settled(browser, "#views .card:nth-child(4) .plot")
    assert browser.run("return document.getElementById('caption').textContent").count(NASTY) == 1
    assert browser.run("return window.hacked") is None

    browser.run("document.querySelector('[data-turn=left]').click()")
    turned = settled(browser, "#views .card:nth-child(4) .plot", rebuilt)
    browser.type("#views .card:nth-child(1) .plot", "\ue012")
    settled(browser, "#views .card:nth-child(4) .plot", turned)
    eyes = "[...new Set(state.plots.map(v => v.plot._fullLayout.scene._scene.getCamera().eye.x.toFixed(4)))]"
    (before,) = browser.run(f"return {eyes}")
    browser.drag("#views .card:nth-child(2) .plot", 60)
    browser.until(f"return {eyes}.length === 1 && {eyes}[0] !== '{before}'")

    browser.run("document.getElementById('next').click()")
    assert browser.run("return document.getElementById('cloud').selectedIndex") == 1
    settled(browser, "#views .card:nth-child(1) .plot", first)
    text = settled(browser, "#queries .card:nth-child(3) .plot")
    browser.type("#block", "\ue012")
    assert browser.run("return document.getElementById('block-value').textContent") == "1 of 2"
    settled(browser, "#queries .card:nth-child(3) .plot", text)
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_show_on_a_telephone(browser, show_page, dark):
    open_page(browser, show_page, width=390, height=800, dark=dark)
    check_width(browser)
    settled(browser, "#views .card:nth-child(1) .plot")
    ink, back = browser.run("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    assert (sum(map(int, back[4:-1].split(","))) < 128) == dark
    assert ink != back
    assert browser.complaints() == []


@pytest.fixture(scope="module")
def run_with_a_map(model, tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("runs") / "a")
    (run / "checkpoints/step-00000050").mkdir(parents=True)
    write_model(run / "checkpoints/step-00000050/model.safetensors", model)
    (run / "confusion.csv").write_text(f"class,{NASTY},b\n{NASTY},3,1\nb,0,2\n")
    return run


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)], ids=["wide-light", "narrow-dark"])
def test_report_draws_curves_map_and_confusion(browser, run_with_a_map, clouds, tmp_path, width, dark):
    config = ReportConfig(out=str(tmp_path / "report.html"), data=str(clouds), device="cpu")
    open_page(browser, report([run_with_a_map], config, Lines()), width=width, height=1200, dark=dark)
    check_width(browser)
    loss = settled(browser, "#curves .card:nth-child(1) .plot")
    browser.run("document.getElementById('log').click()")
    settled(browser, "#curves .card:nth-child(1) .plot", loss)
    settled(browser, "#confusion .plot")
    places = settled(browser, "#map")
    browser.run("document.getElementById('layout').value = 't-SNE';"
                "document.getElementById('layout').dispatchEvent(new Event('change'))")  # fmt: skip
    settled(browser, "#map", places)
    browser.type("#shape", "\ue014")
    assert NASTY in browser.run("return document.querySelector('#hover figcaption').textContent")
    assert colors(browser.picture("#hover canvas")) > 8
    assert browser.run("return window.hacked") is None
    assert browser.complaints() == []


def test_a_page_of_a_run_that_goes_on_reloads_and_keeps_the_zoom(browser, tmp_path):
    run, out = write_run(tmp_path / "a", end=None), tmp_path / "report.html"
    config = ReportConfig(out=str(out), follow=1)
    thread = threading.Thread(target=report, args=([run], config, Lines()))
    thread.start()
    try:
        while not out.exists():
            thread.join(0.05)
        open_page(browser, out, width=1280, height=900)
        zoom = "return Plotly.relayout(document.querySelector('#curves .plot'), {'xaxis.range': [15, 35]})"
        browser.run(f"{zoom}.then(() => true)")
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 60, "loss": 0.1}\n{"step": 70, "lo')
        browser.until("return pageData.curves.loss[0][0].at(-1) === 60")
    finally:
        record = json.loads((run / "run.json").read_text())
        record["starts"][-1]["end"] = "finished"
        (run / "run.json").write_text(json.dumps(record))
        thread.join(20)
    assert not thread.is_alive()
    ready = "document.documentElement.dataset.ready === 'yes'"
    browser.until(f"return {ready} && !pageData.reload")
    shown = "return document.querySelector('#curves .plot')._fullLayout.xaxis.range"
    assert browser.run(shown) == [15, 35]
    assert browser.complaints() == []


@pytest.mark.parametrize(("width", "dark"), [(1280, True), (390, False)], ids=["wide-dark", "narrow-light"])
def test_the_wall_draws_turns_and_filters(browser, clouds, tmp_path, width, dark):
    out = inspect(str(clouds), InspectConfig(out=str(tmp_path / "data.html")), Lines())
    open_page(browser, out, width=width, height=900, dark=dark)
    check_width(browser)
    browser.run("document.getElementById('wall').scrollIntoView()")
    first = settled(browser, "#wall .card:nth-child(1) canvas")
    browser.type("#wall .card:nth-child(1) canvas", "\ue012")
    settled(browser, "#wall .card:nth-child(1) canvas", first)
    browser.type("#class", "ball")
    shown = "return [...document.querySelectorAll('#wall .card')].filter(card => !card.hidden).length"
    assert browser.run(shown) == 4
    assert browser.run("return document.querySelector('#wall .card').title").count(NASTY) == 1
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_benchmarks_on_a_telephone(browser, tmp_path, dark):
    recorded = Path(__file__).parent.parent / "benchmarks/recorded.json"
    out = tmp_path / "report.html"
    out.write_text(plot.page([load(recorded)]))
    browser.look(width=390, height=800, dark=dark)
    browser.complaints()
    browser.open(out)
    check_width(browser)
    settled(browser, "svg")
    assert browser.complaints() == []
