"""The stream of batches: which shapes each step sees, and a thread that draws ahead of the device.

An epoch visits the shapes in the order of a keyed permutation (`recon_fast.data.batches.counter`), of which a
step computes its own places only. So the order of a million shapes is never in memory, and a process reads
its own rows and no others. Rows of mapped files are then read at random places, a cloud of 24 to 96 KB at
once. Disks without moving parts do that about as fast as in order, and the pages stay in the system's cache
as long as memory lasts; shuffling within windows of shards would save seeks, and pay with batches that are
not uniform.
"""

import queue
import threading
from collections.abc import Iterator
from types import TracebackType

import torch
from torch import Tensor

from recon_fast.data.batches.counter import Stream, keys, permute
from recon_fast.data.batches.resident import Batch, Draw, Drawn, ResidentShapes
from recon_fast.distributed import rank, world_size

VERSION = 2  # of what is drawn: with another one a run could not continue as it began
_AHEAD = 2  # batches drawn before they are wanted
_WINDOW = 8  # micro-batches whose rows are found together


def epoch_rows(seed: int, epoch: Tensor, places: Tensor, count: int) -> Tensor:
    """The shapes at some places [W, n] of the orders of epochs [W], of `count` shapes: [W, n]; all int64."""
    return permute(places, count, keys(seed, epoch, Stream.ORDER, torch.zeros_like(epoch)), rounds=16)


class BatchStream:
    """This process's part of each micro-batch from step `start` on: iterate, and close when done.

    The parts of all processes, in order of their ranks, are what one process would get, whatever `accumulate`
    is. What does not lie on the device is drawn by a thread, at most two batches ahead.

    Args:
        shapes: drawn from.
        how: how.
        batch_size: of a step, over all processes and micro-batches; a multiple of their number.
        accumulate: micro-batches of a step.
        start, stop: steps.
    """

    def __init__(
        self, shapes: ResidentShapes, how: Draw, batch_size: int, accumulate: int, start: int, stop: int
    ) -> None:
        self.shapes, self.how = shapes, how
        self.batch_size, self.accumulate = batch_size, accumulate
        self.micros = range(start * accumulate, stop * accumulate)
        self.part = (rank(), world_size())
        # On a GPU small kernels cost as much as large ones; on a CPU batches fit into its cache one by one.
        self.together = shapes.store.type == "cuda"
        self.thread: threading.Thread | None = None
        self.source = self._drawn()
        if shapes.placement != "device":
            self.ahead: queue.Queue[Drawn | BaseException | None] = queue.Queue(_AHEAD)
            self.closing = threading.Event()
            self.thread = threading.Thread(target=self._fill, name="draws batches", daemon=True)
            self.thread.start()

    def rows(self, micros: Tensor) -> Tensor:
        """This process's shapes in micro-batches [W], counted over all steps: [W, n], int64, on the CPU."""
        number, processes = self.part
        size = self.batch_size // (self.accumulate * processes)
        step, micro = micros // self.accumulate, micros % self.accumulate
        in_epoch = len(self.shapes) // self.batch_size
        first = step % in_epoch * self.batch_size + (micro * processes + number) * size
        places = first[:, None] + torch.arange(size)
        return epoch_rows(self.how.seed, step // in_epoch, places, len(self.shapes))

    def _drawn(self) -> Iterator[Drawn]:
        for start in range(0, len(self.micros), _WINDOW):
            micros = torch.tensor(self.micros[start : start + _WINDOW])
            rows = self.rows(micros)
            steps = (micros // self.accumulate)[:, None].expand_as(rows)
            if self.together:
                drawn = self.shapes.draw(rows.flatten(), steps.flatten(), self.how)
                yield from drawn.split(rows.shape[1])
            else:
                for row, step in zip(rows, steps, strict=True):
                    yield self.shapes.draw(row, step, self.how)

    def _fill(self) -> None:
        last: BaseException | None = None
        try:
            for drawn in self._drawn():
                if not self._put(drawn):
                    return
        except BaseException as error:  # raised again where the batch is wanted
            last = error
        self._put(last)

    def _put(self, item: Drawn | BaseException | None) -> bool:
        while not self.closing.is_set():
            try:
                self.ahead.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if self.thread is None:
            return self.shapes.finish(next(self.source), self.how)
        item = self.ahead.get()
        if isinstance(item, Drawn):
            return self.shapes.finish(item, self.how)
        self.thread.join()  # it has ended: an interpreter that ends meanwhile would abort
        self.ahead.put(item)  # for whoever asks again
        raise StopIteration if item is None else item

    def close(self) -> None:
        """Stop drawing ahead."""
        if self.thread is not None:
            self.closing.set()
            self.thread.join()

    def __enter__(self) -> "BatchStream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
