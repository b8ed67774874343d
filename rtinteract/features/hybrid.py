"""The project's own representation: heading-local pose rows and an absolute root row.

InterMask's rows hold absolute positions, so a codec spends its codes on where a person stands. Here rows 1-21 hold a
joint's position and velocity seen from the person's own heading (position 3, velocity 3, local rotation 6), and row 0
the place in the canonical frame: position 3, planar velocity and yaw rate seen from the heading, root rotation 6. The
relation between two people, which contact needs, stays absolute; the pose does not depend on it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from rtinteract import rotation as R
from rtinteract.features.base import Representation
from rtinteract.features.body import fit_offsets, pose_body

FPS = 30.0
# Frames over which the drift between the integrated and the absolute root is averaged away.
_SMOOTH = 25
# Frames from the anchor at which the integrated and the absolute root count the same.
_TRUST = 60.0


def _backward_difference(x: torch.Tensor, dim: int) -> torch.Tensor:
    """x(t) - x(t-1) a frame; the first frame repeats the second, so no frame is lost and none looks ahead."""
    if x.shape[dim] < 2:
        return torch.zeros_like(x)
    d = x.diff(dim=dim)
    return torch.cat([d.narrow(dim, 0, 1), d], dim)


def _wrap(angle: torch.Tensor) -> torch.Tensor:
    return torch.atan2(torch.sin(angle), torch.cos(angle))


def heading_of(root: torch.Tensor) -> torch.Tensor:
    """Yaw [...] of root rotations [..., 4]."""
    left = torch.zeros(*root.shape[:-1], 3, dtype=root.dtype, device=root.device)
    left[..., 0] = 1
    return R.heading(R.rotate(root, left))


def _at(values: torch.Tensor, frame) -> torch.Tensor:
    """Values [..., 1] of values [..., T] at a frame (an int, or int64 [...])."""
    if isinstance(frame, int):
        return values[..., frame:frame + 1]
    return values.gather(-1, frame[..., None].expand(*values.shape[:-1], 1))


def _settle(absolute: torch.Tensor, steps: torch.Tensor, anchor=None, turns: bool = False) -> torch.Tensor:
    """Fuse absolute values [..., T] with their steps [..., T] (steps[t] leads from t - 1 to t).

    The path is integrated, which is smooth, and its slowly varying distance from the absolute values is added. At the
    ``anchor`` the value is known to be 0: the path leads there and back, and the absolute values count more the farther
    away they are. ``turns`` says that they are angles, of which whole turns do not count.
    """
    path = torch.cumsum(torch.cat([torch.zeros_like(steps[..., :1]), steps[..., 1:]], -1), -1)
    if anchor is not None:
        path = path - _at(path, anchor)
    drift = absolute - path
    if turns:
        drift = _wrap(drift) if anchor is not None else _unwrap(absolute) - path
    flat = drift.reshape(-1, 1, drift.shape[-1])
    half = _SMOOTH // 2
    drift = F.avg_pool1d(F.pad(flat, (half, half), mode="replicate"), _SMOOTH, stride=1).reshape(drift.shape)
    if anchor is not None:
        frames = torch.arange(path.shape[-1], device=path.device)
        away = (frames - (anchor if isinstance(anchor, int) else anchor[..., None])).to(path.dtype).square()
        drift = drift * (away / (away + _TRUST ** 2))
    return path + drift


class Hybrid(Representation):
    """See the module's text. Image [..., T, 22, 12]; velocities in metres (radians) a second; no frame is lost."""

    name = "hybrid"
    joints = 22
    features = 12
    frames_lost = 0

    def encode(self, positions, rotations):
        """positions [..., T, 22, 3] m and local rotations [..., T, 22, 4] in a canonical frame -> image [..., T, 22, 12]."""
        root = positions[..., 0, :]
        yaw = heading_of(rotations[..., 0, :])
        to_local = R.yaw(-yaw)
        floor = torch.stack([root[..., 0], torch.zeros_like(root[..., 0]), root[..., 2]], -1)
        local = R.rotate(to_local[..., None, :], positions[..., 1:, :] - floor[..., None, :])
        speed = R.rotate(to_local[..., None, :], _backward_difference(positions, -3) * FPS)
        turn = _wrap(_backward_difference(yaw, -1)) * FPS
        root_speed = torch.stack([speed[..., 0, 0], turn, speed[..., 0, 2]], -1)
        rows = torch.cat([local, speed[..., 1:, :]], -1)
        first = torch.cat([root, root_speed], -1)[..., None, :]
        return torch.cat([torch.cat([first, rows], -2), R.to_6d(rotations)], -1)

    def read(self, image, anchor=None):
        """image [..., T, 22, 12] -> positions [..., T, 22, 3] and local rotations [..., T, 22, 4] as the rows say them.

        Bones are not yet rigid; `decode` makes them so.
        """
        positions, matrices = self.read_matrices(image, anchor)
        return positions, R.from_matrix(matrices)

    def read_matrices(self, image, anchor=None, every: int = 1):
        """As `read`, rotations as matrices [..., T, 22, 3, 3]: cheap to differentiate, for losses in metres. Only rotations of
        frames 0, ``every``, 2 ``every``, ... are read."""
        root = R.matrix_from_6d(image[..., 0, 6:])
        yaw = R.heading(root[..., :, 0])
        settled = _settle(yaw, image[..., 0, 4] / FPS, anchor, turns=True)
        spin = R.to_matrix(R.yaw(settled - yaw))[..., ::every, :, :]
        limbs = R.matrix_from_6d(image[..., ::every, 1:, 6:])
        turns = torch.cat([(spin @ root[..., ::every, :, :])[..., None, :, :], limbs], -3)
        step = R.rotate(R.yaw(settled), torch.stack(
            [image[..., 0, 3], torch.zeros_like(settled), image[..., 0, 5]], -1)) / FPS
        x = _settle(image[..., 0, 0], step[..., 0], anchor)
        z = _settle(image[..., 0, 2], step[..., 2], anchor)
        place = torch.stack([x, image[..., 0, 1], z], -1)
        floor = torch.stack([x, torch.zeros_like(x), z], -1)
        joints = R.rotate(R.yaw(settled)[..., None, :], image[..., 1:, :3]) + floor[..., None, :]
        return torch.cat([place[..., None, :], joints], -2), turns

    def decode(self, image, offsets=None, anchor=None):
        """image [..., T, 22, 12] -> positions [..., T, 22, 3], local rotations [..., T, 22, 4] of one rigid body."""
        positions, rotations = self.read(image, anchor)
        if offsets is None:
            offsets = fit_offsets(positions, rotations)
        return pose_body(positions, rotations, offsets)


def _unwrap(angle: torch.Tensor) -> torch.Tensor:
    """Angles [..., T] without jumps of a full turn."""
    steps = _wrap(_backward_difference(angle, -1))
    return torch.cumsum(torch.cat([angle[..., :1], steps[..., 1:]], -1), -1)
