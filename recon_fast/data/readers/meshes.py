"""Meshes, scenes and clouds that trimesh reads: .ply, .off, .obj, .stl, .glb and .gltf.

A file never makes another one be read, but for the geometry (.bin) that a .gltf names in its own folder.
Textures and materials are left alone.
"""

import io
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from recon_fast.data.shapes import BadFile, read_bytes

_SCENES = (".glb", ".gltf")
_LOOKS = ("KHR_materials_", "KHR_texture_", "KHR_lights_", "EXT_texture_")  # extensions that change no shape


def read_mesh(path: Path, num_points: int, seed: int) -> tuple[NDArray, bool]:
    """Points drawn uniformly on the surfaces of a file, or its vertices where it has no faces.

    All meshes of a scene count, each where its transforms put it.

    Returns:
        float64 [num_points, 3], or the vertices [N, 3]; and whether the file has more of each vertex.

    Raises:
        BadFile: it cannot be read, or its header announces more than is there.
    """
    import trimesh

    trimesh.util.log.setLevel("CRITICAL")  # it logs tracebacks about files that raise as well
    content, suffix = read_bytes(path), path.suffix.lower()
    if suffix in (".off", ".obj"):  # a comment or a name in an old encoding is nothing to a cloud
        content = content.decode("utf-8-sig", "replace").encode()
    if suffix == ".off":
        # ModelNet glues the counts to the word, others write it small.
        header = re.compile(rb"\A\s*([a-z]*off\b|C?OFF(?=[-\d]))", re.IGNORECASE)
        content = header.sub(lambda found: found[1].upper() + b"\n", content)
        if not re.match(rb"\w*OFF\b", content):
            raise BadFile(path, "must begin with the word OFF, got another first line")
    kind, expected = suffix[1:], _stated_counts(content, suffix)
    resolver: Any = _Beside(path) if suffix == ".gltf" else None
    try:
        if suffix == ".obj" and re.search(rb"(?m)^\s*f\s[^\n]*-\d", content):
            content = _absolute_faces(content)
        if suffix in _SCENES:
            _check_extensions(content)
        if suffix == ".stl":
            kind, triangles = _whole_stl(content)
            content = content[: 84 + 50 * triangles] if kind == "stl" else content
        # From memory, and without a resolver that opens other files.
        loaded: Any = trimesh.load(
            io.BytesIO(content),
            file_type=kind,
            resolver=resolver,
            process=False,
            maintain_order=True,
            skip_materials=True,
        )
        vertices, faces, mesh = _geometry(loaded)
        if expected is not None and (len(vertices) < expected[0] or (expected[1] and not len(faces))):
            raise ValueError(f"{expected[0]} vertices announced, {len(vertices)} found")
        if suffix == ".stl" and len(faces) != triangles:
            raise ValueError(f"{triangles} triangles announced, {len(faces)} found")
        if len(faces):
            if not np.isfinite(vertices).all() or not mesh.area > 0:
                raise ValueError("its surface must have an area above 0 and finite vertices")
            return trimesh.sample.sample_surface(mesh, num_points, seed=seed % 2**32)[0], False
    except BadFile:
        raise
    except Exception as error:  # a parser fails in any way on a broken file; all of them mean the same
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise BadFile(path, f"must be a whole {suffix} file: {what}{_hint(content, suffix)}") from error
    return vertices, suffix == ".ply" and len(_vertex_properties(content)) > 3


def _geometry(loaded: Any) -> tuple[NDArray, NDArray, Any]:
    """Vertices and faces of what was loaded, and the mesh itself; of a scene all meshes, or all clouds."""
    import trimesh

    if isinstance(loaded, trimesh.Scene):
        mesh = loaded.to_mesh()
        if not len(mesh.faces):
            moved = [
                trimesh.transform_points(loaded.geometry[name].vertices, transform)
                for transform, name in map(loaded.graph.get, loaded.graph.nodes_geometry)
            ]
            mesh = trimesh.PointCloud(np.concatenate([np.empty((0, 3)), *moved]))
        loaded = mesh
    return np.asarray(loaded.vertices), np.asarray(getattr(loaded, "faces", np.empty((0, 3)))), loaded


class _Beside:
    """What trimesh asks for the buffers that a .gltf names: files in its own folder, no others."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent

    def __getitem__(self, name: str) -> bytes:
        place = PurePosixPath(unquote(name).replace("\\", "/"))
        if place.is_absolute() or ".." in place.parts or ":" in name:
            raise ValueError(f"buffers must lie in the file's own folder, got {name}")
        return read_bytes(self.folder / place)


def _check_extensions(content: bytes) -> None:
    """Raise ValueError where a scene needs an extension of glTF that changes its shape."""
    if content[:4] == b"glTF":  # a .glb, whose first chunk is the same text
        content = content[20 : 20 + int.from_bytes(content[12:16], "little")]
    scene = json.loads(content)
    needed = [name for name in scene.get("extensionsRequired", ()) if not name.startswith(_LOOKS)]
    if needed:
        raise ValueError(f"it needs {needed[0]}, which is not read: export it without")


def _hint(content: bytes, suffix: str) -> str:
    """What may be the reason why a file cannot be read, for the end of a message."""
    if suffix == ".ply":
        lists = [name for kind, name in _vertex_properties(content) if kind == b"list"]
        name = lists[0].decode(errors="replace") if lists else ""
        return f" (its vertices have a list, {name}: save it without)" if lists else ""
    commas = re.search(rb"(?m)^\s*v?\s*-?\d+,\d+\s+-?\d+,\d+", content)
    return " (it has decimal commas: write points)" if commas else ""


def _vertex_properties(content: bytes) -> list[tuple[bytes, bytes]]:
    """(type, name) of all that a .ply has of each vertex, by its header."""
    header = content.split(b"end_header", 1)[0]
    found = re.search(rb"element\s+vertex\s[^\n]*\n(.*?)(?=element\s|\Z)", header, re.DOTALL)
    lines = re.findall(rb"property\s+(\w+)[^\n]*?(\w+)\s*(?:\n|\Z)", found[1]) if found else []
    return [(kind, name) for kind, name in lines]


def _absolute_faces(content: bytes) -> bytes:
    """An .obj whose faces count vertices from 1; trimesh counts -1 back from the last vertex of the file, not
    from the last before the face.
    """
    count, lines = 0, []
    for line in content.splitlines():
        word, *corners = line.split() or [b""]
        if word == b"v":
            count += 1
        elif word == b"f":
            numbers = [int(corner.split(b"/")[0]) for corner in corners]
            line = b"f " + b" ".join(b"%d" % (n if n > 0 else count + 1 + n) for n in numbers)
        lines.append(line)
    return b"\n".join(lines) + b"\n"


def _whole_stl(content: bytes) -> tuple[str, int]:
    """The form of an .stl, as trimesh calls it, and how many triangles it announces. Raises ValueError."""
    announced = int.from_bytes(content[80:84], "little")
    room = (len(content) - 84) // 50
    if len(content) >= 84 and announced == room:
        return "stl", announced
    if not content.lstrip().startswith(b"solid"):
        raise ValueError(f"{announced} triangles announced, {max(0, room)} found")
    triangles = len(re.findall(rb"(?m)^\s*endfacet\b", content))
    if not re.search(rb"endsolid[^\n]*\s*\Z", content):
        raise ValueError(f"it ends after {triangles} triangles without the word endsolid")
    return "stl_ascii", triangles


def _stated_counts(content: bytes, suffix: str) -> tuple[int, int] | None:
    """(vertices, faces) that the header announces; a parser may take a cut file for a smaller one."""
    if suffix == ".ply":
        header = content.split(b"end_header", 1)[0]
        counts = dict(re.findall(rb"element\s+(vertex|face)\s+(\d+)", header))
        return int(counts.get(b"vertex", 0)), int(counts.get(b"face", 0))
    if suffix == ".off":
        found = re.match(rb"\s*\w*OFF\s+(?:#[^\n]*\s+)*(\d+)\s+(\d+)", content)
        return (int(found[1]), int(found[2])) if found else None
    return None
