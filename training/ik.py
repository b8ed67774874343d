"""Kinematics of the composed people: two-bone limbs with a chosen swivel, twist along the forearm, spine and gaze.

Everything is vectorised over frames: places [T, 3], local or world rotations [T, ..., 4], SMPL-22 joint order.
"""

from __future__ import annotations

import numpy as np

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22, forward_kinematics

UP = np.array([0.0, 1.0, 0.0])
SPINE = (0, 3, 6, 9, 12, 15)
# Side 0 is left, 1 is right.
ARM = ((13, 16, 18, 20), (14, 17, 19, 21))
LEG = ((1, 4, 7, 10), (2, 5, 8, 11))
FINGERS = np.array([[1.0, 0, 0], [-1.0, 0, 0]])
PALM = np.array([0.0, -1.0, 0.0])
# Flexion takes the T-pose forearm forward (+Z) and the shin backward (-Z): these are the hinge axes in the T-pose.
ELBOW_HINGE = np.array([[0.0, -1.0, 0], [0.0, 1.0, 0]])
KNEE_HINGE = np.array([1.0, 0.0, 0.0])
MAX_REACH = 0.992
MAX_LEG = 0.9985


def unit(v):
    """Vectors [..., 3] of length one; a zero vector stays zero."""
    return v / np.maximum(np.linalg.norm(v, axis=-1, keepdims=True), 1e-9)


def frame_turn(from_dir, from_side, to_dir, to_side):
    """Rotation [..., 4] that takes one direction to another and, about it, one side axis to another (square to them)."""
    def basis(d, s):
        d = unit(d)
        s = unit(s - (s * d).sum(-1, keepdims=True) * d)
        return np.stack([d, s, np.cross(d, s)], -1)
    return R.from_matrix(basis(to_dir, to_side) @ np.swapaxes(basis(from_dir, from_side), -1, -2))


def fk(root, rotations, offsets):
    """World places [T, 22, 3] and rotations [T, 22, 4] of a body with rest ``offsets`` [22, 3]."""
    return forward_kinematics(SMPL22, root, rotations, offsets=offsets, with_rotations=True)


def two_bone(start, target, pole, upper, lower, reach):
    """Middle joint of a two-bone chain from ``start`` to ``target`` [T, 3], bending toward ``pole`` [T, 3].

    Bone lengths in metres; the chain never straightens past ``reach`` of their sum. Returns middle [T, 3], end [T, 3] (the
    target, or the nearest place in reach) and the hinge axis [T, 3] in the world.
    """
    line = target - start
    direction = unit(line)
    distance = np.clip(np.linalg.norm(line, axis=-1), abs(upper - lower) + 0.03, reach * (upper + lower))
    bend = unit(pole - (pole * direction).sum(-1, keepdims=True) * direction)
    cosine = np.clip((upper**2 + distance**2 - lower**2) / (2 * upper * distance), -1, 1)
    middle = start + upper * (cosine[:, None] * direction + np.sqrt(1 - cosine**2)[:, None] * bend)
    return middle, start + distance[:, None] * direction, np.cross(bend, direction)


def solve_arm(side, places, turns, offsets, wrist, pole, hand=None, pronation=0.0):
    """Local rotations [T, 3, 4] of shoulder, elbow and wrist that bring the wrist to ``wrist`` [T, 3].

    ``pole`` [T, 3] is where the elbow points; ``hand`` [T, 4] is the hand's world rotation (None: in line with the forearm,
    turned by ``pronation`` radians). Forearm twist is shared: 60 % in the elbow joint, the rest in the wrist.
    """
    collar, shoulder, elbow, wrist_joint = ARM[side]
    upper_offset, lower_offset = offsets[elbow], offsets[wrist_joint]
    upper, lower = np.linalg.norm(upper_offset), np.linalg.norm(lower_offset)
    start = places[:, shoulder]
    middle, end, hinge = two_bone(start, wrist, pole, upper, lower, MAX_REACH)
    upper_world = frame_turn(upper_offset, ELBOW_HINGE[side], middle - start, hinge)
    lower_world = frame_turn(lower_offset, ELBOW_HINGE[side], end - middle, hinge)
    axis = unit(lower_offset)
    if hand is None:
        twist = R.from_axis_angle(axis * np.broadcast_to(pronation, (len(wrist),))[:, None])
        hand = R.multiply(lower_world, twist)
    local_hand = R.multiply(R.inverse(lower_world), hand)
    _, twist = R.swing_twist(local_hand, np.broadcast_to(axis, (len(wrist), 3)))
    shared = R.from_axis_angle(0.6 * R.to_axis_angle(twist))
    lower_world = R.multiply(lower_world, shared)
    return np.stack([
        R.multiply(R.inverse(turns[:, collar]), upper_world),
        R.multiply(R.inverse(upper_world), lower_world),
        R.multiply(R.inverse(lower_world), hand),
    ], 1)


def hand_turn(side, fingers, palm):
    """World rotation [T, 4] of a hand from where its fingers [T, 3] and its palm [T, 3] point."""
    return frame_turn(FINGERS[side], PALM, fingers, palm)


def solve_legs(root, rotations, offsets, ankles, feet, knees):
    """Put both ankles [T, 2, 3] under world foot turns [T, 2, 4], knees toward [T, 2, 3]; changes ``rotations`` in place."""
    pelvis = rotations[:, 0]
    for side, (hip, knee, ankle, _) in enumerate(LEG):
        start = root + R.rotate(pelvis, offsets[hip])
        upper, lower = np.linalg.norm(offsets[knee]), np.linalg.norm(offsets[ankle])
        middle, end, hinge = two_bone(start, ankles[:, side], knees[:, side], upper, lower, MAX_LEG)
        upper_world = frame_turn(offsets[knee], KNEE_HINGE, middle - start, hinge)
        lower_world = frame_turn(offsets[ankle], KNEE_HINGE, end - middle, hinge)
        rotations[:, hip] = R.multiply(R.inverse(pelvis), upper_world)
        rotations[:, knee] = R.multiply(R.inverse(upper_world), lower_world)
        rotations[:, ankle] = R.multiply(R.inverse(lower_world), feet[:, side])


def spine_world(rotations):
    """World rotations of the joints of SPINE, a list of [T, 4]."""
    worlds = [rotations[:, 0]]
    for joint in SPINE[1:]:
        worlds.append(R.multiply(worlds[-1], rotations[:, joint]))
    return worlds


def turn_spine(rotations, weights, vector):
    """Add a world rotation vector [T, 3] along the spine, shared out by ``weights`` {joint: share} (changed in place)."""
    parent = rotations[:, 0].copy()
    for joint in SPINE[1:]:
        if joint in weights:
            world = R.multiply(R.from_axis_angle(weights[joint] * vector), R.multiply(parent, rotations[:, joint]))
            rotations[:, joint] = R.multiply(R.inverse(parent), world)
        else:
            world = R.multiply(parent, rotations[:, joint])
        parent = world


def angles_of(direction):
    """Yaw and pitch [T] in radians of directions [T, 3]; pitch is positive downward."""
    return (np.unwrap(np.arctan2(direction[:, 0], direction[:, 2])),
            -np.arctan2(direction[:, 1], np.linalg.norm(direction[:, [0, 2]], axis=-1)))


def wrap(angle):
    """The same angles in (-pi, pi]."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
