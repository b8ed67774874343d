"""Crops of solo clips that move as nobody in the clips does, so that a codec learns movement and not the clips.

Little motion capture holds few ways in which people move: nobody walks backward in it, runs last a second, arms swing with the
step. What is made here is not always what a person would do; a codec that keeps it keeps what people do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from rtinteract.training.data import (
    FPS,
    Augmentation,
    Crops,
    Pool,
    between_frames,
    mirrored,
    uniform,
)

from rtinteract import rotation as R
from rtinteract.features.canonical import frame_of, to_frame
from rtinteract.features.hybrid import heading_of
from rtinteract.skeleton import SMPL22, forward_kinematics

_ARMS = (13, 16, 18, 20), (14, 17, 19, 21)
_TRUNK, _LEGS = (3, 6, 9, 12, 15), (1, 2, 4, 5, 7, 8, 10, 11)
_COLLARS = (13, 14)
# Frames of a clip that must be left before the next one takes over, and of the change from one to the other.
_LEAST, _CHANGE = 20, (6.0, 16.0)


@dataclass(frozen=True)
class Variety:
    """Shares are probabilities, ranges uniform.

    ``joined``: a crop goes over into another clip before its end, as every crop longer than its clip does. ``reversed``: it runs
    backward. ``limbs``: each arm and the trunk are another crop's, each drawn by itself; ``legs``: the legs are. ``pose``: joints
    are turned by slowly swinging angles of up to about ``arm_rad`` at the arms, ``body_rad`` elsewhere. ``curve``: the way bends
    by up to ``curve_rad_s`` radians a second, unsteadily. ``stretch``: the way is ``stretches`` times as long.
    """

    joined: float = 0.15
    reversed: float = 0.15
    limbs: float = 0.35
    legs: float = 0.1
    pose: float = 0.5
    arm_rad: float = 0.25
    body_rad: float = 0.1
    curve: float = 0.35
    curve_rad_s: float = 1.5
    stretch: float = 0.3
    stretches: tuple[float, float] = (0.6, 1.5)


def _drawn(share: float, batch: int, g: torch.Generator) -> torch.Tensor:
    return torch.rand(batch, generator=g) < share


def _turned(turn: torch.Tensor, rotations: torch.Tensor) -> torch.Tensor:
    """Rotations [B, P, T, J, 4] of people whose roots are turned by quaternions [B, 1, T or 1, 4]."""
    root = R.multiply(turn[..., None, :].expand(*rotations.shape[:-2], 1, 4), rotations[..., :1, :])
    return torch.cat([root, rotations[..., 1:, :]], -2)


def _walked(start: torch.Tensor, steps: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    """Roots [B, P, T, 3] from start [B, P, 1, 3] by steps [B, P, T - 1, 3] over the floor, at height [B, P, T]."""
    path = torch.cat([start, start + steps.cumsum(2)], 2)
    return torch.stack([path[..., 0], height, path[..., 2]], -1)


def joined(pool: Pool, clip, start, frames: int, speed, join, g: torch.Generator):
    """Crops (roots [B, P, T, 3], rotations [B, P, T, J, 4]) of clips [B] from frames start [B] on at speed [B].

    Where ``join`` [B], each goes over into a crop of another clip before its own ends, turned and moved so that the way goes on.
    """
    batch = len(clip)
    time = torch.arange(frames)
    end = ((pool.lengths[clip] - 1 - start) / speed).floor().clamp(max=frames - 1)
    root, rotations = pool.poses(clip, start[:, None] + time * speed[:, None])
    span = math.ceil((frames - 1) * float(speed.max())) + 1
    other = pool.choose(batch, min(span, int(pool.lengths.max())), g)
    begin = (torch.rand(batch, generator=g) * (pool.lengths[other] - span + 1).clamp(min=1)).floor()
    next_root, next_rotations = pool.poses(other, begin[:, None] + time * speed[:, None])
    change = uniform(g, (batch,), *_CHANGE)
    part = ((time - (end - change)[:, None]) / change[:, None]).clamp(0, 1) * join[:, None]
    part = (part * part * (3 - 2 * part))[:, None]
    rows, middle = torch.arange(batch), (end - change / 2).clamp(min=0).long()
    spin = R.yaw(heading_of(rotations[rows, :, middle, 0]) - heading_of(next_rotations[rows, :, middle, 0]))[:, :, None]
    steps = torch.lerp(root.diff(dim=2), R.rotate(spin, next_root.diff(dim=2)), part[..., 1:, None])
    height = torch.lerp(root[..., 1], next_root[..., 1], part)
    return _walked(root[:, :, :1], steps, height), between_frames(rotations, _turned(spin, next_rotations), part[..., None])


def _other_limbs(rotations: torch.Tensor, v: Variety, g: torch.Generator) -> torch.Tensor:
    found = rotations.clone()
    batch = len(rotations)
    for limb, share in ((_ARMS[0], v.limbs), (_ARMS[1], v.limbs), (_TRUNK, v.limbs), (_LEGS, v.legs)):
        rows = torch.where(_drawn(share, batch, g), torch.randperm(batch, generator=g), torch.arange(batch))
        found[..., list(limb), :] = rotations[rows][..., list(limb), :]
    return found


def _swung(rotations: torch.Tensor, time: torch.Tensor, v: Variety, g: torch.Generator) -> torch.Tensor:
    """Joints turned by a constant and a slowly swinging angle about axes of their own."""
    batch, joints = len(rotations), 22
    size = torch.full((joints, 1), v.body_rad)
    size[[j for arm in _ARMS for j in arm if j not in _COLLARS]] = v.arm_rad
    size = size * uniform(g, (batch, 1, 1, 1, 1), 0, 2) * _drawn(v.pose, batch, g).view(-1, 1, 1, 1, 1)
    still, swing = torch.randn(2, batch, 1, 1, joints, 3, generator=g)
    hertz = torch.exp(uniform(g, (batch, 1, 1, 1, 1), math.log(0.1), math.log(1.0)))
    phase = uniform(g, (batch, 1, 1, joints, 3), 0, 2 * math.pi)
    turn = size * (still + swing * torch.sin(2 * math.pi * hertz * time[:, None, None] + phase))
    body = R.multiply(rotations[..., :joints, :], R.from_axis_angle(turn))
    return torch.cat([body, rotations[..., joints:, :]], -2)


def _another_way(root, rotations, time: torch.Tensor, v: Variety, g: torch.Generator):
    """The way over the floor bent and stretched."""
    batch = len(root)
    rate = uniform(g, (batch, 1), -v.curve_rad_s, v.curve_rad_s) * _drawn(v.curve, batch, g)[:, None]
    hertz, phase = uniform(g, (batch, 1), 0.1, 0.6), uniform(g, (batch, 1), 0, 2 * math.pi)
    rate = rate * (1 + uniform(g, (batch, 1), 0, 1) * torch.sin(2 * math.pi * hertz * time + phase))
    turn = R.yaw(rate.cumsum(1) / FPS)[:, None]
    longer = torch.where(_drawn(v.stretch, batch, g), uniform(g, (batch,), *v.stretches), torch.ones(batch))
    steps = R.rotate(turn[:, :, 1:], root.diff(dim=2)) * longer.view(-1, 1, 1, 1)
    return _walked(root[:, :, :1], steps, root[..., 1]), _turned(turn, rotations)


def varied_crops(pool: Pool, batch: int, frames: int, a: Augmentation, v: Variety, g: torch.Generator,
                 rows: slice = slice(None)) -> Crops:
    """A batch of crops of ``frames`` frames of people in canonical frames of their own, taken from their poses in a drawn frame.

    Of ``a`` counts what says how bodies, speeds, sides and canonical frames differ. Clips shorter than a crop serve too. Of the
    batch ``rows`` are handed over.
    """
    speed = uniform(g, (batch,), *a.warp)
    span = math.ceil((frames - 1) * a.warp[1]) + 1
    # Capped, so that a few long recordings do not crowd out the short clips.
    clip = torch.multinomial(pool.lengths.clamp(max=600).double(), batch, replacement=True, generator=g)
    lengths = pool.lengths[clip]
    join = (lengths < span) | _drawn(v.joined, batch, g)
    room = torch.where(join, lengths - _LEAST, lengths - span + 1).clamp(min=0)
    start = (torch.rand(batch, generator=g) * room).floor()
    anchor = (torch.rand(batch, generator=g) * frames).long().masked_fill(_drawn(a.anchor_first, batch, g), 0)
    root, rotations = joined(pool, clip, start, frames, speed, join, g)
    back = _drawn(v.reversed, batch, g).view(-1, 1, 1, 1)
    root, rotations = torch.where(back, root.flip(2), root), torch.where(back[..., None], rotations.flip(2), rotations)
    time = torch.arange(frames) / FPS
    rotations = _swung(_other_limbs(rotations, v, g), time, v, g)
    root, rotations = _another_way(root, rotations, time, v, g)
    which = _drawn(a.mirror, batch, g)
    root, rotations, offsets = mirrored(root, rotations, pool.offsets[clip], which)
    scale = uniform(g, (batch, 1, 1, 1), *a.scale)
    offsets, root = offsets * scale, root * scale
    root, rotations, offsets, clip, which, anchor = (x[rows] for x in (root, rotations, offsets, clip, which, anchor))
    positions = forward_kinematics(SMPL22, root, rotations, offsets=offsets[:, :, None])
    frame = frame_of(positions[torch.arange(len(positions)), :, anchor])
    return Crops(*to_frame(frame, positions, rotations), offsets, clip, which, anchor, frame)
