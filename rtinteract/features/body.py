"""One rigid body from decoded poses.

A decoder gives joint positions and rotations that agree only roughly, with bones that breathe. Here the rest offsets of one
body are fitted over the clip, and each bone is swung to the decoded position while its twist comes from the decoded
rotation: hands and feet stay where the positions say, bone lengths are constant, and the rotations drive a skeleton.
"""

from __future__ import annotations

from functools import cache

import torch

from rtinteract import rotation as R
from rtinteract.skeleton import SMPL22, SMPL22_PARENTS


@cache
def _levels() -> tuple[tuple[int, ...], ...]:
    """Joints by depth in the tree, the root left out."""
    depth = [0] * 22
    for j, p in enumerate(SMPL22_PARENTS[1:], 1):
        depth[j] = depth[p] + 1
    return tuple(tuple(j for j in range(22) if depth[j] == d) for d in range(1, max(depth) + 1))


_CHILDREN = tuple(tuple(j for j, p in enumerate(SMPL22_PARENTS) if p == i) for i in range(22))
_PARENTS = list(SMPL22_PARENTS[1:])
# Knees, ankles, elbows, wrists: the ends of the bones that retargeting turns into SMPL-22's rest directions.
_LIMBS = (4, 5, 7, 8, 18, 19, 20, 21)


def world_rotations(rotations: torch.Tensor) -> torch.Tensor:
    """World rotations [..., 22, 4] of local ones [..., 22, 4]."""
    turns = [rotations[..., 0, :]] + [None] * 21
    for level in _levels():
        parents = torch.stack([turns[SMPL22_PARENTS[j]] for j in level], -2)
        here = R.multiply(parents, rotations[..., list(level), :])
        for i, j in enumerate(level):
            turns[j] = here[..., i, :]
    return torch.stack(turns, -2)


def fit_offsets(positions: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Rest offsets [..., 22, 3] in metres of the body that positions [..., T, 22, 3] and local rotations [..., T, 22, 4] show.

    Lengths are medians over time. Limbs keep SMPL-22's rest direction, because every retargeted body shares it; the trunk,
    the collars and the feet differ from body to body, so theirs is averaged over the clip.
    """
    bones = positions[..., 1:, :] - positions[..., _PARENTS, :]
    lengths = bones.norm(dim=-1).median(dim=-2).values
    rest = torch.tensor(SMPL22.offsets[1:], dtype=positions.dtype, device=positions.device)
    world = world_rotations(rotations)
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
    raw = world_rotations(rotations)
    places = [positions[..., 0, :]] + [None] * 21
    turns = [raw[..., 0, :]] + [None] * 21
    for level in _levels():
        parents = [SMPL22_PARENTS[j] for j in level]
        at = torch.stack([places[p] for p in parents], -2)
        turned = torch.stack([turns[p] for p in parents], -2)
        here = at + R.rotate(turned, offsets[..., list(level), :])
        relative = R.multiply(turned, rotations[..., list(level), :])
        for i, j in enumerate(level):
            places[j] = here[..., i, :]
            turns[j] = relative[..., i, :]
        swung = [j for j in level if len(_CHILDREN[j]) == 1]
        if swung:
            child = [_CHILDREN[j][0] for j in swung]
            base = torch.stack([places[j] for j in swung], -2)
            turn = raw[..., swung, :]
            bone = R.rotate(turn, offsets[..., child, :].expand(*turn.shape[:-1], 3))
            turn = R.multiply(R.between(bone, positions[..., child, :] - base), turn)
            for i, j in enumerate(swung):
                turns[j] = turn[..., i, :]
    world = torch.stack(turns, -2)
    local = torch.cat([world[..., :1, :], R.multiply(R.inverse(world[..., _PARENTS, :]), world[..., 1:, :])], -2)
    return torch.stack(places, -2), R.normalize(local)
