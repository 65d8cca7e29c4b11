"""The skeleton of a page: escaping, embedded arrays, tables, writing."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from recon_fast.data.shapes import Problem
from recon_fast.errors import InputError
from recon_fast.viz.data_page import Inspection, data_page
from recon_fast.viz.html import data_element, packed, page, write_page

NASTY = '</script><script>alert("x")</script> & <b>'


def unpacked(array):
    raw = np.frombuffer(base64.b64decode(array["bytes"]), f"<{array['dtype']}")
    return (raw * array["scale"]).reshape(array["shape"])


@pytest.mark.parametrize(("dtype", "steps"), [("i2", 32767), ("u2", 65535), ("u1", 255)])
def test_floats_are_rounded_to_the_steps_of_their_range(dtype, steps):
    values = np.random.default_rng(0).uniform(-3 if dtype == "i2" else 0, 3, (5, 3))
    assert np.abs(unpacked(packed(values, dtype)) - values).max() <= np.abs(values).max() / steps


def test_integers_and_float32_are_kept():
    np.testing.assert_array_equal(unpacked(packed(np.arange(60_000), "u2")), np.arange(60_000))
    values = np.random.default_rng(0).standard_normal(7).astype(np.float32)
    np.testing.assert_array_equal(unpacked(packed(values, "f4")), values)
    assert unpacked(packed(np.zeros((0, 3)), "i2")).shape == (0, 3)
    with pytest.raises(ValueError, match="values must fit u1, got 0 to 256"):
        packed(np.arange(257), "u1")


def test_no_text_ends_the_data_or_becomes_a_tag():
    element = data_element({"caption": NASTY, NASTY: [float("nan"), np.float32(1.5), np.int64(2)]})
    assert element.count("<") == 2
    inside = re.fullmatch(r"<script[^>]*>(.*)</script>", element, re.DOTALL)[1]
    assert json.loads(inside) == {"caption": NASTY, NASTY: [None, 1.5, 2]}
    text = data_page(Inspection(None, NASTY, [Problem(NASTY, Path(NASTY), NASTY)]))
    assert NASTY not in text
    assert text.count("&lt;script&gt;") == 5  # twice in titles, three cells of a table


def test_a_page_loads_nothing():
    text = page("base.html", "title", data={"a": 1}, scripts=["show.js"], plotly=True)
    assert not re.search(r"""<(?:script|img|link|iframe)[^>]+(?:src|href)=["']?(?:http|//|\w+/)""", text)
    assert 4e6 < len(text) < 6e6
    assert "plotly" not in page("base.html", "title")


def test_a_page_that_cannot_be_written(tmp_path):
    assert write_page(tmp_path / "a/b.html", "x").read_text() == "x"
    with pytest.raises(InputError, match="cannot be written"):
        write_page(tmp_path / "a/b.html/c.html", "x")
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["b.html"]
