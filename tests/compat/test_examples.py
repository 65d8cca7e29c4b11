"""The examples, written for other packages, learn what they are to learn."""

import runpy
from pathlib import Path

import pytest

from recon_fast import compat

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run():
    def main(name: str, steps: int):
        return runpy.run_path(str(EXAMPLES / name))["main"](steps)

    yield main
    compat.uninstall()


def test_classifier(run):
    assert run("pointnet2_classifier.py", 70) > 0.8  # chance is 0.2


def test_completion(run):
    before, after = run("completion.py", 20)
    assert after < 0.8 * before
