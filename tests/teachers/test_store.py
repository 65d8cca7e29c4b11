"""The feature store: reuse, resume, damage, read-only places."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon_fast.data.shapes import ArrayPictures, Shapes
from recon_fast.errors import InputError
from recon_fast.teachers import compute_features, random_teacher_config
from recon_fast.teachers.shards import folder_name
from recon_fast.teachers.store import _key

CONFIG = random_teacher_config(prompts=3, batch_size=4)  # 2 pictures or 1 caption a batch


def shapes(count: int = 6, order: slice = slice(None)) -> Shapes:
    """Pictures 0 and 3 are equal; captions repeat."""
    pictures = np.random.default_rng(0).integers(0, 256, (count, 48, 48, 3), np.uint8)
    pictures[3] = pictures[0]
    captions = [f"a {('red', 'blue')[i % 2]} chair" for i in range(count)]
    return Shapes(
        name="test",
        keys=[f"s{i}" for i in range(count)],
        points=np.zeros((0, 3), np.float32),
        offsets=np.zeros(count + 1, np.int64),
        held_out=np.zeros(count, np.bool_),
        class_names=["chair", "a red chair"],
        captions=captions[order],
        pictures=ArrayPictures(pictures[order]),
    )


@pytest.fixture
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a model was built")

    monkeypatch.setattr("recon_fast.teachers.image.ImageTeacher.__init__", refuse)
    monkeypatch.setattr("recon_fast.teachers.text.TextTeacher.__init__", refuse)


@pytest.fixture
def no_models(request: pytest.FixtureRequest):
    return lambda: request.getfixturevalue("_no_models")


def test_layout() -> None:
    data = shapes()
    seen: list[tuple[str, int, int]] = []
    features = compute_features(data, CONFIG, progress=lambda *row: seen.append(row))
    assert features is not None
    assert features.image is not None
    assert features.text is not None
    assert features.class_text is not None
    assert features.image.shape == (6, 2, 512)
    assert features.text.shape == (2, 3, 256)
    assert features.image.dtype == features.text.dtype == features.class_text.dtype == np.float16
    assert features.caption_index is not None
    assert features.caption_index.tolist() == [0, 1, 0, 1, 0, 1]
    assert np.array_equal(features.image[0], features.image[3])
    assert not np.array_equal(features.image[0], features.image[1])
    assert features.class_text.shape == (2, 256)
    np.testing.assert_allclose(
        features.class_text[1], features.text[0].astype(np.float32).mean(0), rtol=2e-3, atol=1e-3
    )
    assert features.teacher["weights"] == "random"
    assert (features.teacher["image_dim"], features.teacher["text_dim"]) == (512, 256)
    assert features.teacher["aligned"] is False
    assert json.loads(json.dumps(features.teacher)) == features.teacher
    assert seen[0] == ("pictures", 0, 5)
    assert ("pictures", 5, 5) in seen
    assert seen[-1] == ("captions", 3, 3)  # "chair" as well


def test_order_and_batch_do_not_matter() -> None:
    one = compute_features(shapes(), replace(CONFIG, batch_size=64))
    two = compute_features(shapes(order=slice(None, None, -1)), CONFIG)
    assert one is not None
    assert two is not None
    np.testing.assert_allclose(one.image, two.image[::-1], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(one.text, two.text[::-1], rtol=2e-3, atol=1e-3)


def test_what_is_absent_stays_absent() -> None:
    data = shapes()
    assert compute_features(replace(data, pictures=None, captions=None), CONFIG) is None
    assert compute_features(data, replace(CONFIG, image=None, text=None)) is None
    features = compute_features(replace(data, captions=None), CONFIG)
    assert features is not None
    assert features.text is features.class_text is features.caption_index is None
    assert features.teacher["text"] is None


def test_second_run_computes_nothing(tmp_path: Path, no_models) -> None:
    first = compute_features(shapes(), CONFIG, store=tmp_path)
    no_models()
    second = compute_features(shapes(), CONFIG, store=tmp_path)
    for name in ("image", "text", "caption_index", "class_text"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    assert first.teacher == second.teacher
    with pytest.raises(AssertionError, match="a model was built"):
        compute_features(shapes(), replace(CONFIG, seed=1), store=tmp_path)
    assert not [f for f in tmp_path.rglob("*") if f.name.startswith(".")]


def test_resumes_after_an_interruption(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(what: str, done: int, total: int) -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        compute_features(shapes(), CONFIG, store=tmp_path, progress=stop)
    seen: list[tuple[str, int, int]] = []
    resumed = compute_features(shapes(), CONFIG, store=tmp_path, progress=lambda *row: seen.append(row))
    assert seen[0] == ("pictures", 2, 5)
    whole = compute_features(shapes(), CONFIG)
    np.testing.assert_allclose(resumed.image, whole.image, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_damaged_shards_are_computed_again(tmp_path: Path, damage: str) -> None:
    data = replace(shapes(), captions=None)
    first = compute_features(data, CONFIG, store=tmp_path)
    (shard,) = tmp_path.rglob("part-*")
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes({"cut": content[:-50], "flip": content, "empty": b""}[damage])
    lines: list[str] = []
    second = compute_features(data, CONFIG, store=tmp_path, log=lines.append)
    np.testing.assert_allclose(first.image, second.image, rtol=2e-3, atol=1e-3)
    assert len(lines) == 1
    assert str(shard) in lines[0]
    third: list[str] = []
    compute_features(data, CONFIG, store=tmp_path, log=third.append)
    assert third == []


def test_a_store_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_models) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "file").touch()
    lines: list[str] = []
    data = replace(shapes(), captions=None)
    first = compute_features(data, CONFIG, store=tmp_path / "file" / "store", log=lines.append)
    assert any(str(tmp_path / "file" / "store") in line for line in lines)
    assert any(str(tmp_path / "cache" / "recon-fast" / "features") in line for line in lines)
    no_models()
    second = compute_features(data, CONFIG, store=tmp_path / "file" / "store")
    assert np.array_equal(first.image, second.image)


def test_nowhere_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    lines: list[str] = []
    data = replace(shapes(), pictures=None)
    assert compute_features(data, CONFIG, store=tmp_path / "file" / "store", log=lines.append) is not None
    assert lines[-1] == "features are kept in memory only"


def test_a_full_disk_costs_only_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Path, aside: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recon_fast.teachers.shards.whole_file", full)
    lines: list[str] = []
    features = compute_features(replace(shapes(), pictures=None), CONFIG, store=tmp_path, log=lines.append)
    assert features is not None
    assert len(lines) == 1
    assert "No space left" in lines[0]


def test_two_writers_share_a_store(tmp_path: Path) -> None:
    data = replace(shapes(), captions=None)
    first = compute_features(data, CONFIG, store=tmp_path)
    (shard,) = tmp_path.rglob("part-*")
    (shard.parent / "part-other.safetensors").write_bytes(shard.read_bytes())
    lines: list[str] = []
    second = compute_features(data, CONFIG, store=tmp_path, log=lines.append)
    assert np.array_equal(first.image, second.image)
    assert lines == []


def test_wrong_pictures_and_absent_weights() -> None:
    grey = replace(shapes(), captions=None, pictures=ArrayPictures(np.zeros((6, 48, 48), np.uint8)))
    with pytest.raises(InputError, match=r"picture of s0 must be uint8 \[H, W, 3\], got uint8 \[48, 48\]"):
        compute_features(grey, CONFIG)
    local = replace(CONFIG, weights="local", image=None, text="ViT-S-32", text_weights="none.safetensors")
    with pytest.raises(InputError, match=r"teacher\.text_weights must be a file"):
        compute_features(shapes(), local)


def test_the_key_covers_what_changes_features() -> None:
    from recon_fast.teachers.weights import image_weights

    variants = [CONFIG] + [replace(CONFIG, **c) for c in ({"seed": 1}, {"views": 3}, {"image_size": 96})]
    variants += [replace(CONFIG, image="resnet18")]
    keys = {folder_name(_key("image", c, image_weights(c))) for c in variants}
    assert len(keys) == len(variants)
    same = replace(CONFIG, batch_size=1, text=None, store="elsewhere")
    assert folder_name(_key("image", same, image_weights(same))) in keys
