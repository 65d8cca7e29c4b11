"""The commands as functions of a program, with clouds that it holds."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny import tiny_shapes
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import recon_fast
from recon_fast.config import DataConfig
from recon_fast.data.loading import DataProblems
from recon_fast.data.memory import shapes_of
from recon_fast.errors import InputError

QUIET = Console(quiet=True)
TINY = {
    "data": {"num_points": 64},
    "model": {
        "dim": 24, "depth": 2, "num_heads": 2, "decoder_depth": 1, "decoder_num_heads": 2, "num_group": 8,
        "group_size": 8,
    },
    "optim": {"epochs": 2, "batch_size": 8, "warmup_epochs": 0},
    "save": {"log_every": 1},
    "device": "cpu",
    "precision": "fp32",
}  # fmt: skip
ONE = DataConfig(num_points=16)


class Clouds(Dataset):
    """Labelled clouds as a torch data set of dicts."""

    classes = ("ball", "box", "stick")

    def __init__(self, count=24):
        self.shapes = tiny_shapes(count, features=False)

    def __len__(self):
        return len(self.shapes)

    def __getitem__(self, i):
        points = torch.from_numpy(self.shapes.cloud(i).copy())
        return {"pos": points, "y": torch.tensor([int(self.shapes.labels[i])])}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was pretrained from a data set, with what its loggers got."""
    lines, called = [], []
    logger = SimpleNamespace(log=lambda values, step: lines.append((step, values)))
    broken = SimpleNamespace(log=lambda values, step: 1 / 0)
    out, console = tmp_path_factory.mktemp("api") / "run", Console(file=io.StringIO(), width=200)
    loggers = [broken, logger, lambda values, step: called.append(step)]
    result = recon_fast.pretrain(Clouds(), test=Clouds(12), out=out, loggers=loggers, console=console, **TINY)
    return SimpleNamespace(result=result, lines=lines, called=called, said=console.file.getvalue())


def test_pretrain_from_a_data_set(run):
    assert run.result.checkpoint.parent.parent == run.result.run
    assert run.result.after.svm > 50
    assert "24 shapes of data in memory" in run.said
    config = (run.result.run / "config.yaml").read_text()
    assert "epochs: 2" in config
    assert "dim: 24" in config


def test_loggers_get_every_line_and_a_broken_one_is_let_go(run):
    steps = [step for step, _ in run.lines]
    assert steps == run.called
    assert steps[:2] == [1, 2]
    assert {"lr", "epoch", "mdm"} <= run.lines[0][1].keys()
    assert all(isinstance(value, int | float) for _, values in run.lines for value in values.values())
    assert run.said.count("a logger failed and gets no more: division by zero") == 1
    with pytest.raises(InputError, match=r"loggers must have a method log\(values, step\), got int"):
        recon_fast.pretrain(Clouds(), loggers=[1], console=QUIET, **TINY)


def test_tensorboard_as_a_logger(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "curves") as writer:

        def log(values, step):
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        recon_fast.pretrain(Clouds(), out=tmp_path / "run", loggers=[log], console=QUIET, **TINY)
    events = EventAccumulator(str(tmp_path / "curves")).Reload()
    assert [event.step for event in events.Scalars("lr")] == [1, 2, 3, 4, 5, 6]


def test_finetune_svm_and_embed_go_on_from_the_run(run, tmp_path):
    settings = {"checkpoint": run.result.run, "device": "cpu", "precision": "fp32"}
    small = {"epochs": 1, "batch_size": 8, "warmup_epochs": 0}
    tuned = recon_fast.finetune(
        Clouds(), test=Clouds(12), protocol="linear", out=tmp_path / "tuned", console=QUIET, votes=0,
        data={"num_points": 64}, optim=small, **settings,
    )  # fmt: skip
    assert tuned.run == tmp_path / "tuned"
    assert tuned.scores.confusion.sum() == 12
    probed = recon_fast.svm(Clouds(), test=Clouds(12), out=tmp_path / "svm", console=QUIET, **settings)
    assert probed.svm.confusion.sum() == 12
    features = recon_fast.embed(
        Clouds(6), run.result.run, kind="global", device="cpu", precision="fp32", console=QUIET
    )
    assert features.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert features.keys[0] == "data[0]"
    loaded = recon_fast.load(run.result.run, "cpu", "fp32")
    clouds = [Clouds(6)[i]["pos"].numpy() for i in range(6)]
    np.testing.assert_allclose(features.features, loaded.embed(clouds, "global"), atol=1e-6)
    for i, cloud in enumerate(clouds):
        np.save(tmp_path / f"{i}.npy", cloud)
    again = recon_fast.embed(
        tmp_path, run.result.run, kind="global", device="cpu", precision="fp32", console=QUIET
    )
    np.testing.assert_allclose(again.features, features.features, atol=1e-6)


def test_settings_are_those_of_the_command_line(tmp_path):
    for settings, message in (
        ({"optim": {"epoch": 3}}, r"unknown setting optim\.epoch \(did you mean optim\.epochs"),
        ({"seeds": "x"}, "unknown setting seeds"),
        ({"profile": 3}, "profile is of the command line alone: recon-fast pretrain --profile"),
        ({"optim": {"epochs": "many"}}, r"setting optim\.epochs must be"),
        ({"config": "smal"}, "small"),
        ({"data": {"up": "w"}}, r"setting data\.up must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            recon_fast.pretrain(np.zeros((9, 99, 3)), console=QUIET, **settings)
    with pytest.raises(ValueError, match="data are given by place"):
        recon_fast.pretrain(data=clouds())
    with pytest.raises(ValueError, match="protocol must be one of full, mlp3, linear"):
        recon_fast.finetune(protocol="half")
    with pytest.raises(ValueError, match="test must come with clouds in memory"):
        recon_fast.finetune(tmp_path, test=[], console=QUIET)


def clouds(count=4, points=20):
    return np.random.default_rng(0).standard_normal((count, points, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "data",
    [
        clouds(),
        torch.from_numpy(clouds()),
        list(clouds()),
        tuple(map(torch.from_numpy, clouds())),
        np.concatenate([clouds(), clouds()], 2),
        TensorDataset(torch.from_numpy(clouds())),
        [(cloud, 1) for cloud in clouds()],
        [{"points": cloud, "label": "a"} for cloud in clouds()],
        [SimpleNamespace(pos=torch.from_numpy(cloud), y=torch.tensor(0)) for cloud in clouds()],
        (cloud for cloud in clouds()),
        clouds().tolist(),
    ],
)
def test_every_form_of_clouds(data):
    shapes = shapes_of(data, ONE)
    assert len(shapes) == 4
    np.testing.assert_array_equal(shapes.points, clouds().reshape(-1, 3))


def test_labels_classes_captions_and_sides():
    data = [
        {"xyz": cloud, "y": name, "caption": f"a {name}"}
        for cloud, name in zip(clouds(), "abca", strict=True)
    ]
    shapes = shapes_of(data, ONE, test=data[:2])
    assert shapes.class_names == ["a", "b", "c"]
    assert shapes.labels.tolist() == [0, 1, 2, 0, 0, 1]
    assert shapes.captions[1] == "a b"
    assert shapes.held_out.tolist() == [False] * 4 + [True] * 2
    assert shapes.keys[4] == "test[0]"
    item = shapes[-1]
    assert item["points"].shape == (20, 3)
    assert (item["label"], item["caption"]) == (1, "a b")
    assert next(iter(DataLoader(shapes, 3)))["points"].shape == (3, 20, 3)
    assert shapes_of(Clouds(6), ONE).class_names == ["ball", "box", "stick"]
    numbered = shapes_of([(cloud, np.int64(2)) for cloud in clouds()], ONE)
    assert numbered.class_names == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (clouds()[0], r"data must be clouds \[S, N, 3\], .*, got ndarray \[20, 3\]"),
        (3, "got int"),
        ({"points": clouds()}, "got dict"),
        (DataLoader(Clouds()), r"got a DataLoader: give its \.dataset"),
        ([], "at least one cloud"),
        ([(clouds()[0], 1), clouds()[0]], "labels must be of all items or of none, got 1 of 2 without one"),
        ([(clouds()[0], 1.5)], "labels must be one whole number or name"),
        ([(clouds()[0], -1)], "labels must count the classes from 0, got -1"),
    ],
)
def test_data_that_are_no_clouds(data, message):
    with pytest.raises(InputError, match=message):
        shapes_of(data, ONE)


def test_broken_items_are_all_named():
    nan = clouds()[0].copy()
    nan[3] = np.nan
    data = [nan, clouds()[0], clouds()[0][:5], np.zeros((30, 2)), {"label": 3}, [["a"]], clouds()[0].T]
    with pytest.raises(DataProblems, match="6 of 6 shapes in data cannot be used") as error:
        recon_fast.open_dataset(data, num_points=16, console=QUIET)
    assert [problem.key for problem in error.value.problems] == [f"data[{i}]" for i in (0, 2, 3, 4, 5, 6)]
    (table,) = error.value.__notes__
    for text in (
        "got NaN or inf in 1 of 20 points",
        "at least 16 points, got 5",
        "got float64 [30, 2]",
        "transposed",
    ):
        assert text in table
    assert len(recon_fast.open_dataset(data, num_points=16, on_problem="skip", console=QUIET)) == 1
    filled = recon_fast.open_dataset(data[1:3], num_points=16, on_small="repeat", console=QUIET)
    assert np.diff(filled.offsets).tolist() == [20, 16]


def test_items_that_cannot_be_read_and_tuples_of_more():
    class Failing(Clouds):
        def __getitem__(self, i):
            if i == 3:
                raise OSError("no such disk")
            return super().__getitem__(i)

    shapes = recon_fast.open_dataset(Failing(6), on_problem="skip", console=QUIET)
    assert len(shapes) == 5
    with pytest.raises(DataProblems) as error:
        recon_fast.open_dataset(Failing(6), console=QUIET)
    assert error.value.problems[0].what == "cannot be read: OSError: no such disk"
    with pytest.raises(DataProblems) as error:
        shapes_of([(clouds()[0], 0, 1)], ONE)
    assert "must be a cloud or (cloud, label), got a tuple of 3" in error.value.problems[0].what
    with pytest.raises(InputError, match="labels must be one whole number or name"):
        shapes_of([(clouds()[0], np.eye(3)[0])] * 2, ONE)


def test_both_sides_have_the_same_classes():
    class Others(Clouds):
        classes = ("stick", "ball", "box")

    with pytest.raises(InputError, match="test must have the classes of data in the same order"):
        shapes_of(Clouds(), ONE, test=Others())
    assert shapes_of(Subset(Clouds(), range(6)), ONE).class_names == ["ball", "box", "stick"]
    data = [(cloud, label) for cloud, label in zip(clouds(), "aabb", strict=True)]
    notes = shapes_of(data, ONE, test=[(clouds()[0], "c")]).notes
    assert notes == ["no shape to train on in 1 of the classes of test, such as c"]


def test_open_dataset_of_a_path(tmp_path):
    for settings, message in (
        ({"nump": 3}, r"unknown setting data\.nump"),
        ({"up": "w"}, r"setting data\.up must be one of"),
        ({"path": "x"}, r"got data\.path among the settings"),
    ):
        with pytest.raises(ValueError, match=message):
            recon_fast.open_dataset(tmp_path, console=QUIET, **settings)
    for i, cloud in enumerate(clouds()):
        np.save(tmp_path / f"{i}.npy", cloud)
    shapes = recon_fast.open_dataset(tmp_path, console=QUIET)
    assert shapes.keys == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(shapes[2]["points"], clouds()[2])
