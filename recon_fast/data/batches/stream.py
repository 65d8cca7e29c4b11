"""The stream of batches: which shapes each step sees, and a thread that draws ahead of the device.

An epoch visits the shapes in the order of a keyed permutation (`recon_fast.data.batches.counter`), of which a
step computes its own places only. So the order of a million shapes is never in memory, and a process reads
its own rows and no others. Rows of mapped files are then read at random places, a cloud of 24 to 96 KB at
once. Disks without moving parts do that about as fast as in order, and the pages stay in the system's cache
as long as memory lasts; shuffling within windows of shards would save seeks, and pay with batches that are
not uniform.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from typing import Any

import torch
from torch import Tensor

from recon_fast.data.batches.counter import Stream, keys, permute
from recon_fast.data.batches.labelled import LabelledShapes
from recon_fast.data.batches.resident import Batch, ResidentShapes
from recon_fast.data.loading import in_order
from recon_fast.distributed import rank, world_size

VERSION = 2  # of what is drawn: with another one a run could not continue as it began
_WINDOW = 8  # micro-batches that are drawn together


def epoch_rows(seed: int, epoch: Tensor, places: Tensor, count: int) -> Tensor:
    """The shapes at some places [W, n] of the orders of epochs [W], of `count` shapes: [W, n]; all int64."""
    return permute(places, count, keys(seed, epoch, Stream.ORDER, torch.zeros_like(epoch)), rounds=16)


class BatchStream(Iterator[Batch], AbstractContextManager["BatchStream"]):
    """This process's part of each micro-batch from step `start` on: iterate, and close when done.

    The parts of all processes, in order of their ranks, are what one process would get, whatever `accumulate`
    is. Each epoch has a new order, whose last shapes are dropped if they fill no batch.

    Args:
        shapes: drawn from; all numbers are a function of the seed in `how`, step and shape.
        how: how, with the seed.
        batch_size: of a step, over all processes and micro-batches; a multiple of their number.
        accumulate: micro-batches of a step.
        start, stop: steps.
        of_epoch: gives the shapes of an epoch, as many as `shapes`, for sets that change, and is asked for
            each window; None keeps these.
    """

    def __init__(
        self,
        shapes: ResidentShapes | LabelledShapes,
        how: Any,
        batch_size: int,
        accumulate: int,
        start: int,
        stop: int,
        of_epoch: Callable[[int], ResidentShapes] | None = None,
    ) -> None:
        self.shapes, self.how, self.of_epoch = shapes, how, of_epoch
        self.in_epoch = len(shapes) // batch_size  # steps
        self.batch_size, self.accumulate = batch_size, accumulate
        self.micros = range(start * accumulate, stop * accumulate)
        self.part = (rank(), world_size())
        self.together = shapes.together
        self.batches = self._batches()

    def rows(self, micros: Tensor) -> Tensor:
        """This process's shapes in micro-batches [W], counted over all steps: [W, n], int64, on the CPU."""
        number, processes = self.part
        size = self.batch_size // (self.accumulate * processes)
        step, micro = micros // self.accumulate, micros % self.accumulate
        first = step % self.in_epoch * self.batch_size + (micro * processes + number) * size
        places = first[:, None] + torch.arange(size)
        return epoch_rows(self.how.seed, step // self.in_epoch, places, len(self.shapes))

    def _windows(self) -> Iterator[range]:
        """Micro-batches that are drawn together, all of one epoch."""
        size, in_epoch = _WINDOW if self.together else 1, self.in_epoch * self.accumulate
        first = self.micros.start
        while first < self.micros.stop:
            window = range(first, min(first + size, self.micros.stop, (first // in_epoch + 1) * in_epoch))
            yield window
            first = window.stop

    def _draw(self, micros: range) -> list[Any]:
        shapes = self.shapes
        if self.of_epoch is not None:
            shapes = self.of_epoch(micros[0] // self.accumulate // self.in_epoch)
        rows = self.rows(torch.tensor(micros))
        steps = (torch.tensor(micros) // self.accumulate)[:, None].expand_as(rows)
        drawn: Any = shapes.draw(rows.flatten(), steps.flatten(), self.how)
        return list(drawn.split(rows.shape[1])) if self.together else [drawn]

    def _batches(self) -> Generator[Batch, None, None]:
        with closing(in_order(self._draw, self._windows(), int(self.shapes.ahead))) as found:
            for window in found:
                for drawn in window:
                    yield self.shapes.finish(drawn, self.how)

    def __next__(self) -> Batch:
        return next(self.batches)

    def close(self) -> None:
        """Stop drawing ahead."""
        self.batches.close()

    def __exit__(self, *_: object) -> None:
        self.close()
