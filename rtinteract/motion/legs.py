"""Two-bone legs: ankles kept in place when thigh and shin have another proportion."""

from __future__ import annotations

import numpy as np

from rtinteract import rotation as R


def _unit(v):
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-12)


def _frame(along, side):
    """Quaternions of frames with y along ``along`` [T, 3] and x toward ``side`` [T, 3], which is made square to it."""
    y = _unit(along)
    x = _unit(side - (side * y).sum(-1, keepdims=True) * y)
    return R.from_matrix(np.stack([x, y, np.cross(x, y)], -1))


def hold_feet(turns: dict, positions, roles, source_rest, target_rest, target_roles) -> None:
    """Turn hips and knees (in place) so that hip-to-ankle is the source's, scaled with that leg's length.

    The knee keeps its side, measured about the hip-to-ankle line from the pelvis's left, and the foot its world rotation. All
    of it depends on the hip-to-ankle vector and that angle alone, so going back undoes it exactly; and what the source can
    reach, the target can.
    """
    for side in ("left", "right"):
        hip, knee, ankle = (positions[:, roles[f"{side}_{j}"]] for j in ("hip", "knee", "ankle"))
        rest = [target_rest[target_roles[f"{side}_{j}"]] for j in ("hip", "knee", "ankle")]
        thigh, shin = np.linalg.norm(rest[1] - rest[0]), np.linalg.norm(rest[2] - rest[1])
        own = [source_rest[roles[f"{side}_{j}"]] for j in ("hip", "knee", "ankle")]
        scale = (thigh + shin) / (np.linalg.norm(own[1] - own[0]) + np.linalg.norm(own[2] - own[1]))
        line = ankle - hip
        axis = _unit(line)
        distance = np.clip(np.linalg.norm(line, axis=-1, keepdims=True) * scale, abs(thigh - shin) + 1e-9, thigh + shin)
        a = (thigh ** 2 - shin ** 2 + distance ** 2) / (2 * np.maximum(distance, 1e-9))
        height = np.sqrt(np.maximum(thigh ** 2 - a ** 2, 0.0))
        out = knee - hip
        out = out - (out * axis).sum(-1, keepdims=True) * axis
        if np.abs(np.linalg.norm(knee - hip, axis=-1) * scale - thigh).max() < 1e-9 and (
                np.abs(np.linalg.norm(ankle - knee, axis=-1) * scale - shin).max() < 1e-9):
            continue
        straight = np.linalg.norm(out, axis=-1, keepdims=True) < 1e-6
        forward = R.rotate(turns[f"{side}_hip"], np.broadcast_to(np.array([0.0, 0.0, 1.0]), out.shape))
        out = _unit(np.where(straight, forward - (forward * axis).sum(-1, keepdims=True) * axis, out))
        new_knee = axis * a + out * height
        bend = np.cross(axis, out)
        for joint, old, new in (("hip", knee - hip, new_knee), ("knee", ankle - knee, axis * distance - new_knee)):
            turn = R.multiply(_frame(new, bend), R.inverse(_frame(old, bend)))
            turns[f"{side}_{joint}"] = R.multiply(turn, turns[f"{side}_{joint}"])
