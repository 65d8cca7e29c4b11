"""A tiny checkpoint, a folder of clouds with a caption that tries to be a script, and one browser."""

import numpy as np
import pytest
import torch
from browser import CHROMIUM, DRIVER, Browser
from pages import NASTY, write_model
from tiny import CLASSES, TINY_MODEL, tiny_shapes

from recon_fast.models import build_model


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    return build_model(TINY_MODEL).eval()


@pytest.fixture(scope="session")
def checkpoint(model, tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.safetensors", model)


@pytest.fixture(scope="session")
def clouds(tmp_path_factory):
    """Folder of 12 clouds in 3 classes, with captions; those in `test` are held out."""
    root = tmp_path_factory.mktemp("clouds")
    shapes = tiny_shapes(12, num_points=150)
    for i, key in enumerate(shapes.keys):
        folder = root / CLASSES[shapes.labels[i]] / ("test" if i % 3 == 0 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{key}.npy", shapes.cloud(i))
        (folder / f"{key}.txt").write_text(NASTY)
    return root


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no chromium and chromedriver in PATH; on Debian: apt-get install chromium-driver")
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
