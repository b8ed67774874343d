"""Motions made by formula, for suites that need a moving body and no file."""

import numpy as np

from rtinteract import rotation as R
from rtinteract.motion.types import Motion
from rtinteract.skeleton import SMPL22


def walker(seconds=2.0, fps=30.0, speed=0.6, yaw=0.0, place=(0.0, 0.0, 0.0), skeleton=SMPL22, arms=0.5):
    """A body of the SMPL-22 tree that walks along its facing, arms down and swinging; not a careful walk."""
    t = np.arange(round(seconds * fps)) / fps
    swing = np.sin(2 * np.pi * 0.9 * t)
    rotations = R.identity((len(t), 22))
    for joint, sign in ((1, 1), (2, -1)):
        rotations[:, joint] = R.about("X", -0.35 * sign * swing)
        rotations[:, joint + 3] = R.about("X", 0.35 * np.maximum(-sign * np.roll(swing, 4), 0))
    for joint, sign in ((16, 1), (17, -1)):
        down = R.about("Z", np.full(len(t), -1.3 * sign))
        rotations[:, joint] = R.multiply(R.about("X", arms * sign * swing), down)
        rotations[:, joint + 2] = R.about("Y", np.full(len(t), -0.4 * sign))
    rotations[:, 12] = R.about("Y", 0.2 * swing)
    root = np.stack([0 * t, 0.96 + 0 * t, speed * t], -1)
    return Motion.from_rotations(skeleton, root, rotations, fps).moved(yaw, place)


def meeting(seconds=2.0, gap=2.4):
    """Two walkers along z that come towards each other."""
    return walker(seconds, place=(0, 0, -gap / 2)), walker(seconds, yaw=np.pi, place=(0.05, 0, gap / 2), arms=0.3)
