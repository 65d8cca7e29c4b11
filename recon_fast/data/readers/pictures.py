"""Pictures of shapes, kept as the bytes of their files and decoded when asked for."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import BadFile, read_bytes

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


@contextmanager
def _opened(content: bytes, path: Path) -> Iterator[Any]:
    """The picture that a file holds; whatever fails is a BadFile that names `path`."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as image:
            yield image
    except UnidentifiedImageError as error:
        raise BadFile(path, f"must be a whole picture: not a {path.suffix} file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFile(path, f"must be a whole picture: {error}") from error


def decode_picture(content: bytes, path: Path) -> NDArray[np.uint8]:
    """RGB picture uint8 [H, W, 3], transparent parts over white; BadFile names `path`."""
    from PIL import Image

    with _opened(content, path) as image:
        if image.mode.startswith("I"):  # 16-bit grey, which convert would clip rather than scale
            grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, -1)
        if "A" in image.getbands() or "transparency" in image.info:
            white = Image.new("RGBA", image.size, "white")
            return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
        return np.asarray(image.convert("RGB"))


def check_picture(path: Path) -> None:
    """Raise BadFile unless the whole picture can be used; PNG by its own checksums, others by decoding."""
    with _opened(read_bytes(path), path) as image:
        if image.format == "PNG":
            image.verify()
        else:
            image.load()


class EncodedPictures(ABC):
    """Pictures as the bytes of their files, decoded when asked for."""

    @abstractmethod
    def content(self, index: int) -> bytes:
        """The bytes of the file of picture `index`, as they are."""

    @abstractmethod
    def file(self, index: int) -> Path:
        """The file to name in errors."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return decode_picture(self.content(index), self.file(index))

    def digest(self, index: int) -> bytes:
        return blake2b(self.content(index), digest_size=16).digest()


class FilePictures(EncodedPictures):
    """Pictures in files, read on demand."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def content(self, index: int) -> bytes:
        return read_bytes(self.paths[index])

    def file(self, index: int) -> Path:
        return self.paths[index]


class PackedPictures(EncodedPictures):
    """Picture files one after another in memory or mapped: picture i is [offsets[i], offsets[i + 1])."""

    def __init__(self, content: NDArray[np.uint8], offsets: NDArray[np.int64], packed: Path) -> None:
        self.bytes, self.offsets, self.packed = content, offsets, packed

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def content(self, index: int) -> bytes:
        return self.bytes[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def file(self, index: int) -> Path:
        return self.packed
