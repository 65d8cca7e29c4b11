"""The packaged recipes: each one parses, says what it takes and gives, and is the official one it names."""

import pytest

from recon_fast.config import PretrainConfig
from recon_fast.config.recipes import packaged_recipes, recipe_file
from recon_fast.errors import InputError
from recon_fast.parser import parse


def header_of(command, name):
    """The comment above a recipe in the file of its command."""
    before = recipe_file(command).read_text().split(f"\n{name}:\n")[0]
    return before.rsplit("\n\n", 1)[1]


@pytest.mark.parametrize("name", packaged_recipes("pretrain"))
def test_recipes_parse_and_have_a_header(name):
    given = parse("pretrain", ["--config", name])
    assert isinstance(given.config, PretrainConfig)
    assert given.resume is None
    header = header_of("pretrain", name)
    for word in ("recon-fast pretrain", "Hardware:", "Time:", "Expected:"):
        assert word in header


@pytest.mark.parametrize(
    ("command", "name"),
    [(c, n) for c in ("finetune", "linear", "mlp3", "fewshot") for n in packaged_recipes(c)],
)
def test_downstream_recipes_parse_and_have_a_header(command, name):
    given = parse(command, ["--config", name])
    assert given.config.command == command
    assert given.resume is None
    header = header_of(command, name)
    for word in (f"recon-fast {command}", "Hardware:", "Time:", "Expected:"):
        assert word in header


@pytest.mark.parametrize(
    ("command", "name"), [(c, n) for c in ("svm", "zeroshot") for n in packaged_recipes(c)]
)
def test_recipes_of_frozen_encoders(command, name):
    config = parse(command, ["--checkpoint", "ckpt.pth", "--config", name, "--device", "cpu"]).config
    assert (config.checkpoint, config.device) == ("ckpt.pth", "cpu")
    assert config.data.num_points == (2048 if name.startswith("scan") else 1024)
    assert parse(command, ["--config", name, "--data.num_points", "512"]).config.data.num_points == 512
    if command == "zeroshot":
        ratios = {"modelnet10": 0.2, "modelnet40": 0.25, "scan_hardest": 0.05, "scan_objbg": 0.1}
        assert config.ratio == ratios.get(name, 0.15)
    text = header_of(command, name)
    for word in (f"The official cfgs/{command}/{name}.yaml", "Hardware:", "Time:", "Expected:"):
        assert word in text
    with pytest.raises(InputError, match="did you mean"):
        parse(command, ["--config", f"{name}x"])


def test_official_downstream_recipes():
    rates = {"finetune": (1e-5, 1e-5, 2e-5), "linear": (1e-4, 5e-5, 1e-4), "mlp3": (1e-4, 5e-5, 1e-4)}
    for command, (modelnet, modelnet_8k, scan) in rates.items():
        for name, lr, points, groups in (
            ("modelnet", modelnet, 1024, 64),
            ("modelnet_8k", modelnet_8k, 8192, 512),
            ("scan_hardest", scan, 2048, 128),
            ("scan_objbg", scan, 2048, 128),
            ("scan_objonly", scan, 2048, 128),
        ):
            config = parse(command, ["--config", name]).config
            optim = config.optim
            assert (optim.lr, optim.epochs, optim.batch_size, optim.clip_grad) == (lr, 300, 32, 10), name
            assert (optim.schedule, optim.warmup_epochs, optim.weight_decay) == ("official", 10, 0.05)
            assert (config.data.num_points, config.model.num_group, config.model.group_size) == (
                points,
                groups,
                32,
            )
            assert config.normalize == name.startswith("modelnet")
            assert (config.data.rotate == "y") == name.startswith("scan")
    for name, lr in (("fewshot", 5e-4), ("linear", 1e-3), ("mlp3", 1e-3)):
        config = parse("fewshot", ["--config", name]).config
        assert (config.optim.lr, config.optim.epochs, config.model.drop_path) == (lr, 150, 0.1)
        assert (config.ways, config.shots, config.folds) == ([5, 10], [10, 20], 10)


def test_official_recipes_are_the_papers():
    for name, dim, heads in (("base", 384, 6), ("small", 256, 4), ("tiny", 192, 3)):
        config = parse("pretrain", ["--config", name]).config
        model = config.model
        assert (model.dim, model.num_heads, model.depth, model.num_group, model.group_size) == (
            dim,
            heads,
            12,
            64,
            32,
        )
        assert (config.optim.lr, config.optim.epochs, config.optim.batch_size) == (5e-4, 300, 128)
        assert config.optim.schedule == "official"
