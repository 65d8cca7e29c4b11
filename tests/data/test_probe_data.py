import io

import numpy as np
from layouts import cloud, write_modelnet_hdf5, write_scanobjectnn
from rich.console import Console

from recon_fast.config import DataConfig, PretrainConfig, ProbeConfig, ReConConfig
from recon_fast.data.conventions import state_up
from recon_fast.data.shapes import Shapes
from recon_fast.training.pretrain import prepare_probe_shapes


def prepared(path, trained_up, **probe):
    """The probe's shapes for training shapes with an up axis, and what was said."""
    config = PretrainConfig(
        model=ReConConfig(num_group=8, group_size=8),
        data=DataConfig(num_points=64),
        probe=ProbeConfig(data=str(path), **probe),
    )
    trained = Shapes("trained", ["a"], cloud(0), np.array([0, 64]), np.zeros(1, bool))
    text = io.StringIO()
    shapes = prepare_probe_shapes(config, state_up(trained, trained_up), Console(file=text, width=1000))
    return shapes, text.getvalue()


def test_an_unknown_up_axis_of_the_probe_is_said_and_can_be_stated(tmp_path):
    root = write_modelnet_hdf5(tmp_path / "modelnet")
    shapes, said = prepared(root, "y")
    assert "which axis is up in modelnet is not known" in said
    assert "--probe.up) x, y or z" in said
    turned, said = prepared(root, "y", up="z")
    assert not said
    np.testing.assert_array_equal(turned.points[:, 1], shapes.points[:, 2])


def test_a_variant_of_scanobjectnn_as_the_probe(tmp_path):
    shapes, said = prepared(write_scanobjectnn(tmp_path), "y", kind="hardest")
    assert shapes.name == "ScanObjectNN hardest"
    assert not said
