"""Does it learn? Linear SVM and zero-shot classification with a frozen encoder (ReCon, section 4)."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from recon_fast.console import say
from recon_fast.data.batches.resident import ResidentShapes, Sampling
from recon_fast.device import autocast
from recon_fast.distributed import broadcast_buffers, from_first, rank, shared_in_turn, world_size
from recon_fast.models import Encoding, PretrainModel

SVM_C = 0.075  # the official protocol's
RATIO = 0.25  # of the text projection in the zero-shot feature, the official one


def svm_feature(encoding: Encoding) -> Tensor:
    """[max of the global tokens, max + mean of the local tokens]: [B, 2 C]."""
    local = encoding.local_tokens
    return torch.cat([encoding.global_tokens.amax(1), local.amax(1) + local.mean(1)], 1)


def zero_shot_feature(
    model: PretrainModel, encoding: Encoding, aligned: bool, ratio: float = RATIO
) -> Tensor | None:
    """What is compared with the features of class texts: [B, D_text], or None without a text head.

    ratio text_proj(text token) + img_proj(img token) where the image teacher's space is the text teacher's
    (`aligned`, CLIP), text_proj(text token) elsewhere.
    """
    if model.text_proj is None:
        return None
    text = model.text_proj(encoding.global_tokens[:, -1])
    if not aligned or model.img_proj is None:
        return text
    return ratio * text + model.img_proj(encoding.global_tokens[:, -2])


@torch.no_grad()
def encode_shapes(
    model: PretrainModel,
    shapes: ResidentShapes,
    num_points: int,
    dtype: torch.dtype,
    batch_size: int,
    aligned: bool,
    progress: Callable[[int], None] | None = None,
) -> tuple[NDArray, NDArray | None]:
    """SVM features [S, 2 C] and zero-shot features [S, D] of all shapes, each cloud drawn once, always alike.

    Several processes share the batches, and each of them gets all features. The model's mode and torch's
    generators are left as found.
    """
    was_training = model.training
    model.eval()
    broadcast_buffers(model)  # running statistics are each process's own without optim.sync_norm
    features: list[tuple[Tensor, Tensor | None]] = []
    batches = torch.arange(len(shapes)).split(batch_size)
    for index in batches[rank() :: world_size()]:
        points = shapes.batch(index, 0, Sampling(num_points)).points
        with autocast(shapes.device, dtype):
            encoding = model.encode(points)
            zero_shot = zero_shot_feature(model, encoding, aligned)
        features.append(
            (svm_feature(encoding).float().cpu(), None if zero_shot is None else zero_shot.float().cpu())
        )
        if progress:
            progress(len(index))
    model.train(was_training)
    svm_features, zero_shot_features = zip(*shared_in_turn(features), strict=True)
    without = zero_shot_features[0] is None
    return torch.cat(svm_features).numpy(), None if without else torch.cat(zero_shot_features).numpy()


def svm_predictions(
    train_features: NDArray, train_labels: NDArray, test_features: NDArray
) -> NDArray[np.int64]:
    """Labels [S] that a linear SVM with the official C gives to finite features [S, D]."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    with warnings.catch_warnings():
        # The official protocol stops at the default number of iterations as well.
        warnings.simplefilter("ignore", ConvergenceWarning)
        svm = LinearSVC(C=SVM_C, random_state=0).fit(train_features, train_labels)
    return svm.predict(test_features)


def svm_accuracy(
    train_features: NDArray, train_labels: NDArray, test_features: NDArray, test_labels: NDArray
) -> float:
    """Accuracy of a linear SVM with the official C. An encoder that has diverged scores nan."""
    if not (np.isfinite(train_features).all() and np.isfinite(test_features).all()):
        return math.nan
    return float((svm_predictions(train_features, train_labels, test_features) == test_labels).mean())


def nearest_texts(features: NDArray, class_text: NDArray) -> NDArray[np.int64]:
    """Classes from the nearest to the farthest by cosine [S, C] of features [S, D] against texts [C, D]."""
    shapes = F.normalize(torch.from_numpy(features).float(), dim=1)
    texts = F.normalize(torch.from_numpy(class_text).float(), dim=1)
    return (shapes @ texts.T).argsort(dim=1, descending=True, stable=True).numpy()


def alike_accuracy(features: NDArray, labels: NDArray) -> float:
    """Share of shapes whose nearest other shape has their label [S], by cosine of features [S, D] less their
    mean.
    """
    unit = F.normalize(torch.from_numpy(features - features.mean(0)).float(), dim=1)
    cosine = (unit @ unit.T).fill_diagonal_(-math.inf)
    return float((labels[cosine.argmax(1).numpy()] == labels).mean())


def zero_shot_accuracy(features: NDArray, class_text: NDArray, labels: NDArray, present: NDArray) -> float:
    """Share of shapes whose nearest class text, by cosine, is their own.

    Args:
        features: [S, D].
        class_text: mean text feature of each class [C, D].
        labels: [S].
        present: classes to choose from, indices into `class_text`.
    """
    nearest = nearest_texts(features, class_text[present])[:, 0]
    return float((present[nearest] == labels).mean())


@dataclass
class ProbeData:
    """The two sides of the probe, and class texts if there is a text teacher."""

    name: str
    train: ResidentShapes
    test: ResidentShapes
    class_text: NDArray | None  # [C, D]
    aligned: bool
    centered: bool = False  # zero-shot: subtract the mean prediction of the train side, which takes no labels
    note: str = ""  # what a reader of the numbers must know
    real: ResidentShapes | None = None  # real shapes, each of which looks for one of its kind


@dataclass
class ProbeResult:
    """Accuracies in percent; None where they do not apply."""

    svm: float | None
    zero_shot: float | None
    chance: float  # of a guess among the classes of the held-out shapes
    real: float | None = None  # real shapes whose nearest other shape is of their kind

    def scores(self) -> dict[str, float | None]:
        """As the log has them."""
        return {"probe_svm": self.svm, "probe_zero_shot": self.zero_shot, "probe_real": self.real}


def probe(
    model: PretrainModel, data: ProbeData, num_points: int, dtype: torch.dtype, batch_size: int = 64
) -> ProbeResult:
    """Linear SVM trained on one side and tested on the other, zero-shot accuracy on the test side, and how
    often a real shape finds one of its kind.

    Every process must call this; all get the same result.
    """
    assert data.train.label is not None
    assert data.test.label is not None
    train_labels, test_labels = data.train.label.cpu().numpy(), data.test.label.cpu().numpy()
    present = np.unique(test_labels)
    test_svm, test_zero = encode_shapes(model, data.test, num_points, dtype, batch_size, data.aligned)
    train_svm, train_zero = encode_shapes(model, data.train, num_points, dtype, batch_size, data.aligned)

    real_features = None
    if data.real is not None:
        points = min(num_points, int(data.real.sizes.min()))
        real_features, _ = encode_shapes(model, data.real, points, dtype, batch_size, data.aligned)

    def judged() -> ProbeResult:
        svm = zero = real = None
        if len(np.unique(train_labels)) > 1:
            svm = 100 * svm_accuracy(train_svm, train_labels, test_svm, test_labels)
        if test_zero is not None and data.class_text is not None:
            features = test_zero
            if data.centered and train_zero is not None:
                features = test_zero - train_zero.mean(0)
            zero = 100 * zero_shot_accuracy(features, data.class_text, test_labels, present)
        if data.real is not None and data.real.label is not None and real_features is not None:
            real = 100 * alike_accuracy(real_features, data.real.label.cpu().numpy())
        return ProbeResult(svm, zero, 100 / len(present), real)

    return from_first(judged)


def show_probe(
    console: Console,
    data: ProbeData,
    before: ProbeResult | None,
    after: ProbeResult,
    packaged: ProbeResult | None,
) -> None:
    """Accuracies of the encoder at initialisation and now, and of the one that comes with the package."""
    table = Table("accuracy, %", "initialisation", "now", "gain", "packaged encoder")

    def cell(value: float | None, sign: str = "") -> str:
        return "" if value is None else f"{value:{sign}.1f}"

    rows = {"linear SVM": "svm", "zero-shot": "zero_shot", "real shapes: nearest is alike": "real"}
    for name, key in rows.items():
        start, end, other = (getattr(result, key, None) for result in (before, after, packaged))
        if end is not None:
            gain = None if start is None else end - start
            table.add_row(name, cell(start), cell(end), cell(gain, "+"), cell(other))
    say(console, f"held-out shapes of {data.name}" + (f" ({data.note})" if data.note else ""))
    console.print(table)
    count = f"{len(data.train)} shapes train the SVM, {len(data.test)} test"
    say(console, f"{count}; chance {after.chance:.1f} %")
    if data.real is not None and data.real.label is not None:
        count = f"{len(data.real)} in {len(data.real.label.unique())} kinds"
        points = int(data.real.sizes.min())
        say(console, f"real shapes: game models by Kenney (CC0), {count}, {points} points each")
