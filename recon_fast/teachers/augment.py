"""Views of a picture: the official augmentation, as a pure function of the picture and a seed.

The official order is resize 256, horizontal flip, random resized crop (area 0.64 to 1) to 224, RandAugment
(n = 2, m = 10 of 30). Here the crop is taken from the picture itself, which spares one resampling. Whoever
changes what a view looks like raises the number of views in `store._image_key`.
"""

import math
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode, RandAugment
from torchvision.transforms.autoaugment import _apply_op

_RESIZE = 256 / 224  # side before the crop over side after it
_AREA = (0.64, 1.0)
_LOG_RATIO = math.log(4 / 3)
_LEVEL, _LEVELS = 10, 31  # RandAugment's magnitude, and how many there are


def view(
    picture: NDArray[np.uint8], size: int, index: int, digest: bytes, seed: int, bicubic: bool = False
) -> NDArray[np.uint8]:
    """View `index` of a picture. Threads may call it at once: it uses no global random numbers.

    Args:
        picture: uint8 [H, W, 3], RGB.
        size: side of the view in pixels.
        index: 0 is the plain view (resized, centre crop), others are augmented.
        digest: the picture's content, which with index and seed decides the augmentation.
        seed: changes every augmented view.
        bicubic: resample with bicubic (CLIP's preprocessing) rather than bilinear.

    Returns:
        uint8 [size, size, 3], RGB.
    """
    image = Image.fromarray(picture)
    resample = Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR
    if index == 0:
        box = _square(image.width, image.height, min(image.size) / _RESIZE)
        return np.asarray(image.resize((size, size), resample, box=box))
    key = blake2b(digest + f"/{index}/{seed}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    flip = rng.random() < 0.5
    image = image.resize((size, size), resample, box=_crop(image.width, image.height, rng))
    if flip:
        image = ImageOps.mirror(image)
    # As torchvision's RandAugment, whose random numbers are torch's global ones.
    operations = _operations(size)
    for i in rng.integers(len(operations), size=2):
        name, magnitude, signed = operations[i]
        sign = -1 if signed and rng.random() < 0.5 else 1
        image = _apply_op(image, name, sign * magnitude, InterpolationMode.NEAREST, None)
    return np.asarray(image)


@lru_cache
def _operations(size: int) -> list[tuple[str, float, bool]]:
    """Name, magnitude and whether it has a sign of RandAugment's operations on pictures of this side."""
    space = RandAugment()._augmentation_space(_LEVELS, (size, size))
    return [(name, float(m[_LEVEL]) if m.ndim else 0.0, signed) for name, (m, signed) in space.items()]


def _square(width: int, height: int, side: float) -> tuple[float, float, float, float]:
    """Box of the square in the middle."""
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _crop(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Box of a random resized crop: area share in _AREA, aspect ratio from 3/4 to 4/3."""
    for _ in range(10):
        area = width * height * rng.uniform(*_AREA)
        ratio = math.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    return _square(width, height, min(width, height))
