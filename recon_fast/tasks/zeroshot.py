"""Classes by their names alone: shapes against the texts of classes (ReCon, section 4).

<run>/result.json, confusion.csv, confusion.png    accuracies, by class, what was tested
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from recon_fast.config.frozen import FeatureKind, ZeroShotConfig
from recon_fast.console import say
from recon_fast.data.open import prepare_shapes
from recon_fast.data.shapes import Shapes
from recon_fast.errors import InputError
from recon_fast.files import read_lines
from recon_fast.tasks.embed import (
    PointEncoder,
    describe_encoder,
    embed_in_turn,
    labelled,
    open_encoder,
    warn_of_conventions,
    write_result,
)
from recon_fast.tasks.evaluate import Scores, count
from recon_fast.tasks.text_space import is_standardized, query_teacher, text_features
from recon_fast.training.folder import open_run, run_folder
from recon_fast.training.splits import say_doubts

_KINDS: dict[str, FeatureKind] = {"full": "zeroshot", "text": "zeroshot_text", "img": "zeroshot_image"}


@dataclass
class ZeroShotResult:
    """How the texts of classes tell shapes apart."""

    run: Path
    scores: Scores  # of the nearest text
    top: dict[int, float]  # percent of shapes whose class is among the k nearest texts, by k
    feature: str  # full, text or img


def nearest_texts(features: NDArray, class_text: NDArray) -> NDArray[np.int64]:
    """Classes from the nearest to the farthest by cosine [S, C] of features [S, D] against texts [C, D]."""
    shapes = F.normalize(torch.from_numpy(features).float(), dim=1)
    texts = F.normalize(torch.from_numpy(class_text).float(), dim=1)
    return (shapes @ texts.T).argsort(dim=1, descending=True, stable=True).numpy()


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
        encoder = open_encoder(config.checkpoint, config.model, config.device, config.precision, console)
        feature = choose_feature(config.feature, encoder)
        kind = _KINDS[feature]
        encoder.head(kind)
        teacher = query_teacher(config.teacher, encoder)
        if shapes is None:
            shapes = prepare_shapes(config.data.reading(encoder.least_points), config.seed, console)
        labels, class_names = labelled(shapes)
        rows = np.arange(len(shapes)) if config.on == "all" else shapes.rows("test")
        if not len(rows):
            raise InputError(f"data must have shapes to test on, got none in {shapes.name}")
        names = class_names if config.names is None else read_names(config.names, class_names)
        names = [name.replace("_", " ") for name in names]
        warn_of_conventions(shapes, encoder, console)
        warnings = say_doubts(shapes, None, rows, console)
        texts = text_features(
            names,
            teacher,
            encoder,
            console,
            store=beside(config.data.path),
            among=shapes.captions or (),
        )
        with run_folder(run, config):
            centre = shapes.rows("trainval") if is_standardized(encoder) and config.on == "test" else rows[:0]
            every = np.concatenate([rows, centre])
            clouds = (shapes.cloud(int(i)) for i in every)
            blocks = embed_in_turn(
                encoder,
                clouds,
                len(every),
                console,
                kind,
                num_points=config.data.num_points,
                batch_size=config.batch_size,
                ratio=config.ratio,
            )
            features = np.concatenate(list(blocks))
            if is_standardized(encoder):
                features -= (features[len(rows) :] if len(centre) else features).mean(0)
            ranking = nearest_texts(features[: len(rows)], texts)
        truth = labels[rows]
        hits = ranking == truth[:, None]
        result = ZeroShotResult(
            run,
            count(ranking[:, 0], truth, len(names)),
            {k: 100 * float(hits[:, :k].any(1).mean()) for k in (1, 3, 5) if k <= len(names)},
            feature,
        )
        report = {
            "task": config.command,
            "data": shapes.name,
            "on": config.on,
            "note": "on train and test" if config.on == "all" else "",
            **describe_encoder(encoder),
            "seed": config.seed,
            "num_points": config.data.num_points or encoder.usual_points,
            "feature": feature,
            "ratio": config.ratio if feature == "full" else None,
            "teacher": {"text": teacher.text, "weights": teacher.weights, "prompts": teacher.prompts},
            "centered": is_standardized(encoder),
            "classes": len(names),
            "chance": 100 / len(names),
            "test": len(rows),
            "warnings": warnings,
            **result.scores.summary(),
            "top": {str(k): value for k, value in result.top.items()},
            "by_class": result.scores.by_class_name(names),
            "test_by_class": dict(zip(names, result.scores.confusion.sum(1).tolist(), strict=True)),
        }
        write_result(run, report, names, result.scores)
        table = Table(*(f"top {k}, %" for k in result.top), "mean of classes", "chance")
        table.add_row(
            *(f"{value:.2f}" for value in result.top.values()),
            f"{result.scores.mean_class_accuracy:.2f}",
            f"{100 / len(names):.2f}",
        )
        console.print(table)
        centred = "; predictions less their mean" if is_standardized(encoder) else ""
        say(
            console,
            f"{shapes.name} ({config.on}): {len(rows)} shapes, {len(names)} classes, "
            f"feature {feature}{centred}; "
            f"by class: {run / 'result.json'}",
        )
        return result


def beside(path: str | None) -> Path | None:
    """The folder beside a set where features of texts are kept; None for the procedural set."""
    if path is None:
        return None
    data = Path(path).expanduser()
    return (data.parent if data.is_file() else data) / ".recon_fast"
