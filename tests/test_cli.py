"""The command line as a user meets it: help, names, mistakes in one line with exit code 2."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from recon_fast import __version__
from recon_fast.cli import main
from recon_fast.commands import COMMANDS
from recon_fast.errors import InputError
from recon_fast.parser import command_parser, parse

ROOT = Path(__file__).parent.parent


def run(*arguments, cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "recon_fast", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_help_answers_at_once_and_loads_no_torch():
    code = "import sys, recon_fast.cli as c; c.build_parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    elapsed = []
    for _ in range(3):
        started = time.perf_counter()
        result = run("--help")
        elapsed.append(time.perf_counter() - started)
    assert result.returncode == 0
    assert min(elapsed) < 1
    for command in ("pretrain", "pack", "convert", "info"):
        assert command in result.stdout


def test_version():
    assert run("--version").stdout.strip() == f"recon-fast {__version__}"


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in ("torch", "cpu", "farthest_point_sample", "vit_base_patch16_224", "quickstart"):
        assert word in out


def test_pretrain_help_explains_settings(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["pretrain", "--help"])
    assert exit_.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "--optim.lr" in out
    assert "peak learning rate" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_one_screen_and_all_of_it_is_a_word_away(command, capsys):
    shown = []
    for arguments in (["--help"], ["--help", "all"]):
        with pytest.raises(SystemExit) as exit_:
            main([command, *arguments])
        assert exit_.value.code == 0
        shown.append(capsys.readouterr().out)
    lines = shown[0].splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 80
    assert any(line.startswith(f"  recon-fast {command}") for line in lines)
    keys = [action.option_strings[-1] for action in command_parser(command)._actions if action.option_strings]
    assert len(re.findall(r"^  --", shown[0], re.MULTILINE)) <= 14
    assert [key for key in keys if key not in shown[1]] == []


@pytest.mark.parametrize("command", [name for name, command in COMMANDS.items() if command.config])
def test_examples_of_the_help_parse(command):
    assert parse(command, shlex.split(COMMANDS[command].example)).config is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_functions_of_commands_are_there(command):
    module, _, name = COMMANDS[command].function.partition(":")
    assert callable(getattr(import_module(module), name))


def test_a_reader_that_leaves_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [sys.executable, "-m", "recon_fast", "pretrain", "--help"]
    result = subprocess.run(arguments, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (result.returncode, result.stderr) == (128 + signal.SIGPIPE, "")


def test_flags_may_stand_alone():
    assert parse("pack", ["a", "b", "--overwrite"]).config.overwrite
    assert parse("embed", ["--overwrite", "b", "c"]).config.overwrite
    assert not parse("embed", ["--overwrite", "false", "b", "c"]).config.overwrite


NO_EXTRA = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
from recon_fast.cli import TRAIN_MODULES as BLOCKED, main
sys.meta_path.insert(0, Block())
"""


def without_extra(code):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", NO_EXTRA + code], cwd=ROOT, env=environment, capture_output=True, text=True
    )


def test_commands_without_the_extra_say_how_to_get_it():
    result = without_extra("raise SystemExit(main(['pretrain']))")
    assert result.returncode == 2
    assert re.fullmatch(
        r"recon-fast: error: pretrain needs \w+: pip install 'recon-fast\[train\]'\n", result.stderr
    )


def test_operators_need_nothing_of_the_extra():
    result = without_extra("import recon_fast.kernels, recon_fast.compat; recon_fast.compat.install()")
    assert (result.returncode, result.stderr) == (0, "")


def test_configs_import_nothing_heavy():
    code = "import sys, recon_fast.config; assert not {'numpy', 'PIL', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_official_protocol_may_be_said_as_a_flag():
    assert not parse("finetune", []).config.official_protocol
    assert parse("linear", ["--official-protocol"]).config.official_protocol
    with pytest.raises(InputError, match="said by the command"):
        parse("mlp3", ["--protocol", "linear"])


def test_command_line_overrides_the_recipe_and_print_config_shows_it(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(
            [
                "pretrain",
                "--config",
                "small",
                "--optim.lr",
                "0.1",
                "--model.image_dim",
                "null",
                "--print_config",
            ]
        )
    assert exit_.value.code == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["optim"]["lr"] == 0.1
    assert shown["model"]["dim"] == 256
    assert shown["model"]["image_dim"] is None
    assert shown["teacher"]["prompts"] == 60


MISTAKES = {
    "unknown key": (["--modle.dim", "3"], "unknown setting modle.dim (did you mean model.dim?)"),
    "no key": (["runs/x"], "settings are given by name, as --seed 0, got runs/x without one"),
    "unknown nested key": (["--optim.leraning_rate", "3"], "unknown setting optim.leraning_rate"),
    "wrong type": (["--model.dim", "wide"], "setting model.dim must be a whole number, got wide"),
    "wrong choice": (["--data.kind", "shapnet"], "setting data.kind must be one of auto, shapenet, "),
    "wrong value": (
        ["--model.num_heads", "5"],
        "model.dim must be a multiple of model.num_heads, got 384 and 5",
    ),
    "unknown recipe": (["--config", "bse"], "config must be a YAML file or one of"),
    "missing folder": (["--data.path", "no/such/folder"], "no/such/folder"),
    "groups above points": (
        ["--data.num_points", "20"],
        "model.num_group must be at most data.num_points, got 32 and 20",
    ),
    "resume without a value": (["--resume"], "setting resume needs a value: --resume VALUE"),
    "config without a value": (["--config", "--seed", "3"], "setting config needs a value: --config VALUE"),
    "abbreviation": (["--conf", "base"], "unknown setting conf (did you mean config?)"),
    "no shapes": (["--data.shapes", "0"], "data.shapes must be at least 1, got 0"),
    "no threads": (["--data.workers", "0"], "data.workers must be at least 1 or null, got 0"),
    "all held out": (["--data.held_out_fraction", "1"], "data.held_out_fraction must be in [0, 1), got 1.0"),
    "negative seed": (["--seed", "-1"], "seed must be in [0, 2^63), got -1"),
    "huge teacher seed": (["--teacher.seed", f"{2**63}"], "teacher.seed must be in [0, 2^63), got 92"),
    "negative decay": (["--optim.weight_decay", "-1"], "optim.weight_decay must be at least 0, got -1.0"),
    "nothing to probe": (["--probe.max_shapes", "0"], "probe.max_shapes must be at least 1, got 0"),
    "missing init": (["--init", "no/such.pth"], "one of procedural, got no/such.pth"),
    "auto without a folder": (["--resume", "auto"], "resume auto needs the folder of the run: --out RUN"),
    "negative skips": (["--optim.skip_limit", "-1"], "optim.skip_limit must be at least 0, got -1"),
    "resume from nothing": (["--resume", "no/such/run"], "resume must name a run folder"),
    "unknown device": (["--device", "gpu7"], "device must be one that works here, got gpu7"),
    "a device without data": (["--device", "meta"], "device must be one that works here, got meta"),
    "an empty folder": (["--out", ""], "setting out must not be empty"),
    "an empty path": (["--data.path="], "setting data.path must not be empty"),
    "no number": (["--optim.lr", "nan"], "setting optim.lr must be a finite number, got nan"),
    "no number or nothing": (
        ["--data.workers", "x"],
        "setting data.workers must be a whole number or null, got x",
    ),
    "a group of settings": (["--probe", "3"], "setting probe has settings of its own"),
    "a model beyond all memory": (
        ["--model.dim", "600000000"],
        "model.dim 600000000 and model.depth 2 need at least",
    ),
    "a model without end": (["--model.depth", "100000000"], "model.depth 100000000 need at least"),
    "a set beyond all memory": (
        ["--data.shapes", "2147483647"],
        "data.shapes 2147483647 need at least",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_exit_code_2(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments, message = MISTAKES[name]
    assert main(["pretrain", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("recon-fast: error: ")
    assert not list(tmp_path.iterdir())


def test_mistakes_in_a_file_name_the_nearest_key(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("model: {dmi: 3}\n")
    assert main(["pretrain", "--config", str(path)]) == 2
    assert "unknown setting model.dmi (did you mean model.dim?)" in capsys.readouterr().err
    path.write_text("optm: {lr: 3}\n")
    assert main(["pretrain", "--config", str(path)]) == 2
    assert "unknown setting optm.lr (did you mean optim.lr?)" in capsys.readouterr().err
    path.write_text("model: {dim: 3\n")
    assert main(["pretrain", "--config", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


def test_resume_auto_takes_the_recipe():
    given = parse("pretrain", ["--config", "tiny", "--out", "run", "--resume", "auto"])
    assert (given.config.model.dim, given.config.out, given.resume) == (192, "run", "auto")


def test_resume_in_a_file_is_not_ignored(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("resume: runs/one\n")
    assert main(["pretrain", "--config", str(path)]) == 2
    assert "resume must be given on the command line" in capsys.readouterr().err


def test_printed_config_is_a_config(tmp_path, capsys):
    path, shown = tmp_path / "mine.yaml", []
    for name in ("base", str(path)):
        with pytest.raises(SystemExit):
            main(["pretrain", "--config", name, "--print_config"])
        shown.append(capsys.readouterr().out)
        path.write_text(shown[0])
    assert shown[0] == shown[1]


def test_a_missing_command_is_all_that_is_complained_of(capsys):
    with pytest.raises(SystemExit) as exit_:
        main([])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.endswith("the following arguments are required: COMMAND\n")


def test_sigterm_unwinds_with_its_exit_code(monkeypatch):
    before, unwound = signal.getsignal(signal.SIGTERM), []

    def killed():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        finally:
            unwound.append(True)

    monkeypatch.setattr("recon_fast.doctor.describe", killed)
    with pytest.raises(SystemExit) as exit_:
        main(["info"])
    assert exit_.value.code == 128 + signal.SIGTERM
    assert unwound
    assert signal.getsignal(signal.SIGTERM) == before


def test_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["pretrian"])
    assert exit_.value.code == 2
    assert "pretrain" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fewshot", "svm", "zeroshot", "embed", "pack"])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_commands_of_one_process_refuse_several(command, rank, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    assert main([command]) == 2
    err = capsys.readouterr().err
    said = (
        f"recon-fast: error: `{command}` runs in one process, got 2 of torchrun; "
        "these take several: `pretrain`, `finetune`, `mlp3`, `linear`, `partseg`\n"
    )
    assert err == (said if rank == "0" else "")
    assert not list(tmp_path.iterdir())


def test_a_list_is_asked_for_by_example(capsys):
    assert main(["fewshot", "--ways", "3"]) == 2
    assert "setting ways must be a list, as [3], got 3" in capsys.readouterr().err


def test_memory_that_is_not_there_is_one_line(monkeypatch, capsys):
    def run(config, console):
        raise MemoryError("Unable to allocate 7.28 TiB")

    monkeypatch.setattr("recon_fast.tasks.frozen.svm_probe", run)
    assert main(["svm"]) == 2
    said = "recon-fast: error: out of memory, take smaller batches or a smaller model: "
    assert capsys.readouterr().err == f"{said}Unable to allocate 7.28 TiB\n"
