"""Points on the surface of shapes made of parts, uniform by area, and depth-shaded pictures, in numba."""

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from recon_fast.procedural.family import BALL, BOX, CONE, RING

# The six faces of a box: corners 0-3 are the bottom, 4-7 the top, both counter-clockwise from above.
_FACES = np.array([[0, 1, 2, 3], [4, 7, 6, 5], [0, 4, 5, 1], [1, 5, 6, 2], [2, 6, 7, 3], [3, 7, 4, 0]])


@njit(cache=True)
def _uniform(state):
    """splitmix64: state is uint64[1]; returns a number in [0, 1)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def _box_triangles(own, corners, areas):
    """Corners [8, 3] of a box and the areas [12] of its triangles, as a running sum."""
    for i in range(4):
        sx = -1.0 if i in (0, 3) else 1.0
        sz = -1.0 if i < 2 else 1.0
        corners[i, 0], corners[i, 1], corners[i, 2] = sx * own[0], 0.0, sz * own[1]
        corners[i + 4, 0] = sx * own[2] + own[5]
        corners[i + 4, 1] = own[4]
        corners[i + 4, 2] = sz * own[3] + own[6]
    total = 0.0
    normal = np.empty(3)
    for t in range(12):
        total += 0.5 * _cross(
            corners, _FACES[t // 2, 0], _FACES[t // 2, 1 + t % 2], _FACES[t // 2, 2 + t % 2], normal
        )
        areas[t] = total


@njit(cache=True)
def _cross(corners, a, b, c, normal):
    """Fill in the cross product of the edges a-b and a-c; returns its length."""
    length = 0.0
    for j in range(3):
        k, m = (j + 1) % 3, (j + 2) % 3
        normal[j] = (corners[b, k] - corners[a, k]) * (corners[c, m] - corners[a, m])
        normal[j] -= (corners[b, m] - corners[a, m]) * (corners[c, k] - corners[a, k])
        length += normal[j] * normal[j]
    return math.sqrt(length)


@njit(cache=True)
def _on_box(corners, areas, state, p, n):
    """A point and the outward normal on a triangle of the box, chosen by area."""
    pick = _uniform(state) * areas[11]
    t = 0
    while t < 11 and areas[t] <= pick:
        t += 1
    a, b, c = _FACES[t // 2, 0], _FACES[t // 2, 1 + t % 2], _FACES[t // 2, 2 + t % 2]
    u, v = _uniform(state), _uniform(state)
    if u + v > 1:
        u, v = 1 - u, 1 - v
    for j in range(3):
        p[j] = (1 - u - v) * corners[a, j] + u * corners[b, j] + v * corners[c, j]
    _cross(corners, a, b, c, n)


@njit(cache=True)
def _on_cone(own, area, state, p, n):
    """A point on the side or on a lid of a cone along y, uniform by area."""
    r0, r1, h, side = own[0], own[1], own[2], own[3]
    angle = 2 * math.pi * _uniform(state)
    c, s = math.cos(angle), math.sin(angle)
    pick = _uniform(state) * area
    if pick < side:
        low, high = r0 * r0, r1 * r1
        u = _uniform(state)
        r = math.sqrt(low + u * (high - low))
        t = u if abs(r1 - r0) < 1e-9 else (r - r0) / (r1 - r0)
        p[0], p[1], p[2] = r * c, t * h, r * s
        n[0], n[1], n[2] = h * c, r0 - r1, h * s
    else:
        top = pick - side >= math.pi * r0 * r0
        r = math.sqrt(_uniform(state)) * (r1 if top else r0)
        p[0], p[1], p[2] = r * c, h if top else 0.0, r * s
        n[0], n[1], n[2] = 0.0, 1.0 if top else -1.0, 0.0


@njit(cache=True)
def _on_ball(own, state, p, n):
    """A point of a slice of an ellipsoid: uniform on the sphere, kept by how much the map stretches there."""
    a, b, c = own[0], own[1], own[2]
    most = max(a * b, a * c, b * c)
    while True:
        y = own[3] + (own[4] - own[3]) * _uniform(state)
        angle = 2 * math.pi * _uniform(state)
        ring = math.sqrt(max(0.0, 1 - y * y))
        x, z = ring * math.cos(angle), ring * math.sin(angle)
        n[0], n[1], n[2] = b * c * x, a * c * y, a * b * z
        if _uniform(state) * most <= math.sqrt(n[0] * n[0] + n[1] * n[1] + n[2] * n[2]):
            p[0], p[1], p[2] = a * x, b * y, c * z
            return


@njit(cache=True)
def _on_ring(own, state, p, n):
    """A point of an arc of a torus about y, kept by its distance from the axis."""
    while True:
        v = 2 * math.pi * _uniform(state)
        r = own[0] + own[1] * math.cos(v)
        if _uniform(state) * (own[0] + own[1]) <= r:
            break
    angle = own[2] + (own[3] - own[2]) * _uniform(state)
    c, s = math.cos(angle), math.sin(angle)
    p[0], p[1], p[2] = r * c, own[1] * math.sin(v), r * s
    n[0], n[1], n[2] = math.cos(v) * c, math.sin(v), math.cos(v) * s


@njit(cache=True)
def _on_triangle(own, state, p, n):
    """A point of the triangle between the origin and two others."""
    u, v = _uniform(state), _uniform(state)
    if u + v > 1:
        u, v = 1 - u, 1 - v
    for j in range(3):
        k, m = (j + 1) % 3, (j + 2) % 3
        p[j] = u * own[j] + v * own[3 + j]
        n[j] = own[k] * own[3 + m] - own[m] * own[3 + k]


@njit(cache=True)
def _sample_shape(parts, warp, bend, jitter, seed, out):
    """Fill out [N, 7] with points, unit normals and the piece's number; centered, in the unit sphere."""
    state = np.empty(1, np.uint64)
    state[0] = seed
    num_points = len(out)
    total = 0.0
    for i in range(len(parts)):
        total += parts[i, 1]
    cofactor = np.empty((3, 3))  # of the warp: it carries normals
    for i in range(3):
        for j in range(3):
            k, m, q, w = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
            cofactor[i, j] = warp[k, q] * warp[m, w] - warp[k, w] * warp[m, q]
    corners, areas = np.empty((8, 3)), np.empty(12)
    p, n = np.empty(3), np.empty(3)
    done, target = 0, 0.0
    for i in range(len(parts)):
        part = parts[i]
        own, kind = part[14:], int(part[0])
        target += part[1] / total * num_points  # every part gets its share, to within a point
        last = num_points if i == len(parts) - 1 else round(target)
        if kind == BOX:
            _box_triangles(own, corners, areas)
        for row in range(done, last):
            if kind == BOX:
                _on_box(corners, areas, state, p, n)
            elif kind == CONE:
                _on_cone(own, part[1], state, p, n)
            elif kind == BALL:
                _on_ball(own, state, p, n)
            elif kind == RING:
                _on_ring(own, state, p, n)
            else:
                _on_triangle(own, state, p, n)
            x, y, z, nx, ny, nz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
            for j in range(3):
                a, b, c = part[2 + j], part[5 + j], part[8 + j]
                x, y, z = x + a * p[j], y + b * p[j], z + c * p[j]
                nx, ny, nz = nx + a * n[j], ny + b * n[j], nz + c * n[j]
            x, y, z = x + part[11], y + part[12], z + part[13]
            x += bend * y * y
            length = 0.0
            for j in range(3):
                out[row, j] = warp[j, 0] * x + warp[j, 1] * y + warp[j, 2] * z
                out[row, 3 + j] = cofactor[j, 0] * nx + cofactor[j, 1] * ny + cofactor[j, 2] * nz
                length += out[row, 3 + j] ** 2
            length = 1 / math.sqrt(max(length, 1e-30))
            for j in range(3, 6):
                out[row, j] *= length
            out[row, 6] = part[21]
        done = last
    _shuffle(state, out)
    _into_unit_sphere(out)
    if jitter > 0:
        _shake(state, jitter, out)
        _into_unit_sphere(out)


@njit(cache=True)
def _shuffle(state, out):
    """Fisher-Yates on rows."""
    for row in range(len(out) - 1, 0, -1):
        other = int(_uniform(state) * (row + 1))
        for j in range(out.shape[1]):
            out[row, j], out[other, j] = out[other, j], out[row, j]


@njit(cache=True)
def _shake(state, jitter, out):
    """Add Gaussian noise of that deviation to the points (Box and Muller's transform)."""
    for row in range(len(out)):
        for j in range(3):
            length = math.sqrt(-2 * math.log(1 - _uniform(state)))
            out[row, j] += jitter * length * math.cos(2 * math.pi * _uniform(state))


@njit(cache=True)
def _into_unit_sphere(out):
    for j in range(3):
        mean = 0.0
        for row in range(len(out)):
            mean += out[row, j]
        mean /= len(out)
        for row in range(len(out)):
            out[row, j] -= mean
    largest = 0.0
    for row in range(len(out)):
        largest = max(largest, out[row, 0] ** 2 + out[row, 1] ** 2 + out[row, 2] ** 2)
    scale = 1 / math.sqrt(max(largest, 1e-30))
    for row in range(len(out)):
        for j in range(3):
            out[row, j] *= scale


@njit(cache=True, parallel=True)
def sample_shapes(
    parts: NDArray[np.float64],  # [P, ROW], shape after shape
    offsets: NDArray[np.int64],  # [S + 1]: shape i is parts[offsets[i]:offsets[i + 1]]
    warps: NDArray[np.float64],  # [S, 3, 3], applied to points
    bends: NDArray[np.float64],  # [S]: x += bend y^2 before the warp
    jitters: NDArray[np.float64],  # [S]: deviation of the noise, after scaling to the unit sphere
    seeds: NDArray[np.uint64],  # [S]
    num_points: int,
) -> NDArray[np.float32]:
    """Points, unit normals and piece numbers [S, N, 7]; a shape depends on its own rows and seed alone."""
    shapes = len(offsets) - 1
    surfaces = np.empty((shapes, num_points, 7), np.float32)
    for i in prange(shapes):
        _sample_shape(
            parts[offsets[i] : offsets[i + 1]], warps[i], bends[i], jitters[i], seeds[i], surfaces[i]
        )
    return surfaces


@njit(cache=True)
def _draw(surface, azimuth, elevation, color, size, picture, depth):
    """Splat a surface [N, 7] into picture [size, size, 3], nearest points on top."""
    ca, sa = math.cos(azimuth), math.sin(azimuth)
    ce, se = math.cos(elevation), math.sin(elevation)
    picture[:] = 255
    depth[:] = -2.0
    half = 0.5 * size
    for row in range(len(surface)):
        x, y, z, nx, ny, nz = surface[row, :6]
        right = ca * x - sa * z
        back = sa * x + ca * z
        up = ce * y - se * back
        near = se * y + ce * back  # towards the camera
        u = int(half + half * 0.94 * right)
        v = int(half - half * 0.94 * up)
        facing = ce * (sa * nx + ca * nz) + se * ny
        light = abs(0.75 * facing + 0.5 * (ce * ny - se * (sa * nx + ca * nz)))
        tone = 1.0 - 0.13 * (int(surface[row, 6]) % 3)
        shade = tone * (0.30 + 0.55 * min(light, 1.0)) * (0.80 + 0.20 * near)
        for i in range(max(v, 0), min(v + 2, size)):
            for j in range(max(u, 0), min(u + 2, size)):
                if near > depth[i, j]:
                    depth[i, j] = near
                    for k in range(3):
                        picture[i, j, k] = np.uint8(min(255.0, color[k] * shade))


@njit(cache=True, parallel=True)
def render(
    surfaces: NDArray[np.float32],  # [S, N, 7] points in the unit sphere, unit normals, piece numbers
    views: NDArray[np.float64],  # [S, 2] azimuth and elevation of the camera in radians
    colors: NDArray[np.float64],  # [S, 3] in [0, 255]
    size: int,
) -> NDArray[np.uint8]:
    """Pictures [S, size, size, 3], RGB on white, orthographic: light falls from the camera and from above."""
    pictures = np.empty((len(surfaces), size, size, 3), np.uint8)
    for i in prange(len(surfaces)):
        depth = np.empty((size, size), np.float32)
        _draw(surfaces[i], views[i, 0], views[i, 1], colors[i], size, pictures[i], depth)
    return pictures
