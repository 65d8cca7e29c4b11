"""Depth-shaded pictures of sampled surfaces, in numba."""

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray


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
