"""The encoder that comes with the package: what it gives, what it says, and that commands take it."""

import io
import re

import numpy as np
import pytest
from rich.console import Console
from safetensors import safe_open
from tiny import Lines, tiny_config, tiny_shapes

import recon_fast
from recon_fast.checkpoint.restore import (
    PACKAGED,
    SHIPPED_FILE,
    find_weights,
    restore,
    untrained_architecture,
)
from recon_fast.config import (
    DataConfig,
    FinetuneConfig,
    ReadingConfig,
    ReConConfig,
    RetrieveConfig,
    SvmConfig,
)
from recon_fast.config.data import LabelledConfig
from recon_fast.errors import InputError
from recon_fast.procedural import procedural_shapes
from recon_fast.tasks.frozen import svm_probe
from recon_fast.tasks.retrieve import retrieve
from recon_fast.training.pretrain import pretrain


@pytest.fixture(scope="module")
def shapes():
    return procedural_shapes(8, seed=123, pictures=False)


def test_the_file_is_small_and_has_its_card():
    assert SHIPPED_FILE.stat().st_size <= 12_000_000
    with safe_open(SHIPPED_FILE, framework="pt") as file:
        card = file.metadata()["card"]
    for word in ("Data", "Recipe", "Commit", "Seed", "Hardware", "Time", "Limits", "Licence"):
        assert f"\n{word}:" in card, word


def test_embeddings_are_those_of_the_day_it_was_made(shapes):
    clouds = [shapes.cloud(i) for i in range(8)]
    features = recon_fast.load(device="cpu", precision="fp32").embed(clouds)
    want = np.load(SHIPPED_FILE.parents[2] / "tests" / "golden" / "shipped.npy")
    np.testing.assert_allclose(features[:, ::16], want, atol=1e-3, rtol=1e-3)


def test_it_tells_shapes_that_it_has_not_seen_apart(tmp_path):
    how = {"seed": 99, "data": LabelledConfig(shapes=1000)}
    trained, random = (
        svm_probe(SvmConfig(checkpoint=name, out=str(tmp_path / name), **how), Lines())
        for name in ("procedural", "random")
    )
    assert trained.svm.accuracy > random.svm.accuracy + 5
    assert trained.knn.accuracy > random.knn.accuracy + 5


def test_the_name_is_looked_for_last(tmp_path, monkeypatch):
    assert find_weights("procedural") == SHIPPED_FILE
    monkeypatch.chdir(tmp_path)
    (tmp_path / "procedural").mkdir()
    assert find_weights("procedural") == SHIPPED_FILE  # a folder without weights
    (tmp_path / "procedural" / "model.safetensors").write_bytes(b"")
    assert find_weights("procedural").resolve().parent == tmp_path / "procedural"
    with pytest.raises(InputError, match="a run's folder or one of procedural, got procedurl"):
        find_weights("procedurl")


def test_a_run_is_compared_with_the_packaged_one_whatever_lies_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "procedural").write_bytes(b"")
    console = Console(file=io.StringIO(), width=120)
    config = tiny_config(tmp_path / "run", data=DataConfig(num_points=64))
    pretrain(config, None, console, shapes=tiny_shapes(count=48))
    row = next(line for line in console.file.getvalue().splitlines() if line.startswith("│ linear SVM"))
    assert len(re.findall(r"\d+\.\d", row)) == 4  # before, now, gain, packaged


def test_it_is_taken_where_none_is_given():
    assert SvmConfig().checkpoint == FinetuneConfig().checkpoint == "procedural"
    assert restore(SvmConfig().checkpoint).file == SHIPPED_FILE
    config = RetrieveConfig(top=1, device="cpu", data=ReadingConfig(num_points=256))
    found = retrieve(PACKAGED / "game_models.h5", "ship/space_spaceCraft1", config, Lines())
    assert found.among == 233


def test_random_is_the_same_model_untrained():
    assert untrained_architecture("auto") == restore("procedural").model.config
    assert untrained_architecture("tiny") == ReConConfig.tiny()


def test_what_is_evaluated_was_trained():
    with pytest.raises(InputError, match="a checkpoint with the trained model, got procedural"):
        FinetuneConfig(evaluate=True)
