"""What a layout of a folder is to those who choose among them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recon_fast.data.shapes import Source


@dataclass(frozen=True)
class Layout:
    """One way to lay out a data set in a folder."""

    fits: Callable[[Path], bool]  # is it this one? Quick, and true for one that lacks some of its files
    read: Callable[[Path], Source]  # its shapes, or InputError
