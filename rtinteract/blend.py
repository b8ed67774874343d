"""Inertialised blending: a new motion takes over from an old one without a pop (Bollo, GDC 2018)."""

from __future__ import annotations

import torch

from rtinteract import rotation as R


def _fade(frames: int, length: int, like: torch.Tensor) -> torch.Tensor:
    """Share [frames] of the offset that is left at frames 1, 2, ... after the seam: one minus a minimum-jerk step."""
    u = (torch.arange(1, frames + 1, dtype=like.dtype, device=like.device) / length).clamp(max=1)
    return 1 - u ** 3 * (10 - 15 * u + 6 * u * u)


def take_over(root, rotations, seam_root, seam_rotations, last_root, last_rotations, length: int):
    """Carry a new motion on from where the old one stood.

    ``root`` [..., T, 3] and local ``rotations`` [..., T, J, 4] are the new motion's frames after the seam, ``seam_*`` [..., 3]
    and [..., J, 4] its own pose at the seam (the frame before), ``last_*`` the pose that was shown there. The difference is
    added and fades over ``length`` frames, so speed is the new motion's from the first frame on.
    """
    if length < 1:
        return root, rotations
    share = _fade(root.shape[-2], length, root)
    moved = root + (last_root - seam_root)[..., None, :] * share[:, None]
    offset = R.to_axis_angle(R.multiply(last_rotations, R.inverse(seam_rotations)))[..., None, :, :]
    turned = R.multiply(R.from_axis_angle(offset * share[:, None, None]), rotations)
    return moved, R.normalize(turned)
