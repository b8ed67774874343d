"""The canonical T-pose of a skeleton: what `Skeleton.tpose` holds after reading a file."""

from __future__ import annotations

import itertools

import numpy as np

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22, SMPL22_JOINTS

# The child whose direction says where a joint's bone points.
MAIN_CHILD = {"spine1": "spine2", "spine2": "spine3", "spine3": "neck", "neck": "head"}
for _side in ("left", "right"):
    for _joint, _child in (("collar", "shoulder"), ("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"),
                           ("ankle", "foot")):
        MAIN_CHILD[f"{_side}_{_joint}"] = f"{_side}_{_child}"
# Limbs are laid exactly along the canonical directions; trunk, hands and feet keep their own shape unless far off, because a
# foot's or a spine's slope at rest is anatomy and not a pose.
_EXACT = {f"{s}_{j}" for s in ("left", "right") for j in ("hip", "knee", "shoulder", "elbow")}
_LOOSE = {"ankle": 0.7, "foot": 0.7, "wrist": 0.7}
_LOOSE_TRUNK = 1.05
_SNAP = 0.35


def chain(parents, top: int, bottom: int) -> list[int]:
    """Joints below ``top`` down to and including ``bottom``; empty when bottom is not below top."""
    path = []
    while bottom != top and bottom >= 0:
        path.append(bottom)
        bottom = parents[bottom]
    return path[::-1] if bottom == top else []


def _reach(parents, offsets, top, bottom):
    """Offset of ``bottom`` in the frame of ``top`` with no rotation between them."""
    path = chain(parents, top, bottom)
    return offsets[path].sum(0) if path else np.zeros(3)


def bone_direction(role: str) -> np.ndarray:
    """Where the bone of an SMPL-22 joint points in the T-pose, [3]: to its main child or its tip."""
    if role in MAIN_CHILD:
        return SMPL22.offsets[SMPL22_JOINTS.index(MAIN_CHILD[role])]
    return SMPL22.end_sites.get(SMPL22_JOINTS.index(role), np.zeros(3))


def _tip(parents, offsets, end_sites, joint, avoid_thumb):
    """Mean offset of a joint's tips: its end site, or its children but for the thumb."""
    children = [c for c, p in enumerate(parents) if p == joint and not (avoid_thumb and c in avoid_thumb)]
    vectors = [offsets[c] for c in children if np.linalg.norm(offsets[c]) > 1e-9]
    if not vectors and joint in end_sites:
        vectors = [end_sites[joint]]
    if not vectors:
        vectors = [_tip(parents, offsets, end_sites, c, avoid_thumb) for c in children[:1]]
    return np.mean(vectors, axis=0) if vectors else np.zeros(3)


def _thumbs(joints):
    return {i for i, name in enumerate(joints) if "thumb" in name.lower()}


def _direction(role, roles, joints, parents, offsets, end_sites):
    j = roles[role]
    child = MAIN_CHILD.get(role)
    if role.startswith("spine"):
        # The next trunk joint that is not at the same place.
        for name in ("spine1", "spine2", "spine3", "neck", "head"):
            if name in roles and name != role and np.linalg.norm(_reach(parents, offsets, j, roles[name])) > 1e-9:
                return _reach(parents, offsets, j, roles[name])
        return np.zeros(3)
    if child in roles:
        return _reach(parents, offsets, j, roles[child])
    return _tip(parents, offsets, end_sites, j, _thumbs(joints))


def _cube_rotations():
    axes = np.eye(3)
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            m = np.stack([axes[k] * s for k, s in zip(order, signs, strict=True)], 1)
            if np.linalg.det(m) > 0:
                yield m


def nearest_quarter_turn(q) -> np.ndarray:
    """The rotation [4] onto the coordinate axes that is nearest to q [4]."""
    m = R.to_matrix(q)
    return R.from_matrix(max(_cube_rotations(), key=lambda c: np.trace(c.T @ m)))


def _frame(across, up):
    x = across / np.linalg.norm(across)
    y = up - (up @ x) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)])


def _pelvis(roles, parents, offsets):
    """Rotation that stands the pelvis upright and turns it to +Z, from its hips and its spine."""
    j = roles["pelvis"]
    left, right = (_reach(parents, offsets, j, roles[f"{s}_hip"]) for s in ("left", "right"))
    up = np.zeros(3)
    for name in ("spine1", "spine2", "spine3", "neck", "head"):
        if name in roles and np.linalg.norm(up) < 1e-9:
            up = _reach(parents, offsets, j, roles[name])
    across = left - right
    if np.linalg.norm(across) < 1e-9 or np.linalg.norm(np.cross(across, up)) < 1e-9:
        return R.identity(())
    m = _frame(across, up)
    q = R.from_matrix(m)
    snapped = nearest_quarter_turn(q)
    return snapped if R.angle(q, snapped) < _SNAP * 2 else q


def calibrate(joints, parents, offsets, end_sites, roles: dict[str, int], rest=None) -> np.ndarray:
    """Local rotations [J, 4] of the canonical T-pose for the joints that ``roles`` (SMPL-22 joint -> index) name.

    ``rest`` [J, 4]: local rotations of a pose in which the body stands somehow, as an engine's reference pose does; without it
    that is the pose of zero rotations.
    """
    standing = R.identity((len(joints),))
    if rest is not None:
        for j, p in enumerate(parents):
            standing[j] = rest[j] if p < 0 else R.multiply(standing[p], rest[j])
        offsets = np.stack([v if p < 0 else R.rotate(standing[p], v) for v, p in zip(offsets, parents, strict=True)])
        end_sites = {j: R.rotate(standing[j], tip) for j, tip in end_sites.items()}
    by_joint = {j: role for role, j in roles.items()}
    turns = R.identity((len(joints),))
    for j, p in enumerate(parents):
        if p >= 0:
            turns[j] = turns[p]
        role = by_joint.get(j)
        if role is None:
            continue
        if role == "pelvis":
            turns[j] = _pelvis(roles, parents, offsets)
            continue
        own = _direction(role, roles, joints, parents, offsets, end_sites)
        if np.linalg.norm(own) < 1e-9:
            continue
        own, wanted = R.rotate(turns[j], own), bone_direction(role)
        off = np.arccos(np.clip(own @ wanted / np.linalg.norm(own) / np.linalg.norm(wanted), -1, 1))
        if role in _EXACT or off > _LOOSE.get(role.split("_")[-1], _LOOSE_TRUNK):
            turns[j] = R.multiply(R.between(own, wanted), turns[j])
    _thumbs_forward(joints, parents, offsets, roles, turns)
    turns = R.multiply(turns, standing)
    local = turns.copy()
    for j, p in enumerate(parents):
        if p >= 0:
            local[j] = R.multiply(R.inverse(turns[p]), turns[j])
    return R.normalize(local)


def _thumbs_forward(joints, parents, offsets, roles, turns):
    """Twist an arm whose rest pose is no T-pose so that its thumb points forward: a swing alone leaves the twist open."""
    for side in ("left", "right"):
        wrist, elbow, shoulder = (roles[f"{side}_{j}"] for j in ("wrist", "elbow", "shoulder"))
        thumb = next((c for c, p in enumerate(parents) if p == wrist and c in _thumbs(joints)), None)
        if thumb is None:
            continue
        axis = np.array([1.0 if side == "left" else -1.0, 0.0, 0.0])
        v = R.rotate(turns[wrist], offsets[thumb])
        v = v - (v @ axis) * axis
        if np.linalg.norm(v) < 0.3 * np.linalg.norm(offsets[thumb]) or v[2] > 0.5 * np.linalg.norm(v):
            continue
        angle = np.arctan2(np.cross(v, [0.0, 0.0, 1.0]) @ axis, v[2])
        # Quarter turns: a thumb lies between forward and palm, so its own direction is only a rough guide.
        q = R.from_axis_angle(axis * (np.round(angle / (np.pi / 2)) * np.pi / 2))
        arm = [j for j in range(len(joints)) if j in (shoulder, elbow, wrist) or chain(parents, shoulder, j)]
        collar = roles.get(f"{side}_collar")
        for j in arm + ([collar] if collar is not None else []):
            turns[j] = R.multiply(q, turns[j])
