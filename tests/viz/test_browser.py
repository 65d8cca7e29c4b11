"""The pages in a real Chromium: nothing complains, WebGL draws, controls answer, no sideways scrolling."""

import time

import numpy as np
import pytest
from pages import NASTY
from tiny import Lines

from recon_fast.viz.settings import ShowConfig
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
    return show(checkpoint, [str(clouds)], ShowConfig(out=str(out), count=3, device="cpu"), Lines())


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
    eyes = "return state.plots.map(v => v.plot._fullLayout.scene.camera.eye.x.toFixed(6))"
    assert len(set(browser.run(eyes))) == 1

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
