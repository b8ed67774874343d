"""Rotations: unit quaternions (w, x, y, z), matrices, 6D and rotation vectors.

Every function takes numpy arrays or torch tensors of any leading shape and answers in kind, dtype kept.
Right-handed; column vectors: ``rotate(multiply(a, b), v) == rotate(a, rotate(b, v))``.
"""

from __future__ import annotations

import numpy as np
import torch

AXES = {"X": 0, "Y": 1, "Z": 2}


def _ns(x):
    return torch if isinstance(x, torch.Tensor) else np


def _norm(x):
    xp = _ns(x)
    return xp.sqrt((x * x).sum(-1))[..., None]


def _unit(x, eps=1e-12):
    return x / _ns(x).clip(_norm(x), eps, None)


def identity(shape, like=None):
    """Identity quaternions [*shape, 4], of ``like``'s library, dtype and device (numpy float64 without it)."""
    if isinstance(like, torch.Tensor):
        q = torch.zeros(*shape, 4, dtype=like.dtype, device=like.device)
    else:
        q = np.zeros((*shape, 4), dtype=np.float64 if like is None else like.dtype)
    q[..., 0] = 1
    return q


def normalize(q):
    """Unit quaternions [..., 4]; a zero quaternion stays zero."""
    return _unit(q)


def _multiply_torch(a, b):
    """The product by complex numbers, which torch multiplies in one pass: q = (w + x i) + (y + z i) j. As products of components
    it takes thirty small operations, and three times as long for many."""
    kept = torch.promote_types(a.dtype, b.dtype)
    wide = torch.promote_types(kept, torch.float32)
    (a, c), (b, d) = (torch.view_as_complex(q.to(wide).contiguous().unflatten(-1, (2, 2))).unbind(-1) for q in (a, b))
    return torch.view_as_real(torch.stack([a * b - c * d.conj(), a * d + c * b.conj()], -1)).flatten(-2).to(kept)


def multiply(a, b):
    """Hamilton product [..., 4] of a and b (b is applied first)."""
    xp = _ns(a)
    if xp is torch:
        return _multiply_torch(a, b)
    aw, ax, ay, az = a[..., 0], a[..., 1], a[..., 2], a[..., 3]
    bw, bx, by, bz = b[..., 0], b[..., 1], b[..., 2], b[..., 3]
    return xp.stack([
        aw * bw - ax * bx - ay * by - az * bz,
        aw * bx + ax * bw + ay * bz - az * by,
        aw * by - ax * bz + ay * bw + az * bx,
        aw * bz + ax * by - ay * bx + az * bw,
    ], -1)


def inverse(q):
    """Inverse of unit quaternions [..., 4]."""
    return _ns(q).concatenate([q[..., :1], -q[..., 1:]], -1)


def _cross(a, b):
    if isinstance(a, torch.Tensor):
        return torch.linalg.cross(*torch.broadcast_tensors(a, b))
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    return _ns(a).stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], -1)


def rotate(q, v):
    """Vectors v [..., 3] rotated by unit quaternions q [..., 4]; leading shapes broadcast."""
    u = q[..., 1:]
    t = 2 * _cross(u, v)
    return v + q[..., :1] * t + _cross(u, t)


def from_axis_angle(v):
    """Quaternions [..., 4] of rotation vectors [..., 3] in radians (axis times angle)."""
    xp = _ns(v)
    half = 0.5 * _norm(v)
    # sinc keeps the small-angle limit exact: sin(h)/h -> 1.
    scale = 0.5 * xp.sinc(half / np.pi)
    return xp.concatenate([xp.cos(half), v * scale], -1)


def to_axis_angle(q):
    """Rotation vectors [..., 3] in radians, the short way round (length at most pi)."""
    xp = _ns(q)
    q = xp.where(q[..., :1] < 0, -q, q)
    s = _norm(q[..., 1:])
    angle = 2 * xp.arctan2(s, q[..., :1])
    safe = xp.where(s < 1e-9, xp.ones_like(s), s)
    return q[..., 1:] * xp.where(s < 1e-9, 2 * xp.ones_like(s), angle / safe)


def angle(a, b):
    """Angle [...] in radians between two orientations; accurate near zero, where an arccos is not."""
    return _norm(to_axis_angle(multiply(inverse(a), b)))[..., 0]


def about(axis, radians):
    """Quaternions [..., 4] of turns by ``radians`` [...] about the coordinate axis named "X", "Y" or "Z"."""
    xp = _ns(radians)
    half = radians * 0.5
    parts = [xp.cos(half)] + [xp.zeros_like(half)] * 3
    parts[1 + AXES[axis]] = xp.sin(half)
    return xp.stack(parts, -1)


def from_euler(angles, order):
    """Quaternions [..., 4] of Euler angles [..., n] in radians, composed left to right.

    ``order`` is a string of axes such as "ZYX": the product R_Z R_Y R_X, as a BVH lists its channels.
    """
    q = about(order[0], angles[..., 0])
    for i, axis in enumerate(order[1:], 1):
        q = multiply(q, about(axis, angles[..., i]))
    return q


def to_euler(q, order):
    """Euler angles [..., 3] in radians such that ``from_euler(angles, order) == q``; ``order`` names three different axes.

    At gimbal lock the last angle is zero.
    """
    xp = _ns(q)
    i, j, k = (AXES[a] for a in order)
    sign = 1.0 if (j - i) % 3 == 1 else -1.0
    m = to_matrix(q)
    sin_mid = xp.clip(sign * m[..., i, k], -1.0, 1.0)
    mid = xp.arcsin(sin_mid)
    locked = xp.abs(sin_mid) > 1 - 1e-9
    first = xp.where(locked, xp.arctan2(sign * m[..., k, j], m[..., j, j]),
                     xp.arctan2(-sign * m[..., j, k], m[..., k, k]))
    last = xp.where(locked, xp.zeros_like(mid), xp.arctan2(-sign * m[..., i, j], m[..., i, i]))
    return xp.stack([first, mid, last], -1)


def to_matrix(q):
    """Rotation matrices [..., 3, 3] of unit quaternions [..., 4]."""
    xp = _ns(q)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    rows = [
        xp.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        xp.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        xp.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return xp.stack(rows, -2)


def from_matrix(m):
    """Unit quaternions [..., 4] with w >= 0 of rotation matrices [..., 3, 3]; stable for every rotation."""
    xp = _ns(m)
    m00, m01, m02 = m[..., 0, 0], m[..., 0, 1], m[..., 0, 2]
    m10, m11, m12 = m[..., 1, 0], m[..., 1, 1], m[..., 1, 2]
    m20, m21, m22 = m[..., 2, 0], m[..., 2, 1], m[..., 2, 2]
    # Each row is 4 * component_i * q; the row of the largest component divides safely.
    rows = xp.stack([
        xp.stack([1 + m00 + m11 + m22, m21 - m12, m02 - m20, m10 - m01], -1),
        xp.stack([m21 - m12, 1 + m00 - m11 - m22, m01 + m10, m02 + m20], -1),
        xp.stack([m02 - m20, m01 + m10, 1 - m00 + m11 - m22, m12 + m21], -1),
        xp.stack([m10 - m01, m02 + m20, m12 + m21, 1 - m00 - m11 + m22], -1),
    ], -2)
    diagonal = xp.stack([rows[..., i, i] for i in range(4)], -1)
    best = xp.argmax(diagonal, -1)[..., None, None]
    if xp is torch:
        q = torch.take_along_dim(rows, best.expand(*best.shape[:-1], 4), -2)[..., 0, :]
    else:
        q = np.take_along_axis(rows, np.broadcast_to(best, (*best.shape[:-1], 4)), -2)[..., 0, :]
    q = _unit(q)
    return xp.where(q[..., :1] < 0, -q, q)


def to_6d(q):
    """6D rotations [..., 6]: the first two columns of the matrix, one after the other (Zhou et al. 2019)."""
    m = to_matrix(q)
    return _ns(q).concatenate([m[..., :, 0], m[..., :, 1]], -1)


def matrix_from_6d(d):
    """Matrices [..., 3, 3] by Gram-Schmidt of 6D rotations [..., 6]; finite (not NaN) for a zero row."""
    x = _unit(d[..., :3], 1e-8)
    y = d[..., 3:] - (x * d[..., 3:]).sum(-1)[..., None] * x
    y = _unit(y, 1e-8)
    return _ns(d).stack([x, y, _cross(x, y)], -1)


def from_6d(d):
    """Unit quaternions [..., 4] of 6D rotations [..., 6]."""
    return from_matrix(matrix_from_6d(d))


def between(a, b):
    """Shortest rotation [..., 4] that turns the direction of a [..., 3] into the direction of b [..., 3]."""
    xp = _ns(a)
    a, b = _unit(a), _unit(b)
    a, b = xp.broadcast_tensors(a, b) if xp is torch else np.broadcast_arrays(a, b)
    w = 1 + (a * b).sum(-1)[..., None]
    # Opposite directions: any axis square to a serves; pick from the smallest component of a.
    other = xp.where(xp.abs(a[..., :1]) < 0.7, xp.stack([xp.zeros_like(a[..., 0]), -a[..., 2], a[..., 1]], -1),
                     xp.stack([a[..., 2], xp.zeros_like(a[..., 0]), -a[..., 0]], -1))
    opposite = w < 1e-9
    q = xp.concatenate([xp.where(opposite, xp.zeros_like(w), w), xp.where(opposite, other, _cross(a, b))], -1)
    return _unit(q)


def slerp(a, b, t):
    """Spherical interpolation [..., 4] from a to b by t [...] in [0, 1], the short way round."""
    return multiply(a, from_axis_angle(to_axis_angle(multiply(inverse(a), b)) * t[..., None]))


def swing_twist(q, axis):
    """Split q [..., 4] into (swing, twist) with q = swing * twist, twist about the unit ``axis`` [..., 3]."""
    xp = _ns(q)
    along = (q[..., 1:] * axis).sum(-1)[..., None] * axis
    twist = xp.concatenate([q[..., :1], along], -1)
    degenerate = _norm(twist) < 1e-9
    twist = xp.where(degenerate, identity(twist.shape[:-1], like=twist), _unit(twist))
    return multiply(q, inverse(twist)), twist


def yaw(radians):
    """Quaternions [..., 4] of turns about +Y; a positive angle turns +Z toward +X."""
    return about("Y", radians)


def heading(left):
    """Yaw [...] in radians of a body whose left-pointing axis is ``left`` [..., 3] (+X at the canonical frame)."""
    return _ns(left).arctan2(-left[..., 2], left[..., 0])


def continuous(q):
    """Flip signs of q [T, ..., 4] so that neighbours along the first axis are in the same hemisphere."""
    xp = _ns(q)
    if len(q) < 2:
        return q
    dots = (q[1:] * q[:-1]).sum(-1)[..., None]
    signs = xp.where(dots < 0, -xp.ones_like(dots), xp.ones_like(dots))
    signs = xp.concatenate([xp.ones_like(signs[:1]), xp.cumprod(signs, 0)], 0)
    return q * signs
