"""The official layouts of folders by the name of their kind, in the order in which they are looked for."""

from functools import partial

from recon_fast.data.few_shot import is_few_shot, list_few_shot
from recon_fast.data.layout import Layout
from recon_fast.data.modelnet import MODELNET
from recon_fast.data.scanobjectnn import VARIANTS, is_scanobjectnn, list_scanobjectnn
from recon_fast.data.shapenet import is_shapenet, list_shapenet
from recon_fast.data.shapenet_part import is_shapenet_part, list_shapenet_part

LAYOUTS = {
    "shapenet": Layout(is_shapenet, list_shapenet),
    "shapenetpart": Layout(is_shapenet_part, list_shapenet_part),
    **MODELNET,
    "scanobjectnn": Layout(is_scanobjectnn, list_scanobjectnn),
    # A variant is chosen by its name alone.
    **{name: Layout(lambda path: False, partial(list_scanobjectnn, variant=name)) for name in VARIANTS},
    "fewshot": Layout(is_few_shot, list_few_shot),
}
