"""The InterHuman representation (InterMask section 3.1): absolute positions, velocities, rotations.

File: per person (T, 492), Z up: 62 x 3 global positions, 51 x 6 local rotations; the first 22 and 21 are SMPL-22's.
Row of 262: 22 x 3 positions, 22 x 3 velocities (to the next frame, so one frame is lost), 21 x 6 rotations (joints 1 to
21), 4 contacts. Image of 22 x 12: position 3, velocity 3, rotation 6 (zeros for the root); contacts left out.
6D rotations are the first two columns of the matrix, written row by row (m00, m01, m10, m11, m20, m21): the statistics of
the data set and its mirroring agree on that.
"""

from __future__ import annotations

import re

import numpy as np
import torch

from rtinteract import rotation as R
from rtinteract.errors import MotionError
from rtinteract.features.base import Representation
from rtinteract.features.body import fit_offsets, pose_body
from rtinteract.features.canonical import Frame, frame_of
from rtinteract.skeleton import SMPL22, SMPL22_FEET, SMPL22_MIRROR

ROW = 262
POSITIONS, VELOCITIES, ROTATIONS, CONTACTS = slice(0, 66), slice(66, 132), slice(132, 258), slice(258, 262)
# Squared displacement between frames (m^2) and heights (m; ankle, foot, ankle, foot) under which a foot is planted.
CONTACT_DISPLACEMENT, CONTACT_HEIGHTS = 0.001, (0.12, 0.05, 0.12, 0.05)
# To the two columns one after the other, as `rotation.to_6d` has them, and back to row by row.
TO_COLUMNS, TO_ROWS = [0, 2, 4, 1, 3, 5], [0, 3, 1, 4, 2, 5]


def load_rows(clip):
    """What the models use of a file's clip [T, 492]: 22 positions and 21 rotations [T, 192], still Z up. MotionError for
    another shape or values that are not finite."""
    clip = np.asarray(clip)
    if clip.ndim != 2 or clip.shape[1] != 492 or len(clip) < 2:
        raise MotionError(f"InterHuman clip: expected an array [T, 492] of at least 2 frames, got {clip.shape}; give one "
                          "person's file of motions_processed")
    if not np.isfinite(clip).all():
        raise MotionError("InterHuman clip: expected finite values, got NaN or infinity; leave this file out")
    return np.concatenate([clip[:, :66], clip[:, 186:312]], -1)


def mirror_rows(rows):
    """Left and right exchanged in loaded rows [T, 192], x flipped."""
    positions = rows[:, :66].reshape(-1, 22, 3)[:, SMPL22_MIRROR] * np.array([-1, 1, 1], rows.dtype)
    order = [j - 1 for j in SMPL22_MIRROR[1:]]
    rotations = rows[:, 66:].reshape(-1, 21, 6)[:, order] * np.array([1, -1, -1, 1, -1, 1], rows.dtype)
    return np.concatenate([positions.reshape(-1, 66), rotations.reshape(-1, 126)], -1)


_OTHER_SIDE = {"left": "right", "right": "left", "clockwise": "counterclockwise"}
_SIDES = re.compile(r"\b(?:(?:counter|anti)[- ]?clockwise|clockwise|(?:left|right)(?=\b|wards?\b|hand(?:ed)?\b|most\b))", re.I)


def mirror_text(text: str) -> str:
    """The text of the mirrored motion: left and right, clockwise and counterclockwise exchanged; capitals kept."""
    def swap(match):
        word = match.group()
        other = _OTHER_SIDE.get(word.lower(), "clockwise")
        return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other
    return _SIDES.sub(swap, text)


def to_y_up(positions):
    """Positions [..., 3] of a Z-up file in the world of this project, +Y up: (x, y, z) -> (x, z, -y)."""
    return R._ns(positions).stack([positions[..., 0], positions[..., 2], -positions[..., 1]], -1)


def contacts(positions, velocities):
    """Contact labels 0/1 [..., 4] of positions and velocities [..., 22, 3] (m, m a frame), in the order of SMPL22_FEET."""
    xp, feet = R._ns(positions), list(SMPL22_FEET)
    still = (velocities[..., feet, :] ** 2).sum(-1) < CONTACT_DISPLACEMENT
    low = positions[..., feet, 1] < xp.asarray(CONTACT_HEIGHTS, dtype=positions.dtype)
    return xp.asarray(still & low, dtype=positions.dtype)


def process(rows):
    """(rows of 262 [T - 1, 262], frame): loaded rows [T, 192] on the floor, in the person's own canonical frame.

    The floor is the lowest joint of the clip. ``frame`` leads back to the file's world (Y up, floor at 0).
    """
    places = to_y_up(np.asarray(rows[:, :66], np.float64).reshape(-1, 22, 3))
    places[..., 1] -= places[..., 1].min()
    frame = frame_of(places[0])
    places = R.rotate(R.yaw(-frame.yaw), places - frame.origin)
    velocities = np.diff(places, axis=0)
    out = np.concatenate([places[:-1].reshape(-1, 66), velocities.reshape(-1, 66), rows[:-1, 66:],
                          contacts(places[:-1], velocities)], -1)
    return out.astype(np.float32), frame


def relative(first: Frame, second: Frame):
    """[angle, x, z] of the second person as the first sees them: the *half* angle (rad) of the turn, and the place (m)."""
    turn = R.multiply(R.yaw(-second.yaw), R.yaw(first.yaw))
    place = R.rotate(R.yaw(-first.yaw), second.origin - first.origin)
    return np.array([np.arctan2(turn[2], turn[0]), place[0], place[2]])


def place_rows(relation, rows):
    """Rows of 262 from a person's own frame to the partner's: positions and velocities; ``relation`` from `relative`."""
    angle, x, z = relation
    turn = R.yaw(np.float64(-2 * angle))
    positions = R.rotate(turn, rows[:, POSITIONS].reshape(-1, 22, 3).astype(np.float64)) + np.array([x, 0, z])
    velocities = R.rotate(turn, rows[:, VELOCITIES].reshape(-1, 22, 3).astype(np.float64))
    moved = np.concatenate([positions.reshape(-1, 66), velocities.reshape(-1, 66)], -1).astype(rows.dtype)
    return np.concatenate([moved, rows[:, 132:]], -1)


def process_pair(first, second):
    """Rows of 262 of both people, loaded rows [T, 192] each, in the first one's canonical frame; and that frame."""
    rows_1, frame_1 = process(first)
    rows_2, frame_2 = process(second)
    return rows_1, place_rows(relative(frame_1, frame_2), rows_2), frame_1


def row_to_image(rows):
    """Image [..., 22, 12] of rows [..., 262]; contacts are left out, the root's rotation is zero."""
    xp, lead = R._ns(rows), rows.shape[:-1]
    rotations = rows[..., ROTATIONS].reshape(*lead, 21, 6)
    rotations = xp.concatenate([xp.zeros_like(rotations[..., :1, :]), rotations], -2)
    places, velocities = rows[..., POSITIONS].reshape(*lead, 22, 3), rows[..., VELOCITIES].reshape(*lead, 22, 3)
    return xp.concatenate([places, velocities, rotations], -1)


def image_to_row(image, labels=None):
    """Rows [..., 262] of an image [..., 22, 12]; ``labels`` [..., 4] are the contacts, else judged from the image (which
    must then be in metres, not normalised)."""
    xp, lead = R._ns(image), image.shape[:-2]
    if labels is None:
        labels = contacts(image[..., :3], image[..., 3:6])
    return xp.concatenate([image[..., :3].reshape(*lead, 66), image[..., 3:6].reshape(*lead, 66),
                           image[..., 1:, 6:].reshape(*lead, 126), labels], -1)


def statistics_image(mean, std):
    """Mean and std [22, 12] of statistics over rows [262]; the root's absent rotation gets 0 and 1."""
    image = row_to_image(torch.as_tensor(std, dtype=torch.float32))
    image[0, 6:] = 1
    return row_to_image(torch.as_tensor(mean, dtype=torch.float32)), image


def root_rotations(positions, offsets=None):
    """World rotations of the pelvis [..., 4] from positions [..., 22, 3]: the hips' axis, then the lower spine."""
    rest = torch.tensor(SMPL22.offsets, dtype=positions.dtype, device=positions.device) if offsets is None else offsets

    def basis(p):
        across = p[..., 1, :] - p[..., 2, :]
        up = p[..., 3, :] - 0.5 * (p[..., 1, :] + p[..., 2, :])
        return R.matrix_from_6d(torch.cat([across, up], -1))
    return R.from_matrix(basis(positions) @ basis(rest).transpose(-1, -2))


def read_poses(rows):
    """Positions [T, 22, 3] (Y up, floor as in the file) and local rotations [T, 22, 4] of loaded rows [T, 192]; torch."""
    positions = to_y_up(torch.as_tensor(rows[:, :66], dtype=torch.float32).reshape(-1, 22, 3))
    six = torch.as_tensor(rows[:, 66:], dtype=torch.float32).reshape(-1, 21, 6)
    return positions, torch.cat([root_rotations(positions)[:, None], R.from_6d(six[..., TO_COLUMNS])], 1)


class InterHuman(Representation):
    """See the module's text. Image [..., T - 1, 22, 12]: metres, metres a frame, 6D; one frame is lost."""

    name = "interhuman"
    joints = 22
    features = 12
    frames_lost = 1

    def encode(self, positions, rotations):
        """positions [..., T, 22, 3] m and local rotations [..., T, 22, 4] in a canonical frame -> image [..., T - 1, 22, 12]."""
        if positions.shape[-3] < 2:
            raise MotionError(f"interhuman: expected at least 2 frames (velocities), got {positions.shape[-3]}; give more")
        six = R.to_6d(rotations[..., :-1, 1:, :])[..., TO_ROWS]
        six = torch.cat([torch.zeros_like(six[..., :1, :]), six], -2)
        return torch.cat([positions[..., :-1, :, :], positions.diff(dim=-3), six], -1)

    def read(self, image, anchor=None):
        """image [..., T, 22, 12] -> positions [..., T, 22, 3], local rotations [..., T, 22, 4] as the rows say them.

        The root's rotation, which no row holds, is that of the average body's hips and spine.
        """
        return self._read(image, None)

    def decode(self, image, offsets=None, anchor=None):
        """image [..., T, 22, 12] -> positions [..., T, 22, 3], local rotations [..., T, 22, 4] of one rigid body."""
        positions, rotations = self._read(image, offsets)
        if offsets is None:
            offsets = fit_offsets(positions, rotations)
        return pose_body(positions, rotations, offsets)

    def _read(self, image, offsets):
        positions = image[..., :3]
        turns = R.from_6d(image[..., 1:, 6:][..., TO_COLUMNS])
        wide = None if offsets is None else offsets[..., None, :, :]
        return positions, torch.cat([root_rotations(positions, wide)[..., None, :], turns], -2)
