"""Inertialised blending: a new motion takes over from an old one without a pop (Bollo, GDC 2018)."""

from __future__ import annotations

import torch

from rtinteract import rotation as R

# Greatest speeds that are carried over a seam, metres and radians a frame.
_STEP, _TURN = 0.1, 0.5
# Share of a difference in speed that is carried: of all of it streams jerk least, but hands come late to a partner's.
CARRIED = 0.5


def _shares(frames: int, length: int, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Shares [frames] that are left of an offset, and of a speed a frame, at frames 1, 2, ... after the seam: a quintic that
    comes to rest after ``length`` frames."""
    u = (torch.arange(1, frames + 1, dtype=like.dtype, device=like.device) / length).clamp(max=1)
    return 1 - u ** 3 * (10 - 15 * u + 6 * u * u), length * u * (1 - u * u * (6 - 8 * u + 3 * u * u))


def _turn(a, b):
    """Axis-angle [..., 3] of the turn from rotations a to b."""
    return R.to_axis_angle(R.multiply(b, R.inverse(a)))


def _limited(speed: torch.Tensor, most: float) -> torch.Tensor:
    size = speed.norm(dim=-1, keepdim=True)
    return speed * (most / size.clamp(min=most))


def take_over(root, rotations, seam_root, seam_rotations, last_root, last_rotations, length: int,
              carried: float | torch.Tensor = CARRIED):
    """Carry a new motion on from where the old one stood, at a speed between both one's.

    ``root`` [..., T, 3] and local ``rotations`` [..., T, J, 4] are the new motion's frames after the seam, ``seam_*`` [..., P, 3]
    and [..., P, J, 4] its own frames up to the seam, ``last_*`` those that were shown there; P is 1 or 2 (with one the speeds
    are not known). What they differ in, in place and ``carried`` (0 to 1; a tensor [...] for each) of it in speed, is added and
    fades over ``length`` frames.
    """
    if length < 1:
        return root, rotations
    share, run = (x[:, None] for x in _shares(root.shape[-2], length, root))
    run = (carried[..., None, None] if isinstance(carried, torch.Tensor) else carried) * run
    way = last_root - seam_root
    turn = _turn(seam_rotations[..., -1, :, :], last_rotations[..., -1, :, :])
    moved = way[..., -1:, :] * share
    turned = turn[..., None, :, :] * share[..., None]
    if way.shape[-2] > 1:
        moved = moved + _limited(way[..., -1:, :] - way[..., -2:-1, :], _STEP) * run
        speed = (_turn(last_rotations[..., -2, :, :], last_rotations[..., -1, :, :])
                 - _turn(seam_rotations[..., -2, :, :], seam_rotations[..., -1, :, :]))
        turned = turned + _limited(speed, _TURN)[..., None, :, :] * run[..., None]
    return root + moved, R.normalize(R.multiply(R.from_axis_angle(turned), rotations))
