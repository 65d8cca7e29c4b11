"""Spikes, full disks, damaged checkpoints, kills, leaks: a run may be left alone."""

import json
import os
import random
import resource
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jobs
import pytest
import torch
from safetensors.torch import load_file
from tiny import TINY_MODEL, Lines, tiny_config, tiny_shapes

from recon_fast.checkpoint import training as checkpoint_module
from recon_fast.checkpoint.training import SaveFailed, list_checkpoints, read_state
from recon_fast.config import ReConConfig
from recon_fast.errors import InputError
from recon_fast.training import loop as loop_module
from recon_fast.training import run as run_module
from recon_fast.training.loop import NonFiniteLoss
from recon_fast.training.metrics import Curves
from recon_fast.training.pretrain import pretrain

MEMORY_STEPS = 600


def train(config, resume=None, shapes=None, console=None):
    return pretrain(config, resume, console or Lines(), tiny_shapes() if shapes is None else shapes)


def weights(checkpoint):
    both = (load_file(checkpoint / f"{name}.safetensors") for name in ("model", "optimizer"))
    # cloned, as they are views of the files
    return {f"{i}/{name}": value.clone() for i, tensors in enumerate(both) for name, value in tensors.items()}


def assert_same_weights(a, b):
    a, b = weights(a), weights(b)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def log_lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def poison(monkeypatch, steps):
    """Make the clouds of some steps, counted from 0, NaN."""
    real = loop_module.Loop.advance

    def advance(loop, *rest):
        if loop.step not in steps:
            return real(loop, *rest)
        batches, batch = loop.batches, next(loop.batches)
        loop.batches = iter([replace(batch, points=torch.full_like(batch.points, torch.nan))])
        values = real(loop, *rest)
        loop.batches = batches
        return values

    monkeypatch.setattr(loop_module.Loop, "advance", advance)


def test_a_spike_is_skipped_and_said(tmp_path, monkeypatch):
    poison(monkeypatch, {4})
    console = Lines()
    result = train(tiny_config(tmp_path / "run"), console=console)
    assert console.has("step 5 is skipped", "mdm = nan", "(1 in a row, at most 5)")
    lines = log_lines(tmp_path / "run")
    assert [line["step"] for line in lines] == [*range(1, 10), 9]
    assert [line.get("skipped") for line in lines] == [*[None] * 4, 1, *[None] * 5]
    assert "loss" not in lines[4]
    assert lines[4]["lr"] > 0
    saved = weights(result.checkpoint)
    assert all(value.isfinite().all() for value in saved.values())  # running statistics too
    assert saved["1/step/encoder.norm.weight"] == 8
    means = tiny_config(tmp_path / "means", save__log_every=3)
    train(means)
    windows = log_lines(tmp_path / "means")
    assert windows[1]["skipped"] == 1
    assert windows[1]["loss"] == pytest.approx((lines[3]["loss"] + lines[5]["loss"]) / 2)


def test_steps_that_are_read_later_change_nothing(tmp_path, monkeypatch):
    poison(monkeypatch, {2, 3, 7})
    each = train(tiny_config(tmp_path / "each", optim__epochs=4))
    monkeypatch.setattr(loop_module, "read_every", lambda device, log_every: 5)
    later = train(tiny_config(tmp_path / "later", optim__epochs=4, save__every=2))
    assert_same_weights(each.checkpoint, later.checkpoint)

    def values(run):
        return [{k: v for k, v in line.items() if not k.endswith(("_ms", "_s"))} for line in log_lines(run)]

    assert values(tmp_path / "each") == values(tmp_path / "later")


def test_a_run_with_skips_resumes_bit_by_bit(tmp_path, monkeypatch):
    poison(monkeypatch, {2, 3, 7})
    whole = train(tiny_config(tmp_path / "whole"))
    train(tiny_config(tmp_path / "run"))
    for newer in list_checkpoints(tmp_path / "run")[1:]:
        newer.rename(newer.with_name(f"gone-{newer.name}"))
    resumed = train(tiny_config(tmp_path / "run"), resume=tmp_path / "run")
    assert_same_weights(resumed.checkpoint, whole.checkpoint)


def test_too_many_spikes_in_a_row_stop_the_run(tmp_path, monkeypatch):
    poison(monkeypatch, {1, 4, 5, 6})
    config = tiny_config(tmp_path / "run", optim__skip_limit=2)
    message = r"step 7 \(epoch 2\) is not finite: .*; 2 steps before it were skipped .*is .*step-00000006"
    for resume in (None, tmp_path / "run"):  # the checkpoint remembers how many it were
        with pytest.raises(NonFiniteLoss, match=message):
            train(config, resume=resume)
    train(tiny_config(tmp_path / "run", optim__skip_limit=3), resume=tmp_path / "run")


@pytest.fixture
def full_disk(monkeypatch):
    """Let the checkpoints whose numbers are given, from 0, run into a real limit of the file size."""
    real, calls = run_module.save_checkpoint, []

    def fail_at(*numbers):
        def save(*arguments):
            calls.append(len(calls))
            limits = resource.getrlimit(resource.RLIMIT_FSIZE)
            try:
                if calls[-1] in numbers:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
                return real(*arguments)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        monkeypatch.setattr(run_module, "save_checkpoint", save)

    return fail_at


def test_a_full_disk_does_not_stop_training(tmp_path, full_disk):
    full_disk(1)
    console = Lines()
    result = train(tiny_config(tmp_path / "run", optim__epochs=4), console=console)
    said = [line for line in console.lines if "cannot be written" in line]
    assert len(said) == 1
    assert "step-00000006 cannot be written" in said[0]
    assert said[0].endswith(
        f"the last good checkpoint is {tmp_path}/run/checkpoints/step-00000003; training goes on"
    )
    names = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert names == ["step-00000003", "step-00000009", "step-00000012"]
    assert read_state(result.checkpoint)["step"] == 12


def disk_of(free):
    return lambda path: SimpleNamespace(free=free)


def test_a_disk_without_room_for_a_checkpoint_stops_the_run_before_it_starts(tmp_path, monkeypatch):
    result = train(tiny_config(tmp_path / "whole", save__keep=2))
    size = sum(file.stat().st_size for file in result.checkpoint.glob("*.safetensors"))
    console = Lines()
    monkeypatch.setattr(checkpoint_module.shutil, "disk_usage", disk_of(2 * size))
    train(tiny_config(tmp_path / "tight", save__keep=2), console=console)
    assert console.has("the disk may not hold the 2 checkpoints of the run: ", "MB a checkpoint, 0.0 GB free")
    assert console.has("MB a checkpoint, 0.0 GB free | run ", "tight")
    monkeypatch.setattr(checkpoint_module.shutil, "disk_usage", disk_of(size // 2))
    with pytest.raises(
        InputError, match=r"out must have room for checkpoints, got .*run: .* MB a checkpoint"
    ):
        train(tiny_config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_last_checkpoint_that_fails_is_an_error(tmp_path, full_disk):
    full_disk(2)
    with pytest.raises(SaveFailed, match=r"step-00000009 cannot be .*; the last good checkpoint is .*00006$"):
        train(tiny_config(tmp_path / "run"))
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000003", "step-00000006"]
    assert json.loads((tmp_path / "run/run.json").read_text())["starts"][0]["end"] == "SaveFailed"


def test_a_log_on_a_full_disk_waits_and_curves_end(tmp_path, monkeypatch):
    class Full:
        """A file that takes 20 bytes, then none for a while, then all."""

        def __init__(self, file):
            self.file, self.calls = file, 0

        def write(self, text):
            self.calls += 1
            if 2 < self.calls < 6:
                raise OSError(28, "No space left on device")
            return self.file.write(text[:20] if self.calls == 2 else text)

        def __getattr__(self, name):
            return getattr(self.file, name)

    def full(*_):
        raise OSError(28, "No space left on device")

    real, console = Path.open, Lines()
    monkeypatch.setattr(
        Path,
        "open",
        lambda path, mode="r", *a, **k: (Full if mode == "ab" else lambda f: f)(real(path, mode, *a, **k)),
    )
    monkeypatch.setattr(Curves, "add", full)
    train(tiny_config(tmp_path / "run", save__tensorboard=True), console=console)
    assert [line["step"] for line in log_lines(tmp_path / "run")] == [*range(1, 10), 9]
    assert len([line for line in console.lines if "No space left" in line]) == 1


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path):
    config = tiny_config(tmp_path / "run")
    train(config)
    (tmp_path / "run/metrics.jsonl").unlink()
    (tmp_path / "run/metrics.jsonl").mkdir()
    with pytest.raises(InputError, match=r"log .*metrics\.jsonl cannot be written"):
        train(config, resume=tmp_path / "run")


def damage(checkpoint, file):
    path = checkpoint / file
    content = bytearray(path.read_bytes())
    content[-9 if path.suffix == ".safetensors" else 0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path, file):
    config, console = tiny_config(tmp_path / "run"), Lines()
    result = train(config)
    whole = weights(result.checkpoint)
    damage(result.checkpoint, file)
    with pytest.raises(InputError, match=rf"is damaged: .*{file} must|{file} is damaged"):
        train(config, resume=result.checkpoint)  # it was named
    resumed = train(config, resume=tmp_path / "run", console=console)
    assert console.has(file, "is damaged", "continuing from step-00000006")
    assert resumed.checkpoint == result.checkpoint
    again = weights(resumed.checkpoint)
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    names = [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())]
    assert names == ["damaged-step-00000009", "step-00000003", "step-00000006", "step-00000009"]


def test_no_checkpoint_that_can_be_read(tmp_path):
    config = tiny_config(tmp_path / "run")
    train(config)
    for checkpoint in list_checkpoints(tmp_path / "run"):
        damage(checkpoint, "model.safetensors")
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    with pytest.raises(InputError, match=r"no checkpoint that can be read: .*00009.*; .*00006.*; .*00003"):
        train(config, resume=tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").rglob("*")) == before


def test_auto_starts_and_then_resumes(tmp_path):
    config = tiny_config(tmp_path / "run")
    whole = train(config, resume="auto")
    assert whole.checkpoint.name == "step-00000009"
    assert train(config, resume="auto").before == whole.before
    for checkpoint in list_checkpoints(tmp_path / "run"):
        checkpoint.rename(checkpoint.with_name(f"gone-{checkpoint.name}"))
    assert_same_weights(
        train(config, resume="auto").checkpoint, whole.checkpoint.with_name("gone-step-00000009")
    )
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("not a run")
    with pytest.raises(InputError, match="out must be a new or empty folder"):
        train(tiny_config(tmp_path / "other"), resume="auto")
    with pytest.raises(InputError, match="resume auto needs the folder of the run"):
        train(replace(tiny_config(tmp_path), out=None), resume="auto")


def test_killed_at_random_moments_a_run_ends_with_the_same_weights(tmp_path):
    shapes = tiny_shapes()
    shapes.labels = None  # no probe
    changes = {"optim__epochs": 30, "save__keep": 2}
    jobs.start(jobs.train, tiny_config(tmp_path / "whole", **changes), shapes).join()
    whole = list_checkpoints(tmp_path / "whole")[-1]
    moments, kills, runs = random.Random(0), 0, 0
    while kills < 50:
        run = tmp_path / f"run-{runs}"
        runs += 1
        ended = False
        while not ended:
            process = jobs.start(jobs.train, tiny_config(run, **changes), shapes)
            process.join(moments.uniform(0.02, 0.3) if kills < 50 else None)
            ended = process.exitcode is not None
            if ended:
                assert process.exitcode == 0
            else:
                process.kill()
                process.join()
                kills += 1
            for checkpoint in list_checkpoints(run):
                read_state(checkpoint)
        assert_same_weights(list_checkpoints(run)[-1], whole)
        starts = json.loads((run / "run.json").read_text())["starts"]
        assert starts[-1]["to_step"] == 90


def test_the_run_says_what_was_run(tmp_path):
    config = tiny_config(tmp_path / "run")
    train(config)
    train(config, resume=tmp_path / "run")
    first, second = json.loads((tmp_path / "run/run.json").read_text())["starts"]
    assert (first["from_step"], first["to_step"], first["end"]) == (0, 9, "finished")
    assert second["from_step"] == 9
    assert first["wall_seconds"] > 0
    assert first["versions"]["torch"] == torch.__version__
    assert first["data"]["shapes"] == 24
    assert first["data"]["blake2b"] == second["data"]["blake2b"]
    assert first["teacher"]["image"] == "made"
    assert first["machine"]["processes"] == 1
    assert first["machine"]["cores"] == os.cpu_count()
    assert isinstance(first["command"], list)
    git = first["git"]
    assert git is None or len(git["commit"]) == 40
    shapes = tiny_shapes()
    shapes.points[1, 1] += 0.5
    train(tiny_config(tmp_path / "other", optim__epochs=1, optim__warmup_epochs=0), shapes=shapes)
    other = json.loads((tmp_path / "other/run.json").read_text())["starts"][0]
    assert other["data"]["blake2b"] != first["data"]["blake2b"]


def test_memory_is_flat(tmp_path, monkeypatch):
    model = ReConConfig(
        dim=8, depth=1, num_heads=1, decoder_depth=1, decoder_num_heads=1, num_group=4, group_size=4
    )
    assert model.depth < TINY_MODEL.depth
    sizes, real = [], loop_module.Loop.advance

    def advance(loop, *rest):
        if loop.step % 100 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            sizes.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
        return real(loop, *rest)

    monkeypatch.setattr(loop_module.Loop, "advance", advance)
    shapes = tiny_shapes()
    shapes.labels = None
    changes = {"model": model, "data__num_points": 16, "optim__epochs": MEMORY_STEPS // 3, "save__every": 100}
    train(tiny_config(tmp_path / "run", **changes), shapes=shapes)
    settled = len(sizes) // 4
    assert max(sizes[settled:]) - sizes[settled] < 4  # MiB
