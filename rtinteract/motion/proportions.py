"""The SMPL-22 body of a source: its offsets, and the turns of joints that stand elsewhere in the source."""

from __future__ import annotations

import numpy as np

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22, SMPL22_JOINTS, SMPL22_PARENTS

# Where the three spine joints stand between pelvis and neck. The first one is low because most sources bend the trunk right
# above the pelvis: a higher one could not follow them.
SPINE_SHARES = (0.14, 0.42, 0.62)


def model_offsets(rest: np.ndarray, roles: dict[str, int]) -> np.ndarray:
    """SMPL-22 rest offsets [22, 3] in metres from a T-pose's places [J, 3]; joints that the source lacks get average ones."""
    leg = np.linalg.norm(rest[roles["left_knee"]] - rest[roles["left_hip"]]) + np.linalg.norm(
        rest[roles["left_ankle"]] - rest[roles["left_knee"]])
    scale = leg / np.linalg.norm(SMPL22.offsets[[4, 7]], axis=-1).sum()
    places = {r: rest[j] for r, j in roles.items()}
    if "neck" not in places:
        places["neck"] = places["head"] - SMPL22.offsets[15] * scale
    line = [places["pelvis"]] + [places[r] for r in ("spine1", "spine2", "spine3") if r in places] + [places["neck"]]
    for k, share in enumerate(SPINE_SHARES, 1):
        places[f"spine{k}"] = along(np.stack(line)[None], share)[0]
    for j, role in enumerate(SMPL22_JOINTS):
        if role in places:
            continue
        if role.endswith("collar"):
            # Between the chest and the shoulder, as an average body has it.
            shoulder = places[role.replace("collar", "shoulder")]
            places[role] = shoulder - SMPL22.offsets[SMPL22_JOINTS.index(role.replace("collar", "shoulder"))] * scale
        else:
            places[role] = places[SMPL22_JOINTS[SMPL22_PARENTS[j]]] + SMPL22.offsets[j] * scale
    offsets = np.stack([places[r] - places[SMPL22_JOINTS[p]] if p >= 0 else np.zeros(3)
                        for r, p in zip(SMPL22_JOINTS, SMPL22_PARENTS, strict=True)])
    return offsets


def along(lines: np.ndarray, share: float) -> np.ndarray:
    """Points [T, 3] at a share of the length of polylines [T, N, 3]."""
    steps = np.linalg.norm(np.diff(lines, axis=1), axis=-1)
    reach = np.concatenate([np.zeros((len(lines), 1)), np.cumsum(steps, 1)], 1)
    want = share * reach[:, -1:]
    k = np.clip((reach <= want).sum(1) - 1, 0, steps.shape[1] - 1)
    rows = np.arange(len(lines))
    part = (want[:, 0] - reach[rows, k]) / np.maximum(steps[rows, k], 1e-12)
    return lines[rows, k] + part[:, None] * (lines[rows, k + 1] - lines[rows, k])


def _aim(turns, offset, direction):
    """``turns`` [T, 4] swung so that ``offset`` [3] points along ``direction`` [T, 3]."""
    return R.multiply(R.between(R.rotate(turns, np.broadcast_to(offset, direction.shape)), direction), turns)


def solve_spine(turns: dict, positions, roles, offsets) -> np.ndarray:
    """Aim spine1 and spine2 (in place) so that the chest stands where the source's chest carries neck and shoulders.

    Returns the offsets; the chest keeps its rotation, so neck and arms stay in place.
    """
    top = "neck" if "neck" in roles else "head"
    up = offsets[12] if top == "neck" else offsets[12] + offsets[15]
    frames = positions.shape[0]
    neck = positions[:, roles[top]]
    wanted = neck - R.rotate(turns["spine3"], np.broadcast_to(up, neck.shape))
    low = positions[:, roles["pelvis"]] + R.rotate(turns["pelvis"], np.broadcast_to(offsets[3], neck.shape))
    reach = wanted - low
    distance = np.maximum(np.linalg.norm(reach, axis=-1, keepdims=True), 1e-6)
    axis = reach / distance
    l1, l2 = np.linalg.norm(offsets[6]), np.linalg.norm(offsets[9])
    a = np.clip((l1 ** 2 - l2 ** 2 + distance ** 2) / (2 * distance), -l1, l1)
    height = np.sqrt(np.maximum(l1 ** 2 - a ** 2, 0.0))
    spine = [roles["pelvis"]] + [roles[r] for r in ("spine1", "spine2", "spine3") if r in roles] + [roles[top]]
    guess = along(positions[:, spine], SPINE_SHARES[1]) - low
    side = guess - (guess * axis).sum(-1, keepdims=True) * axis
    # With a straight spine the side is noise; the front of the trunk then decides.
    side = side + 0.002 * R.rotate(turns["spine1"], np.broadcast_to(np.array([0.0, 0.0, -1.0]), (frames, 3)))
    side = side - (side * axis).sum(-1, keepdims=True) * axis
    side = side / np.maximum(np.linalg.norm(side, axis=-1, keepdims=True), 1e-9)
    middle = axis * a + side * height
    turns["spine1"] = _aim(turns["spine1"], offsets[6], middle)
    turns["spine2"] = _aim(turns["spine2"], offsets[9], axis * distance - middle)
    return offsets


def solve_neck(turns: dict, positions, roles, offsets) -> None:
    """Aim the neck (in place) at the source's head, which joints between may have moved."""
    if "neck" in roles and "head" in roles:
        turns["neck"] = _aim(turns["neck"], offsets[15], positions[:, roles["head"]] - positions[:, roles["neck"]])
