"""Pictures of shapes, kept as the bytes of their files and decoded when asked for."""

import io
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import BadFile

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def read_picture_bytes(path: Path) -> bytes:
    """The bytes of a picture's file, or BadFile."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadFile(path, f"cannot be read: {error.strerror or error}") from error


def decode_picture(content: bytes, path: Path) -> NDArray[np.uint8]:
    """RGB picture uint8 [H, W, 3], transparent parts over white; BadFile names `path`."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.mode.startswith("I"):  # 16-bit grey, which convert would clip rather than scale
                grey = (np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8)
                return np.repeat(grey[..., None], 3, -1)
            if "A" in image.getbands() or "transparency" in image.info:
                white = Image.new("RGBA", image.size, "white")
                return np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
            return np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFile(path, f"must be a whole picture: {_reason(error, path)}") from error


def check_picture(path: Path) -> None:
    """Raise BadFile unless the whole picture can be used; PNG by its own checksums, others by decoding."""
    from PIL import Image

    content = read_picture_bytes(path)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format == "PNG":
                image.verify()
            else:
                image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BadFile(path, f"must be a whole picture: {_reason(error, path)}") from error


def _reason(error: Exception, path: Path) -> str:
    from PIL import UnidentifiedImageError

    return f"not a {path.suffix} file" if isinstance(error, UnidentifiedImageError) else str(error)


class FilePictures:
    """Pictures in files, read on demand."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return decode_picture(self.content(index), self.paths[index])

    def content(self, index: int) -> bytes:
        """The file's bytes as they are."""
        return read_picture_bytes(self.paths[index])

    def digest(self, index: int) -> bytes:
        return blake2b(self.content(index), digest_size=16).digest()


class PackedPictures:
    """The bytes of picture files, one after another in memory: picture i is [offsets[i], offsets[i + 1])."""

    def __init__(self, content: NDArray[np.uint8], offsets: NDArray[np.int64], file: Path) -> None:
        self.bytes = content
        self.offsets = offsets
        self.file = file  # for errors

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        return decode_picture(self.content(index), self.file)

    def content(self, index: int) -> bytes:
        """The bytes of the file it was packed from."""
        return self.bytes[self.offsets[index] : self.offsets[index + 1]].tobytes()

    def digest(self, index: int) -> bytes:
        return blake2b(self.content(index), digest_size=16).digest()
