"""Classes by their names alone: shapes against the texts of classes (ReCon, section 4).

<run>/result.json, confusion.csv, confusion.png    accuracies, by class, what was tested
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from recon_fast.config.frozen import FeatureKind, ZeroShotConfig
from recon_fast.console import say
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.files import read_lines
from recon_fast.tasks.embed import (
    PointEncoder,
    describe_scores,
    embed_in_turn,
    open_encoder,
    open_labelled,
)
from recon_fast.tasks.text_space import is_standardized, query_teacher, text_features
from recon_fast.training.folder import features_beside, keep_config, open_run
from recon_fast.training.probe import nearest_texts
from recon_fast.training.record import write_result
from recon_fast.training.scores import Scores, count, say_doubts, write_confusion

_KINDS: dict[str, FeatureKind] = {"full": "zeroshot", "text": "zeroshot_text", "img": "zeroshot_image"}


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
        if not len(rows):
            raise InputError(f"data must have shapes to test on, got none in {shapes.name}")
        names = shapes.class_names if config.names is None else read_names(config.names, shapes.class_names)
        names = [name.replace("_", " ") for name in names]
        warnings = say_doubts(shapes, None, rows, console)
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
