"""Run a compiled kernel on as many threads as torch uses, or on torch's own.

A kernel is `kernel(counter, items, *arguments)`, compiled with `nogil=True`: it loops over
`taken(counter.ctypes.data, items)`. The calling thread works too. Plain threads instead of numba's `prange`:
they may be entered from any thread and after a fork (numba's OpenMP layer kills a forked child, its workqueue
layer a second caller), start as fast (15 us; 0.50 against 0.55 ms for 32 clouds of FPS), and stay fast where
other processes hold a core (0.7 against 16 ms, the latter waiting at OpenMP's barriers).
"""

import atexit
import ctypes
import itertools
import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor

from recon_fast.kernels.cpu.simd import next_item

log = logging.getLogger(__name__)


def _cached(**options: Any) -> Callable[[Callable], Any]:
    """numba.njit with a cache that any change of a file in this folder renders stale.

    numba looks at the file of a function alone, but what it uses of other files is compiled into it.
    """

    def decorate(function: Callable) -> Any:
        kernel = njit(nogil=True, cache=True, error_model="numpy", **options)(function)
        kernel._cache._cache_file._source_stamp = _stamp
        return kernel

    return decorate


_stats = {path.name: path.stat() for path in Path(__file__).parent.glob("*.py")}
_stamp = tuple((name, stat.st_mtime, stat.st_size) for name, stat in sorted(_stats.items()))
# No fast-math flag, no fused multiply and add: results equal the reference bit for bit.
compiled = _cached()
# Sums in any order, fused: for attention, which is compared within a tolerance.
compiled_loose = _cached(fastmath={"reassoc", "contract", "nsz"})

_PATIENCE = 1.0  # seconds of compiling before a message says so
_tasks: queue.SimpleQueue = queue.SimpleQueue()
_threads: list[threading.Thread] = []
_ready: set[tuple] = set()
_lock = threading.Lock()
_sharing = threading.local()  # `parallel`: what starts torch's threads, where a thread uses them
_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@njit(nogil=True)  # not cached: numba does not find a generator again that comes from its cache
def taken(address, items):
    """The items a thread gets: each number below `items` goes to one of those that share a counter, of which
    they get the address: numba never frees an array that a generator was given.
    """
    while True:
        item = next_item(address)
        if item >= items:
            return
        yield item


def run(kernel: Callable, items: int, *arguments: Any, threads: int | None = None) -> None:
    """Call `kernel` on its own threads until `items` items are done; `threads` at most (default: torch's)."""
    _compile_once(kernel, arguments)
    counter = np.zeros(1, np.int64)
    helpers = min(items, threads or items, torch.get_num_threads()) - 1
    if helpers <= 0:
        kernel(counter, items, *arguments)
        return
    parallel = getattr(_sharing, "parallel", None)
    if parallel is not None:
        _run_on_torch_threads(parallel, kernel, (counter, items, *arguments))
        return
    _start(helpers)
    tickets = [None] * helpers
    finished: queue.SimpleQueue = queue.SimpleQueue()
    for _ in range(helpers):
        _tasks.put((tickets, finished, kernel, (counter, items, *arguments)))
    kernel(counter, items, *arguments)
    working = helpers
    while tickets:  # a helper that has not begun by now is not waited for
        try:
            tickets.pop()
            working -= 1
        except IndexError:
            break
    for _ in range(working):
        error = finished.get()
        if error is not None:
            raise error


@contextmanager
def torch_threads() -> Iterator[bool]:
    """See `recon_fast.kernels.torch_threads`.

    Gradients of `linear_max` took 4.9 ms after a matrix product on threads of our own, no less than on one,
    and take 2.2 on torch's.
    """
    sharing = _sharing
    before = getattr(sharing, "parallel", None)
    sharing.parallel = _parallel_of_torch()
    try:
        yield sharing.parallel is not None
    finally:
        sharing.parallel = before


@cache
def _parallel_of_torch() -> Callable | None:
    """GOMP_parallel of the OpenMP that torch is linked with; LLVM's and Intel's have it as well."""
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so"))
        function = library.GOMP_parallel
    except (OSError, AttributeError):
        return None
    function.argtypes = [_WORK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    function.restype = None
    return function


def _run_on_torch_threads(parallel: Callable, kernel: Callable, arguments: tuple) -> None:
    errors: list[BaseException] = []

    @_WORK
    def work(_: int) -> None:
        try:
            kernel(*arguments)
        except BaseException as error:
            errors.append(error)

    # Always as many as torch takes: a team of another size would be made anew.
    parallel(work, None, torch.get_num_threads(), 0)
    if errors:
        raise errors[0]


def _work() -> None:
    while True:
        task = _tasks.get()
        if task is None:
            return
        tickets, finished, kernel, arguments = task
        try:
            tickets.pop()
        except IndexError:
            continue
        try:
            kernel(*arguments)
            finished.put(None)
        except BaseException as error:
            finished.put(error)
        del task, tickets, finished, kernel, arguments


def _start(helpers: int) -> None:
    if len(_threads) >= helpers:
        return
    with _lock:
        while len(_threads) < helpers:
            name = f"recon_fast-{len(_threads)}"
            _threads.append(threading.Thread(target=_work, daemon=True, name=name))
            _threads[-1].start()


def _compile_once(kernel: Callable, arguments: tuple) -> None:
    key = (kernel, *[a.dtype.char for a in arguments if isinstance(a, np.ndarray)])
    if key in _ready:
        return
    name = getattr(kernel, "__name__", "kernel").strip("_")
    message = f"compiling the CPU kernel {name} (a few seconds, once per machine)"
    timer = threading.Timer(_PATIENCE, log.warning, (message,))
    timer.daemon = True
    timer.start()
    try:
        kernel(np.zeros(1, np.int64), 0, *arguments)
    finally:
        timer.cancel()
    _ready.add(key)


def _forget_threads() -> None:
    """A forked child has none of its parent's threads, nor of torch's."""
    global _tasks, _lock, _sharing
    _tasks, _lock = queue.SimpleQueue(), threading.Lock()
    _threads.clear()
    _sharing = threading.local()


@atexit.register
def _stop() -> None:
    """A thread that still frees a tensor when the interpreter is gone ends the process with SIGABRT."""
    for _ in _threads:
        _tasks.put(None)
    for thread in _threads:
        thread.join()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def as_float32(values: Tensor) -> np.ndarray:
    """A contiguous float32 array of any floating point tensor; a view where it is one already."""
    return values.detach().to(torch.float32).contiguous().numpy()


def as_lengths(lengths: Tensor | None, batch: int, size: int) -> np.ndarray:
    """Valid points per cloud [B], int64."""
    if lengths is None:
        return np.full(batch, size, np.int64)
    return lengths.to(torch.int64).contiguous().numpy()


def empty(shapes: Sequence[Sequence[int]], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Uninitialised tensors, large ones in one piece of numpy's memory.

    The C allocator hands two equal pieces back to the system as soon as both are free, one piece it keeps (up
    to 32 MiB), and for more numpy asks for huge pages, torch does not. Fresh pages are what costs here: to
    write 100 MB for the first time took 36 ms, 6 in huge pages, 3 the second time.
    """
    sizes = [math.prod(shape) * dtype.itemsize for shape in shapes]
    if max(sizes) < 1 << 17:
        return [torch.empty(tuple(shape), dtype=dtype) for shape in shapes]
    starts = list(itertools.accumulate((-(-size // 64) * 64 for size in sizes), initial=0))
    memory = np.empty(starts[-1], np.uint8)
    pieces = [torch.from_numpy(memory[s : s + size]) for s, size in zip(starts, sizes, strict=False)]
    return [piece.view(dtype).view(*shape) for piece, shape in zip(pieces, shapes, strict=True)]
