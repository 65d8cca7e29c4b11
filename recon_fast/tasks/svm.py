"""How good are frozen features? A linear SVM and nearest neighbours on labelled shapes (ReCon, section 4).

<run>/result.json, confusion.csv, confusion.png    accuracies, by class, what was tested; confusion of the SVM
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from recon_fast.config.frozen import SvmConfig
from recon_fast.console import say
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.tasks.embed import describe_scores, embed_in_turn, open_encoder, open_labelled
from recon_fast.training.folder import keep_config, open_run
from recon_fast.training.probe import SVM_C, svm_predictions
from recon_fast.training.record import write_result
from recon_fast.training.scores import Scores, count, say_doubts, write_confusion

_BLOCK = 1024  # test shapes that are compared with all training shapes at once


@dataclass
class SvmResult:
    """Counts on the test split."""

    run: Path
    svm: Scores
    knn: Scores


def knn_predictions(
    train_features: NDArray,
    train_labels: NDArray,
    test_features: NDArray,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> NDArray[np.int64]:
    """Classes [S] by the votes of the k nearest by cosine, each of weight exp(cosine / temperature).

    This is the weighted kNN of DINO (Caron et al. 2021). Fewer than k training features all vote.

    Args:
        train_features: finite [T, D].
        train_labels: [T].
        test_features: finite [S, D].
        num_classes: C.
    """
    train = F.normalize(torch.from_numpy(train_features).float(), dim=1)
    labels = torch.from_numpy(train_labels)
    guesses = []
    for block in torch.from_numpy(test_features).float().split(_BLOCK):
        cosine, nearest = (F.normalize(block, dim=1) @ train.T).topk(min(k, len(train)), dim=1)
        weight = ((cosine - cosine[:, :1]) / temperature).exp()  # the same ranking, and it cannot overflow
        votes = torch.zeros(len(block), num_classes).scatter_add_(1, labels[nearest], weight)
        guesses.append(votes.argmax(1))
    return torch.cat(guesses).numpy()


def svm_probe(config: SvmConfig, console: Console | None = None, shapes: Shapes | None = None) -> SvmResult:
    """Train a linear SVM (C = 0.075, the official feature) and a weighted kNN, and test both.

    Args:
        config: settings.
        console: where lines, bars and the table go; stderr by default.
        shapes: labelled shapes in memory, in place of those that `config.data.path` names.

    Raises:
        InputError: anything wrong with the settings, the checkpoint, the data or the disk.
    """
    console = console or Console(stderr=True)
    with open_run(config, None, console) as (run, _):
        encoder = open_encoder(config.checkpoint, config, console)
        shapes, labels = open_labelled(config, shapes, encoder, console)
        names, train, test = shapes.class_names, shapes.rows("trainval"), shapes.rows("test")
        for purpose, rows in (("train on", train), ("test on", test)):
            if not len(rows):
                raise InputError(f"data must have shapes to {purpose}, got none in {shapes.name}")
        if len(np.unique(labels[train])) < 2:
            raise InputError(f"data must have at least two classes to train on, got one in {shapes.name}")
        warnings = say_doubts(shapes, train, test, console)
        with keep_config(run, config):
            rows = np.concatenate([train, test])
            clouds = (shapes.cloud(row) for row in rows.tolist())
            features = np.concatenate(list(embed_in_turn(encoder, clouds, len(rows), config, console)))
            sides = features[: len(train)], labels[train], features[len(train) :]
            svm = count(svm_predictions(*sides), labels[test], len(names))
            guess = knn_predictions(*sides, len(names), config.k, config.temperature)
            knn = count(guess, labels[test], len(names))
        report = describe_scores(config, encoder, shapes, names, svm, warnings) | {
            "feature": "svm",
            "train": len(train),
            "C": SVM_C,
            "knn": {
                "k": config.k,
                "weight": f"exp(cosine / {config.temperature})",
                **knn.summary(),
                "by_class": knn.by_class_name(names),
            },
            "note": f"kNN {knn.accuracy:.2f}",
        }
        write_result(run, report, lambda: write_confusion(svm, names, run / "confusion"))
    table = Table("accuracy, %", "test", "mean of classes")
    for name, scores in ((f"linear SVM, C {SVM_C}", svm), (f"kNN, k {config.k}, cosine", knn)):
        table.add_row(name, f"{scores.accuracy:.2f}", f"{scores.mean_class_accuracy:.2f}")
    console.print(table)
    say(
        console,
        f"{shapes.name}: {len(train)} shapes train, {len(test)} test, {len(names)} classes; "
        f"{config.checkpoint or 'an encoder at random'}; by class: {run / 'result.json'}",
    )
    return SvmResult(run, svm, knn)
