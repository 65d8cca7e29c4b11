"""Settings of the commands that write pages, tables and reports."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from recon_fast.config.check import Limits, Settings, at_least
from recon_fast.config.data import Kind, StatedUp
from recon_fast.config.model import SHIPPED
from recon_fast.errors import InputError


@dataclass(frozen=True)
class ShowConfig(Settings):
    """What `recon-fast show` draws, and where to.

    Attributes:
        checkpoint: procedural, the encoder that comes with the package; a run, a checkpoint or an official
            file.
        out: the page to write.
        png: folder for pictures of each cloud as PNG as well; null writes none.
        count: clouds taken from each data set that is named, spread over its held-out shapes.
        kind: how to read a folder, as `--data.kind` of pretrain.
        up: axis that points up in the data sets, which are turned to have y up; auto takes what they state.
        seed: of the masks.
        captions: a text file with one caption a line; the nearest to the text token are shown. null takes the
            captions of the data sets.
        device: where the model runs; auto takes the GPU if there is one.
    """

    limits: ClassVar[Limits] = at_least(1, "count")

    checkpoint: str = SHIPPED
    out: str = "show.html"
    png: str | None = None
    count: int = 8
    kind: Kind = "auto"
    up: StatedUp = "auto"
    seed: int = 0
    captions: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class ReportConfig(Settings):
    """What `recon-fast report` writes.

    Attributes:
        out: the page to write.
        follow: write the page again every so many seconds until all runs have ended, and let an open page
            reload itself; 0 writes it once.
        data: clouds for a map of embeddings by the newest checkpoint of the first run: a data set, or the
            word `procedural`; null draws none.
        kind: how to read a folder, as `--data.kind` of pretrain.
        up: axis that points up in the data, which is turned so that y is up; auto takes what it states.
        count: shapes on the map, at most.
        device: where the model runs; auto takes the GPU if there is one.
    """

    limits: ClassVar[Limits] = at_least(4, "count")

    out: str = "report.html"
    follow: float = 0
    data: str | None = None
    kind: Kind = "auto"
    up: StatedUp = "auto"
    count: int = 400
    device: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.follow < 1e6:
            raise InputError(f"follow must be a number of seconds, got {self.follow}")


@dataclass(frozen=True)
class InspectConfig(Settings):
    """What `recon-fast inspect` writes.

    Attributes:
        out: the page to write.
        kind: how to read a folder, as `--data.kind` of pretrain.
        array: name of the array of clouds in files of arrays, as `--data.array` of pretrain.
        thumbnails: shapes on the wall, at most, spread over the set.
        workers: threads that read files; null takes one per core.
    """

    limits: ClassVar[Limits] = at_least(0, "thumbnails") | at_least(1, "workers")

    out: str = "data.html"
    kind: Kind = "auto"
    array: str | None = None
    thumbnails: int = 240
    workers: int | None = None


@dataclass(frozen=True)
class TableConfig(Settings):
    """How `recon-fast table` writes.

    Attributes:
        format: of the table.
        published: the paper's numbers too.
        best: of runs that differ in the seed alone, the best, and of how many, in place of their mean.
    """

    format: Literal["markdown", "csv", "latex"] = "markdown"
    published: bool = True
    best: bool = False


@dataclass(frozen=True)
class DoctorConfig(Settings):
    """What `recon-fast doctor` looks at.

    Attributes:
        device: cpu, cuda, cuda:1, ...; cuda unless there is none.
    """

    device: str | None = None
