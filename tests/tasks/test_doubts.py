"""Scores that mean less than they seem say so, in the result and on the screen."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_finetune import config as finetune_config
from tiny import Lines, tiny_config, tiny_shapes

from recon_fast.config.frozen import SvmConfig
from recon_fast.tasks.finetune import finetune
from recon_fast.tasks.frozen import svm_probe
from recon_fast.training.pretrain import pretrain
from recon_fast.training.scores import score_doubts


def doubtful():
    """Tiny shapes with a class of the test side alone, one of one shape, and two clouds that are points."""
    shapes = tiny_shapes()
    train, test = shapes.rows("trainval"), shapes.rows("test")
    labels = shapes.labels.copy()
    names = [*shapes.class_names, "tested", "single"]
    labels[test[0]], labels[train[0]] = len(names) - 2, len(names) - 1
    points = np.array(shapes.points)
    for row, value in ((train[1], 0), (test[1], 0.7)):
        points[shapes.offsets[row] : shapes.offsets[row + 1]] = value
    texts = np.concatenate([shapes.features.class_text, np.eye(2, 8, dtype=np.float32)])
    features = replace(shapes.features, class_text=texts)
    changed = replace(shapes, labels=labels, class_names=names, points=points, features=features)
    return changed, shapes.keys[train[1]]


LINES = (
    "1 class is (tested) tested and not trained on: 0 % right by construction",
    "2 classes are (tested, single) known by one shape alone",
)


def test_all_that_is_doubtful_is_found():
    shapes, key = doubtful()
    train, test = shapes.rows("trainval"), shapes.rows("test")
    found = score_doubts(shapes, train, test)
    assert found[:2] == list(LINES)
    assert found[2].startswith(f"2 clouds are one point again and again ({key}, ")
    assert len(found) == 3
    assert len(score_doubts(shapes, None, test)) == 1  # nothing is learnt
    whole = tiny_shapes()
    assert score_doubts(whole, whole.rows("trainval"), whole.rows("test")) == []


def test_labels_with_gaps_are_classes_without_shapes():
    shapes = tiny_shapes()
    names = [str(i) for i in range(21)]
    shapes = replace(shapes, labels=shapes.labels % 3 * 10, class_names=names)
    train, test = shapes.rows("trainval"), shapes.rows("test")
    line = "18 classes are (1, 2, 3, ...) without any shape, as labels count up to 20"
    assert line in score_doubts(shapes, train, test)
    assert line in score_doubts(shapes, None, test)
    named = replace(shapes, class_names=[f"class {i}" for i in range(21)])
    assert not any("without any shape" in text for text in score_doubts(named, train, test))


@pytest.mark.parametrize("task", ["svm", "finetune"])
def test_results_and_the_screen_say_so(tmp_path, task):
    shapes, _ = doubtful()
    console = Lines()
    if task == "svm":
        run = svm_probe(SvmConfig(out=str(tmp_path / "run"), device="cpu"), console, shapes).run
    else:
        run = finetune(finetune_config(tmp_path / "run"), None, console, shapes).run
    result = json.loads((run / "result.json").read_text())
    assert result["warnings"][:2] == list(LINES)
    for line in result["warnings"]:
        assert console.has(line)


def test_the_probe_of_pretraining_says_so(tmp_path):
    shapes, _ = doubtful()
    console = Lines()
    pretrain(tiny_config(tmp_path / "run"), None, console, shapes)
    assert console.has(LINES[0])
