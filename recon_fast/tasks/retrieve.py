"""Nearest shapes to a shape, a text or a picture, and how well shapes and captions find each other.

<run>/result.json    of captions: recall in both directions, with chance
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recon_fast.config.frozen import FeatureKind, ReadingConfig, RetrieveConfig
from recon_fast.config.model import SHIPPED
from recon_fast.console import say
from recon_fast.data.readers.clouds import FILES
from recon_fast.data.readers.pictures import PICTURE_SUFFIXES, decode_picture
from recon_fast.data.shapes import read_bytes
from recon_fast.errors import InputError
from recon_fast.tasks.cloud_sets import CloudSet, open_clouds
from recon_fast.tasks.embed import (
    PointEncoder,
    describe_encoder,
    embed_in_turn,
    open_encoder,
    warn_of_conventions,
)
from recon_fast.tasks.embed_files import FeatureSet, is_feature_file, read_features
from recon_fast.tasks.sheet import Cell, check_sheet, write_sheet
from recon_fast.tasks.text_space import (
    is_standardized,
    picture_feature,
    query_teacher,
    text_features,
    unit,
)
from recon_fast.training.folder import features_beside, keep_config, open_run
from recon_fast.training.record import write_result

RECALL_AT = (1, 5, 10)
QueryKind = Literal["key", "shape", "picture", "text"]
# Which features a query is compared with, the first where the set is yet to be embedded.
COMPARABLE: dict[QueryKind, tuple[FeatureKind, ...]] = {
    "text": ("zeroshot", "zeroshot_text"),
    "picture": ("zeroshot_image", "zeroshot"),
}


class SearchedSet:
    """The set that is searched; its clouds and the encoder are opened when somebody asks.

    Args:
        data: a file that `recon-fast embed` wrote, or anything that it embeds.
        config: settings.
        console: where lines and bars go.
    """

    def __init__(self, data: str | Path, config: RetrieveConfig, console: Console) -> None:
        self.path, self.config, self.console = Path(data).expanduser(), config, console
        self.file = read_features(self.path) if is_feature_file(self.path) else None

    @cached_property
    def encoder(self) -> PointEncoder:
        """The checkpoint, which must be the one that made the features."""
        about = {} if self.file is None else self.file.attributes
        checkpoint = self.config.checkpoint or about.get("checkpoint") or SHIPPED
        encoder = open_encoder(checkpoint, self.config, self.console)
        wanted = about.get("checkpoint_sha256")
        if self.file is not None and describe_encoder(encoder)["checkpoint_sha256"] != wanted:
            raise InputError(
                f"{self.path} was made with another checkpoint than {encoder.file}: embed "
                f"it again, or name its own with --checkpoint ({about.get('checkpoint')})"
            )
        return encoder

    @cached_property
    def clouds(self) -> CloudSet:
        """The clouds; of a file of features those that it was made from."""
        if self.file is None:
            return self.open([self.path])
        try:
            paths = self.file.attributes["sources"]
            reading = ReadingConfig(**self.file.attributes["reading"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.path} must state its clouds and how they were read: {error}") from error
        return open_clouds(paths, reading, 1, self.console)

    def open(self, paths: Sequence[str | Path]) -> CloudSet:
        """Clouds that the encoder can take."""
        return open_clouds(paths, self.config.data, self.encoder.least_points, self.console)

    @property
    def keys(self) -> list[str]:
        """Of its shapes."""
        return self.clouds.shapes.keys if self.file is None else self.file.keys

    def features(self, kinds: Sequence[FeatureKind]) -> tuple[FeatureSet, FeatureKind]:
        """Features of one of the kinds, the first where they have to be made."""
        if self.file is not None:
            kind = self.file.attributes["kind"]
            if kind not in kinds:
                wanted = " or ".join(kinds)
                raise InputError(
                    f"{self.path} must hold features {wanted} for this query, got {kind}: "
                    f"embed the clouds again with --kind {kinds[0]}"
                )
            return self.file, kind
        self.encoder.head(kinds[0])
        features, shapes = self.embed(self.clouds, kinds[0]), self.clouds.shapes
        return FeatureSet(
            features, shapes.keys, shapes.held_out, shapes.labels, shapes.class_names, shapes.captions
        ), kinds[0]

    def embed(self, found: CloudSet, kind: FeatureKind, num_points: int | None = None) -> NDArray[np.float32]:
        """Features [S, D] of S clouds."""
        warn_of_conventions(found.shapes, self.encoder, self.console)
        clouds, count = found.read(range(len(found))), len(found)
        blocks = embed_in_turn(self.encoder, clouds, count, self.config, self.console, kind, num_points)
        return np.concatenate(list(blocks))

    def text_features(self, texts: list[str], found: FeatureSet) -> NDArray[np.float32]:
        """Features [T, D] of texts, standardised by the set's captions or class names where need be."""
        among = found.captions or [name.replace("_", " ") for name in found.class_names]
        teacher = query_teacher(self.config.teacher, self.encoder)
        store = None if self.file is not None else features_beside(self.path)
        return text_features(texts, teacher, self.encoder, self.console, store=store, among=among)


@dataclass(frozen=True)
class Match:
    """A shape that was found."""

    rank: int  # from 1
    key: str
    class_name: str  # "" without labels
    caption: str  # "" without captions
    cosine: float


@dataclass
class Retrieval:
    """What was found for a query."""

    query: str
    kind: QueryKind
    among: int  # shapes
    matches: list[Match]

    def show(self, console: Console) -> None:
        """A table on a terminal, elsewhere lines with tabs: rank, key, class, caption, cosine."""
        rows = [(str(m.rank), m.key, m.class_name, m.caption, f"{m.cosine:.4f}") for m in self.matches]
        if not console.is_terminal:
            console.file.writelines("\t".join(row) + "\n" for row in rows)  # rich would expand the tabs
            return
        table = Table("rank", "key", "class", "caption", "cosine", title=f"{self.kind}: {escape(self.query)}")
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)


def retrieve(
    data: str | Path, query: str, config: RetrieveConfig | None = None, console: Console | None = None
) -> Retrieval:
    """The shapes of a set that are nearest to a query by cosine; of shapes, less the mean of the set.

    Args:
        data: a file that `recon-fast embed` wrote, or anything that it embeds.
        query: key of a shape of the set, which is not found itself; file of a cloud or of a picture; a text.
        config: settings; with `sheet`, a page of thumbnails is written.
        console: where lines and bars go; stderr by default.

    Raises:
        InputError: no such file, features of another kind or checkpoint, a checkpoint without projections, a
            teacher that is absent or another than the checkpoint's.
    """
    config, console = config or RetrieveConfig(), console or Console(stderr=True)
    sheet = None if config.sheet is None else Path(config.sheet).expanduser()
    if sheet is not None:
        check_sheet(sheet)
    searched = SearchedSet(data, config, console)
    kind = _kind_of(query, searched.keys) if config.query == "auto" else config.query
    if kind == "key" and query not in searched.keys:
        raise InputError(f"query must be the key of a shape in {data}, got {query}")
    kinds = COMPARABLE.get(kind, (config.kind,))
    if kind in ("key", "shape") and searched.file is not None:
        kinds = (searched.file.attributes["kind"],)  # shapes can be compared by any
    found, feature_kind = searched.features(kinds)
    if kind == "picture" and feature_kind == "zeroshot" and not searched.encoder.aligned:
        raise InputError(f"{data} must hold features zeroshot_image for a picture, got zeroshot")
    features = found.features
    own = searched.keys.index(query) if kind == "key" else None
    shown: CloudSet | None = None
    if own is not None:
        wanted = features[own]
    elif kind == "shape":
        shown = searched.open([query])
        points = None if searched.file is None else searched.file.attributes.get("num_points")
        wanted = searched.embed(shown, feature_kind, points)[0]
    else:
        if kind == "text":
            wanted = searched.text_features([query], found)[0]
        else:
            teacher = query_teacher(config.teacher, searched.encoder)
            wanted = picture_feature(Path(query).expanduser(), teacher, searched.encoder, console)
        if is_standardized(searched.encoder):
            features = features - features.mean(0)
    if kind in ("key", "shape") and len(features) > 1:  # what all shapes share tells none apart
        common = features.mean(0)
        features, wanted = features - common, wanted - common
    cosine = unit(features) @ unit(wanted[None])[0]
    order = [int(i) for i in np.argsort(-cosine, kind="stable") if i != own][: config.top]
    captions = found.captions or [""] * len(found.keys)
    matches = [
        Match(rank, found.keys[i], found.class_of(i), captions[i], float(cosine[i]))
        for rank, i in enumerate(order, 1)
    ]
    result = Retrieval(query, kind, len(found.keys), matches)
    if sheet is not None:
        _write_sheet(sheet, result, searched, shown)
    return result


def _kind_of(query: str, keys: Sequence[str]) -> QueryKind:
    """What a query is; a missing file is not taken for a text."""
    if query in keys:
        return "key"
    suffix = Path(query).suffix.lower()
    kinds: dict[QueryKind, Collection[str]] = {"picture": PICTURE_SUFFIXES, "shape": FILES}
    for kind, suffixes in kinds.items():
        if suffix in suffixes:
            if not Path(query).expanduser().is_file():
                raise InputError(f"query must be a key, a file or a text, got {query}: no such file")
            return kind
    return "text"


def _write_sheet(path: Path, result: Retrieval, searched: SearchedSet, shown: CloudSet | None) -> None:
    """Thumbnails of what was found, after the query where that is no text; `shown` is the query of a file."""
    keys = searched.clouds.shapes.keys
    place = {key: i for i, key in enumerate(keys)}
    missing = [match.key for match in result.matches if match.key not in place]
    if missing:
        raise InputError(f"the clouds of {searched.path} changed: {missing[0]} is not there any more")
    queries: Iterable[NDArray] = ()
    if result.kind == "picture":
        file = Path(result.query).expanduser()
        queries = [decode_picture(read_bytes(file), file)]
    elif result.kind == "key":
        queries = searched.clouds.read([place[result.query]])
    elif shown is not None:
        queries = shown.read([0])
    cells = [Cell(query, "query") for query in queries]
    clouds = searched.clouds.read([place[match.key] for match in result.matches])
    cells += [
        Cell(cloud, f"{m.rank}. {m.caption or m.class_name or m.key}  {m.cosine:.3f}")
        for cloud, m in zip(clouds, result.matches, strict=True)
    ]
    write_sheet(path, f"nearest to {result.query}", cells)


@dataclass
class CaptionRecall:
    """Percent of queries whose own counterpart is among the k nearest, by k, and what chance gives."""

    run: Path
    shapes: int
    captions: int  # distinct ones
    shape_to_caption: dict[int, float]
    caption_to_shape: dict[int, float]
    shape_to_caption_chance: dict[int, float]
    caption_to_shape_chance: dict[int, float]


def caption_recall(
    data: str | Path, config: RetrieveConfig | None = None, console: Console | None = None
) -> CaptionRecall:
    """Zero-shot retrieval on the test split: does a shape find its caption, and a caption its shape?

    A shape looks among the distinct captions of the split. A caption, as the mean over its prompts, looks
    among its shapes, and any shape that has it counts. Ties count as misses. The split is unseen only where
    training held it out (`--data.split train`).

    Args:
        data: as of `retrieve`; with captions and a test split.
        config: settings.
        console: where lines, bars and the table go; stderr by default.

    Raises:
        InputError: as `retrieve`, or there are no captions or no test split.
    """
    config, console = config or RetrieveConfig(), console or Console(stderr=True)
    with open_run(config, None, console) as (run, _):
        searched = SearchedSet(data, config, console)
        found, kind = searched.features(COMPARABLE["text"])
        rows = np.flatnonzero(found.held_out)
        if found.captions is None:
            raise InputError(f"data must have captions, got none in {data}")
        if not len(rows):
            raise InputError(f"data must have a test split, got no shape in {data}")
        captions = list(dict.fromkeys(found.captions[i] for i in rows))
        number = {caption: i for i, caption in enumerate(captions)}
        own = np.array([number[found.captions[i]] for i in rows])
        centered = is_standardized(searched.encoder)
        with keep_config(run, config):
            texts = searched.text_features(captions, found)
            features = found.features[rows]
            if centered:
                others = found.features[~found.held_out]
                features = features - (others if len(others) else features).mean(0)
            result = recall(run, unit(features) @ unit(texts).T, own)
        report = {
            "task": config.command,
            "data": str(data),
            "recall_at_1": result.shape_to_caption[1],
            "chance": result.shape_to_caption_chance[1],
            **describe_encoder(searched.encoder),
            "feature": kind,
            "centered": centered,
            "teacher": searched.encoder.teacher,
            **{name: value for name, value in vars(result).items() if name != "run"},
        }
        write_result(run, report)
    table = Table("recall, %", *(f"at {k}" for k in RECALL_AT))
    for name, values in (
        ("shape to caption", result.shape_to_caption),
        ("  chance", result.shape_to_caption_chance),
        ("caption to shape", result.caption_to_shape),
        ("  chance", result.caption_to_shape_chance),
    ):
        table.add_row(name, *(f"{values[k]:.1f}" for k in RECALL_AT))
    console.print(table)
    text = f"{result.shapes} shapes of the test split, {result.captions} captions; {run / 'result.json'}"
    say(console, text)
    return result


def recall(run: Path, cosine: NDArray[np.float32], own: NDArray[np.int64]) -> CaptionRecall:
    """From cosines [S, U] of shapes and captions, and the caption of each shape [S]."""
    S, U = cosine.shape
    mine = cosine[np.arange(S), own]
    to_caption = (cosine >= mine[:, None]).sum(1) - 1  # captions before one's own
    has = own[:, None] == np.arange(U)
    best = np.where(has, cosine, -np.inf).max(0)
    to_shape = ((cosine >= best) & ~has).sum(0)
    counts = has.sum(0).tolist()

    def at(ranks: NDArray) -> dict[int, float]:
        return {k: 100 * float((ranks < k).mean()) for k in RECALL_AT}

    def chance(k: int) -> float:
        return 100 * float(np.mean([1 - comb(S - m, min(k, S)) / comb(S, min(k, S)) for m in counts]))

    return CaptionRecall(
        run,
        S,
        U,
        shape_to_caption=at(to_caption),
        caption_to_shape=at(to_shape),
        shape_to_caption_chance={k: 100 * min(k, U) / U for k in RECALL_AT},
        caption_to_shape_chance={k: chance(k) for k in RECALL_AT},
    )
