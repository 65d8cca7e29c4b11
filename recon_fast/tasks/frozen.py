"""How good are frozen features? Shapes classified without training of the encoder (ReCon, section 4): by a
linear SVM and nearest neighbours on labelled shapes, and by the names of classes alone (zero-shot).

<run>/result.json, confusion.csv, confusion.png    accuracies, by class, what was tested; confusion of the SVM
                                                   or of the nearest text
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from recon_fast.config.frozen import FeatureKind, SvmConfig, ZeroShotConfig
from recon_fast.console import say, warn
from recon_fast.data.open import prepare_shapes
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.files import read_lines
from recon_fast.tasks.embed import (
    PointEncoder,
    describe_encoder,
    embed_in_turn,
    open_encoder,
    warn_of_conventions,
)
from recon_fast.tasks.text_space import is_standardized, query_teacher, text_features
from recon_fast.training.folder import features_beside, keep_config, open_run
from recon_fast.training.probe import SVM_C, nearest_texts, svm_predictions
from recon_fast.training.record import write_result
from recon_fast.training.scores import Scores, check_sides, count, labels_of, score_doubts, write_confusion

_BLOCK = 1024  # test shapes that are compared with all training shapes at once
_KINDS: dict[str, FeatureKind] = {"full": "zeroshot", "text": "zeroshot_text", "img": "zeroshot_image"}


def open_labelled(
    config: SvmConfig | ZeroShotConfig, shapes: Shapes | None, encoder: PointEncoder, console: Console
) -> tuple[Shapes, NDArray[np.int64]]:
    """The shapes that were given, or those that the settings name, and their labels [S].

    Raises:
        InputError: broken shapes, or shapes without labels.
    """
    if shapes is None:
        shapes = prepare_shapes(config.data.reading(encoder.least_points), config.seed, console)
    labels = labels_of(shapes)
    warn_of_conventions(shapes, encoder, console)
    return shapes, labels


def describe_scores(
    config: SvmConfig | ZeroShotConfig,
    encoder: PointEncoder,
    shapes: Shapes,
    class_names: list[str],
    scores: Scores,
    warnings: list[str],
) -> dict[str, Any]:
    """What a result says of any classification of shapes by their features."""
    tested = scores.confusion.sum(1).tolist()
    return {
        "task": config.command,
        "data": shapes.name,
        **describe_encoder(encoder),
        "seed": config.seed,
        "num_points": config.data.num_points or encoder.usual_points,
        "classes": len(class_names),
        "test": sum(tested),
        "warnings": warnings,
        **scores.summary(),
        "by_class": scores.by_class_name(class_names),
        "test_by_class": dict(zip(class_names, tested, strict=True)),
    }


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
        check_sides(shapes, train=train, test=test)
        if len(np.unique(labels[train])) < 2:
            raise InputError(f"data must have at least two classes to train on, got one in {shapes.name}")
        warnings = score_doubts(shapes, train, test)
        warn(console, *warnings)
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
        f"{config.checkpoint or 'random'}; by class: {run / 'result.json'}",
    )
    return SvmResult(run, svm, knn)


@dataclass
class ZeroShotResult:
    """How the texts of classes tell shapes apart."""

    run: Path
    scores: Scores  # of the nearest text
    top: dict[int, float]  # percent of shapes whose class is among the k nearest texts, by k
    feature: str  # full, text or img


def choose_feature(wanted: str, encoder: PointEncoder) -> str:
    """full, text or img. Raises InputError where features of the image teacher mean nothing to a text."""
    if wanted == "auto":
        return "full" if encoder.aligned and encoder.model.config.image_dim is not None else "text"
    if wanted != "text" and not encoder.aligned:
        raise InputError(
            f"feature {wanted} needs teachers that share a space (open_clip:NAME and NAME), "
            f"those of {encoder.file} do not: take --feature text"
        )
    return wanted


def read_names(path: str | Path, class_names: list[str]) -> list[str]:
    """The names of a file, one per class, in the order of `class_names`."""
    names = read_lines(Path(path).expanduser(), "names")
    if len(names) != len(class_names):
        wanted = f"one name for each of {len(class_names)} classes ({', '.join(class_names[:3])}, ...)"
        raise InputError(f"names must be {wanted}, got {len(names)} in {path}")
    return names


def zero_shot(
    config: ZeroShotConfig, console: Console | None = None, shapes: Shapes | None = None
) -> ZeroShotResult:
    """Classify shapes by the nearest text of a class, the mean over its prompts.

    All classes of the set are to choose from. Predictions of a checkpoint of standardized features, such as
    those of random teachers, are taken less their mean over the training split, which needs no labels.

    Args:
        config: settings.
        console: where lines, bars and the table go; stderr by default.
        shapes: labelled shapes in memory, in place of those that `config.data.path` names.

    Raises:
        InputError: anything wrong with the settings, the checkpoint, the data, the teacher or the disk.
    """
    console = console or Console(stderr=True)
    with open_run(config, None, console) as (run, _):
        encoder = open_encoder(config.checkpoint, config, console)
        feature = choose_feature(config.feature, encoder)
        kind = _KINDS[feature]
        encoder.head(kind)
        teacher = query_teacher(config.teacher, encoder)
        shapes, labels = open_labelled(config, shapes, encoder, console)
        rows = np.arange(len(shapes)) if config.on == "all" else shapes.rows("test")
        check_sides(shapes, test=rows)
        names = shapes.class_names if config.names is None else read_names(config.names, shapes.class_names)
        names = [name.replace("_", " ") for name in names]
        warnings = score_doubts(shapes, None, rows)
        if teacher.weights == "random":
            warnings.append(
                "the text teacher is random: it knows words of the captions that trained the encoder, and "
                "tells names without them apart by chance alone"
            )
        warn(console, *warnings)
        store, captions = features_beside(config.data.path), shapes.captions or ()
        texts = text_features(names, teacher, encoder, console, store=store, among=captions)
        centered = is_standardized(encoder)
        with keep_config(run, config):
            centre = shapes.rows("trainval") if centered and config.on == "test" else rows[:0]
            every = np.concatenate([rows, centre]).tolist()
            clouds = (shapes.cloud(row) for row in every)
            blocks = embed_in_turn(encoder, clouds, len(every), config, console, kind, ratio=config.ratio)
            features = np.concatenate(list(blocks))
            if centered:
                features -= (features[len(rows) :] if len(centre) else features).mean(0)
            ranking = nearest_texts(features[: len(rows)], texts)
        scores = count(ranking[:, 0], labels[rows], len(names))
        hits = ranking == labels[rows, None]
        top = {k: 100 * float(hits[:, :k].any(1).mean()) for k in (1, 3, 5) if k <= len(names)}
        report = describe_scores(config, encoder, shapes, names, scores, warnings) | {
            "on": config.on,
            "note": "on train and test" if config.on == "all" else "",
            "feature": feature,
            "ratio": config.ratio if feature == "full" else None,
            "teacher": {"text": teacher.text, "weights": teacher.weights, "prompts": teacher.prompts},
            "centered": centered,
            "chance": 100 / len(names),
            "top": {str(k): value for k, value in top.items()},
        }
        write_result(run, report, lambda: write_confusion(scores, names, run / "confusion"))
    table = Table(*(f"top {k}, %" for k in top), "mean of classes", "chance")
    table.add_row(*(f"{x:.2f}" for x in (*top.values(), scores.mean_class_accuracy, 100 / len(names))))
    console.print(table)
    say(
        console,
        f"{shapes.name} ({config.on}): {len(rows)} shapes, {len(names)} classes, feature {feature}"
        f"{'; predictions less their mean' if centered else ''}; by class: {run / 'result.json'}",
    )
    return ZeroShotResult(run, scores, top, feature)
