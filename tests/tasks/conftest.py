import pytest
from tiny import Lines, tiny_config, tiny_shapes

from recon_fast.training.pretrain import pretrain


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A tiny pretrained run."""
    run = tmp_path_factory.mktemp("pretrained") / "run"
    pretrain(tiny_config(run), None, Lines(), tiny_shapes())
    return run
