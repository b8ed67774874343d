"""The Inter-X representation: 55 SMPL-X rotations and a root row, image [..., T, 56, 6].

Row 0 is the root's orientation, rows 1 to 21 the body's local rotations (SMPL-22's joints), rows 22 to 54 jaw, eyes and
hands; row 55 holds the root's place (m) and its velocity (m a frame, to the next frame).
6D rotations are the first two rows of the matrix, one after the other.
"""

from __future__ import annotations

import torch

from rtinteract import rotation as R
from rtinteract.features.base import Representation
from rtinteract.skeleton import SMPL22, forward_kinematics

ROOT_ROW = 55


def rows_to_rotations(six):
    """Quaternions [..., 4] of 6D rotations [..., 6] written as the first two rows of the matrix."""
    return R.inverse(R.from_6d(six))


def rotations_to_rows(rotations):
    """6D rotations [..., 6], the first two rows of the matrix, of quaternions [..., 4]."""
    return R.to_6d(R.inverse(rotations))


class InterX(Representation):
    """See the module's text. No frame is lost: the last frame repeats its velocity."""

    name = "interx"
    joints = 56
    features = 6
    frames_lost = 0
    turned = ROOT_ROW

    def encode(self, positions, rotations):
        """positions [..., T, 22, 3] m and local rotations [..., T, 22 or 55, 4] in a canonical frame -> image [..., T, 56, 6].

        SMPL-22 has no jaw, eyes or fingers: their rows then hold the identity.
        """
        body = rotations_to_rows(rotations)
        rest = rotations_to_rows(R.identity((*rotations.shape[:-2], ROOT_ROW - rotations.shape[-2]), like=rotations))
        root = positions[..., 0, :]
        speed = root.diff(dim=-2) if root.shape[-2] > 1 else torch.zeros_like(root)
        speed = torch.cat([speed, speed[..., -1:, :]], -2)[..., :root.shape[-2], :]
        return torch.cat([body, rest, torch.cat([root, speed], -1)[..., None, :]], -2)

    def read(self, image, anchor=None):
        """image [..., T, 56, 6] -> positions [..., T, 22, 3], local rotations [..., T, 22, 4] of SMPL-22's average body."""
        return self.decode(image)

    def decode(self, image, offsets=None, anchor=None):
        """image [..., T, 56, 6] -> positions [..., T, 22, 3], local rotations [..., T, 22, 4] of one rigid body.

        The image holds no bone lengths: without rest ``offsets`` [..., 22, 3] the body is SMPL-22's average one.
        """
        rotations = rows_to_rotations(image[..., :22, :])
        wide = None if offsets is None else offsets[..., None, :, :]
        return forward_kinematics(SMPL22, image[..., ROOT_ROW, :3], rotations, offsets=wide), rotations
