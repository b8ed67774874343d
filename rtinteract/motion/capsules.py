"""A simple body around any skeleton: tapered capsules with radii of an average adult.

Pictures, glTF meshes and the penetration figure all take the body from here, so what is seen is what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtinteract import rotation as R
from rtinteract.skeleton import Skeleton, forward_kinematics

STATURE = 1.72

# Radii in metres at both ends for a stature of 1.72 m: girths of the ANSUR II survey over two pi, between women's and
# men's medians; flat parts (trunk, hand, foot) take half their thickness, as their breadth comes from the side bones.
_RADII = {
    "trunk": (0.115, 0.115), "chest": (0.115, 0.060), "hip": (0.105, 0.090),
    "collar": (0.075, 0.060), "neck": (0.055, 0.055), "head": (0.085, 0.085),
    "thigh": (0.085, 0.058), "shin": (0.056, 0.038), "foot": (0.036, 0.030),
    "upper_arm": (0.052, 0.042), "forearm": (0.042, 0.029), "hand": (0.034, 0.022), "finger": (0.010, 0.008),
}


@dataclass(frozen=True)
class Bone:
    """A tapered capsule from ``start`` to ``end`` [3] in metres, both in the frame of ``joint``, which carries it.

    ``child`` is the joint at its end, None for a tip; ``radii`` in metres; ``side`` 1 left, -1 right, 0 midline;
    ``part`` one of trunk, chest, hip, collar, neck, head, thigh, shin, foot, upper_arm, forearm, hand, finger.
    """

    joint: int
    child: int | None
    start: np.ndarray
    end: np.ndarray
    radii: tuple[float, float]
    side: int
    part: str


def t_pose(skeleton: Skeleton):
    """Joint places [J, 3] and world rotations [J, 4] of the T-pose with its lowest joint or tip at height 0."""
    places, turns = forward_kinematics(skeleton, np.zeros((1, 3)), skeleton.tpose[None], with_rotations=True)
    places, turns = places[0], turns[0]
    tips = [places[j] + R.rotate(turns[j], tip) for j, tip in skeleton.end_sites.items()]
    floor = min(p[1] for p in [*places, *tips])
    return places - [0.0, floor, 0.0], turns


def _part(a, b, length, top) -> str:
    """Which part of a body goes from a to b [3], both in statures with the floor at 0."""
    if abs(a[0]) < 0.025 and abs(b[0]) < 0.025:
        if a[1] < 0.83 * top:
            return "trunk" if b[1] < 0.83 * top else "chest"
        return "head" if a[1] >= 0.885 * top else "neck"
    middle = 0.5 * (a + b)
    if middle[1] < 0.6:
        if abs(a[0]) < 0.025:
            return "hip"
        if a[1] < 0.13:
            return "foot"
        return "thigh" if a[1] > 0.38 else "shin"
    if abs(middle[0]) < 0.10:
        return "collar"
    if abs(middle[0]) > 0.40:
        return "hand" if length > 0.045 else "finger"
    return "upper_arm" if abs(middle[0]) < 0.26 else "forearm"


def bones(skeleton: Skeleton) -> tuple[Bone, ...]:
    """The capsules of a skeleton: one from each joint to each child and tip, none where the length is zero
    (a skeleton without any length is a small ball).

    Parts are told by their place in the T-pose, so any joint names do; radii scale with the standing height.
    """
    places, turns = t_pose(skeleton)
    height = max(skeleton.height, 1e-6)
    size = height / STATURE
    segments = [(p, j, skeleton.offsets[j]) for j, p in enumerate(skeleton.parents) if p >= 0]
    segments += [(j, None, np.asarray(tip)) for j, tip in sorted(skeleton.end_sites.items())]
    top = max(p[1] for p in places) / height
    top = max([top, *((places[j] + R.rotate(turns[j], tip))[1] / height for j, tip in skeleton.end_sites.items())])
    found = []
    for joint, child, offset in segments:
        length = float(np.linalg.norm(offset))
        if length < 1e-4 * height:
            continue
        a, b = places[joint] / height, (places[joint] + R.rotate(turns[joint], offset)) / height
        part = _part(a, b, length / height, top)
        radii = tuple(min(r * size, length) if part == "finger" else r * size for r in _RADII[part])
        start, end = np.zeros(3), np.array(offset, dtype=np.float64)
        if child is None:
            # The tip is where the body ends, so the round end of the capsule stops there.
            end = end * max(1 - radii[1] / length, 0.2)
            if part == "head":
                start = end * min(0.75, radii[0] / length)
        lateral = 0.5 * (a[0] + b[0])
        side = 0 if abs(lateral) < 0.02 else int(np.sign(lateral))
        found.append(Bone(joint, child, start, end, radii, side, part))
    # A lone joint shows as a ball.
    return tuple(found) or (Bone(0, None, np.zeros(3), np.array([0, 1e-3, 0]), (0.05, 0.05), 0, "trunk"),)


def capsules(bones, positions, turns):
    """World ends [..., N, 3], [..., N, 3] of N bones for joint places [..., J, 3] and world rotations [..., J, 4]."""
    joints = [b.joint for b in bones]
    p, q = positions[..., joints, :], turns[..., joints, :]
    return p + R.rotate(q, np.stack([b.start for b in bones])), p + R.rotate(q, np.stack([b.end for b in bones]))
