"""One rigid body from decoded poses.

A decoder gives joint positions and rotations that agree only roughly, with bones that breathe. Here the rest offsets of one
body are fitted over the clip, and each bone is swung to the decoded position while its twist comes from the decoded
rotation: hands and feet stay where the positions say, bone lengths are constant, and the rotations drive a skeleton.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22, SMPL22_PARENTS, tree_levels, world_rotations

_CHILDREN = tuple(tuple(j for j, p in enumerate(SMPL22_PARENTS) if p == i) for i in range(22))
_PARENTS = list(SMPL22_PARENTS[1:])
# Knees, ankles, elbows, wrists: the ends of the bones that retargeting turns into SMPL-22's rest directions.
_LIMBS = (4, 5, 7, 8, 18, 19, 20, 21)
# Spine, neck and collars, which point as decoded: on a body of other proportions the place of the next joint may lie behind.
_TRUNK = (3, 6, 9, 12, 13, 14)


class _Level(NamedTuple):
    """Joints of one depth, where their parents stand in the depth before, and those with a single child: which (``swung``), where
    in this level (``at``), their children, and which are of the trunk [swung, 1]."""

    joints: torch.Tensor
    above: torch.Tensor
    swung: torch.Tensor
    at: torch.Tensor
    child: torch.Tensor
    trunk: torch.Tensor


@cache
def _levels(device) -> tuple[_Level, ...]:
    found = []
    for joints, above in tree_levels(SMPL22_PARENTS):
        swung = [j for j in joints if len(_CHILDREN[j]) == 1]
        parts = joints, above, swung, [joints.index(j) for j in swung], [_CHILDREN[j][0] for j in swung]
        trunk = torch.tensor([[j in _TRUNK] for j in swung], dtype=torch.bool, device=device)
        found.append(_Level(*(torch.tensor(p, dtype=torch.int64, device=device) for p in parts), trunk))
    return tuple(found)


@cache
def _order(device) -> torch.Tensor:
    """Where each joint stands in level order."""
    return torch.cat([torch.zeros(1, dtype=torch.int64, device=device)] + [level.joints for level in _levels(device)]).argsort()


def fit_offsets(positions: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Rest offsets [..., 22, 3] in metres of the body that positions [..., T, 22, 3] and local rotations [..., T, 22, 4] show.

    Lengths are medians over time. Limbs keep SMPL-22's rest direction, because every retargeted body shares it; the trunk,
    the collars and the feet differ from body to body, so theirs is averaged over the clip.
    """
    bones = positions[..., 1:, :] - positions[..., _PARENTS, :]
    lengths = bones.norm(dim=-1).median(dim=-2).values
    rest = torch.tensor(SMPL22.offsets[1:], dtype=positions.dtype, device=positions.device)
    world = world_rotations(SMPL22, rotations)
    seen = R.rotate(R.inverse(world[..., _PARENTS, :]), bones).mean(dim=-3)
    limb = torch.tensor([j in _LIMBS for j in range(1, 22)], device=positions.device)[:, None]
    direction = R.normalize(torch.where(limb, rest.expand_as(seen), seen))
    offsets = direction * lengths[..., None]
    return torch.cat([torch.zeros_like(offsets[..., :1, :]), offsets], -2)


def pose_body(positions: torch.Tensor, rotations: torch.Tensor, offsets: torch.Tensor):
    """Positions [..., T, 22, 3] and local rotations [..., T, 22, 4] of the body with rest ``offsets`` [..., 22, 3].

    The inputs are a decoder's; the outputs satisfy forward kinematics exactly.
    """
    offsets = offsets[..., None, :, :]
    raw = world_rotations(SMPL22, rotations)
    places, turns = [positions[..., :1, :]], [raw[..., :1, :]]
    for level in _levels(positions.device):
        at, turned = places[-1][..., level.above, :], turns[-1][..., level.above, :]
        here = at + R.rotate(turned, offsets[..., level.joints, :])
        turn = R.multiply(turned, rotations[..., level.joints, :])
        if len(level.swung):
            own = raw[..., level.swung, :]
            bone = R.rotate(own, offsets[..., level.child, :].expand(*own.shape[:-1], 3))
            start = torch.where(level.trunk, positions[..., level.swung, :], here[..., level.at, :])
            aim = positions[..., level.child, :] - start
            turn[..., level.at, :] = R.multiply(R.between(bone, aim), own)
        places.append(here)
        turns.append(turn)
    order = _order(positions.device)
    world = torch.cat(turns, -2)[..., order, :]
    local = torch.cat([world[..., :1, :], R.multiply(R.inverse(world[..., _PARENTS, :]), world[..., 1:, :])], -2)
    return torch.cat(places, -2)[..., order, :], R.normalize(local)
