"""Canonical frames: a body's place and heading on the floor, and the way there and back.

InterMask section 3.1 and the InterHuman preprocessing: person 1's root at the horizontal origin, facing +Z; person 2 is
carried along. Heights are kept: the floor is y = 0 before and after.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rtinteract import rotation as R


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame on the floor: ``yaw`` [...] radians about +Y, ``origin`` [..., 3] metres with height 0. numpy or torch."""

    yaw: Any
    origin: Any


def frame_of(positions) -> Frame:
    """The frame of a body from one frame's joint positions [..., 22, 3]: below the pelvis, along the hips' facing."""
    across = positions[..., 1, :] - positions[..., 2, :]
    origin = positions[..., 0, :] * R._ns(positions).asarray([1.0, 0.0, 1.0], dtype=positions.dtype)
    return Frame(R.heading(across), origin)


def _turn_root(q, rotations):
    xp = R._ns(rotations)
    root = R.multiply(q.expand(rotations[..., 0, :].shape) if xp is not np else np.broadcast_to(q, rotations[..., 0, :].shape),
                      rotations[..., 0, :])
    return xp.concatenate([root[..., None, :], rotations[..., 1:, :]], -2)


def to_frame(frame: Frame, positions, rotations):
    """World positions [..., T, 22, 3] and local rotations [..., T, 22, 4] as seen from the frame [...]."""
    q = R.yaw(-frame.yaw)
    places = R.rotate(q[..., None, None, :], positions - frame.origin[..., None, None, :])
    return places, _turn_root(q[..., None, :], rotations)


def from_frame(frame: Frame, positions, rotations):
    """Inverse of `to_frame`: back to the world."""
    q = R.yaw(frame.yaw)
    places = R.rotate(q[..., None, None, :], positions) + frame.origin[..., None, None, :]
    return places, _turn_root(q[..., None, :], rotations)
