"""Two people on other bodies: they keep their places to each other, and a hand that touched still touches."""

from __future__ import annotations

import numpy as np

from rtinteract import rotation as R
from rtinteract.motion.jointmaps import joint_map_of
from rtinteract.motion.legs import reach
from rtinteract.motion.retarget import leg_scale, retarget
from rtinteract.motion.types import Motion
from rtinteract.skeleton import SMPL22_JOINTS, SMPL22_PARENTS, world_rotations

# Distances in metres, on the average body, between a wrist and a bone of the partner: joined below NEAR (wrists in a handshake
# are about a hand's length apart), free beyond FAR, with a smooth passage so that no hand jumps.
NEAR, FAR = 0.20, 0.40
_SOFT = 0.02


def _bones(*roles):
    """Bones (upper role, lower role) of which all the bodies have both ends; what is missing between is bridged."""
    out = []
    for j, role in enumerate(SMPL22_JOINTS[1:], 1):
        p = SMPL22_PARENTS[j]
        while p > 0 and not all(SMPL22_JOINTS[p] in r for r in roles):
            p = SMPL22_PARENTS[p]
        if all(role in r for r in roles):
            out.append((SMPL22_JOINTS[p], role))
    return out


def _pull(wrist, bones, moved, ground):
    """(target [T, 3], weight [T]) of a wrist [T, 3] beside the partner's bones [T, N, 2, 3], which stand at ``moved`` instead."""
    start, along = bones[:, :, 0], bones[:, :, 1] - bones[:, :, 0]
    off = wrist[:, None] - start
    share = np.clip((off * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-12), 0.0, 1.0)[..., None]
    off = off - share * along
    distance = np.linalg.norm(off, axis=-1)
    there = moved[:, :, 0] + share * (moved[:, :, 1] - moved[:, :, 0]) + ground * off
    near = np.clip((FAR - distance) / (FAR - NEAR), 0.0, 1.0)
    loose = np.prod(1.0 - near * near * (3.0 - 2.0 * near), -1)
    pull = (np.maximum(FAR - distance, 0.0) / (distance + _SOFT)) ** 2
    total = pull.sum(-1)
    target = (pull[..., None] * there).sum(1) / np.maximum(total, 1e-12)[:, None]
    return np.where((total > 1e-12)[:, None], target, wrist), 1.0 - loose


def keep_contacts(motion: Motion, source: Motion, partner: Motion, partner_source: Motion, ground: float) -> Motion:
    """``motion`` with arms that reach what they reached in ``source``: the same place on the partner's body.

    ``source`` and ``partner_source`` are the two people before retargeting, ``motion`` and ``partner`` after it, with places
    on the ground scaled by ``ground``. Only shoulders, elbows and wrists turn; hands keep their world rotation.
    """
    roles, source_roles = joint_map_of(motion.skeleton), joint_map_of(source.skeleton)
    partner_roles, before = joint_map_of(partner.skeleton), joint_map_of(partner_source.skeleton)
    pairs = _bones(partner_roles, before)

    def ends(m, r):
        return m.positions[:, [[r[a], r[b]] for a, b in pairs]]

    bones, moved = ends(partner_source, before), ends(partner, partner_roles)
    turns, parents = world_rotations(motion.skeleton, motion.rotations), motion.skeleton.parents
    rest = world_rotations(motion.skeleton, motion.skeleton.tpose)
    local = motion.rotations.copy()
    for side, out in (("left", 1.0), ("right", -1.0)):
        shoulder, elbow, wrist = (roles[f"{side}_{j}"] for j in ("shoulder", "elbow", "wrist"))
        at = [motion.positions[:, j] for j in (shoulder, elbow, wrist)]
        target, weight = _pull(source.positions[:, source_roles[f"{side}_wrist"]], bones, moved, ground)
        target = at[2] + weight[:, None] * (target - at[2])
        # A straight arm bends its elbow so that the hand comes forward.
        away = R.multiply(turns[:, shoulder], R.inverse(rest[shoulder]))
        hinge = R.rotate(away, np.broadcast_to([0.0, -out, 0.0], target.shape))
        upper, lower = reach(at[1] - at[0], at[2] - at[1], target - at[0], hinge)
        new = R.multiply(upper, turns[:, shoulder])
        local[:, shoulder] = R.multiply(R.inverse(turns[:, parents[shoulder]]), new)
        local[:, elbow] = R.multiply(R.inverse(R.multiply(upper, turns[:, parents[elbow]])), R.multiply(lower, turns[:, elbow]))
        local[:, wrist] = R.multiply(R.inverse(R.multiply(lower, turns[:, parents[wrist]])), turns[:, wrist])
    return Motion.from_rotations(motion.skeleton, motion.root, R.continuous(local), motion.fps, motion.notes)


def retarget_pair(motions, skeletons, *, contacts: bool = True) -> tuple[Motion, Motion]:
    """Two people's movements on two other skeletons, which may differ in size.

    Both move over the ground scaled by the mean of their scales, so that they keep their places to each other, and with
    ``contacts`` hands that were on the partner's body or hand are on it again: the first person's stay as they are, the
    second's arms reach for them, as the engine's own character is the first. Raises SkeletonError as `retarget` does.
    """
    scales = [leg_scale(there) / leg_scale(m.skeleton) for m, there in zip(motions, skeletons, strict=True)]
    ground = sum(scales) / len(scales)
    first, second = (retarget(m, there, scale_root=ground) for m, there in zip(motions, skeletons, strict=True))
    if contacts:
        second = keep_contacts(second, motions[1], first, motions[0], ground)
    return first, second
