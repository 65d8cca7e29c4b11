"""The official ShapeNet55 layout, as ReCon, Point-MAE and Point-BERT read it.

ShapeNet-55/train.txt, test.txt   names of clouds, <synset>-<id>.npy; the test list is held out
shapenet_pc/<synset>-<id>.npy     clouds [8192, 3]
shapenet_img/<synset>-<id>.png    one picture each (optional)
shapenet55.json                   rows {"catalogue": synset as a number, "describe": caption} (optional)
"""

from pathlib import Path
from typing import TypedDict

from recon_fast.data.shapes import Entry, Problem, Source
from recon_fast.errors import InputError
from recon_fast.files import names_in, read_lines
from recon_fast.schema import read_json

CLASS_NAMES = {
    "02691156": "airplane", "02747177": "trash bin", "02773838": "bag", "02801938": "basket",
    "02808440": "bathtub", "02818832": "bed", "02828884": "bench", "02843684": "birdhouse",
    "02871439": "bookshelf", "02876657": "bottle", "02880940": "bowl", "02924116": "bus",
    "02933112": "cabinet", "02942699": "camera", "02946921": "can", "02954340": "cap", "02958343": "car",
    "02992529": "cellphone", "03001627": "chair", "03046257": "clock", "03085013": "keyboard",
    "03207941": "dishwasher", "03211117": "display", "03261776": "earphone", "03325088": "faucet",
    "03337140": "file cabinet", "03467517": "guitar", "03513137": "helmet", "03593526": "jar",
    "03624134": "knife", "03636649": "lamp", "03642806": "laptop", "03691459": "loudspeaker",
    "03710193": "mailbox", "03759954": "microphone", "03761084": "microwave", "03790512": "motorbike",
    "03797390": "mug", "03928116": "piano", "03938244": "pillow", "03948459": "pistol",
    "03991062": "flowerpot", "04004475": "printer", "04074963": "remote control", "04090263": "rifle",
    "04099429": "rocket", "04225987": "skateboard", "04256520": "sofa", "04330267": "stove",
    "04379243": "table", "04401088": "telephone", "04460130": "tower", "04468005": "train",
    "04530566": "watercraft", "04554684": "washer",
}  # fmt: skip


def is_shapenet(path: Path) -> bool:
    """Is there the folder of ShapeNet55's lists? What else is missing is then said by `list_shapenet`."""
    return (path / "ShapeNet-55").is_dir()


def list_shapenet(path: Path) -> Source:
    """Entries of both lists, without reading a cloud or picture.

    A shape without its cloud, picture or caption is a problem; where no shape has a picture (or caption),
    there are simply none.

    Raises:
        InputError: the lists, the folder of clouds or the captions' file cannot be used as a whole.
    """
    clouds = names_in(path / "shapenet_pc")
    if clouds is None:
        raise InputError(f"ShapeNet55 must have a folder shapenet_pc, got none in {path}")
    pictures = names_in(path / "shapenet_img") or set()
    captions = _read_captions(path / "shapenet55.json")

    problems: list[Problem] = []
    listed: dict[str, bool] = {}  # key -> held out
    for split in ("train", "test"):
        file = path / "ShapeNet-55" / f"{split}.txt"
        for name in read_lines(file):
            key = name.removesuffix(".npy")
            if key in listed:
                problems.append(Problem(key, file, "must be listed once, in one list; found again"))
            listed[key] = split == "test"
    if not listed:
        raise InputError(f"ShapeNet55 must list clouds in its train.txt and test.txt, got none in {path}")

    synsets = sorted({key.partition("-")[0] for key in listed})
    label = {synset: i for i, synset in enumerate(synsets)}
    with_pictures = any(f"{key}.png" in pictures for key in listed)
    with_captions = any(captions.get(synset) for synset in synsets)
    entries = []
    for key, held_out in listed.items():
        synset = key.partition("-")[0]
        cloud, picture = path / "shapenet_pc" / f"{key}.npy", path / "shapenet_img" / f"{key}.png"
        if with_pictures and picture.name not in pictures:
            problems.append(Problem(key, picture, "must be the shape's picture, got no such file"))
        if with_captions and not captions.get(synset):
            what = f"must describe catalogue {synset}, got nothing for it"
            problems.append(Problem(key, path / "shapenet55.json", what))
        if cloud.name not in clouds:
            problems.append(Problem(key, cloud, "must be the shape's cloud, got no such file"))
            continue
        entries.append(
            Entry(
                key,
                cloud,
                picture=picture if picture.name in pictures else None,
                caption=captions.get(synset) or None,
                label=label[synset],
                held_out=held_out,
            )
        )
    names = [CLASS_NAMES.get(synset) or captions.get(synset) or synset for synset in synsets]
    notes = []
    if unlisted := [
        name for name in clouds if name.endswith(".npy") and name.removesuffix(".npy") not in listed
    ]:
        notes.append(
            f"not used: {len(unlisted)} clouds of shapenet_pc in neither list, such as {min(unlisted)}"
        )
    return Source(path.name, path, entries, names, problems, up="y", notes=notes)


class _Row(TypedDict):
    catalogue: int | str
    describe: str


def _read_captions(file: Path) -> dict[str, str]:
    """Caption by synset of 8 digits; the file's numbers have lost their leading zero."""
    if not file.exists():
        return {}
    rows = read_json(file, list[_Row], 'a list of {"catalogue", "describe"}')
    try:
        return {f"{int(row['catalogue']):08d}": row["describe"].strip() for row in rows}
    except ValueError as error:
        raise InputError(f"{file} must name catalogues by synset, a number: {error}") from error
