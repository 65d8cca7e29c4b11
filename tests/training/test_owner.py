"""A run's folder belongs to one process at a time, and to nobody once that is gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import Lines, tiny_config, tiny_shapes

from recon_fast.config.frozen import SvmConfig
from recon_fast.errors import InputError
from recon_fast.tasks.frozen import svm_probe
from recon_fast.training import folder as owner_module
from recon_fast.training.folder import LOCK, choose_run, locked
from recon_fast.training.pretrain import pretrain

HOLD = "import sys, time; from pathlib import Path; from recon_fast.training.folder import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('mine', flush=True); time.sleep(60)"


@pytest.fixture
def other(tmp_path):
    """A process that owns tmp_path/run."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "mine\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def starts_with(run: Path) -> str:
    with pytest.raises(InputError) as error, locked(run):
        pass
    return str(error.value)


def test_a_folder_is_made_owned_and_removed_where_nothing_was_written(tmp_path):
    run = tmp_path / "a" / "b" / "run"
    with locked(run):
        content = json.loads((run / LOCK).read_text())
        assert (content["process"], content["host"]) == (os.getpid(), socket.gethostname())
    assert not list(tmp_path.iterdir())
    with locked(run):
        (run / "result.json").touch()
    assert [file.name for file in run.iterdir()] == ["result.json"]
    with pytest.raises(ZeroDivisionError), locked(run):
        raise ZeroDivisionError
    with locked(run):
        pass


@pytest.mark.parametrize("locks", [True, False])
def test_the_second_process_is_told_of_the_first(tmp_path, other, monkeypatch, locks):
    """With the system's locks, and on file systems without them."""
    run = tmp_path / "run"
    if not locks:
        monkeypatch.setattr(owner_module, "fcntl", None)
    message = starts_with(run)
    assert message.startswith(f"{run} belongs to process {other.pid} on {socket.gethostname()} since 2")
    assert message.endswith("which writes into it: wait, or take another --out")
    config = tiny_config(run)
    for call in (
        lambda: pretrain(config, None, Lines(), tiny_shapes()),
        lambda: pretrain(config, "auto", Lines(), tiny_shapes()),
    ):
        with pytest.raises(InputError, match=f"belongs to process {other.pid}"):
            call()
    assert [file.name for file in run.iterdir()] == [LOCK]
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (run / LOCK).exists()  # nobody could remove it
    result = pretrain(config, None, Lines(), tiny_shapes())
    assert result.checkpoint.is_dir()
    assert not (run / LOCK).exists()


def test_one_of_many_that_start_at_once_goes_on(tmp_path):
    """All race for one new folder; the one that has it holds it until the others have ended."""
    code = HOLD.replace("time.sleep(60)", "sys.stdin.read()")
    code = code.replace("with locked", "time.sleep(max(0, float(sys.argv[2]) - time.time()))\nwith locked")
    command = [sys.executable, "-c", code, str(tmp_path / "run"), str(time.time() + 5)]
    started = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(5)
    ]
    while sum(process.poll() is None for process in started) > 1:
        time.sleep(0.1)
    ended = [process.communicate(timeout=60) for process in started]
    assert sum(out == "mine\n" for out, _ in ended) == 1
    assert sum("belongs to " in err.splitlines()[-1] for out, err in ended if not out) == 4
    assert not list(tmp_path.iterdir())


def test_a_process_of_another_host_owns_it_where_there_are_no_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(owner_module, "fcntl", None)
    run = tmp_path / "run"
    run.mkdir()
    (run / LOCK).write_text('{"process": 1, "host": "elsewhere", "since": "2026-01-01T00:00:00+00:00"}')
    assert "belongs to process 1 on elsewhere since 2026-01-01" in starts_with(run)
    for text in ("", "{", "[]", '{"process": null}', '{"process": 4000000, "host": "%s", "since": ""}'):
        (run / LOCK).write_text(text.replace("%s", socket.gethostname()))
        with locked(run):
            pass


def test_tasks_that_only_look_own_their_folder_too(tmp_path, other):
    with pytest.raises(InputError, match=f"belongs to process {other.pid}"):
        svm_probe(SvmConfig(out=str(tmp_path / "run")), Lines(), tiny_shapes())


def test_runs_that_begin_in_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = replace(tiny_config(tmp_path), out=None)
    first, _ = choose_run(config, None, Lines())
    first.mkdir(parents=True)
    names = {str(choose_run(config, None, Lines())[0]) for _ in range(3)}
    assert str(first) not in names
    with pytest.raises(InputError, match="out must name a folder, got ''"):
        choose_run(replace(config, out=""), None, Lines())
