"""Retrieval by key, shape, text and picture; captions; sheets; what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from tiny import CLASSES, Lines, tiny_shapes
from tiny_checkpoint import write_checkpoint, write_folder

from recon_fast.cli import main
from recon_fast.config.frozen import EmbedConfig, QueryTeacherConfig, RetrieveConfig
from recon_fast.errors import InputError
from recon_fast.tasks.embed_files import embed_files, read_features
from recon_fast.tasks.retrieve import Match, Retrieval, caption_recall, recall, retrieve
from recon_fast.tasks.sheet import Cell, draw_cloud, write_sheet


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """checkpoint, data/ and features of it, as long as no test changes them."""
    root = tmp_path_factory.mktemp("files")
    shapes = tiny_shapes(48, features=False)
    write_checkpoint(root / "model.safetensors", tiny_shapes(96, features=False), standardized=True)
    write_folder(root / "data", shapes)
    for kind in ("svm", "zeroshot", "zeroshot_image"):
        checkpoint = str(root / "model.safetensors")
        settings = EmbedConfig(checkpoint=checkpoint, kind=kind, device="cpu", precision="fp32")
        embed_files([root / "data"], root / f"{kind}.h5", settings, Lines())
    return root


@pytest.fixture
def config(files):
    return RetrieveConfig(
        checkpoint=str(files / "model.safetensors"),
        device="cpu",
        precision="fp32",
        top=5,
        teacher=QueryTeacherConfig(store=str(files / "store")),
    )


def test_by_key_and_by_file(files, config):
    found = read_features(files / "svm.h5")
    centred = found.features - found.features.mean(0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    cosine = unit @ unit[3]
    cosine[3] = -2
    want = np.argsort(-cosine)[:5]
    by_key = retrieve(files / "svm.h5", found.keys[3], replace(config, checkpoint=None), Lines())
    assert by_key.kind == "key"
    assert by_key.among == 48
    assert [match.key for match in by_key.matches] == [found.keys[i] for i in want]
    assert [match.class_name for match in by_key.matches] == [found.class_of(i) for i in want]
    np.testing.assert_allclose([match.cosine for match in by_key.matches], cosine[want], atol=1e-5)
    embedded = retrieve(files / "data", found.keys[3], config, Lines())
    assert [match.key for match in embedded.matches] == [match.key for match in by_key.matches]
    path = str(files / "data" / f"{found.keys[3]}.npy")
    for data in ("svm.h5", "data"):
        by_file = retrieve(files / data, path, config, Lines())
        assert by_file.kind == "shape"
        assert by_file.matches[0].key == found.keys[3]
        assert by_file.matches[0].cosine == pytest.approx(1, abs=1e-4)


def test_by_text(files, config):
    for data in ("zeroshot.h5", "data"):
        console = Lines()
        hits = [
            match.class_name == name
            for name in CLASSES
            for match in retrieve(files / data, name, config, console).matches
        ]
        assert np.mean(hits) > 0.6  # chance is a third
        assert console.has("random weights")


def test_by_picture(files, config, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "query.png")
    console = Lines()
    found = retrieve(files / "zeroshot_image.h5", str(tmp_path / "query.png"), config, console)
    assert found.kind == "picture"
    assert len(found.matches) == 5
    assert console.has("one picture alone cannot be standardized")
    again = retrieve(files / "data", str(tmp_path / "query.png"), config, Lines())
    assert [match.key for match in again.matches] == [match.key for match in found.matches]
    with pytest.raises(InputError, match="must hold features zeroshot_image for a picture, got zeroshot"):
        retrieve(files / "zeroshot.h5", str(tmp_path / "query.png"), config, Lines())
    (tmp_path / "cut.png").write_bytes((tmp_path / "query.png").read_bytes()[:99])
    with pytest.raises(InputError, match="must be a whole picture"):
        retrieve(files / "data", str(tmp_path / "cut.png"), config, Lines())


def test_what_is_refused(files, config, tmp_path):
    bad = {
        "query must be a key, a file or a text, got no.npy: no such file": ("svm.h5", "no.npy", {}),
        r"must hold features zeroshot or zeroshot_text for this query, got svm": ("svm.h5", "a box", {}),
        "query must be the key of a shape": ("svm.h5", "a box", {"query": "key"}),
        "sheet must be a file .png or .html": ("svm.h5", "a box", {"sheet": "x.jpg"}),
        "sheet must be a file in a folder that exists": ("svm.h5", "a box", {"sheet": "no/x.png"}),
        "teacher.text must be what .* tiny, got RN50": (
            "zeroshot.h5", "a box", {"teacher": QueryTeacherConfig(text="RN50")},
        ),
    }  # fmt: skip
    for message, (data, query, changes) in bad.items():
        with pytest.raises(InputError, match=message):
            retrieve(files / data, query, replace(config, **changes), Lines())
    other = write_checkpoint(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="was made with another checkpoint than"):
        retrieve(files / "zeroshot.h5", "a box", replace(config, checkpoint=str(other)), Lines())
    with pytest.raises(InputError, match="top must be at least 1"):
        RetrieveConfig(top=0)


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_sheet(files, config, tmp_path, suffix):
    key = read_features(files / "svm.h5").keys[0]
    sheet = tmp_path / f"sheet{suffix}"
    retrieve(files / "svm.h5", key, replace(config, sheet=str(sheet)), Lines())
    if suffix == ".html":
        page = sheet.read_text()
        assert page.count("<img") == 6
        assert "nearest to" in page
    else:
        with Image.open(sheet) as image:
            assert image.width > 900
            assert np.asarray(image.convert("L")).std() > 5


def test_clouds_are_drawn_and_texts_are_escaped(tmp_path):
    rng = np.random.default_rng(0)
    for count in (1, 5, 300, 9000):
        picture = draw_cloud(rng.standard_normal((count, 3)))
        assert picture.shape == (180, 180, 3)
        assert picture.min() < 200 < picture.max()
    write_sheet(tmp_path / "a.html", "<b>", [Cell(rng.random((9, 3)), "<script>")])
    assert "<script>" not in (tmp_path / "a.html").read_text()
    picture = rng.integers(0, 255, (50, 20, 3), np.uint8)
    write_sheet(tmp_path / "a.png", "t" * 999, [Cell(picture, "x" * 99)] * 7)


def test_table(capsys):
    found = Retrieval("[q]", "text", 9, [Match(1, "a[b]", "box", "a caption", 0.5)])
    found.show(Console(force_terminal=True, width=60))
    assert "a[b]" in capsys.readouterr().out
    found.show(Console())
    assert capsys.readouterr().out == "1\ta[b]\tbox\ta caption\t0.5000\n"


def test_captions(files, config, tmp_path):
    console = Lines()
    result = caption_recall(files / "data", replace(config, out=str(tmp_path / "run")), console)
    assert (result.shapes, result.captions) == (12, 3)
    assert result.shape_to_caption[1] > 60
    assert result.shape_to_caption[5] == result.shape_to_caption_chance[5] == 100
    assert result.caption_to_shape[5] == 100
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["shape_to_caption"]["1"] == result.shape_to_caption[1]
    from_file = caption_recall(files / "zeroshot.h5", replace(config, out=str(tmp_path / "b")), Lines())
    assert replace(from_file, run=result.run) == result
    with pytest.raises(InputError, match="must hold features zeroshot or"):
        caption_recall(files / "svm.h5", replace(config, out=str(tmp_path / "c")), Lines())


def test_recall_counts_ties_as_misses_and_knows_chance(tmp_path):
    own = np.array([0, 0, 1])
    cosine = np.array([[0.9, 0.1], [0.2, 0.3], [0.5, 0.5]], np.float32)
    result = recall(tmp_path, cosine, own)
    assert result.shape_to_caption[1] == pytest.approx(100 / 3)
    assert result.caption_to_shape[1] == 100  # the first finds one of its two, the second its only one
    assert result.shape_to_caption_chance == {1: 50, 5: 100, 10: 100}
    assert result.caption_to_shape_chance[1] == pytest.approx(50)  # mean of 2/3 and 1/3
    nothing = recall(tmp_path, np.zeros((20, 20), np.float32), np.arange(20))
    assert set(nothing.shape_to_caption.values()) == set(nothing.caption_to_shape.values()) == {0}


def test_command(files, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    key = read_features(files / "svm.h5").keys[0]
    assert main(["retrieve", str(files / "svm.h5"), key, "--top", "3"]) == 0
    assert capsys.readouterr().out.count("\n") == 3
    assert main(["retrieve", str(files / "zeroshot.h5"), "--captions", "--out", "run"]) == 0
    assert "caption to shape" in capsys.readouterr().err
    for arguments in ([], [key, "--captions"]):
        assert main(["retrieve", str(files / "svm.h5"), *arguments]) == 2
        assert "retrieve takes a query or --captions, one of both" in capsys.readouterr().err
    assert main(["retrieve", str(files / "data"), key, "--top", "2"]) == 0  # by the packaged encoder
    assert capsys.readouterr().out.count("\n") == 2
