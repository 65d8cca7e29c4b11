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
from recon_fast.data.open import prepare_shapes
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.tasks.embed import (
    describe_encoder,
    embed_in_turn,
    labelled,
    open_encoder,
    warn_of_conventions,
    write_result,
)
from recon_fast.tasks.evaluate import Scores, count
from recon_fast.training.folder import open_run, run_folder
from recon_fast.training.probe import SVM_C, svm_predictions
from recon_fast.training.splits import say_doubts

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
        encoder = open_encoder(
            config.checkpoint, config.model, config.device, config.precision, console, config.seed
        )
        if shapes is None:
            shapes = prepare_shapes(config.data.reading(encoder.least_points), config.seed, console)
        labels, names = labelled(shapes)
        train, test = shapes.rows("trainval"), shapes.rows("test")
        for purpose, rows in (("train on", train), ("test on", test)):
            if not len(rows):
                raise InputError(f"data must have shapes to {purpose}, got none in {shapes.name}")
        if len(np.unique(labels[train])) < 2:
            raise InputError(f"data must have at least two classes to train on, got one in {shapes.name}")
        warn_of_conventions(shapes, encoder, console)
        warnings = say_doubts(shapes, train, test, console)
        with run_folder(run, config):
            rows = np.concatenate([train, test])
            clouds = (shapes.cloud(int(i)) for i in rows)
            blocks = embed_in_turn(
                encoder,
                clouds,
                len(rows),
                console,
                num_points=config.data.num_points,
                batch_size=config.batch_size,
            )
            features = np.concatenate(list(blocks))
            sides = features[: len(train)], labels[train], features[len(train) :]
            guess = knn_predictions(*sides, len(names), config.k, config.temperature)
            result = SvmResult(
                run,
                svm=count(svm_predictions(*sides), labels[test], len(names)),
                knn=count(guess, labels[test], len(names)),
            )
        tested = result.svm.confusion.sum(1).tolist()
        report = {
            "task": config.command,
            "data": shapes.name,
            **describe_encoder(encoder),
            "seed": config.seed,
            "num_points": config.data.num_points or encoder.usual_points,
            "feature": "svm",
            "classes": len(names),
            "train": len(train),
            "test": len(test),
            "C": SVM_C,
            "warnings": warnings,
            **result.svm.summary(),
            "by_class": result.svm.by_class_name(names),
            "knn": {
                "k": config.k,
                "weight": f"exp(cosine / {config.temperature})",
                **result.knn.summary(),
                "by_class": result.knn.by_class_name(names),
            },
            "note": f"kNN {result.knn.accuracy:.2f}",
            "test_by_class": dict(zip(names, tested, strict=True)),
        }
        write_result(run, report, names, result.svm)
        _show(console, config, shapes, result, len(train))
        return result


def _show(console: Console, config: SvmConfig, shapes: Shapes, result: SvmResult, train: int) -> None:
    table = Table("accuracy, %", "test", "mean of classes")
    for name, scores in ((f"linear SVM, C {SVM_C}", result.svm), (f"kNN, k {config.k}, cosine", result.knn)):
        table.add_row(name, f"{scores.accuracy:.2f}", f"{scores.mean_class_accuracy:.2f}")
    console.print(table)
    what = "an encoder at random" if config.checkpoint is None else config.checkpoint
    say(
        console,
        f"{shapes.name}: {train} shapes train, {int(result.svm.confusion.sum())} test, "
        f"{len(shapes.class_names)} classes; {what}; by class: {result.run / 'result.json'}",
    )
