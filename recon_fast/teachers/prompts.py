"""ReCon's prompts: 20 prefixes and 3 suffixes around a caption."""

_KINDS = (
    "model", "image", "3D model", "rendering model", "point cloud", "point cloud model", "3D rendering model",
    "rendering image", "3D rendering image",
)  # fmt: skip
PREFIXES = ("", "A ", *(f"A {kind} of {article}" for kind in _KINDS for article in ("", "a ")))
SUFFIXES = (".", " with white background.", " with black context.")
COUNT = len(PREFIXES) * len(SUFFIXES)  # 60
_STRIDE = 37  # coprime with 60, 1 modulo 3: the first picks take the suffixes in turn and prefixes far apart


def prompts(caption: str, count: int = COUNT) -> list[str]:
    """`count` of the 60 prompts of a caption, always the same ones: 1 is the caption with a full stop."""
    if not 1 <= count <= COUNT:
        raise ValueError(f"count must be from 1 to {COUNT}, got {count}")
    chosen = sorted(i * _STRIDE % COUNT for i in range(count))
    return [PREFIXES[i // len(SUFFIXES)] + caption + SUFFIXES[i % len(SUFFIXES)] for i in chosen]
