"""Skeletons: a joint tree with rest offsets, the SMPL-22 tables that the models use, forward kinematics."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch

from rtinteract import rotation as R
from rtinteract.errors import SkeletonError


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A joint tree; a parent stands before its children and joint 0 is the root.

    ``offsets`` [J, 3] in metres are the joints' places in their parent's frame; ``end_sites`` maps a joint index to the
    offset of a tip that moves nothing (a fingertip, the top of the head). ``tpose`` [J, 4] holds the local rotations that
    stand this skeleton upright in the canonical T-pose: +Y up, facing +Z, left arm along +X. Retargeting measures every
    rotation from it, so two skeletons with different zero poses still agree, twist included. ``joint_map`` (SMPL-22 joint
    -> joint) is what a user said of a skeleton whose names tell nothing.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    end_sites: dict[int, np.ndarray] = field(default_factory=dict)
    tpose: np.ndarray | None = None
    joint_map: dict[str, str] | None = None

    def __post_init__(self):
        n = len(self.joints)
        offsets = np.array(self.offsets, dtype=np.float64)
        tpose = R.identity((n,)) if self.tpose is None else np.array(self.tpose, dtype=np.float64)
        if n == 0 or len(self.parents) != n or offsets.shape != (n, 3) or tpose.shape != (n, 4):
            raise SkeletonError(
                f"skeleton {self.name!r}: expected as many parents, offsets [J, 3] and tpose [J, 4] as its {n} joints, got "
                f"{len(self.parents)}, {offsets.shape} and {tpose.shape}; give one of each for every joint")
        if len(set(self.joints)) != n:
            twice = sorted({j for j in self.joints if self.joints.count(j) > 1})
            raise SkeletonError(f"skeleton {self.name!r}: joint names must differ, got {twice} more than once; rename them")
        for i, p in enumerate(self.parents):
            if (i == 0) != (p == -1) or p >= i:
                raise SkeletonError(
                    f"skeleton {self.name!r}: joint {i} ({self.joints[i]}) has parent {p}; expected -1 for joint 0 only and "
                    "a smaller index for every other joint; sort the joints so that parents come first")
        if not (np.isfinite(offsets).all() and np.isfinite(tpose).all()):
            raise SkeletonError(f"skeleton {self.name!r}: offsets and tpose must be finite, got NaN or infinity; mend the file")
        offsets.flags.writeable = False
        tpose.flags.writeable = False
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "tpose", tpose)

    def __len__(self):
        return len(self.joints)

    def index(self, joint: str) -> int:
        """Index of a joint by name; SkeletonError names the joints there are."""
        try:
            return self.joints.index(joint)
        except ValueError:
            raise SkeletonError(f"skeleton {self.name!r} has no joint {joint!r}; it has {', '.join(self.joints)}") from None

    def same_tree(self, other: Skeleton) -> bool:
        """Whether both have the same joints in the same order with the same parents."""
        return self.joints == other.joints and self.parents == other.parents

    @property
    def height(self) -> float:
        """Standing height in metres: the T-pose's vertical extent, end sites included."""
        places, turns = forward_kinematics(self, np.zeros((1, 3)), self.tpose[None], with_rotations=True)
        ys = [places[0, :, 1]]
        for j, tip in self.end_sites.items():
            ys.append((places[0, j] + R.rotate(turns[0, j], tip))[1:2])
        ys = np.concatenate(ys)
        return float(ys.max() - ys.min())

    def scaled(self, factor: float) -> Skeleton:
        """The same skeleton, every length times ``factor``."""
        return Skeleton(self.name, self.joints, self.parents, self.offsets * factor,
                        {j: tip * factor for j, tip in self.end_sites.items()}, self.tpose, self.joint_map)


@cache
def tree_levels(parents: tuple[int, ...]) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Joints by depth in the tree, the root left out: for each level its joints, and where in the level before each one's
    parent stands."""
    levels, above = [], (0,)
    while True:
        joints = tuple(j for j, p in enumerate(parents) if p in above)
        if not joints:
            return tuple(levels)
        levels.append((joints, tuple(above.index(parents[j]) for j in joints)))
        above = joints


@cache
def _level_indices(parents: tuple[int, ...], device):
    """`tree_levels` as index arrays (of ``device``, numpy for None), and the order that brings level order to joint order."""
    levels = tree_levels(parents)
    order = np.argsort([0] + [j for joints, _ in levels for j in joints])

    def indices(values):
        if device is None:
            return np.asarray(values)
        # What is kept must serve training too, whoever asks first.
        with torch.inference_mode(False):
            return torch.tensor(values, device=device)

    return [(indices(joints), indices(above)) for joints, above in levels], indices(order.tolist())


def world_rotations(skeleton: Skeleton, rotations):
    """World rotations [..., J, 4] of local ones [..., J, 4]; numpy or torch."""
    xp = R._ns(rotations)
    levels, order = _level_indices(skeleton.parents, None if xp is np else rotations.device)
    turns = [rotations[..., :1, :]]
    for joints, above in levels:
        turns.append(R.multiply(turns[-1][..., above, :], rotations[..., joints, :]))
    return xp.concatenate(turns, -2)[..., order, :]


def forward_kinematics(skeleton: Skeleton, root, rotations, *, offsets=None, with_rotations=False):
    """World positions [..., J, 3] in metres from root places [..., 3] and local rotations [..., J, 4].

    numpy or torch, as ``rotations`` is. ``offsets`` [..., J, 3] replaces the skeleton's own (another body of the same
    tree). With ``with_rotations`` also the world rotations [..., J, 4].
    """
    xp = R._ns(rotations)
    if offsets is None:
        offsets = skeleton.offsets
        if xp is not np:
            offsets = xp.tensor(offsets.tolist(), dtype=rotations.dtype, device=rotations.device)
    turns = world_rotations(skeleton, rotations)
    positions = chained(skeleton.parents, root, R.rotate(turns[..., list(skeleton.parents[1:]), :], offsets[..., 1:, :]))
    return (positions, turns) if with_rotations else positions


def chained(parents: tuple[int, ...], root, bones):
    """Positions [..., J, 3] from the root's [..., 3] and the bones [..., J - 1, 3] that lead to the other joints, all in world
    axes; numpy or torch."""
    xp = R._ns(bones)
    levels, order = _level_indices(parents, None if xp is np else bones.device)
    places = [root[..., None, :]]
    for joints, above in levels:
        places.append(places[-1][..., above, :] + bones[..., joints - 1, :])
    return xp.concatenate(places, -2)[..., order, :]


def upright(skeleton: Skeleton) -> Skeleton:
    """The same body with bone axes such that no rotation at all is its T-pose."""
    places, turns = forward_kinematics(skeleton, np.zeros((1, 3)), skeleton.tpose[None], with_rotations=True)
    parents = np.maximum(skeleton.parents, 0)
    return Skeleton(skeleton.name, skeleton.joints, skeleton.parents, places[0] - places[0, parents],
                    {j: R.rotate(turns[0, j], tip) for j, tip in skeleton.end_sites.items()}, None, skeleton.joint_map)


SMPL22_JOINTS = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle", "spine3",
    "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist",
)
SMPL22_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19)
# Joints in pairs (left, right); the others lie on the midline.
SMPL22_MIRROR = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20)
# Left ankle, left foot, right ankle, right foot: the order of the four contact labels (InterHuman feature row).
SMPL22_FEET = (7, 10, 8, 11)

# An average adult of 1.72 m by segment proportions from anthropometric surveys (Drillis and Contini 1966; Winter 2009).
_SMPL22_OFFSETS = np.array([
    [0.000, 0.000, 0.000],
    [0.085, -0.080, 0.000], [-0.085, -0.080, 0.000], [0.000, 0.110, -0.010],
    [0.000, -0.410, 0.005], [0.000, -0.410, 0.005], [0.000, 0.125, 0.005],
    [0.000, -0.410, -0.015], [0.000, -0.410, -0.015], [0.000, 0.070, 0.010],
    [0.010, -0.055, 0.125], [-0.010, -0.055, 0.125], [0.000, 0.195, -0.010],
    [0.070, 0.115, -0.005], [-0.070, 0.115, -0.005], [0.000, 0.095, 0.020],
    [0.105, 0.020, -0.005], [-0.105, 0.020, -0.005], [0.280, 0.000, 0.000],
    [-0.280, 0.000, 0.000], [0.255, 0.000, 0.000], [-0.255, 0.000, 0.000],
])

SMPL22 = Skeleton("smpl22", SMPL22_JOINTS, SMPL22_PARENTS, _SMPL22_OFFSETS, {
    10: np.array([0.0, -0.015, 0.075]), 11: np.array([0.0, -0.015, 0.075]), 15: np.array([0.0, 0.190, 0.020]),
    20: np.array([0.180, 0.0, 0.0]), 21: np.array([-0.180, 0.0, 0.0]),
})


def smpl22_with(offsets, name="smpl22") -> Skeleton:
    """SMPL-22 with another body's rest offsets [22, 3] in metres; tips are scaled with the body's leg length."""
    offsets = np.asarray(offsets, dtype=np.float64)
    leg = np.linalg.norm(offsets[[4, 7]], axis=-1).sum() / np.linalg.norm(SMPL22.offsets[[4, 7]], axis=-1).sum()
    return Skeleton(name, SMPL22_JOINTS, SMPL22_PARENTS, offsets, {j: tip * leg for j, tip in SMPL22.end_sites.items()})
