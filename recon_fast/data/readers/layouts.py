"""The official layouts of folders by the name of their kind, in the order in which they are looked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from recon_fast.data.readers.few_shot import is_few_shot, list_few_shot
from recon_fast.data.readers.modelnet import is_modelnet, list_modelnet
from recon_fast.data.readers.scanobjectnn import VARIANTS, is_scanobjectnn, list_scanobjectnn
from recon_fast.data.readers.shapenet import is_shapenet, list_shapenet
from recon_fast.data.readers.shapenet_part import is_shapenet_part, list_shapenet_part
from recon_fast.data.shapes import Source


@dataclass(frozen=True)
class Layout:
    """One way to lay out a data set in a folder."""

    fits: Callable[[Path], bool]  # is it this one? Quick, and true for one that lacks some of its files
    read: Callable[[Path], Source]  # its shapes, or InputError


LAYOUTS = {
    "shapenet": Layout(is_shapenet, list_shapenet),
    "shapenetpart": Layout(is_shapenet_part, list_shapenet_part),
    "modelnet40": Layout(partial(is_modelnet, classes=40), partial(list_modelnet, classes=40)),
    "modelnet10": Layout(partial(is_modelnet, classes=10), partial(list_modelnet, classes=10)),
    "scanobjectnn": Layout(is_scanobjectnn, list_scanobjectnn),
    # A variant is chosen by its name alone.
    **{name: Layout(lambda path: False, partial(list_scanobjectnn, variant=name)) for name in VARIANTS},
    "fewshot": Layout(is_few_shot, list_few_shot),
}
