"""The loop: what it writes, that it continues bit by bit, and how it stops."""

import io
import json
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_config, tiny_shapes

from recon_fast.checkpoint.training import list_checkpoints
from recon_fast.errors import InputError
from recon_fast.models import ReCon, recon
from recon_fast.training import pretrain as pretrain_module
from recon_fast.training.loop import NonFiniteLoss
from recon_fast.training.pretrain import pretrain
from recon_fast.training.probe import ProbeResult

QUIET = Console(quiet=True)


def train(config, resume=None, shapes=None):
    return pretrain(config, resume, QUIET, tiny_shapes() if shapes is None else shapes)


def weights(checkpoint):
    return {
        **load_file(checkpoint / "model.safetensors"),
        **{f"optimizer/{k}": v for k, v in load_file(checkpoint / "optimizer.safetensors").items()},
    }


def assert_same_weights(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def stop_after(monkeypatch, steps):
    """Deliver SIGTERM in the middle of the given step."""
    model_forward = ReCon.forward
    calls = 0

    def forward(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == steps:
            os.kill(os.getpid(), signal.SIGTERM)
        return model_forward(self, *args, **kwargs)

    monkeypatch.setattr(ReCon, "forward", forward)


def test_run_folder(tmp_path):
    config = tiny_config(tmp_path / "run", save__keep=2, save__tensorboard=True)
    result = train(config)
    run = tmp_path / "run"
    assert result.checkpoint == run / "checkpoints" / "step-00000009"
    assert [c.name for c in list_checkpoints(run)] == ["step-00000006", "step-00000009"]
    assert yaml.safe_load((run / "config.yaml").read_text()) == config.to_dict()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 10), 9]
    assert lines[0].keys() >= {
        "mdm",
        "csc_img",
        "csc_text",
        "loss",
        "lr",
        "data_ms",
        "step_ms",
        "clouds_per_s",
    }
    assert lines[0]["loss"] == pytest.approx(sum(lines[0][n] for n in ("mdm", "csc_img", "csc_text")))
    assert [line["epoch"] for line in lines[:-1]] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    curves = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [point.step for point in curves.Scalars("loss")] == list(range(1, 10))
    assert curves.Scalars("loss")[4].value == pytest.approx(lines[4]["loss"])
    assert curves.Scalars("probe_svm")[0].step == 9
    state = json.loads((result.checkpoint / "state.json").read_text())
    assert state["teacher"]["weights"] == "made"
    points = config.data.num_points
    assert state["conventions"] == {"up": "unknown", "scale": "unit sphere", "points": points}
    assert not list(run.rglob("*.tmp"))


def test_loss_falls_and_probe_is_reported(tmp_path):
    config = tiny_config(tmp_path / "run", optim__epochs=48, optim__lr=2e-3, probe__every=24)
    result = train(config, shapes=tiny_shapes(count=48))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    loss = [line["loss"] for line in lines if "loss" in line]
    assert sum(loss[-3:]) < 0.8 * sum(loss[:3])
    assert [line["step"] for line in lines if "probe_svm" in line] == [144, 288]
    assert result.before.chance == pytest.approx(100 / 3)
    assert 0 <= result.after.svm <= 100
    assert result.after.zero_shot >= 60  # the text features are the classes themselves


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("steps", [3, 4, 5])  # at the end of an epoch, and in the middle of the next
def test_resume_is_bit_exact(tmp_path, monkeypatch, steps, accumulate):
    model = replace(tiny_config(tmp_path).model, drop_path=0.3)
    whole, config = (
        tiny_config(tmp_path / name, model=model, optim__accumulate=accumulate) for name in ("whole", "run")
    )
    whole = train(whole)
    with monkeypatch.context() as patch:
        stop_after(patch, accumulate * (steps - 1) + 1)
        stopped = train(config)
    assert stopped.stopped_by == "SIGTERM"
    assert stopped.checkpoint.name == f"step-{steps:08d}"
    torch.manual_seed(1234)  # whatever state the generators are in
    resumed = train(config, resume=tmp_path / "run")
    assert_same_weights(resumed.checkpoint, whole.checkpoint)
    assert resumed.before == whole.before
    assert resumed.after == whole.after


def test_same_seed_same_run_other_seed_other_run(tmp_path):
    a, b, c = (
        train(tiny_config(tmp_path / name, seed=seed)) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert_same_weights(a.checkpoint, b.checkpoint)
    key = "encoder.blocks.0.mlp.fc1.weight"
    assert not torch.equal(weights(a.checkpoint)[key], weights(c.checkpoint)[key])


def test_log_of_a_resumed_run_has_each_step_once(tmp_path):
    config = tiny_config(tmp_path / "run")
    train(config)
    checkpoints = list_checkpoints(tmp_path / "run")
    for newer in checkpoints[1:]:
        for file in newer.iterdir():
            file.unlink()
        newer.rmdir()
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')  # the process was killed in the middle of a line
    train(config, resume=tmp_path / "run")
    steps = [json.loads(line)["step"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert steps == [*range(1, 10), 9]


def test_accumulation_adds_up_to_the_batch(tmp_path):
    """Without batch statistics, drop-path and random draws the halves' mean gradient is the whole's."""
    lines = []
    for accumulate in (1, 2):
        run = tmp_path / str(accumulate)
        train(tiny_config(run, optim__accumulate=accumulate, optim__epochs=1, optim__warmup_epochs=0))
        lines.append(json.loads((run / "metrics.jsonl").read_text().splitlines()[0]))
    assert lines[0]["csc_text"] == pytest.approx(lines[1]["csc_text"], rel=0.3)
    assert lines[0]["clouds_per_s"] > 0


def test_clipping_bounds_the_update(tmp_path):
    train(tiny_config(tmp_path / "run", optim__clip_grad=1e-3, optim__epochs=1, optim__warmup_epochs=0))
    moments = load_file(list_checkpoints(tmp_path / "run")[-1] / "optimizer.safetensors")
    norm = torch.stack([v.norm() for k, v in moments.items() if k.startswith("exp_avg/")]).norm()
    assert 0 < norm <= 1e-3


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    original, calls = recon.cross_modal, 0

    def poisoned(prediction, feature):
        nonlocal calls
        calls += 1
        return original(prediction, feature) * (float("nan") if calls == 9 else 1)  # csc_img of step 5

    monkeypatch.setattr(recon, "cross_modal", poisoned)
    with pytest.raises(NonFiniteLoss, match=r"step 5 \(epoch 1\) .*: csc_img = nan.*step-00000003"):
        train(tiny_config(tmp_path / "run", optim__skip_limit=0))
    kept = list_checkpoints(tmp_path / "run")
    assert [c.name for c in kept] == ["step-00000003"]
    assert all(v.isfinite().all() for v in weights(kept[-1]).values())


def test_no_pictures_no_captions_no_labels(tmp_path):
    shapes = tiny_shapes(features=False)
    shapes.captions = shapes.labels = None
    result = train(tiny_config(tmp_path / "run"), shapes=shapes)
    assert result.after is None
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[0])
    assert "mdm" in line
    assert "csc_img" not in line
    config = tiny_config(tmp_path / "other")
    config = replace(config, model=replace(config.model, single_modal=True))
    with pytest.raises(InputError, match="single_modal needs labels"):
        train(config, shapes=shapes)
    assert not (tmp_path / "other").exists()


def test_single_modal_and_two_tower_train(tmp_path):
    for name, change in {"smc": {"single_modal": True}, "towers": {"arch": "twotower"}}.items():
        config = tiny_config(tmp_path / name, optim__epochs=1, optim__warmup_epochs=0)
        result = train(replace(config, model=replace(config.model, **change)))
        assert result.after.svm is not None
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        assert ("smc" in line) == (name == "smc")


def test_bf16_autocast_trains(tmp_path):
    config = replace(tiny_config(tmp_path / "run", optim__epochs=8, optim__lr=2e-3), precision="bf16")
    train(config)
    losses = [
        json.loads(line).get("loss") for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    ]
    assert losses[-2] < losses[0]


def test_resume_with_other_settings_is_refused(tmp_path):
    config = tiny_config(tmp_path / "run")
    train(config)
    before = sorted(p.name for p in (tmp_path / "run").rglob("*"))
    with pytest.raises(InputError, match=r"optim.lr was 0.0005, is 0.001"):
        train(tiny_config(tmp_path / "run", optim__lr=1e-3), resume=tmp_path / "run")
    with pytest.raises(InputError, match="other shapes"):
        train(config, resume=tmp_path / "run", shapes=tiny_shapes(count=27))
    assert sorted(p.name for p in (tmp_path / "run").rglob("*")) == before
    train(tiny_config(tmp_path / "run", save__keep=3), resume=tmp_path / "run")  # changes no result


def test_resume_of_a_run_whose_batches_were_drawn_otherwise_is_refused(tmp_path):
    config = tiny_config(tmp_path / "run")
    state = train(config).checkpoint / "state.json"
    content = json.loads(state.read_text())
    assert content.pop("stream") == 2
    state.write_text(json.dumps(content))  # as versions wrote it that drew from torch's generator
    with pytest.raises(InputError, match=r"drawn in another way \(stream 1, here 2\); .*start anew .*--init"):
        train(config, resume=tmp_path / "run")


def test_resume_from_an_older_checkpoint_needs_a_new_folder(tmp_path):
    config = tiny_config(tmp_path / "run")
    whole = train(config)
    older = list_checkpoints(tmp_path / "run")[0]
    with pytest.raises(InputError, match="newest checkpoint"):
        train(config, resume=older)
    again = train(replace(config, out=str(tmp_path / "branch")), resume=older)
    assert_same_weights(again.checkpoint, whole.checkpoint)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_damaged_checkpoint(tmp_path, file):
    config = tiny_config(tmp_path / "run")
    result = train(config)
    path = result.checkpoint / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=f"{file} (is truncated|must be a checkpoint's state)"):
        train(config, resume=result.checkpoint)
    path.write_text('{"step": 9}')
    with pytest.raises(InputError, match=f"{file} (is truncated|must be .*missing required field `data`)"):
        train(config, resume=result.checkpoint)
    path.unlink()
    with pytest.raises(InputError, match=rf"got no {file}|must name a run folder"):
        train(config, resume=result.checkpoint)


def test_out_must_be_new_and_writable(tmp_path):
    config = tiny_config(tmp_path / "run")
    train(config)
    with pytest.raises(InputError, match="out must be a new or empty folder"):
        train(config)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="out must be a folder that can be written"):
        train(tiny_config(tmp_path / "file" / "run"))


def test_what_cannot_start_leaves_no_folder(tmp_path, monkeypatch):
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"short")
    with pytest.raises(InputError, match="truncated or no safetensors file"):
        train(replace(tiny_config(tmp_path / "new" / "run"), init=str(bad)))
    monkeypatch.setattr(pretrain_module, "probe", Mock(side_effect=KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(tmp_path / "new" / "run"))
    assert [file.name for file in tmp_path.iterdir()] == ["bad.safetensors"]


def test_a_resume_that_fails_changes_nothing(tmp_path):
    config = tiny_config(tmp_path / "run")
    result = train(config)
    (result.checkpoint / "model.safetensors").unlink()
    for older in list_checkpoints(tmp_path / "run"):
        (older / "state.json").write_text("{")
    before = (tmp_path / "run/config.yaml").read_text()
    with pytest.raises(InputError):
        train(tiny_config(tmp_path / "run", save__keep=3), resume=tmp_path / "run")
    assert (tmp_path / "run/config.yaml").read_text() == before


def test_resume_with_other_teachers_is_refused(tmp_path):
    config = tiny_config(tmp_path / "run")
    train(config)
    shapes = tiny_shapes()
    shapes.features.teacher["image"] = "another"
    with pytest.raises(InputError, match=r"must keep the teachers of .*: image was made, is another"):
        train(config, resume=tmp_path / "run", shapes=shapes)
    shapes.features.teacher |= {"image": "made", "image_weights": "/moved/file"}
    train(config, resume=tmp_path / "run", shapes=shapes)


def test_changed_clouds_are_other_data(tmp_path):
    config, shapes = tiny_config(tmp_path / "run"), tiny_shapes()
    train(config, shapes=shapes)
    shapes.points = shapes.points + 1
    with pytest.raises(InputError, match="other shapes"):
        train(config, resume=tmp_path / "run", shapes=shapes)


def test_abandoned_checkpoints_are_cleared_away(tmp_path):
    from recon_fast.checkpoint.training import save_checkpoint

    model = ReCon(tiny_config(tmp_path).model)
    abandoned = tmp_path / "checkpoints" / ".step-00000002.tmp"
    abandoned.mkdir(parents=True)
    save_checkpoint(tmp_path, model, torch.optim.AdamW(model.parameters()), {"step": 3, "teacher": {}}, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_lines_are_whole_whatever_the_width_and_the_names(tmp_path):
    out = io.StringIO()
    run = tmp_path / "a [bold]folder[/] with a name that is longer than sixty columns :smile:"
    pretrain(tiny_config(run), None, Console(file=out, width=60), tiny_shapes())
    lines = out.getvalue().splitlines()
    assert any(line.endswith(f"| run {run}") for line in lines)
    last = r"step 9/9  mdm .* clouds/s \(data \d+ ms, step \d+ ms\)"
    assert any(re.fullmatch(last, line) for line in lines)


@pytest.mark.parametrize("width", [60, 200])
def test_bar_and_losses_are_both_seen_on_a_terminal(tmp_path, width):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system=None)
    pretrain(tiny_config(tmp_path / "run"), None, console, tiny_shapes())
    text = re.sub(r"\x1b\[[^A-Za-z]*[A-Za-z]", "", out.getvalue())
    assert "step 9/9 ━━━" in text
    for word in ("mdm", "csc_img", "csc_text", "clouds/s", "data", "step"):
        assert f"{word} " in text[text.rindex("step 9/9") + len("step ") :]


def test_runs_outside_the_main_thread(tmp_path):
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(train, tiny_config(tmp_path / "run", optim__epochs=1, optim__warmup_epochs=0))
    assert result.result().checkpoint.name == "step-00000003"


def test_an_interrupted_last_probe_keeps_the_checkpoint(tmp_path, monkeypatch):
    first = ProbeResult(None, None, 0.0)
    monkeypatch.setattr(pretrain_module, "probe", Mock(side_effect=[first, KeyboardInterrupt]))
    result = train(tiny_config(tmp_path / "run"))
    assert (result.stopped_by, result.after) == ("SIGINT", None)
    assert result.checkpoint.is_dir()


def test_init_from_own_and_from_official_weights(tmp_path):
    from recon_fast.checkpoint import export_official
    from recon_fast.models import build_model

    first = train(tiny_config(tmp_path / "first"))
    own = str(first.checkpoint / "model.safetensors")
    one_step = {"optim__epochs": 1, "optim__warmup_epochs": 0, "optim__lr": 1e-12, "optim__min_lr": 1e-12}
    second = train(replace(tiny_config(tmp_path / "second", **one_step), init=str(tmp_path / "first")))
    key = "encoder.blocks.0.mlp.fc1.weight"
    torch.testing.assert_close(weights(second.checkpoint)[key], weights(first.checkpoint)[key])

    model = build_model(replace(tiny_config(tmp_path).model, image_dim=8, text_dim=8))
    official = tmp_path / "official.pth"
    torch.save({"base_model": export_official(model), "epoch": 300}, official)
    third = train(replace(tiny_config(tmp_path / "third", **one_step), init=str(official)))
    torch.testing.assert_close(weights(third.checkpoint)[key], model.state_dict()[key])

    other = replace(tiny_config(tmp_path).model, dim=48)
    with pytest.raises(InputError, match=r"model\.safetensors must be \(\d+, .*\) for this model, got"):
        train(replace(tiny_config(tmp_path / "fourth"), init=own, model=other))


def test_too_few_shapes_for_a_batch(tmp_path):
    with pytest.raises(InputError, match=r"batch_size must be at most the 18 shapes to train on, got 19"):
        train(tiny_config(tmp_path / "run", optim__batch_size=19))
    assert not (tmp_path / "run").exists()
