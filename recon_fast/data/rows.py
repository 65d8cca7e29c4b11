"""Arrays of rows that may lie in several files, to be read when they are touched. Needs numpy alone."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Joined:
    """Arrays [n_i, ...] one after another as if they were one, without a copy.

    Args:
        parts: at least one; alike in dtype and in all dimensions but the first.
        turn: columns (a, b) of points that become (-b, a) when rows are read; see `turned`.
    """

    def __init__(self, parts: "Sequence[NDArray | Joined]", turn: tuple[int, int] | None = None) -> None:
        self.parts, self.turn = list(parts), turn
        self.ends: list[int] = np.cumsum([len(part) for part in parts]).tolist()
        self.dtype: np.dtype[Any] = parts[0].dtype
        self.shape: tuple[int, ...] = (self.ends[-1], *parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray:
        """Rows [start, stop) with step 1: a view where they lie in one part as they are, else a copy."""
        start, stop, _ = rows.indices(len(self))
        found = []
        at = bisect_right(self.ends, start)
        while start < stop:
            first = self.ends[at] - len(self.parts[at])
            end = min(stop, self.ends[at])
            found.append(self.parts[at][start - first : end - first])
            start, at = end, at + 1
        if not found:
            return self.parts[0][:0]
        block = found[0] if len(found) == 1 else np.concatenate(found)
        return block if self.turn is None else turned(block, *self.turn)

    def flat(self) -> "Joined":
        """The last dimension kept, all others made one."""
        return Joined([flat(part) for part in self.parts], self.turn)


def turned(points: NDArray, a: int, b: int) -> NDArray:
    """A copy of points [N, 3] turned by 90 degrees so that axis `a` points where `b` did."""
    copy = points.copy()
    copy[:, b] = points[:, a]
    copy[:, a] = -points[:, b]
    return copy


Rows = NDArray[Any] | Joined  # np.memmap is an NDArray


def flat(rows: Rows) -> Rows:
    """[..., D] as [T, D]."""
    return rows.flat() if isinstance(rows, Joined) else rows.reshape(-1, rows.shape[-1])


def is_mapped(rows: Rows) -> bool:
    """Whether rows lie in files, to be read when they are touched."""
    return isinstance(rows, Joined | np.memmap)


def blocks(rows: Rows, size: int = 4096) -> Iterator[NDArray]:
    """All rows in order, at most `size` at a time."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def gathered(items: Rows, starts: NDArray, sizes: NDArray) -> tuple[NDArray, NDArray]:
    """The rows' items alone, in memory one row after another, and where each row starts."""
    ends = np.cumsum(sizes)
    copy = np.empty((int(ends[-1]) if len(ends) else 0, items.shape[-1]), items.dtype)
    for start, size, end in zip(starts.tolist(), sizes.tolist(), ends.tolist(), strict=True):
        copy[end - size : end] = items[start : start + size]
    return copy, ends - sizes
