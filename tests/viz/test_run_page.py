"""The page of runs: what is read of a folder, also of one that is being written, and what follows from it."""

import json
import threading

import numpy as np
import pytest
from pages import NASTY, page_data, write_model, write_run
from tiny import Lines

from recon_fast.cli import main
from recon_fast.config import ReportConfig
from recon_fast.errors import InputError
from recon_fast.viz.clouds import Picked, thumbnails
from recon_fast.viz.run_page import (
    curve,
    curve_names,
    differences,
    layouts,
    map_data,
    read_metrics,
    read_run,
    report,
    run_page,
)


def test_curves_probes_and_differences(tmp_path):
    a, b = (read_run(write_run(tmp_path / name, lr=lr)) for name, lr in (("a", 0.1), ("b", 0.2)))
    assert curve_names([a, b]) == ["loss", "probe_svm", "lr", "step_ms"]
    assert curve(a, "loss") == ([10, 20, 30, 40, 50], [1.0, 0.5, 0.333333, 0.25, 0.2])
    assert differences([a, b]) == [("optim.lr", ["0.1", "0.2"])]
    text = run_page([a, b], None)
    assert page_data(text)["curves"]["lr"] == [
        [[10, 20, 30, 40, 50], [0.1] * 5],
        [[10, 20, 30, 40, 50], [0.2] * 5],
    ]
    for part in ("1 min 15 s", ">61.2<", "differs", "all settings of b"):
        assert part in text


def test_long_curves_are_averaged(tmp_path):
    run = read_run(write_run(tmp_path / "a", steps=5000))
    steps, values = curve(run, "loss")
    assert len(steps) == len(values) == 1667
    assert steps[-1] == 50_000
    assert values[0] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, rel=1e-5)


def test_half_written_files_tell_less(tmp_path):
    run = write_run(tmp_path / "a", end=None)
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 60, "loss": NaN}\n"a word"\n{"loss": 3}\n{"step": 70, "lo\xc3')
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [10, 20, 30, 40, 50, 50, 60]
    for name in ("run.json", "config.yaml", "result.json"):
        (run / name).write_text('{"starts": [')
    (run / "confusion.csv").write_text("class,a,b\na,1\n")
    read = read_run(run)
    assert read.ended is None
    assert (read.starts, read.config, read.result, read.classes) == ([], {}, None, [])
    assert page_data(run_page([read], None))["curves"]["loss"][0][1][-1] is None
    (run / "metrics.jsonl").unlink()
    assert "Nothing is logged yet" in run_page([read_run(run)], None)
    with pytest.raises(InputError, match=r"run must be a folder with metrics\.jsonl"):
        read_run(tmp_path)


def test_confusion_and_result(tmp_path):
    run = write_run(tmp_path / "a")
    (run / "confusion.csv").write_text(f"class,{NASTY},b\n{NASTY},3,1\nb,0,2\n")
    result = {"task": "linear", "data": NASTY, "accuracy": 83.3}
    (run / "result.json").write_text(json.dumps(result))
    text = run_page([read_run(run)], None)
    assert NASTY not in text
    assert page_data(text)["confusion"][0]["counts"] == [[3, 1], [0, 2]]
    assert "83.30" in text


def test_follow_writes_until_the_run_ends(tmp_path):
    run = write_run(tmp_path / "a", end=None)
    out, console = tmp_path / "report.html", Lines()
    config = ReportConfig(out=str(out), follow=0.2)
    thread = threading.Thread(target=report, args=([run], config, console))
    thread.start()
    for _ in range(200):
        if out.exists():
            break
        thread.join(0.05)
    assert page_data(out.read_text())["reload"] == 0.2
    write_run(tmp_path / "b", steps=7).joinpath("metrics.jsonl").replace(run / "metrics.jsonl")
    (tmp_path / "b/run.json").replace(run / "run.json")
    thread.join(20)
    assert not thread.is_alive()
    data = page_data(out.read_text())
    assert data["reload"] == 0
    assert data["curves"]["loss"][0][0][-1] == 70
    assert console.has("a at step 50", "Ctrl-C ends")


def test_map_of_embeddings():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.standard_normal((8, 5)), rng.standard_normal((8, 5)) + 30])
    places, note = layouts(features)
    assert {"PCA", "t-SNE"} <= set(places)
    for xy in places.values():
        assert xy.shape == (16, 2)
        near = np.linalg.norm(xy[:8] - xy[:8].mean(0), axis=1).max()
        assert np.linalg.norm(xy[:8].mean(0) - xy[8:].mean(0)) > near
    assert "% of the variance" in note
    picked = [Picked(f"{i}", rng.standard_normal((50, 3)), NASTY, "ab"[i // 8]) for i in range(16)]
    data = map_data(picked, features, "step-1")
    assert data["labels"] == [0] * 8 + [1] * 8
    assert data["thumbnails"]["shape"] == [16, 300, 3]
    with pytest.raises(InputError, match="at least 4 shapes"):
        map_data(picked[:3], features[:3], "step-1")
    with pytest.raises(InputError, match="diverged"):
        map_data(picked, features * np.nan, "step-1")


def test_thumbnails_are_in_the_unit_sphere_whatever_the_scale():
    clouds = [1000 * np.random.default_rng(0).uniform(5, 6, (n, 3)) for n in (1, 7, 300, 5000)]
    assert thumbnails(clouds)["shape"] == [4, 300, 3]


def test_report_of_a_run_with_a_map(tmp_path, clouds, model, capsys):
    run = write_run(tmp_path / "a")
    out = tmp_path / "report.html"
    arguments = ["report", str(run), "--data", str(clouds), "--out", str(out), "--device", "cpu"]
    assert main(arguments) == 0
    assert "no checkpoint yet" in out.read_text()
    checkpoint = run / "checkpoints/step-00000050"
    checkpoint.mkdir(parents=True)
    write_model(checkpoint / "model.safetensors", model)
    assert main(arguments) == 0
    text = out.read_text()
    assert NASTY not in text
    assert page_data(text)["map"]["captions"] == [NASTY] * 4
    assert capsys.readouterr().out.splitlines() == [str(out)] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "run must be a folder with"),
        (["nowhere", "--follow", "-1"], "follow must be a number of seconds"),
        (["nowhere", "--count", "3"], "count must be at least 4"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert main(["report", *arguments]) == 2
    assert message in capsys.readouterr().err
