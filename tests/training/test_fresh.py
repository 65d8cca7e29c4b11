"""Fresh shapes in every epoch of the procedural set."""

import os
import signal

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tiny import tiny_config, tiny_shapes

from recon_fast.config import DataConfig
from recon_fast.config.teacher import random_teacher_config
from recon_fast.errors import InputError
from recon_fast.models import ReCon
from recon_fast.procedural import procedural_shapes
from recon_fast.training.pretrain import pretrain

QUIET = Console(quiet=True)


def config(out, **changes):
    teacher = random_teacher_config(image=None, prompts=1)
    data = DataConfig(shapes=300, num_points=64)
    settings = {"data": data, "teacher": teacher, "fresh": 1, "optim__epochs": 3, "optim__batch_size": 64}
    return tiny_config(out, **{**settings, **changes})


def test_shapes_have_numbers_of_their_own():
    whole = procedural_shapes(90, seed=5, num_points=16, pictures=False)
    part = procedural_shapes(30, seed=5, first=60, num_points=16, pictures=False)
    np.testing.assert_array_equal(part.cloud(7), whole.cloud(67))
    assert (part.keys, part.captions) == (whole.keys[60:], whole.captions[60:])
    np.testing.assert_array_equal(part.labels, whole.labels[60:])
    np.testing.assert_array_equal(part.held_out, whole.held_out[60:])


def test_a_stopped_run_goes_on_bit_by_bit(tmp_path, monkeypatch):
    whole = pretrain(config(tmp_path / "whole"), None, QUIET)
    forward, calls = ReCon.forward, []

    def stopping(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 5:  # in the second of three epochs of 3 steps
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(ReCon, "forward", stopping)
        assert pretrain(config(tmp_path / "run"), None, QUIET).stopped_by == "SIGTERM"
    again = pretrain(config(tmp_path / "run"), tmp_path / "run", QUIET)
    ours, theirs = (load_file(result.checkpoint / "model.safetensors") for result in (whole, again))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_fresh_shapes_are_those_of_the_seed(tmp_path, monkeypatch):
    found = []
    made = procedural_shapes

    def noted(count, seed, **options):
        found.append((count, seed, options.get("first")))
        return made(count, seed, **options)

    monkeypatch.setattr("recon_fast.training.pretrain.procedural_shapes", noted)
    pretrain(config(tmp_path / "run", seed=7), None, QUIET)
    assert found == [(300, 7, 300), (300, 7, 600)]  # the first epoch has the shapes of the probe's set
    found.clear()
    pretrain(config(tmp_path / "two", seed=7, fresh=2), None, QUIET)
    assert found == [(300, 7, 300)]


def test_fresh_is_of_the_procedural_set_alone(tmp_path):
    with pytest.raises(InputError, match="fresh must be 0 for files, got 1 for clouds"):
        config(tmp_path, data=DataConfig(path="clouds", num_points=64))
    with pytest.raises(InputError, match="fresh must be 0 for shapes that are given, got 1"):
        pretrain(config(tmp_path / "run"), None, QUIET, tiny_shapes())
