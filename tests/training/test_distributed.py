"""Two processes on one machine: the losses of one, and what happens when one of them dies."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jobs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY_MODEL, tiny_config, tiny_shapes

from recon_fast.checkpoint.training import list_checkpoints, read_state
from recon_fast.data.batches.resident import ResidentShapes
from recon_fast.data.open import open_source
from recon_fast.data.packing import pack
from recon_fast.distributed import process_group, rank
from recon_fast.errors import InputError
from recon_fast.models import ReCon
from recon_fast.training.folder import check_batch
from recon_fast.training.probe import encode_shapes

MODELS = {
    "recon": {"drop_path": 0.3},
    "accumulate": {"drop_path": 0.3},
    "smc": {"single_modal": True, "mask_type": "block"},
    "twotower": {"arch": "twotower"},
    "no-teachers": {"image_dim": None, "text_dim": None},
}


def config_of(out, name, **changes):
    if name == "accumulate":
        changes["optim__accumulate"] = 2
    return tiny_config(out, model=replace(TINY_MODEL, **MODELS[name]), optim__batch_size=8, **changes)


def spread_weights(folder, config):
    """Weights with which class tokens differ between shapes. As initialised they hardly do, and batch norms
    would enlarge their rounding errors a hundredfold.
    """
    torch.manual_seed(0)
    model = ReCon(replace(config.model, image_dim=8, text_dim=8))
    for name, weight in model.named_parameters():
        if "contrast" in name and weight.ndim == 2:
            weight.data *= 4
    save_file(model.state_dict(), folder / "spread.safetensors")
    return folder / "spread.safetensors"


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = ("loss", "mdm", "csc_img", "csc_text", "smc", "grad_norm")
    return torch.tensor([[line[name] for name in names if name in line] for line in lines if "loss" in line])


def assert_same_losses(found, expected):
    """Of runs that draw the same to the bit and sum in another order; last the norms of gradients."""
    torch.testing.assert_close(found[:, :-1], expected[:, :-1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[:, -1], expected[:, -1], rtol=1e-3, atol=0)


def flattened(tensors):
    """Weights, or what the optimizer keeps of gradients, as one vector."""
    return torch.cat([value.flatten() for name, value in tensors.items() if not name.startswith("step/")])


def run_ranks(count, *arguments):
    processes = jobs.start_ranks(count, *arguments)
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


@pytest.mark.parametrize("name", MODELS)
def test_two_processes_are_one(tmp_path, name):
    shapes = tiny_shapes(count=43)  # 4 steps of 8 in an epoch
    shapes.features.image = shapes.features.image if name != "no-teachers" else None
    shapes.features.text = shapes.features.text if name != "no-teachers" else None
    # At a higher rate AdamW lets the rounding of gradients near 0 grow, more on one CPU than on another.
    one, two = (config_of(tmp_path / count, name, optim__lr=1e-5) for count in ("one", "two"))
    if name == "smc":
        one, two = (replace(config, init=str(spread_weights(tmp_path, one))) for config in (one, two))
    jobs.start(jobs.train, one, shapes).join(60)
    assert run_ranks(2, two, shapes, None, str(tmp_path / "log")) == [0, 0]
    expected, found = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(expected) == 12
    assert_same_losses(found, expected)
    for file in ("model", "optimizer"):
        first, second = (
            load_file(list_checkpoints(tmp_path / run)[-1] / f"{file}.safetensors") for run in ("one", "two")
        )
        assert first.keys() == second.keys()  # what no loss reaches is left alone by both
        first, second = (flattened(tensors) for tensors in (first, second))
        assert (first - second).norm() < 1e-2 * first.norm()
    assert not (tmp_path / "log-1").read_text()
    assert json.loads((tmp_path / "two/run.json").read_text())["starts"][0]["machine"]["processes"] == 2


def test_norms_that_are_not_synced_differ(tmp_path):
    shapes = tiny_shapes(count=43)
    for sync in (True, False):
        changes = {"optim__sync_norm": sync, "optim__epochs": 1, "optim__warmup_epochs": 0}
        assert run_ranks(2, config_of(tmp_path / str(sync), "recon", **changes), shapes) == [0, 0]
    assert abs(losses(tmp_path / "True")[0][1] - losses(tmp_path / "False")[0][1]) > 1e-5


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_with_a_named_error(tmp_path, victim):
    shapes = tiny_shapes(count=43)
    config = config_of(tmp_path / "run", "recon")
    codes = run_ranks(2, config, shapes, (victim, 6), str(tmp_path / "log"))
    assert codes[victim] == -9
    assert codes[1 - victim] == 2
    said = (tmp_path / f"log-{1 - victim}").read_text()
    assert f"RankLost: process {1 - victim} lost another process of the job in step 7; " in said
    assert "the last good checkpoint is" in said
    assert "step-00000004" in said
    assert read_state(list_checkpoints(tmp_path / "run")[-1])["step"] == 4
    process = jobs.start(jobs.train, config, shapes)  # one process may continue what two have begun
    process.join(60)
    assert process.exitcode == 0
    assert read_state(list_checkpoints(tmp_path / "run")[-1])["step"] == 12


def test_a_signal_to_one_process_stops_all_after_the_same_step(tmp_path):
    config = config_of(tmp_path / "run", "recon", optim__epochs=500)
    processes = jobs.start_ranks(2, config, tiny_shapes(count=43))
    log = tmp_path / "run/metrics.jsonl"
    while not (log.exists() and log.read_text()):
        assert processes[0].is_alive()
        time.sleep(0.01)
    processes[1].terminate()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    last = json.loads(log.read_text().splitlines()[-1])["step"]
    assert read_state(list_checkpoints(tmp_path / "run")[-1])["step"] == last < 2000
    assert json.loads((tmp_path / "run/run.json").read_text())["starts"][0]["end"] == "SIGTERM"


def test_a_batch_that_does_not_divide(tmp_path):
    with pytest.raises(InputError, match=r"batch_size must be a multiple of .*, got 6, 1 and 4"):
        check_batch(tiny_config(tmp_path).optim, 4)
    codes = run_ranks(2, tiny_config(tmp_path / "run", optim__batch_size=5), tiny_shapes())
    assert codes == [2, 2]


def test_torchrun_restarts_and_goes_on_from_the_last_checkpoint(tmp_path):
    """The same command line, restarted after a process was killed, ends as if nothing had been."""
    script = tmp_path / "job.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\n"
        "import jobs\nfrom recon_fast.training import pretrain\n"
        "from test_distributed import config_of\nfrom tiny import tiny_shapes\n"
        "first = os.environ['TORCHELASTIC_RESTART_COUNT'] == '0'\n"
        "config = config_of(Path(sys.argv[1]), 'recon')\n"
        "jobs.train(config, tiny_shapes(count=43), (1, 6) if first else None)\n"
        "threads = [path.read_text() for path in Path('/proc/self/task').glob('*/comm')]\n"
        "Path(f'{sys.argv[1]}-{os.environ[\"RANK\"]}').write_text(''.join(threads))\n"
    )
    tests = Path(__file__).parent.parent
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, (tests.parent, tests, tests / "training"))),
        "OMP_NUM_THREADS": "1",
    }
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, "--max-restarts=1", "--monitor-interval=0.1", str(script), str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert run_ranks(2, config_of(tmp_path / "whole", "recon"), tiny_shapes(count=43)) == [0, 0]
    found, expected = (
        load_file(list_checkpoints(tmp_path / run)[-1] / "model.safetensors") for run in ("run", "whole")
    )
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    starts = json.loads((tmp_path / "run/run.json").read_text())["starts"]
    assert [start["from_step"] for start in starts] == [0, 4]
    for number in range(2):
        threads = (tmp_path / f"run-{number}").read_text()
        assert "python" in threads
        assert "gloo" not in threads  # an interpreter that ends beside one aborts now and then


def test_processes_train_from_mapped_shards_and_probe_together(tmp_path):
    """Each reads its own rows; the probe's shapes are shared out, and its scores are one process's."""
    made = tiny_shapes(count=43)
    for i, key in enumerate(made.keys):
        name = made.class_names[made.labels[i]]
        folder = tmp_path / "set" / ("test" if made.held_out[i] else "train") / name
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{key}.npy", made.cloud(i))

    def features(shapes):
        take = [int(key.rsplit("-", 1)[-1]) for key in shapes.keys]
        given = made.features
        return replace(given, image=given.image[take], caption_index=given.caption_index[take])

    source = open_source(tmp_path / "set")
    pack(source, tmp_path / "shards", shard_size=10, num_points=64, features_fn=features)
    changes = {"data__path": str(tmp_path / "shards"), "probe__every": 1, "optim__epochs": 2}
    changes |= {"standardize": "on", "optim__lr": 1e-5}
    mapped, memory = (
        config_of(tmp_path / name, "recon", **changes, data__placement=name) for name in ("mmap", "device")
    )
    process = jobs.start(jobs.train, memory, None)
    assert run_ranks(2, mapped, None) == [0, 0]
    process.join(60)
    one, two = tmp_path / "device", tmp_path / "mmap"
    assert_same_losses(losses(two), losses(one))
    logs = [map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) for run in (one, two)]
    scores = [[line for line in log if "probe_svm" in line] for log in logs]
    assert losses(one).shape == (8, 5)
    assert [len(lines) for lines in scores] == [2, 2]
    before = [read_state(list_checkpoints(run)[-1])["before"] for run in (one, two)]
    assert before[0]["svm"] is not None
    assert before[0] == before[1]  # of the same weights; later ones differ by rounding
    starts = [json.loads((run / "run.json").read_text())["starts"][0] for run in (one, two)]
    assert [start["data"].pop("placement") for start in starts] == ["device", "mmap"]
    assert starts[0]["data"] == starts[1]["data"]


def encode_to(file, norms):
    """Features of shapes that do not divide evenly, written by the first process."""
    with process_group("cpu"):
        torch.manual_seed(0)
        model = ReCon(replace(TINY_MODEL, text_dim=8))
        if norms:  # each process's running statistics are its own
            for buffer in model.buffers():
                buffer.add_(rank())
        shapes = tiny_shapes()
        resident = ResidentShapes(shapes, None, np.arange(24), torch.device("cpu"))
        found = [encode_shapes(model, resident, 64, torch.float32, size, False) for size in (5, 24)]
        if rank() == 0:
            arrays = [array for pair in found for array in pair]
            save_file({str(i): torch.from_numpy(array) for i, array in enumerate(arrays)}, file)


def test_features_of_two_processes_are_those_of_one(tmp_path):
    jobs.start(encode_to, str(tmp_path / "one"), False).join(60)
    processes = jobs.start_ranks(2, str(tmp_path / "two"), True, target=encode_to)
    for process in processes:
        process.join(60)
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert len(one) == 4
    for name, value in one.items():
        assert torch.equal(two[name], value), name
