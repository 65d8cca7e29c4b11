"""Views of a picture: the official augmentation, as a pure function of the picture and a seed.

The official order is resize 256, horizontal flip, random resized crop (area 0.64 to 1) to 224, RandAugment
(n = 2, m = 10 of 30). Here the crop is taken from the picture itself, which spares one resampling.
"""

import math
from collections.abc import Callable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

VERSION = 1  # part of the store's key: raise it when a view of the same picture changes
_RESIZE = 256 / 224  # side before the crop over side after it
_AREA = (0.64, 1.0)
_LOG_RATIO = math.log(4 / 3)
_LEVEL = 10 / 30  # RandAugment's magnitude
_Op = Callable[[Image.Image, float], Image.Image]  # (picture, sign)


def view(
    picture: NDArray[np.uint8], size: int, index: int, digest: bytes, seed: int, bicubic: bool = False
) -> NDArray[np.uint8]:
    """View `index` of a picture.

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
        side = min(image.size) / _RESIZE
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        return np.asarray(image.resize((size, size), resample, box=box))
    key = blake2b(digest + f"/{index}/{seed}".encode(), digest_size=16).digest()
    rng = np.random.default_rng(int.from_bytes(key, "little"))
    flip = rng.random() < 0.5
    image = image.resize((size, size), resample, box=_crop(image.width, image.height, rng))
    if flip:
        image = ImageOps.mirror(image)
    for op in rng.integers(len(_OPS), size=2):
        image = _OPS[op](image, -1.0 if rng.random() < 0.5 else 1.0)
    return np.asarray(image)


def _crop(width: int, height: int, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Box of a random resized crop: area share in _AREA, aspect ratio from 3/4 to 4/3."""
    for _ in range(10):
        area = width * height * rng.uniform(*_AREA)
        ratio = math.exp(rng.uniform(-_LOG_RATIO, _LOG_RATIO))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def _affine(image: Image.Image, a: float, b: float, c: float, d: float, e: float, f: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, (a, b, c, d, e, f))


def _enhance(
    kind: Callable[[Image.Image], ImageEnhance._Enhance],
) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, sign: kind(image).enhance(1 + sign * 0.9 * _LEVEL)


# torchvision's op space for RandAugment at this magnitude; what a geometric op uncovers is black, as there
_OPS: tuple[_Op, ...] = (
    lambda image, sign: image,
    lambda image, sign: _affine(image, 1, sign * 0.3 * _LEVEL, 0, 0, 1, 0),
    lambda image, sign: _affine(image, 1, 0, 0, sign * 0.3 * _LEVEL, 1, 0),
    lambda image, sign: _affine(image, 1, 0, sign * 150 / 331 * image.width * _LEVEL, 0, 1, 0),
    lambda image, sign: _affine(image, 1, 0, 0, 0, 1, sign * 150 / 331 * image.height * _LEVEL),
    lambda image, sign: image.rotate(sign * 30 * _LEVEL),
    _enhance(ImageEnhance.Brightness),
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Sharpness),
    lambda image, sign: ImageOps.posterize(image, 8 - round(4 * _LEVEL)),
    lambda image, sign: ImageOps.solarize(image, round(255 * (1 - _LEVEL))),
    lambda image, sign: ImageOps.autocontrast(image),
    lambda image, sign: ImageOps.equalize(image),
)
