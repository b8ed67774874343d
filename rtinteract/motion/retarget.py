"""Retargeting between skeletons through their T-poses, and the body that the models take."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rtinteract import rotation as R
from rtinteract.errors import SkeletonError
from rtinteract.motion.jointmaps import joint_map_of
from rtinteract.motion.legs import hold_feet
from rtinteract.motion.proportions import model_offsets, solve_neck, solve_spine
from rtinteract.motion.resample import resample
from rtinteract.motion.restpose import chain
from rtinteract.motion.types import MODEL_FPS, Motion
from rtinteract.skeleton import (
    SMPL22,
    SMPL22_JOINTS,
    SMPL22_MIRROR,
    SMPL22_PARENTS,
    Skeleton,
    forward_kinematics,
    smpl22_with,
)

TRUNK = ("pelvis", "spine1", "spine2", "spine3", "neck", "head")
FLOOR_PERCENTILE = 5.0
# A toe joint's height over the sole in metres, for the average body.
TOE_HEIGHT = 0.025


def turns_from_tpose(motion: Motion, roles: dict[str, int]):
    """World rotations away from the T-pose, {role: [T, 4]}, with the T-pose's places [J, 3] and turns [J, 4]."""
    s = motion.skeleton
    _, turns = forward_kinematics(s, motion.root, motion.rotations, with_rotations=True)
    rest_places, rest_turns = forward_kinematics(s, np.zeros((1, 3)), s.tpose[None], with_rotations=True)
    away = {role: R.multiply(turns[:, j], np.broadcast_to(R.inverse(rest_turns[0, j]), turns[:, j].shape))
            for role, j in roles.items()}
    return away, rest_places[0], rest_turns[0]


def fill(away: dict) -> dict:
    """The same for all 22 roles: what a source lacks follows its neighbours."""
    out = dict(away)
    trunk = [r for r in TRUNK if r in out]
    for i, role in enumerate(TRUNK):
        if role in out:
            continue
        before = max((k for k in range(i) if TRUNK[k] in trunk), default=None)
        after = min((k for k in range(i + 1, len(TRUNK)) if TRUNK[k] in trunk), default=None)
        a = out[TRUNK[before]] if before is not None else out[TRUNK[after]]
        b = out[TRUNK[after]] if after is not None else a
        share = (i - before) / (after - before) if before is not None and after is not None else 0.0
        # The chest carries the arms: it takes the whole turn of the trunk joint below it, not part of the head's.
        out[role] = a if role == "spine3" and before else R.slerp(a, b, np.full(len(a), share))
    for j, role in enumerate(SMPL22_JOINTS):
        if role not in out:
            out[role] = out[SMPL22_JOINTS[SMPL22_PARENTS[j]]]
    return out


def _locals(turns, parents):
    local = turns.copy()
    for j, p in enumerate(parents):
        if p >= 0:
            local[:, j] = R.multiply(R.inverse(turns[:, p]), turns[:, j])
    return R.continuous(R.normalize(local))


def to_model(motion: Motion) -> Motion:
    """SMPL-22 at 30 Hz with this body's own proportions, feet on the floor (y = 0).

    Joints that the source has keep their places within about a centimetre; the spine's joints lie on the spine's line. Only
    the height is moved, so that two people of one pair stay where they are to each other. A motion of SMPL-22 is taken to stand
    on y = 0 already and is only resampled: a slice of it stays where it was. Raises SkeletonError when the skeleton cannot be
    matched.
    """
    roles = joint_map_of(motion.skeleton)
    motion = resample(motion, MODEL_FPS)
    if motion.skeleton.joints == SMPL22_JOINTS and np.abs(motion.skeleton.tpose[:, 0]).min() > 1 - 1e-9:
        return motion
    away, rest, _ = turns_from_tpose(motion, roles)
    turns = fill(away)
    offsets = model_offsets(rest, roles)
    spine_offsets = solve_spine(turns, motion.positions, roles, offsets)
    solve_neck(turns, motion.positions, roles, offsets)
    world = np.stack([turns[r] for r in SMPL22_JOINTS], 1)
    root = motion.positions[:, roles["pelvis"]]
    skeleton = smpl22_with(spine_offsets)
    return flex_toes(on_floor(Motion.from_rotations(skeleton, root, _locals(world, SMPL22_PARENTS), motion.fps, motion.notes)))


def lowest_foot(motion: Motion) -> np.ndarray:
    """Height [T] of the lowest sole point of an SMPL-22 motion: below its ankles and toe joints by their heights at rest.

    Toe tips are left out: captures bend toes into the floor.
    """
    s = motion.skeleton
    sole = TOE_HEIGHT * np.linalg.norm(s.offsets[[4, 7]], axis=-1).sum() / np.linalg.norm(SMPL22.offsets[[4, 7]], axis=-1).sum()
    toes = motion.positions[:, [10, 11], 1] - sole
    ankles = motion.positions[:, [7, 8], 1] - (sole - s.offsets[[10, 11], 1])
    return np.concatenate([toes, ankles], 1).min(1)


def on_floor(motion: Motion) -> Motion:
    """Moved in height only, so that the lowest foot over the clip (a low percentile, a few bad frames apart) is at y = 0."""
    return motion.moved(translation=(0.0, -float(np.percentile(lowest_foot(motion), FLOOR_PERCENTILE)), 0.0))


def flex_toes(motion: Motion) -> Motion:
    """Toes of an SMPL-22 motion bent up where their tips are below y = 0; no joint moves."""
    s, rotations = motion.skeleton, motion.rotations.copy()
    _, turns = forward_kinematics(s, motion.root, rotations, with_rotations=True)
    for toe in (10, 11):
        tip = R.rotate(turns[:, toe], np.broadcast_to(s.end_sites[toe], (len(motion), 3)))
        length = np.linalg.norm(s.end_sites[toe])
        up = np.clip(np.maximum(tip[:, 1], -motion.positions[:, toe, 1]), -length, length)
        flat = np.linalg.norm(tip[:, [0, 2]], axis=-1)
        wide = np.sqrt(np.maximum(length ** 2 - up ** 2, 0.0)) / np.maximum(flat, 1e-9)
        wanted = np.stack([tip[:, 0] * wide, up, tip[:, 2] * wide], -1)
        low = (tip[:, 1] < -motion.positions[:, toe, 1]) & (flat > 1e-3)
        bent = R.multiply(R.between(tip, wanted), turns[:, toe])
        local = R.multiply(R.inverse(turns[:, s.parents[toe]]), bent)
        rotations[low, toe] = local[low]
    return replace(motion, rotations=R.continuous(rotations))


def mirror(motion: Motion) -> Motion:
    """Left and right swapped through the plane x = 0; SMPL-22 only, the body's own offsets are swapped with it."""
    s = motion.skeleton
    if s.joints != SMPL22_JOINTS:
        raise SkeletonError(f"mirror: expected an SMPL-22 motion, got skeleton {s.name!r}; call to_model() first")
    order = list(SMPL22_MIRROR)
    flip = np.array([-1.0, 1.0, 1.0])
    tips = {SMPL22_MIRROR[j]: tip * flip for j, tip in s.end_sites.items()}
    skeleton = Skeleton(s.name, s.joints, s.parents, s.offsets[order] * flip, tips, s.tpose[order] * (1, 1, -1, -1))
    rotations = motion.rotations[:, order] * np.array([1.0, 1.0, -1.0, -1.0])
    return Motion.from_rotations(skeleton, motion.root * flip, rotations, motion.fps, motion.notes)


def _maps(motion, skeleton, joint_map):
    """Roles of source and target; a given map belongs to the one whose joints it names."""
    if joint_map is not None and set(joint_map.values()) <= set(skeleton.joints) and not (
            set(joint_map.values()) <= set(motion.skeleton.joints)):
        return joint_map_of(motion.skeleton), joint_map_of(skeleton, joint_map)
    return joint_map_of(motion.skeleton, joint_map), joint_map_of(skeleton)


def _target_turns(skeleton, roles, turns, rest_turns, frames):
    """World rotations [T, J, 4] of the target: mapped joints as the source turns, trunk joints between shared out, the rest
    carried by their parents."""
    by_joint = {j: role for role, j in roles.items()}
    between = {}
    trunk = [r for r in TRUNK if r in roles]
    for top, bottom in zip(trunk, trunk[1:], strict=False):
        path = chain(skeleton.parents, roles[top], roles[bottom])
        between.update({j: (top, bottom, k / len(path)) for k, j in enumerate(path[:-1], 1)})
    away = []
    for j, p in enumerate(skeleton.parents):
        if j in by_joint:
            away.append(turns[by_joint[j]])
        elif j in between:
            top, bottom, share = between[j]
            away.append(R.slerp(turns[top], turns[bottom], np.full(frames, share)))
        else:
            away.append(turns["pelvis"] if p < 0 else away[p])
    return np.stack([R.multiply(a, np.broadcast_to(rest_turns[j], a.shape)) for j, a in enumerate(away)], 1)


def _lengths(places, roles, soles):
    """(leg length, ``soles`` below the middle of the hips) of a T-pose's places [J, 3]."""
    at = {r: places[j] for r, j in roles.items()}
    leg = np.mean([np.linalg.norm(at[f"{s}_knee"] - at[f"{s}_hip"]) + np.linalg.norm(at[f"{s}_ankle"] - at[f"{s}_knee"])
                   for s in ("left", "right")])
    return leg, 0.5 * (at["left_hip"] + at["right_hip"])[1] - min(at[r][1] for r in soles)


def leg_scale(skeleton: Skeleton, joint_map=None) -> float:
    """Leg length of ``skeleton`` in legs of the average SMPL-22 body."""
    soles = ("left_ankle", "right_ankle")
    bodies = ((skeleton, joint_map_of(skeleton, joint_map)), (SMPL22, joint_map_of(SMPL22)))
    own, average = (_lengths(forward_kinematics(s, np.zeros((1, 3)), s.tpose[None])[0], roles, soles)[0] for s, roles in bodies)
    return float(own / average)


def retarget(motion: Motion, skeleton: Skeleton, joint_map=None, *, keep_feet: bool = True,
             scale_root: bool | float = True) -> Motion:
    """The same movement on another skeleton; rotations, twist included, go through the two T-poses.

    The middle of the hips moves over the ground as the source's, scaled with leg length (``scale_root``; a number scales by
    that, which two people of one pair must share), and stands as high over its soles; ``keep_feet`` bends the legs so that the
    ankles keep the source's places (scaled) where thigh and shin are of another proportion. ``joint_map`` ({SMPL-22 joint:
    joint}) names the joints of whichever skeleton has them. Retargeting back undoes it. Raises SkeletonError when a skeleton
    cannot be matched.
    """
    source_roles, target_roles = _maps(motion, skeleton, joint_map)
    away, source_rest, _ = turns_from_tpose(motion, source_roles)
    turns = fill(away)
    target_rest, rest_turns = forward_kinematics(skeleton, np.zeros((1, 3)), skeleton.tpose[None], with_rotations=True)
    target_rest, rest_turns = target_rest[0], rest_turns[0]
    feet = [f"{s}_foot" for s in ("left", "right")]
    soles = feet if set(feet) <= source_roles.keys() & target_roles.keys() else ["left_ankle", "right_ankle"]
    leg, drop = _lengths(source_rest, source_roles, soles)
    target_leg, target_drop = _lengths(target_rest, target_roles, soles)
    scale = target_leg / leg
    if keep_feet:
        hold_feet(turns, motion.positions, source_roles, source_rest, target_rest, target_roles)
    world = _target_turns(skeleton, target_roles, turns, rest_turns, len(motion))
    local = _locals(world, skeleton.parents)
    middle = 0.5 * (motion.positions[:, source_roles["left_hip"]] + motion.positions[:, source_roles["right_hip"]])
    ground = (scale if scale_root else 1.0) if isinstance(scale_root, bool) else float(scale_root)
    middle = middle * (ground, scale, ground) + (0.0, target_drop - scale * drop, 0.0)
    places = forward_kinematics(skeleton, np.zeros((len(motion), 3)), local)
    root = middle - 0.5 * (places[:, target_roles["left_hip"]] + places[:, target_roles["right_hip"]])
    return Motion.from_rotations(skeleton, root, local, motion.fps, motion.notes)
