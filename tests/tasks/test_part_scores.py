"""Metrics of part segmentation: against a worked example and a plain implementation."""

import csv

import numpy as np
import pytest
import torch

from recon_fast.tasks.partseg import likeliest, score_parts, write_table

CLASS_PARTS = [[0, 1], [2, 3, 4], [5]]


def test_a_worked_example():
    truth = torch.tensor([[0, 0, 0, 1], [0, 0, 0, 0], [2, 2, 3, 3]])
    found = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [2, 3, 3, 4]])
    scores = score_parts(found, truth, torch.tensor([0, 0, 1]), CLASS_PARTS)
    # 0: 2 of 3 and 1 of 2. 1: all, and the absent part counts as 1. 2: 1 of 2, 1 of 3, 0 of 1.
    np.testing.assert_allclose(scores.iou, [(2 / 3 + 1 / 2) / 2, 1.0, (1 / 2 + 1 / 3 + 0) / 3])
    first, second = (7 / 12 + 1) / 2, 5 / 18
    assert scores.instance_miou == pytest.approx(100 * (7 / 12 + 1 + 5 / 18) / 3)
    assert scores.class_miou == pytest.approx(100 * (first + second) / 2)  # nothing of the third category
    assert scores.accuracy == pytest.approx(100 * 9 / 12)
    (_, n, iou, right), _, empty = scores.table(["a", "b", "c"])
    assert (n, iou, right) == (2, pytest.approx(100 * first), pytest.approx(100 * 7 / 8))
    assert empty == ("c", 0, None, None)


def plain_ious(found, truth, category):
    """As PointNet++'s test code computes them, point by point."""
    ious = []
    for guess, true, label in zip(found.tolist(), truth.tolist(), category.tolist(), strict=True):
        own = []
        for part in CLASS_PARTS[label]:
            either = sum(g == part or t == part for g, t in zip(guess, true, strict=True))
            both = sum(g == t == part for g, t in zip(guess, true, strict=True))
            own.append(both / either if either else 1.0)
        ious.append(sum(own) / len(own))
    return ious


def test_the_plain_implementation_agrees():
    generator = torch.Generator().manual_seed(0)
    category = torch.randint(3, (40,), generator=generator)
    first, count = torch.tensor([0, 2, 5])[category], torch.tensor([2, 3, 1])[category]
    truth, found = (
        first[:, None] + (torch.rand(40, 9, generator=generator) ** 3 * count[:, None]).long() for _ in "ab"
    )
    found[3, 4] = -1  # a point without a prediction is wrong
    scores = score_parts(found, truth, category, CLASS_PARTS)
    np.testing.assert_allclose(scores.iou, plain_ious(found, truth, category))
    assert scores.instance_miou == pytest.approx(100 * np.mean(scores.iou))
    means = [scores.iou[category.numpy() == c].mean() for c in range(3)]
    assert scores.class_miou == pytest.approx(100 * np.mean(means))


def test_predictions_are_parts_of_the_category():
    scores = torch.zeros(3, 2, 6)
    scores[..., 0] = 9.0
    scores[0, 0, 1] = 10.0
    scores[1, 0, 4] = 1.0
    scores[1, 1, 3] = torch.nan
    assert likeliest(scores, torch.tensor([0, 1, 2]), CLASS_PARTS).tolist() == [[1, 0], [4, -1], [5, 5]]


def test_the_table_as_csv(tmp_path):
    parts, file = torch.tensor([[0, 1]]), tmp_path / "parts.csv"
    write_table(score_parts(parts, parts, torch.tensor([0]), CLASS_PARTS), ["a", "b", "c"], file)
    rows = list(csv.reader(file.read_text().splitlines()))
    assert rows[0] == ["category", "shapes", "miou", "accuracy"]
    assert rows[1] == ["a", "1", "100.0", "100.0"]
    assert rows[2] == ["b", "0", "", ""]
